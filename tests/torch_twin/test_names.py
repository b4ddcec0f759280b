"""Names that are no words of Python: of inputs and of weights, as exporters write them and as strangers may."""

from __future__ import annotations

import numpy as np
import onnx
import onnx_ir as ir
import pytest
import torch
from onnx import TensorProto, helper, numpy_helper

from prunegraph import Repair, prune_graph
from prunegraph.torch_twin import call, initializers, to_torch, write_back

INPUTS = ("x", "onnx::Gemm_0", "x:0", "0", "class", "self", "a.b/c", "torch", "getattr", "input", "é", "a\nb", '"')
WEIGHTS = ("w", "onnx::MatMul_1", "a.class.b", "import", '"),print("ran"),("', "a\\b", "a\nb", "{x}", "a'b", "0.weight")


def two(first: str, second: str, weight: str = "w") -> onnx.ModelProto:
    """`y = relu(first @ weight) - second`."""
    ends = [helper.make_tensor_value_info(name, TensorProto.FLOAT, ["n", 4]) for name in (first, second, "y")]
    nodes = [
        helper.make_node("MatMul", [first, weight], ["h"]),
        helper.make_node("Relu", ["h"], ["r"]),
        helper.make_node("Sub", ["r", second], ["y"]),
    ]
    initializer = numpy_helper.from_array(np.eye(4, dtype="f4") * 2, weight)
    graph = helper.make_graph(nodes, "two", ends[:2], ends[2:], [initializer])
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)


@pytest.mark.parametrize("name", [*INPUTS, "inf", "nan", "device"])
@pytest.mark.parametrize("place", ["weight", "inner"])
def test_a_value_of_any_name_hides_nothing_that_is_called(name: str, place: str) -> None:
    model = two("first", "second", name if place == "weight" else "w")
    if place == "inner":
        model.graph.node[1].output[0] = model.graph.node[2].input[0] = name
    module = to_torch(model)
    ones, fives = torch.ones(3, 4), torch.full((3, 4), 5.0)
    assert module(ones, fives)[0].unique().tolist() == [-3]


@pytest.mark.parametrize("name", INPUTS)
def test_an_input_of_any_name_is_fed_by_it(name: str) -> None:
    for pair in ((name, "x_0"), ("x_0", name), (name, f"x_{name}")):
        module = to_torch(two(*pair))
        feeds = {pair[0]: torch.ones(3, 4), pair[1]: torch.full((3, 4), 5.0)}
        assert call(module, feeds)["y"].unique().tolist() == [-3]
        assert module(*feeds.values())[0].unique().tolist() == [-3]


@pytest.mark.parametrize("name", WEIGHTS)
def test_a_weight_of_any_name_is_trained_and_written_back(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    given = two("x", "z", name)
    module = to_torch(given)
    assert call(module, {"x": torch.ones(1, 4), "z": torch.zeros(1, 4)})["y"].tolist() == [[2, 2, 2, 2]]
    assert [*initializers(module)] == [name]
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.mul_(3)
    back = write_back(given, module)
    assert isinstance(back, onnx.ModelProto)
    assert numpy_helper.to_array(back.graph.initializer[0]).tolist() == (np.eye(4) * 6).tolist()
    assert numpy_helper.to_array(given.graph.initializer[0]).tolist() == (np.eye(4) * 2).tolist()
    assert isinstance(write_back(ir.from_proto(given), module), ir.Model)
    assert not capsys.readouterr().out


def test_gradients_score_a_model_whatever_its_input_is_called(
    tmp_path: object, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PRUNEGRAPH_CACHE", str(tmp_path))
    rng = np.random.default_rng(0)
    up, down, x = (rng.standard_normal(shape).astype("f4") for shape in ((6, 16), (16, 3), (16, 6)))
    choices = set()
    for name in ("x", "onnx::Gemm_0", "class"):
        graph = helper.make_graph(
            [
                helper.make_node("MatMul", [name, "up"], ["h"]),
                helper.make_node("Relu", ["h"], ["r"]),
                helper.make_node("MatMul", ["r", "down"], ["y"]),
            ],
            "mlp",
            [helper.make_tensor_value_info(name, TensorProto.FLOAT, ["n", 6])],
            [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["n", 3])],
            [numpy_helper.from_array(up, "up"), numpy_helper.from_array(down, "down")],
        )
        model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)
        data = {name: x, "labels": np.arange(16) % 3}
        result = prune_graph(model, 0.5, scorer="taylor", data=data, after=Repair("none"))
        choices.add(tuple(result.selection.keep["ffn.0"]))
    assert len(choices) == 1 and sum(choices.pop()) == 8
