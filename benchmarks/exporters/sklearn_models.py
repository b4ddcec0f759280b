"""Perceptrons of scikit-learn, fitted on random numbers, by skl2onnx."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any


def _classifier(**options: Any) -> Any:
    from sklearn.neural_network import MLPClassifier

    return MLPClassifier(hidden_layer_sizes=(48, 32), max_iter=3, random_state=0, **options)


def _regressor(**options: Any) -> Any:
    from sklearn.neural_network import MLPRegressor

    return MLPRegressor(hidden_layer_sizes=(48, 32), max_iter=3, random_state=0, **options)


def _scaled(model: Any) -> Any:
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    return make_pipeline(StandardScaler(), model)


def _maker(build: Callable[[], Any], classes: int, **options: Any) -> Callable[[Path], None]:
    def make(folder: Path) -> None:
        import numpy as np
        from skl2onnx import to_onnx

        rng = np.random.default_rng(0)
        data = rng.normal(size=(200, 24)).astype(np.float32)
        labels = data @ rng.normal(size=24) if not classes else rng.integers(classes, size=200)
        model = build().fit(data, labels)
        settings = {id(model): options} if options else None
        (folder / "model.onnx").write_bytes(to_onnx(model, data[:1], options=settings).SerializeToString())

    return make


MODELS = {
    "skl2onnx": {
        "classifier": _maker(_classifier, 4, zipmap=False),
        "classifier_zipmap": _maker(_classifier, 4),
        "binary": _maker(lambda: _classifier(activation="tanh"), 2, zipmap=False),
        "regressor": _maker(_regressor, 0),
        "logistic_regressor": _maker(lambda: _regressor(activation="logistic"), 0),
        "scaled_classifier": _maker(lambda: _scaled(_classifier()), 4, zipmap=False),
    }
}
