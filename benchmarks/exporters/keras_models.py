"""Keras 3 models, small: by tf2onnx, by Keras itself on TensorFlow, and by Keras itself on torch."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

CLASSES = 5


def _mlp(keras: Any, layers: Any) -> Any:
    return keras.Sequential([
        layers.Input((24,)), layers.Dense(48, "relu"), layers.BatchNormalization(), layers.Dense(32, "gelu"),
        layers.Dense(CLASSES, "softmax"),
    ])  # fmt: skip


def _cnn(keras: Any, layers: Any) -> Any:
    image = layers.Input((32, 32, 3))
    x = layers.Conv2D(16, 3, padding="same", activation="relu")(image)
    x = layers.MaxPooling2D()(layers.BatchNormalization()(x))
    y = layers.Conv2D(24, 3, padding="same")(x)
    y = layers.ReLU()(layers.BatchNormalization()(y))
    y = layers.Add()([layers.Conv2D(24, 1)(x), layers.Conv2D(24, 3, padding="same")(y)])
    return keras.Model(image, layers.Dense(CLASSES)(layers.GlobalAveragePooling2D()(layers.ReLU()(y))))


def _flat(keras: Any, layers: Any) -> Any:
    return keras.Sequential([
        layers.Input((16, 16, 3)), layers.Conv2D(8, 3, activation="relu"), layers.MaxPooling2D(),
        layers.Conv2D(12, 3, strides=2, activation="relu"), layers.Flatten(), layers.Dense(20, "relu"),
        layers.Dense(CLASSES),
    ])  # fmt: skip


def _mobilenet(keras: Any, layers: Any) -> Any:
    return keras.applications.MobileNetV2((64, 64, 3), alpha=0.35, weights=None, classes=CLASSES)


def _efficientnet(keras: Any, layers: Any) -> Any:
    return keras.applications.MobileNetV3Small((64, 64, 3), alpha=0.75, weights=None, classes=CLASSES)


def _recurrent(layer: str) -> Callable[[Any, Any], Any]:
    def build(keras: Any, layers: Any) -> Any:
        tokens = layers.Input((12,), dtype="int32")
        x = layers.Embedding(80, 20)(tokens)
        x = layers.Bidirectional(getattr(layers, layer)(16, return_sequences=True))(x)
        x = getattr(layers, layer)(24)(x)
        return keras.Model(tokens, layers.Dense(CLASSES)(layers.Dense(28, "relu")(x)))

    return build


def _blocks(layers: Any, x: Any) -> Any:
    """Two pre-norm blocks of attention and neurons."""
    for _ in range(2):
        y = layers.LayerNormalization(epsilon=1e-6)(x)
        x = layers.Add()([x, layers.MultiHeadAttention(4, 8)(y, y)])
        y = layers.LayerNormalization(epsilon=1e-6)(x)
        x = layers.Add()([x, layers.Dense(32)(layers.Dense(56, "silu")(y))])
    return x


def _transformer(keras: Any, layers: Any) -> Any:
    tokens = layers.Input((12,), dtype="int32")
    x = _blocks(layers, layers.Embedding(80, 32)(tokens))
    return keras.Model(tokens, layers.Dense(CLASSES)(layers.GlobalAveragePooling1D()(x)))


def _vit(keras: Any, layers: Any) -> Any:
    image = layers.Input((32, 32, 3))
    x = _blocks(layers, layers.Reshape((16, 32))(layers.Conv2D(32, 8, strides=8)(image)))
    return keras.Model(image, layers.Dense(CLASSES)(layers.Flatten()(x)))


def _grouped(keras: Any, layers: Any) -> Any:
    tokens = layers.Input((12,), dtype="int32")
    x = layers.Embedding(80, 32)(tokens)
    y = layers.LayerNormalization()(x)
    x = layers.Add()([x, layers.GroupQueryAttention(8, 4, 2)(y, y)])
    return keras.Model(tokens, layers.Dense(CLASSES)(layers.GlobalAveragePooling1D()(x)))


def _unet(keras: Any, layers: Any) -> Any:
    image = layers.Input((32, 32, 3))
    a = layers.Conv2D(12, 3, padding="same", activation="relu")(image)
    b = layers.Conv2D(20, 3, padding="same", activation="relu")(layers.MaxPooling2D()(a))
    c = layers.Conv2DTranspose(12, 2, strides=2)(b)
    d = layers.Conv2D(16, 3, padding="same", activation="relu")(layers.Concatenate()([a, c]))
    e = layers.UpSampling2D(2, interpolation="nearest")(layers.MaxPooling2D()(d))
    return keras.Model(image, layers.Conv2D(2, 1)(layers.Concatenate()([d, e])))


def _text_cnn(keras: Any, layers: Any) -> Any:
    tokens = layers.Input((20,), dtype="int32")
    x = layers.Embedding(80, 24)(tokens)
    pools = [layers.GlobalMaxPooling1D()(layers.Conv1D(16, width, activation="relu")(x)) for width in (2, 3, 4)]
    return keras.Model(tokens, layers.Dense(CLASSES)(layers.Concatenate()(pools)))


def _crnn(keras: Any, layers: Any) -> Any:
    image = layers.Input((8, 16, 16, 3))
    x = layers.TimeDistributed(layers.Conv2D(12, 3, activation="relu"))(image)
    x = layers.TimeDistributed(layers.GlobalAveragePooling2D())(x)
    return keras.Model(image, layers.Dense(CLASSES)(layers.LSTM(20)(x)))


def _squeeze(keras: Any, layers: Any) -> Any:
    image = layers.Input((32, 32, 3))
    x = layers.SeparableConv2D(24, 3, padding="same", activation="relu")(image)
    x = layers.GroupNormalization(4)(layers.DepthwiseConv2D(3, padding="same")(x))
    gate = layers.Dense(24, "sigmoid")(layers.Dense(8, "relu")(layers.GlobalAveragePooling2D()(x)))
    x = layers.Multiply()([x, layers.Reshape((1, 1, 24))(gate)])
    return keras.Model(image, layers.Dense(CLASSES)(layers.GlobalMaxPooling2D()(x)))


BUILDERS: dict[str, Callable[[Any, Any], Any]] = {
    "transformer": _transformer,
    "cnn": _cnn,
    "lstm": _recurrent("LSTM"),
    "mlp": _mlp,
    "flat": _flat,
    "mobilenetv2": _mobilenet,
    "mobilenetv3": _efficientnet,
    "gru": _recurrent("GRU"),
    "vit": _vit,
    "grouped_queries": _grouped,
    "unet": _unet,
    "text_cnn": _text_cnn,
    "crnn": _crnn,
    "squeeze": _squeeze,
}


def _built(name: str) -> Any:
    """A model without weights that are all alike: what is zero or one hides mistakes."""
    import keras
    import numpy as np

    keras.utils.set_random_seed(0)
    model, rng = BUILDERS[name](keras, keras.layers), np.random.default_rng(0)
    for weight in model.weights:
        value = keras.ops.convert_to_numpy(weight)
        if value.size > 1 and value.std() == 0:
            weight.assign(value + rng.uniform(-0.2, 0.2, value.shape).astype(value.dtype))
    return model


def _by_tf2onnx(name: str) -> Callable[[Path], None]:
    def make(folder: Path) -> None:
        import tensorflow as tf
        import tf2onnx

        model = _built(name)
        call = tf.function(lambda *inputs: model(list(inputs) if len(inputs) > 1 else inputs[0], training=False))
        signature = [tf.TensorSpec(value.shape, value.dtype, name=f"x{k}") for k, value in enumerate(model.inputs)]
        tf2onnx.convert.from_function(call, signature, opset=17, output_path=str(folder / "model.onnx"))

    return make


def _by_keras(name: str, backend: str) -> Callable[[Path], None]:
    def make(folder: Path) -> None:
        os.environ["KERAS_BACKEND"] = backend
        model = _built(name)
        import keras

        zeros = [keras.ops.zeros((1, *value.shape[1:]), value.dtype) for value in model.inputs]
        model(zeros if len(zeros) > 1 else zeros[0])  # on torch one that has never run is refused
        model.export(str(folder / "model.onnx"), format="onnx", verbose=False)

    return make


MODELS = {
    "tf2onnx": {name: _by_tf2onnx(name) for name in BUILDERS},
    "keras": {name: _by_keras(name, "tensorflow") for name in BUILDERS},
    "keras-torch": {name: _by_keras(name, "torch") for name in BUILDERS},
}
