"""The torch door, where torch is installed: modules, exported programs, and models of transformers and timm."""

from __future__ import annotations

import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnx_ir as ir
import onnxruntime as ort
import pytest
from typer.testing import CliRunner

from prunegraph import analyze, from_torch, prune_graph
from prunegraph.cli import app
from prunegraph.errors import ModelError, UsageError
from prunegraph.export.convert import open_source
from prunegraph.export.hub import export_model
from prunegraph.export.torch_dynamic_shapes import ExampleCall, default_axes, widened
from prunegraph.export.torch_module import read_torch

torch = pytest.importorskip("torch", reason="torch is not installed")
pytest.importorskip("onnxscript", reason="onnxscript is not installed")

WIDTH, HEADS, NEURONS = 12, 3, 10


class Block(torch.nn.Module):
    """Attention and an MLP over token ids, with a mask; a dict comes out."""

    def __init__(self) -> None:
        super().__init__()
        self.table = torch.nn.Embedding(20, WIDTH)
        self.qkv = torch.nn.Linear(WIDTH, 3 * WIDTH)
        self.out = torch.nn.Linear(WIDTH, WIDTH)
        self.up = torch.nn.Linear(WIDTH, NEURONS)
        self.down = torch.nn.Linear(NEURONS, WIDTH)
        self.drop = torch.nn.Dropout(0.5)

    def forward(self, ids: Any, mask: Any = None, *, scale: Any = None) -> dict[str, Any]:
        x = self.table(ids)
        q, k, v = self.qkv(x).reshape(*ids.shape, 3, HEADS, -1).permute(2, 0, 3, 1, 4)
        bias = None if mask is None else torch.where(mask[:, None, None] > 0, 0.0, -1e4)
        y = torch.nn.functional.scaled_dot_product_attention(q, k, v, attn_mask=bias)
        x = x + self.out(y.transpose(1, 2).flatten(2))
        x = x + self.drop(self.down(torch.relu(self.up(x))))
        x = x if scale is None else x * scale[:, None, None]
        return {"hidden": x, "pooled": x.mean(1)}


class Fixed(torch.nn.Module):
    """Takes exactly two rows."""

    def __init__(self) -> None:
        super().__init__()
        self.linear = torch.nn.Linear(4, 4)

    def forward(self, x: Any) -> Any:
        return self.linear(x.reshape(2, 12).reshape(2, 3, 4))


@pytest.fixture
def block() -> Block:
    torch.manual_seed(0)
    return Block().eval()


def ids(rows: int = 2, length: int = 5) -> Any:
    return torch.randint(0, 20, (rows, length), generator=torch.Generator().manual_seed(rows + length))


def run(model: onnx.ModelProto | Path, **inputs: Any) -> list[np.ndarray]:
    given = str(model) if isinstance(model, Path) else model.SerializeToString()
    session = ort.InferenceSession(given, providers=["CPUExecutionProvider"])
    return session.run(None, {name: tensor.numpy() for name, tensor in inputs.items()})


def dims(source: Any, **more: Any) -> dict[str, list[int | str]]:
    graph = open_source(source, **more).graph
    values = [*graph.inputs, *graph.outputs]
    return {str(v.name): [d if isinstance(d, int) else str(d) for d in v.shape or ()] for v in values}


# --- modules -----------------------------------------------------------------------------------------------------


def test_a_module_shrinks_and_is_told_in_its_own_names(block: Block) -> None:
    with torch.no_grad():
        block.up.weight[::2] = block.up.bias[::2] = 0
        block.down.weight[:, ::2] = 0
    expected = block(ids(3, 7))
    result = prune_graph(from_torch(block, (ids(1),)), {"ffn": 0.5})
    slim = ir.to_proto(result.ir_model)
    weights = {tensor.name: tuple(tensor.dims) for tensor in slim.graph.initializer}
    assert weights["up.bias"] == (NEURONS // 2,)
    assert set(weights["up.weight"]) == {WIDTH, NEURONS // 2}
    (hidden, pooled) = run(slim, ids=ids(3, 7))  # at sizes of its own: the example's one row was no constant
    np.testing.assert_allclose(hidden, expected["hidden"].detach(), atol=1e-5)
    np.testing.assert_allclose(pooled, expected["pooled"].detach(), atol=1e-5)
    assert [value.name for value in slim.graph.output] == ["hidden", "pooled"]


def test_groups_have_the_scopes_of_the_module(block: Block) -> None:
    by_kind = {group.kind: group for group in analyze(from_torch(block, (ids(),))).groups}
    assert (by_kind["head"].units, by_kind["ffn"].units) == (HEADS, NEURONS)
    assert by_kind["head"].scope.split(".")[0] in ("qkv", "out")
    assert by_kind["ffn"].scope in ("up", "down")


def test_weights_are_copied_and_every_part_keeps_its_mode(block: Block) -> None:
    block.train()
    block.drop.eval()
    model = open_source(block, (ids(),))
    assert (block.training, block.up.training, block.drop.training) == (True, True, False)
    before = model.graph.initializers["up.bias"].const_value.numpy().copy()
    with torch.no_grad():
        block.up.bias += 1
    np.testing.assert_array_equal(model.graph.initializers["up.bias"].const_value.numpy(), before)


def test_inputs_by_keyword_in_any_order_and_none_among_them(block: Block) -> None:
    mask = torch.ones(1, 5, dtype=torch.int64)
    inputs = {"scale": torch.ones(1), "mask": mask, "ids": ids(1)}
    shapes = dims(block, example_inputs=inputs)
    assert shapes["ids"] == shapes["mask"] == ["batch", "sequence"]
    assert shapes["scale"] == ["batch"]
    assert dims(block, example_inputs={"mask": None, "ids": ids(1)})["ids"] == ["batch", "sequence"]


class Difference(torch.nn.Module):
    def forward(self, left: Any, right: Any) -> Any:
        return left - 2 * right


def test_a_tensor_that_is_given_twice_is_two_inputs() -> None:
    x = torch.ones(2, 3)
    model = read_torch(Difference(), (x, x))
    assert all(value.uses() for value in model.graph.inputs)
    session = ort.InferenceSession(onnx.ModelProto.SerializeToString(ir.to_proto(model)))
    one, two = np.full((2, 3), 5, np.float32), np.ones((2, 3), np.float32)
    np.testing.assert_allclose(session.run(None, {"left": one, "right": two})[0], 3)


def test_the_caller_says_which_axes_vary(block: Block) -> None:
    assert dims(block, example_inputs=ids(1), dynamic_shapes={"ids": {0: "rows"}})["hidden"] == ["rows", 5, WIDTH]
    assert dims(block, example_inputs=ids(1), dynamic_shapes=({1: "length"},))["hidden"] == [1, "length", WIDTH]


def test_an_opset_that_the_exporter_does_not_reach_is_refused(block: Block) -> None:
    assert read_torch(block, (ids(),), opset=23).opset_imports[""] == 23
    with pytest.raises(ModelError, match="not 99"):
        read_torch(block, (ids(),), opset=99)


def test_a_batch_that_cannot_vary_is_fixed_with_a_warning(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING, "prunegraph"):
        shapes = dims(Fixed(), example_inputs=(torch.ones(2, 3, 4),))
    assert shapes == {"x": [2, 3, 4], "output": [2, 3, 4]}
    assert "the batch is fixed at the example's length" in caplog.text
    with pytest.raises(ModelError, match="cannot be exported"):
        open_source(Fixed(), (torch.ones(2, 3, 4),), {"x": {0: "batch"}})


class Broken(Fixed):
    def forward(self, x: Any) -> Any:
        raise RuntimeError("out of order")


@pytest.mark.parametrize(
    ("module", "example", "error", "message"),
    [
        (Fixed(), None, UsageError, "needs example inputs"),
        (Fixed(), (1, 2), UsageError, "do not fit the module: too many positional"),
        (Fixed(), {"z": 1}, UsageError, "do not fit the module: missing a required argument: 'x'"),
        (Broken().train(), (torch.ones(2, 4),), ModelError, "Broken cannot be exported: out of order"),
    ],
)
def test_modules_that_cannot_be_traced_say_why(module: Any, example: Any, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message) as caught:
        open_source(module, example)
    assert getattr(caught.value, "hint", "")
    assert module.training


def test_an_exported_program_has_its_shapes_already(block: Block) -> None:
    auto = torch.export.Dim.AUTO
    program = torch.export.export(block, (ids(),), dynamic_shapes={"ids": {0: auto, 1: auto}})
    result = prune_graph(program, {"head": 0.4, "ffn": 0.5})
    weights = {tensor.name: tuple(tensor.dims) for tensor in result.model.graph.initializer}
    assert NEURONS // 2 in weights["up.weight"]
    assert run(result.model, ids=ids(3, 7))[0].shape == (3, 7, WIDTH)
    with pytest.raises(UsageError, match="has its dynamic shapes already"):
        open_source(program, None, {"ids": {0: "batch"}})


def test_axes_that_vary_by_default() -> None:
    floats, tokens = torch.ones(2, 8), torch.ones(2, 5, dtype=torch.int64)
    other = torch.ones(2, 4, dtype=torch.int64)
    assert default_axes(
        {"x": floats, "ids": tokens, "mask": tokens > 0, "flag": True, "rest": (other, torch.ones(8, 1))}
    ) == {
        "x": {0: "batch"},
        "ids": {0: "batch", 1: "sequence"},
        "mask": {0: "batch", 1: "sequence"},
        "flag": None,
        "rest": ({0: "batch", 1: "rest_0_sequence"}, {}),
    }


@pytest.mark.parametrize(
    ("forward", "call", "axes", "args", "kwargs"),
    [
        (lambda x, y: 0, ExampleCall((1, 1), {}), ({0: "b"}, None), ((2,), (1,)), {}),
        (lambda x, y: 0, ExampleCall((1,), {"y": 1}), {"x": {}, "y": ("b",)}, ((1,),), {"y": (2,)}),
        (lambda *xs: 0, ExampleCall((1, 1), {}), {"xs": ({0: "b"}, {})}, ((2,), (1,)), {}),
        (lambda x, **more: 0, ExampleCall((1,), {"z": 1}), {"more": {"z": {0: "b"}}}, ((1,),), {"z": (2,)}),
    ],
)
def test_axes_of_one_are_widened_where_they_vary(
    forward: Callable[..., Any], call: ExampleCall, axes: Any, args: tuple[Any, ...], kwargs: dict[str, Any]
) -> None:
    example = ExampleCall(
        tuple(map(torch.ones, call.args)), {name: torch.ones(size) for name, size in call.kwargs.items()}
    )
    wide = widened(example, forward, axes)
    assert tuple(tuple(each.shape) for each in wide.args) == args
    assert {name: tuple(each.shape) for name, each in wide.kwargs.items()} == kwargs


# --- transformers and timm ---------------------------------------------------------------------------------------

BERT = {
    "vocab_size": 50, "hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 20,
    "max_position_embeddings": 30,
}  # fmt: skip


def test_a_folder_becomes_a_file_with_dynamic_axes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    hf = pytest.importorskip("transformers", reason="transformers is not installed")
    monkeypatch.chdir(tmp_path)
    module = hf.BertModel(hf.BertConfig(**BERT)).eval()
    module.save_pretrained("bert")
    result = CliRunner().invoke(app, ["export", "hf:bert", "-o", "bert.onnx"])
    assert result.exit_code == 0, result.stderr
    assert "input_ids [batch, sequence]" in result.stdout
    assert "last_hidden_state [batch, sequence, 16]" in result.stdout
    mask = torch.ones(3, 9, dtype=torch.int64)
    outputs = run(tmp_path / "bert.onnx", input_ids=ids(3, 9), attention_mask=mask)
    expected = module(ids(3, 9), mask).last_hidden_state.detach()
    np.testing.assert_allclose(outputs[0], expected, atol=1e-4)


def test_a_folder_without_weights_and_with_another_task(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    hf = pytest.importorskip("transformers", reason="transformers is not installed")
    hf.BertConfig(**BERT).save_pretrained(tmp_path)
    done = export_model(f"hf:{tmp_path}", tmp_path / "m.onnx", task="text-classification", pretrained=False)
    assert done.outputs == {"logits": ["batch", 2]}
    assert done.difference < 1e-4
    for task, message in (("fill-masks", "no task"), ("image-classification", "no model for")):
        with pytest.raises(UsageError, match=message):
            export_model(f"hf:{tmp_path}", tmp_path / "n.onnx", task=task, pretrained=False)
    assert not (tmp_path / "n.onnx").exists()


def test_a_cache_is_left_out_with_a_warning(caplog: pytest.LogCaptureFixture) -> None:
    hf = pytest.importorskip("transformers", reason="transformers is not installed")
    sizes = {
        "vocab_size": 50,
        "hidden_size": 16,
        "num_hidden_layers": 1,
        "num_attention_heads": 2,
        "intermediate_size": 20,
    }
    module = hf.LlamaForCausalLM(hf.LlamaConfig(**sizes, max_position_embeddings=30))
    with caplog.at_level(logging.WARNING, "prunegraph"):
        shapes = dims(module, example_inputs=(ids(1),))
    assert shapes == {"input_ids": ["batch", "sequence"], "logits": ["batch", "sequence", 50]}
    assert "returns a cache" in caplog.text
    assert module.config.use_cache is True


def test_a_model_of_timm(tmp_path: Path) -> None:
    timm = pytest.importorskip("timm", reason="timm is not installed")
    done = export_model("timm:test_vit", tmp_path / "vit.onnx", pretrained=False, task="feature-extraction")
    (shape,) = done.inputs.values()
    size = timm.get_pretrained_cfg("test_vit").input_size
    assert shape == ["batch", *size]
    with pytest.raises(UsageError, match="no model 'test_vitt'") as caught:
        export_model("timm:test_vitt", tmp_path / "n.onnx")
    assert "test_vit" in caught.value.hint
