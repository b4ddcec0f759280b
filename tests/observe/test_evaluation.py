"""Models side by side: every metric against the same figure worked out another way."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import onnx_ir as ir
import pytest
from onnx import TensorProto
from onnx.reference import ReferenceEvaluator
from typer.testing import CliRunner

from prunegraph.cli import app
from prunegraph.errors import UsageError
from prunegraph.observe.evaluation import Evaluation, evaluate_models, macro_f1
from prunegraph.observe.stream import Data
from tests.graphs.builder import Builder, linear

pytestmark = pytest.mark.slow

CLASSES, WIDTH, EXAMPLES = 7, 5, 60


def classifier(seed: int, scale: float = 1.0) -> onnx.ModelProto:
    g = Builder("classifier")
    x = g.input("x", "batch", WIDTH)
    weight = np.random.default_rng(0).normal(size=(WIDTH, CLASSES))
    noise = np.random.default_rng(seed).normal(size=(WIDTH, CLASSES))
    g.output(g("MatMul", x, g.const("w", (weight + scale * noise).astype(np.float32))), "batch", CLASSES)
    return g.model()


def logits(proto: onnx.ModelProto, x: np.ndarray) -> np.ndarray:
    return x @ onnx.numpy_helper.to_array(proto.graph.initializer[0])


@pytest.fixture(scope="module")
def examples() -> dict[str, np.ndarray]:
    rng = np.random.default_rng(3)
    return {
        "x": rng.normal(size=(EXAMPLES, WIDTH)).astype(np.float32),
        "labels": rng.integers(0, CLASSES, EXAMPLES),
    }


def evaluated(metric: str, examples: dict[str, np.ndarray], *protos: onnx.ModelProto) -> Evaluation:
    models = {f"m{k}": ir.from_proto(proto) for k, proto in enumerate(protos)}
    return evaluate_models(models, Data(examples).inputs(models["m0"]), metric)


def cosine(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    return (a * b).sum(-1) / np.linalg.norm(a, axis=-1) / np.linalg.norm(b, axis=-1)


def test_every_metric_is_what_numpy_says(examples: dict[str, np.ndarray]) -> None:
    first, other = classifier(1, 0.0), classifier(2)
    a, b = (logits(proto, examples["x"]) for proto in (first, other))
    truth = examples["labels"]
    expected = {
        "accuracy": np.mean(b.argmax(1) == truth),
        "top5": np.mean([label in row for label, row in zip(truth, np.argsort(-b)[:, :5], strict=True)]),
        "macro-f1": macro_f1(b.argmax(1), truth),
        "agreement": np.mean(a.argmax(1) == b.argmax(1)),
        "cosine": cosine(a, b).mean(),
    }
    for metric, value in expected.items():
        _, score = evaluated(metric, examples, first, other).scores
        assert score.value == pytest.approx(value, rel=1e-5), metric
        assert score.low <= score.value <= score.high
        assert score.change_low <= score.change <= score.change_high


@pytest.mark.slow
def test_a_model_beside_itself_differs_by_nothing(examples: dict[str, np.ndarray]) -> None:
    for metric in ("accuracy", "macro-f1", "top5", "spearman"):
        _, twin = evaluated(metric, examples, classifier(1), classifier(1)).scores
        assert (twin.change, twin.change_low, twin.change_high) == (0, 0, 0), metric
    assert evaluated("spearman", examples, classifier(1), classifier(1)).scores[1].value == pytest.approx(1)


@pytest.mark.slow
def test_spearman_falls_with_the_noise(examples: dict[str, np.ndarray]) -> None:
    near, far = (evaluated("spearman", examples, classifier(1, 0.0), classifier(2, s)).scores[1] for s in (0.1, 5.0))
    assert near.value > 0.9 > far.value


def test_macro_f1_of_the_textbook() -> None:
    assert macro_f1(np.array([0, 0, 0]), np.array([0, 1, 2])) == pytest.approx((0.5 + 0 + 0) / 3)


def test_a_function_of_the_callers(examples: dict[str, np.ndarray], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(np, "spread", lambda outputs, labels: float(outputs.max() - labels.min()), raising=False)
    (score,) = evaluated("numpy:spread", examples, classifier(1)).scores
    assert score.value == pytest.approx(logits(classifier(1), examples["x"]).max() - examples["labels"].min(), rel=1e-5)


def decoder() -> onnx.ModelProto:
    g = Builder("decoder")
    ids = g.input("input_ids", "batch", "sequence", dtype=TensorProto.INT64)
    table = np.random.default_rng(0).normal(size=(11, WIDTH)).astype(np.float32)
    g.output(linear(g, g("Gather", g.const("words", table), ids), "head", WIDTH, 11), "batch", "sequence", 11)
    return g.model()


def test_perplexity_is_that_of_the_next_token() -> None:
    proto = decoder()
    ids = np.random.default_rng(1).integers(0, 11, (9, 6))
    rows = ReferenceEvaluator(proto).run(None, {"input_ids": ids})[0].astype(np.float64)
    probabilities = np.exp(rows) / np.exp(rows).sum(-1, keepdims=True)
    losses = -np.log(np.take_along_axis(probabilities[:, :-1], ids[:, 1:, None], -1))
    (score,) = evaluated("perplexity", {"input_ids": ids}, proto).scores
    assert score.value == pytest.approx(np.exp(losses.mean()), rel=1e-5)


@pytest.mark.parametrize(
    ("metric", "protos", "message"),
    [
        ("accurcy", (classifier(1),), "there is no metric"),
        ("agreement", (classifier(1),), "compares with a first model"),
        ("no_such_module:f", (classifier(1),), "cannot be loaded"),
        ("perplexity", (classifier(1),), "no row of logits for every token"),
    ],
)
def test_what_cannot_be_evaluated_is_said(
    metric: str, protos: tuple[onnx.ModelProto, ...], message: str, examples: dict[str, np.ndarray]
) -> None:
    with pytest.raises(UsageError, match=message) as error:
        evaluated(metric, examples, *protos)
    assert error.value.hint


def test_accuracy_without_labels_is_refused(examples: dict[str, np.ndarray]) -> None:
    with pytest.raises(UsageError, match="needs labels"):
        evaluated("accuracy", {"x": examples["x"]}, classifier(1))


def tagger(outputs: int) -> onnx.ModelProto:
    """A row of classes for every number of an example."""
    g = Builder("tagger")
    tokens = g("Unsqueeze", g.input("x", "batch", WIDTH), [2])
    g.output(g("MatMul", tokens, g.weight("w", 1, outputs)), "batch", WIDTH, outputs)
    return g.model()


@pytest.mark.parametrize("metric", ["accuracy", "macro-f1", "top5"])
def test_labels_of_examples_do_not_fit_an_output_of_tokens(metric: str, examples: dict[str, np.ndarray]) -> None:
    with pytest.raises(UsageError, match=f"{WIDTH * EXAMPLES} rows of classes of {EXAMPLES} examples") as error:
        evaluated(metric, examples, tagger(CLASSES))
    assert "--output" in error.value.hint and "agreement" in error.value.hint


def test_outputs_of_other_shapes_are_not_compared(examples: dict[str, np.ndarray]) -> None:
    with pytest.raises(UsageError, match="m1 makes"):
        evaluated("cosine", examples, classifier(1), tagger(CLASSES))


def test_every_example_needs_a_label(examples: dict[str, np.ndarray]) -> None:
    model = ir.from_proto(classifier(1))
    inputs = Data(examples).inputs(model)
    samples = [replace(sample, label=sample.label if k != 1 else None) for k, sample in enumerate(inputs.source.read())]
    some = replace(inputs, source=replace(inputs.source, read=lambda: iter(samples)))
    with pytest.raises(UsageError, match="example 2 has no label"):
        evaluate_models({"m": model}, some, "accuracy")


def test_a_number_for_a_whole_batch_is_no_data(examples: dict[str, np.ndarray]) -> None:
    g = Builder("scaled")
    g.output(g("Mul", g("MatMul", g.input("x", "batch", WIDTH), g.weight("w", WIDTH, 3)), g.input("scale")), "batch", 3)
    scale = np.ones(EXAMPLES, np.float32)
    with pytest.raises(UsageError, match="'scale' is one number for a whole batch"):
        evaluated("accuracy", {**examples, "scale": scale}, g.model())


def test_on_the_command_line(tmp_path: Path, examples: dict[str, np.ndarray]) -> None:
    for k, scale in enumerate((0.0, 2.0)):
        onnx.save(classifier(k, scale), tmp_path / f"{k}.onnx")
    np.savez(tmp_path / "test.npz", **examples)
    paths = [str(tmp_path / "0.onnx"), str(tmp_path / "1.onnx")]
    arguments = ["evaluate", *paths, "--data", str(tmp_path / "test.npz")]
    report = json.loads(CliRunner().invoke(app, [*arguments, "--json"]).stdout)
    assert report["metric"] == "accuracy" and report["examples"] == EXAMPLES
    assert [model["model"] for model in report["models"]] == paths
    table = CliRunner().invoke(app, arguments).stdout
    assert f"{report['models'][1]['value']:.4f}" in table and f"{EXAMPLES} examples" in table
    nothing = CliRunner().invoke(app, ["evaluate", *paths])
    assert nothing.exit_code == 2 and "--data" in nothing.stderr


def test_labels_by_name(tmp_path: Path, examples: dict[str, np.ndarray]) -> None:
    names = [f"class {k}" for k in range(CLASSES)]
    onnx.save(classifier(0, 0.0), tmp_path / "m.onnx")
    rows = list(zip(examples["x"].tolist(), examples["labels"].tolist(), strict=True))
    for kind, label in (("numbers", int), ("names", names.__getitem__)):
        lines = (json.dumps({"x": x, "label": label(k)}) for x, k in rows)
        (tmp_path / f"{kind}.jsonl").write_text("\n".join(lines))
    arguments = ["evaluate", str(tmp_path / "m.onnx"), "--json", "--data"]
    unknown = CliRunner().invoke(app, [*arguments, str(tmp_path / "names.jsonl")])
    assert unknown.exit_code == 2 and "label2id" in unknown.stderr
    for config in ({"label2id": {name: k for k, name in enumerate(names)}}, {"id2label": dict(enumerate(names))}):
        (tmp_path / "config.json").write_text(json.dumps(config))
        both = [
            CliRunner().invoke(app, [*arguments, str(tmp_path / f"{n}.jsonl")]).stdout for n in ("numbers", "names")
        ]
        assert both[0] == both[1] and json.loads(both[0])["metric"] == "accuracy"
