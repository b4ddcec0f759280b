"""Fine-tuning: what a pruned model learns again, how it goes on after a kill, and what is refused."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime as ort
import pytest
import torch
from onnx import TensorProto, numpy_helper
from typer.testing import CliRunner, Result

from prunegraph import finetune, prune_graph
from prunegraph.cli import app
from prunegraph.errors import PruneGraphError, UsageError
from prunegraph.train import checkpoint
from prunegraph.train.finetune import FinetuneResult
from prunegraph.train.hidden import shared_states
from tests.graphs.builder import Builder, conv, linear
from tests.graphs.text import WORDS, word_tokenizer

WIDTH = 16


pytestmark = pytest.mark.usefixtures("one_torch_thread")


def reader(*, tokens: bool = False) -> onnx.ModelProto:
    """Two residual FFN blocks with one first weight, the mean of all tokens that are no padding, two classes.

    With `tokens`, the logits of every token, by the embedding's own weight.
    """
    g = Builder("reader")
    ids = g.input("input_ids", "batch", "sequence", dtype=TensorProto.INT64)
    mask = g.input("attention_mask", "batch", "sequence", dtype=TensorProto.INT64)
    table = g.weight("table", len(WORDS), WIDTH, scale=0.5)
    x = g("Gather", table, ids)
    for k in range(2):
        up = g("Relu", g("MatMul", x, g.weight("w_up", WIDTH, 24)))
        x = g("Add", x, linear(g, up, f"down{k}", 24, WIDTH))
    if tokens:
        g.output(g("MatMul", x, g("Transpose", table, perm=[1, 0])), "batch", "sequence", len(WORDS))
        return g.model()
    weight = g("Unsqueeze", g("Cast", mask, to=TensorProto.FLOAT), [-1])
    total = g("ReduceSum", g("Mul", x, weight), [1], keepdims=0)
    mean = g("Div", total, g("ReduceSum", weight, [1], keepdims=0))
    g.output(linear(g, mean, "classes", WIDTH, 2), "batch", 2)
    return g.model()


def seer() -> onnx.ModelProto:
    """Convolutions with a batch norm, for digits of 8 x 8."""
    g = Builder("seer")
    x = g.input("pixels", "batch", 1, 8, 8)
    y = conv(g, x, "one", 1, 12)
    scale, bias = g.const("bn_scale", np.ones(12), np.float32), g.const("bn_bias", np.zeros(12), np.float32)
    mean, var = g.const("bn_mean", np.zeros(12), np.float32), g.const("bn_var", np.ones(12), np.float32)
    y = g("Relu", g("BatchNormalization", y, scale, bias, mean, var))
    y = g("Relu", conv(g, g("MaxPool", y, kernel_shape=[2, 2], strides=[2, 2]), "two", 12, 16))
    y = g("Flatten", g("MaxPool", y, kernel_shape=[2, 2], strides=[2, 2]))
    g.output(linear(g, y, "classes", 64, 10), "batch", 10)
    return g.model()


def sentences(count: int = 240, *, labels: bool = True) -> list[dict[str, Any]]:
    """Sentences of 2 to 9 words; the class tells whether the dog is in it."""
    rng = np.random.default_rng(3)
    rows: list[dict[str, Any]] = []
    for k in range(count):
        words = list(rng.choice([word for word in WORDS[4:] if word != "dog"], rng.integers(2, 10)))
        if k % 2:
            words[rng.integers(len(words))] = "dog"
        rows.append({"text": " ".join(words), "label": k % 2} if labels else {"text": " ".join(words)})
    return rows


def digits(count: int = 600) -> dict[str, np.ndarray]:
    from sklearn.datasets import load_digits

    digits_model = load_digits()
    return {
        "pixels": (digits_model.images[:count, None] / 16).astype(np.float32),
        "labels": digits_model.target[:count],
    }


def weights(model: Any) -> dict[str, np.ndarray]:
    return {tensor.name: numpy_helper.to_array(tensor) for tensor in model.graph.initializer}


@pytest.fixture
def tokenizer(tmp_path: Path) -> Path:
    return word_tokenizer(tmp_path / "tokenizer")


def test_text_is_learnt(tokenizer: Path) -> None:
    result = finetune(reader(), sentences(), tokenizer=tokenizer, epochs=4, lr=1e-2, batch_size=8)
    assert result.before < 0.8 and result.after > 0.95
    assert result.examples == (216, 24)
    assert [epoch.number for epoch in result.history] == [0, 1, 2, 3, 4][: len(result.history)]


def test_images_are_learnt_and_the_file_says_what_training_saw(tmp_path: Path) -> None:
    result = finetune(seer(), digits(), epochs=4, lr=1e-2)
    assert result.before < 0.3 and result.after > 0.8
    assert result.after == pytest.approx(result.history[result.best].metric, abs=0.02)  # ONNX Runtime and torch
    (path,) = result.save(tmp_path / "tuned.onnx")
    data = digits()
    (logits,) = ort.InferenceSession(path).run(None, {"pixels": data["pixels"]})
    assert (logits.argmax(-1) == data["labels"]).mean() > 0.8


def test_only_weights_change(tokenizer: Path) -> None:
    given = reader()
    given.metadata_props.add(key="who", value="me")
    spare = given.SerializeToString()
    options: dict[str, Any] = {"epochs": 2, "lr": 1e-2, "batch_size": 8, "freeze": ["w_down1", "b_*"]}
    result = finetune(given, sentences(), tokenizer=tokenizer, **options)
    assert result.best > 0
    assert given.SerializeToString() == spare
    assert isinstance(result.model, onnx.ModelProto)
    old, new = weights(given), weights(result.model)
    assert list(old) == list(new)
    assert {name for name in old if not np.array_equal(old[name], new[name])} == {
        "table", "w_up", "w_down0", "w_classes"
    }  # fmt: skip
    assert [node.op_type for node in result.model.graph.node] == [node.op_type for node in given.graph.node]
    assert result.model.metadata_props[0].value == "me"


def test_a_weight_used_twice_stays_one() -> None:
    given = reader(tokens=True)
    slim = prune_graph(given, {"ffn": 0.5}).model
    ids = np.random.default_rng(0).integers(4, len(WORDS), (64, 6))
    result = finetune(slim, {"input_ids": ids, "attention_mask": np.ones_like(ids)}, teacher=given, epochs=2, lr=1e-2)
    assert {name: w.shape for name, w in weights(result.model).items()} == {
        name: w.shape for name, w in weights(slim).items()
    }
    assert not np.array_equal(weights(result.model)["table"], weights(slim)["table"])
    assert result.history[-1].validation_loss < result.history[0].validation_loss


@pytest.mark.parametrize("hidden", [0.0, 1.0])
def test_a_pruned_model_moves_towards_its_teacher(tokenizer: Path, hidden: float) -> None:
    teacher = reader()
    slim = prune_graph(teacher, {"ffn": 0.5}).model
    data = sentences(labels=False)
    result = finetune(slim, data, teacher=teacher, tokenizer=tokenizer, epochs=4, lr=1e-2, hidden=hidden)
    assert result.metric == "agreement"
    assert result.history[result.best].validation_loss < 0.5 * result.history[0].validation_loss
    assert result.after >= result.before


def test_states_that_both_have_are_residual_sums() -> None:
    import onnx_ir as ir

    given = reader()
    slim = prune_graph(given, {"ffn": 0.5}).ir_model
    states = shared_states(slim, ir.from_proto(given))
    sums = [node.output[0] for node in given.graph.node if node.op_type == "Add"]
    assert states == (sums[1], sums[3])  # of x + bias, x + FFN, x + bias, x + FFN and the classifier's bias


def test_the_best_epoch_is_kept_and_training_stops(tokenizer: Path) -> None:
    """A rate that destroys what was learnt: the given weights validate best, and come back."""
    good = finetune(reader(), sentences(), tokenizer=tokenizer, epochs=4, lr=1e-2, batch_size=8).model
    result = finetune(good, sentences(), tokenizer=tokenizer, epochs=9, lr=30.0, patience=1, warmup=0.0)
    assert result.best == 0 and len(result.history) == 2
    old, new = weights(good), weights(result.model)
    assert all(np.array_equal(old[name], new[name]) for name in old)


class Killed(Exception):
    """Stands for whatever ends a process."""


def killed_after(steps: int) -> Callable[[str, int, int], None]:
    left = iter(range(steps))

    def progress(what: str, done: int, total: int) -> None:
        if not what.startswith("validating") and next(left, None) is None:
            raise Killed

    return progress


@pytest.mark.parametrize("steps", [3, 8])
def test_a_killed_run_goes_on(tokenizer: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, steps: int) -> None:
    """Killed in the first and in the second epoch of 7 steps: the same weights and history as without."""
    monkeypatch.setattr(checkpoint, "EVERY", 0.0)
    teacher = reader()
    slim = prune_graph(teacher, {"ffn": 0.5}).model

    def run(**more: Any) -> FinetuneResult:
        return finetune(slim, sentences(), teacher=teacher, tokenizer=tokenizer, epochs=3, lr=1e-2, **more)

    whole = run()
    with pytest.raises(Killed):
        run(checkpoint=tmp_path / "run", progress=killed_after(steps))
    calls: list[int] = []
    again = run(
        checkpoint=tmp_path / "run", resume=True, progress=lambda what, done, _: calls.append(done) if what else None
    )
    assert repr(again.history) == repr(whole.history)
    old, new = weights(whole.model), weights(again.model)
    assert all(np.array_equal(old[name], new[name]) for name in old)
    assert calls[0] > 32  # the first step is not taken again
    assert [path.name for path in (tmp_path / "run").iterdir()] == [checkpoint.NAME]


def test_a_seed_is_a_result(tokenizer: Path) -> None:
    one, same, other = (
        weights(
            finetune(reader(), sentences(60), tokenizer=tokenizer, epochs=1, seed=seed, validation=sentences(9)).model
        )
        for seed in (0, 0, 1)
    )
    assert np.array_equal(one["table"], same["table"]) and not np.array_equal(one["table"], other["table"])


REFUSED: dict[str, tuple[dict[str, Any], str]] = {
    "no labels and no teacher": ({"data": sentences(20, labels=False)}, "no labels"),
    "label out of range": ({"data": [*sentences(20), {"text": "a dog", "label": 7}]}, "the label 7 is no class"),
    "some labels": ({"validation": sentences(9, labels=False)}, "some have none"),
    "nothing to validate": ({"data": sentences(4)}, "leaves no example to validate on"),
    "no such option": ({"learning_rate": 1e-3}, "there is no option 'learning_rate'"),
    "no epochs": ({"epochs": 0}, "epochs must be at least 1"),
    "resume what": ({"resume": True}, "there is no checkpoint to resume"),
    "freeze nothing": ({"freeze": ["*.embedding"]}, "no weight matches"),
    "freeze all": ({"freeze": ["*"]}, "no weight to train"),
    "no such output": ({"output": "hidden"}, "there is no output 'hidden'"),
    "agreement with whom": ({"metric": "agreement"}, "agreement is with a teacher"),
    "no tokenizer": ({"tokenizer": None}, "texts need a tokenizer"),
    "device": ({"device": "tpu"}, "there is no device 'tpu'"),
    "another teacher": ({"teacher": seer()}, "the teacher has no output"),
}


@pytest.mark.parametrize(("arguments", "message"), REFUSED.values(), ids=REFUSED)
def test_what_is_refused(tokenizer: Path, arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(UsageError, match=message) as refusal:
        finetune(reader(), **{"data": sentences(40), "tokenizer": tokenizer, **arguments})
    assert refusal.value.hint


def test_an_output_that_no_weight_moves_is_refused() -> None:
    g = Builder("integers")
    h = g("MatMul", g.input("x", "batch", 4), g.weight("w", 4, 2))
    g.output(g("Cast", g("Cast", h, to=TensorProto.INT64), to=TensorProto.FLOAT), "batch", 2)
    data = {"x": np.ones((20, 4), np.float32), "labels": np.arange(20) % 2}
    with pytest.raises(UsageError, match="no weight that is trained moves the output") as refusal:
        finetune(g.model(), data, epochs=1)
    assert "output=" in refusal.value.hint


def test_a_checkpoint_is_of_one_run(tokenizer: Path, tmp_path: Path) -> None:
    def run(**more: Any) -> FinetuneResult:
        return finetune(reader(), sentences(40), tokenizer=tokenizer, checkpoint=tmp_path / "run", **more)

    with pytest.raises(UsageError, match="there is no checkpoint"):
        run(epochs=1, resume=True)
    run(epochs=1)
    with pytest.raises(UsageError, match="holds the checkpoint of a run"):
        run(epochs=1)
    with pytest.raises(UsageError, match="of a run with other options"):
        run(epochs=2, resume=True)
    path = tmp_path / "run" / checkpoint.NAME
    whole = torch.load(path, weights_only=True)
    for part in whole["state"]:
        state = {name: value for name, value in whole["state"].items() if name != part}
        torch.save({**whole, "state": state}, path)
        with pytest.raises(UsageError, match="does not hold the whole state") as refusal:
            run(epochs=1, resume=True)
        assert refusal.value.hint and refusal.value.__cause__
    for content in (b"nothing", b"", path.read_bytes()[:-100]):
        path.write_bytes(content)
        with pytest.raises(UsageError, match="is no checkpoint"):
            run(epochs=1, resume=True)
    for other in ({}, {"about": 3, "state": {}}, [1], {**whole, "state": None}):
        torch.save(other, path)
        with pytest.raises(UsageError, match="is no checkpoint"):
            run(epochs=1, resume=True)


def test_a_loss_that_is_no_number(tokenizer: Path) -> None:
    broken = reader()
    for tensor in broken.graph.initializer:
        if tensor.name == "b_classes":
            tensor.CopyFrom(numpy_helper.from_array(np.full(2, np.nan, np.float32), tensor.name))
    with pytest.raises(PruneGraphError, match="the loss is nan"):
        finetune(broken, sentences(40), tokenizer=tokenizer, epochs=1)


@pytest.fixture
def folder(tmp_path: Path, tokenizer: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "100")
    onnx.save(reader(), "slim.onnx")
    Path("train.jsonl").write_text("".join(json.dumps(row) + "\n" for row in sentences()))
    return tmp_path


def run(*arguments: str) -> Result:
    return CliRunner().invoke(app, ["finetune", *arguments], prog_name="prunegraph")


def test_the_command(folder: Path) -> None:
    usual = ("slim.onnx", "-o", "tuned.onnx", "--data", "train.jsonl", "--tokenizer", "tokenizer", "--lr", "1e-2")
    process = run(*usual, "--teacher", "slim.onnx", "--distill", "0.1", "--epochs", "2", "--json")
    assert process.exit_code == 0, process.stderr
    report = json.loads(process.stdout)
    assert report["metric"]["name"] == "accuracy" and report["metric"]["after"] > report["metric"]["before"]
    assert report["history"][0]["loss"] is None
    assert report["files"] == ["tuned.onnx"] and Path("tuned.onnx").is_file()
    plain = run(*usual, "--epochs", "1")
    assert plain.exit_code == 0 and "accuracy 0." in plain.stdout and "wrote tuned.onnx" in plain.stderr


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (("--data", "absent.jsonl"), 2, "there is no data file absent.jsonl"),
        (("--data", "train.jsonl"), 2, "texts need a tokenizer"),
        (("--data", "train.jsonl", "--tokenizer", "tokenizer", "--lr", "0"), 2, "learning rate must be positive"),
        (("--data", "train.jsonl", "--tokenizer", "tokenizer", "--resume"), 2, "no checkpoint to resume"),
        (("--data", "train.jsonl", "--tokenizer", "tokenizer", "--teacher", "absent.onnx"), 1, "does not exist"),
        (("--data", "train.jsonl", "-o", "slim.onnx"), 1, "is an input file"),
        ((), 2, "--data"),
    ],
)
def test_wrong_arguments(folder: Path, arguments: tuple[str, ...], code: int, message: str) -> None:
    process = run("slim.onnx", "-o", "tuned.onnx", *arguments)
    assert process.exit_code == code and message in process.stderr
    assert not Path("tuned.onnx").exists() and "hint:" in process.stderr
