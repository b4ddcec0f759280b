"""Models of PaddlePaddle, small, by paddle2onnx."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

CLASSES = 5
Shape = tuple[list[Any], str]


def _mlp(paddle: Any) -> tuple[Any, Shape]:
    nn = paddle.nn
    layers = (nn.Linear(24, 48), nn.BatchNorm1D(48), nn.ReLU(), nn.Linear(48, 32), nn.GELU(), nn.Linear(32, CLASSES))
    return nn.Sequential(*layers), ([None, 24], "float32")


def _cnn(paddle: Any) -> tuple[Any, Shape]:
    nn = paddle.nn
    layers = (
        nn.Conv2D(3, 16, 3, padding=1), nn.BatchNorm2D(16), nn.ReLU(), nn.MaxPool2D(2),
        nn.Conv2D(16, 16, 3, padding=1, groups=16), nn.Conv2D(16, 24, 1), nn.Hardswish(),
        nn.AdaptiveAvgPool2D(1), nn.Flatten(), nn.Linear(24, CLASSES), nn.Softmax(),
    )  # fmt: skip
    return nn.Sequential(*layers), ([None, 3, 32, 32], "float32")


def _vision(name: str, **options: Any) -> Callable[[Any], tuple[Any, Shape]]:
    def build(paddle: Any) -> tuple[Any, Shape]:
        return getattr(paddle.vision.models, name)(num_classes=CLASSES, **options), ([None, 3, 64, 64], "float32")

    return build


def _transformer(paddle: Any) -> tuple[Any, Shape]:
    nn = paddle.nn

    class Encoder(nn.Layer):  # type: ignore[misc, name-defined]
        def __init__(self) -> None:
            super().__init__()
            self.embed = nn.Embedding(80, 32)
            layer = nn.TransformerEncoderLayer(32, 4, 56, dropout=0.0, activation="gelu")
            self.encoder, self.last = nn.TransformerEncoder(layer, 2), nn.Linear(32, CLASSES)

        def forward(self, tokens: Any) -> Any:
            return self.last(self.encoder(self.embed(tokens)).mean(1))

    return Encoder(), ([None, 12], "int64")


def _recurrent(name: str) -> Callable[[Any], tuple[Any, Shape]]:
    def build(paddle: Any) -> tuple[Any, Shape]:
        nn = paddle.nn

        class Tagger(nn.Layer):  # type: ignore[misc, name-defined]
            def __init__(self) -> None:
                super().__init__()
                self.embed = nn.Embedding(80, 20)
                self.layer = getattr(nn, name)(20, 16, num_layers=2, direction="bidirect")
                self.last = nn.Linear(32, CLASSES)

            def forward(self, tokens: Any) -> Any:
                return self.last(self.layer(self.embed(tokens))[0])

        return Tagger(), ([None, 12], "int64")

    return build


BUILDERS: dict[str, Callable[[Any], tuple[Any, Shape]]] = {
    "mlp": _mlp,
    "cnn": _cnn,
    "mobilenetv1": _vision("mobilenet_v1", scale=0.25),
    "mobilenetv3": _vision("mobilenet_v3_small", scale=0.5),
    "shufflenetv2": _vision("shufflenet_v2_x0_25"),
    "squeezenet": _vision("squeezenet1_1"),
    "transformer": _transformer,
    "lstm": _recurrent("LSTM"),
    "gru": _recurrent("GRU"),
}


def _maker(name: str) -> Callable[[Path], None]:
    def make(folder: Path) -> None:
        import paddle

        paddle.seed(0)
        model, (shape, dtype) = BUILDERS[name](paddle)
        model.eval()
        for parameter in model.parameters():
            if parameter.ndim == 1:
                parameter.set_value(parameter + 0.2 * (paddle.rand(parameter.shape) - 0.5))
        spec = paddle.static.InputSpec(shape=shape, dtype=dtype, name="x")
        paddle.onnx.export(model, str(folder / "model"), input_spec=[spec], opset_version=17)

    return make


MODELS = {"paddle2onnx": {name: _maker(name) for name in BUILDERS}}
