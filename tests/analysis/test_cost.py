"""Costs: equal to what a walk over shapes gives that shares nothing with the analysis, and to sums by hand."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import onnx
import onnx_ir as ir
import onnxruntime as ort
import pytest
from onnx import TensorProto, helper, numpy_helper

from prunegraph import prune_graph
from prunegraph.analysis.cost import count_macs, count_parameters
from prunegraph.analysis.lengths import Lengths
from prunegraph.analyzed import load_and_analyze
from tests.graphs.builder import Builder
from tests.graphs.skeleton import load_skeleton, skeleton_names
from tests.graphs.small import GRAPHS

CONTRACTIONS = ("Conv", "ConvTranspose", "Einsum", "MatMul", "Gemm")


def walked(model: onnx.ModelProto, sizes: dict[str, int]) -> int:
    """Multiply-adds of contractions from the shapes that ONNX Runtime sees when it runs at these sizes."""
    nodes = [node for node in model.graph.node if node.op_type in CONTRACTIONS]
    looked_at = onnx.ModelProto()
    looked_at.CopyFrom(model)
    del looked_at.graph.output[:]
    names = dict.fromkeys(name for node in nodes for name in (*node.input[:2], *node.output))
    for name in names:
        looked_at.graph.node.append(helper.make_node("Shape", [name], [f"{name} shape"]))
        looked_at.graph.output.append(helper.make_tensor_value_info(f"{name} shape", TensorProto.INT64, None))
    options = ort.SessionOptions()
    options.log_severity_level = 4
    options.execution_order = ort.ExecutionOrder.PRIORITY_BASED
    session = ort.InferenceSession(looked_at.SerializeToString(), options, providers=["CPUExecutionProvider"])
    weights = {tensor.name for tensor in model.graph.initializer}
    feeds = {}
    for value in model.graph.input:
        dims = enumerate(value.type.tensor_type.shape.dim)
        shape = [d.dim_value or sizes[d.dim_param or f"{value.name}.{axis}"] for axis, d in dims]
        if value.name not in weights:
            dtype = helper.tensor_dtype_to_np_dtype(value.type.tensor_type.elem_type)
            feeds[value.name] = np.ones(shape, dtype)
    shapes = dict(zip(names, map(tuple, session.run(None, feeds)), strict=True))
    return sum(macs_of(node, shapes) for node in nodes)


def macs_of(node: onnx.NodeProto, shapes: dict[str, tuple[int, ...]]) -> int:
    attributes = {a.name: helper.get_attribute_value(a) for a in node.attribute}
    if node.op_type == "Conv":
        _, c, *kernel = shapes[node.input[1]]
        return math.prod(shapes[node.output[0]]) * c * math.prod(kernel)
    if node.op_type == "ConvTranspose":
        _, c, *kernel = shapes[node.input[1]]
        return math.prod(shapes[node.input[0]]) * c * math.prod(kernel)
    if node.op_type == "Einsum":
        letters = attributes["equation"].decode().replace(" ", "").split("->")[0].split(",")
        operands = zip("".join(letters), (n for name in node.input for n in shapes[name]), strict=True)
        return math.prod(dict(operands).values())
    if node.op_type == "MatMul":
        return math.prod(shapes[node.output[0]]) * shapes[node.input[0]][-1]
    if node.op_type == "Gemm":
        return math.prod(shapes[node.output[0]]) * shapes[node.input[0]][0 if attributes.get("transA") else 1]
    return 0


def counted(model: onnx.ModelProto) -> tuple[int, dict[str, int]]:
    """What the package counts, and the sizes that it states for it."""
    analyzed = load_and_analyze(model)
    macs, _ = count_macs(analyzed.analysis.solution, Lengths(analyzed.analysis.solution, {}))
    return macs, dict(analyzed.normalized.sizes)


BY_HAND_ONLY = ("einsum_of_three", "local_function")  # the walk knows two operands, and one graph
LOOPS = ("loop_captures",)
BRANCHES = ("shared_branches", "own_branches", "nested_branches", "merged_decoder")
ZOO = (
    *("zoo_bert", "zoo_clip", "zoo_convnext", "zoo_gpt2", "zoo_llama_legacy", "zoo_mixtral", "zoo_swin_legacy"),
    *("zoo_shufflenet_legacy", "zoo_t5", "zoo_xcit", "deit_tiny_legacy", "minilm_l6_legacy", "resnet18_dynamo"),
)


@pytest.mark.parametrize("name", [name for name in GRAPHS if name not in (*BY_HAND_ONLY, *BRANCHES, *LOOPS)])
def test_multiply_adds_of_a_small_graph_are_those_of_its_shapes(name: str) -> None:
    macs, sizes = counted(GRAPHS[name]())
    assert macs == walked(GRAPHS[name](), sizes)


@pytest.mark.parametrize("name", LOOPS)
def test_multiply_adds_of_a_body_are_those_of_one_trip(name: str) -> None:
    """The walk does not look into the Loop: in it a state `[1, 11, 10]` is multiplied with a matrix."""
    macs, sizes = counted(GRAPHS[name]())
    assert sizes == {"B": 1, "S": 11} and macs == walked(GRAPHS[name](), sizes) + 11 * 10 * 10


@pytest.mark.parametrize("name", BRANCHES)
def test_multiply_adds_are_those_of_all_branches(name: str) -> None:
    macs, sizes = counted(GRAPHS[name]())
    assert macs == walked(ir.to_proto(load_and_analyze(GRAPHS[name]()).normalized.model), sizes)


@pytest.mark.slow
@pytest.mark.parametrize("name", ZOO)
def test_multiply_adds_of_a_real_export_are_those_of_its_shapes(name: str) -> None:
    assert name in skeleton_names()
    macs, sizes = counted(load_skeleton(name))
    assert macs == walked(load_skeleton(name), sizes) > 0


def perceptron(*batch: int | str, width: int, hidden: int) -> onnx.ModelProto:
    g = Builder("perceptron")
    h = g("Relu", g("MatMul", g.input("x", *batch, width), g.weight("up", width, hidden)))
    g.output(g("MatMul", h, g.weight("down", hidden, width)), *batch, width)
    return g.model()


@pytest.mark.parametrize("width", [2, 10, 11, 12, 23, 128, 701])
@pytest.mark.parametrize("hidden", [22, 32])
def test_a_static_axis_counts_as_it_is_whatever_its_length(width: int, hidden: int) -> None:
    report = prune_graph(perceptron(1, width=width, hidden=hidden)).report
    assert report.macs == (2 * width * hidden, width * hidden) and not report.sizes


def test_a_dynamic_sequence_counts_as_the_length_that_is_stated() -> None:
    report = prune_graph(perceptron("batch", "tokens", width=11, hidden=32)).report
    assert report.sizes == {"batch": 1, "tokens": 128}
    assert report.macs == (128 * 2 * 11 * 32, 128 * 11 * 32)


def positioned(positions: int, hidden: int) -> onnx.ModelProto:
    """A table of positions bounds the length: `x[b, s, 8] + table[:s]`."""
    g = Builder("positioned")
    x = g.input("x", "batch", "tokens", 8)
    length = g("Slice", g("Shape", x), [1], [2], [0])
    h = g("Add", x, g("Slice", g.weight("table", positions, 8), [0], length, [0]))
    h = g("Relu", g("MatMul", h, g.weight("up", 8, hidden)))
    g.output(g("MatMul", h, g.weight("down", hidden, 8)), "batch", "tokens", 8)
    return g.model()


@pytest.mark.parametrize("positions", [12, 24, 40, 100, 128, 512])
def test_a_model_of_few_positions_counts_at_a_length_that_it_takes(positions: int) -> None:
    report = prune_graph(positioned(positions, 32)).report
    tokens = report.sizes["tokens"]
    assert tokens <= positions and report.macs == (tokens * 2 * 8 * 32, tokens * 8 * 32)
    assert tokens == 128 or positions < 128


def as_constants(model: onnx.ModelProto) -> onnx.ModelProto:
    """The same with every initializer in a Constant node."""
    proto = onnx.ModelProto()
    proto.CopyFrom(model)
    nodes = [helper.make_node("Constant", [], [t.name], value=t) for t in model.graph.initializer]
    del proto.graph.initializer[:], proto.graph.node[:]
    proto.graph.node.extend([*nodes, *model.graph.node])
    return proto


@pytest.mark.parametrize("spelling", [lambda model: model, as_constants])
def test_parameters_are_one_number_wherever_they_are_stored(
    spelling: Callable[[onnx.ModelProto], onnx.ModelProto],
) -> None:
    model = spelling(perceptron("n", width=16, hidden=20))
    result = prune_graph(model)
    assert result.report.params == (640, 320)
    assert load_and_analyze(model).analysis.params == 640 and count_parameters(result.ir_model.graph) == 320


@pytest.mark.parametrize("name", ["shape_chain", "bias_table", "shared_zero_bias", "constant_nodes", "if_captures"])
def test_every_command_counts_the_parameters_of_the_file(name: str) -> None:
    """Not those of a normalized form, which holds tables and constants once per use."""
    model = GRAPHS[name]()
    analysis = load_and_analyze(model).analysis
    assert analysis.params == stored(model.graph)
    assert prune_graph(model).report.params[0] == analysis.params


def stored(graph: onnx.GraphProto) -> int:
    total = sum(
        math.prod(t.dims) for t in graph.initializer if t.data_type not in (TensorProto.INT64, TensorProto.BOOL)
    )
    for node in graph.node:
        for attribute in node.attribute:
            if attribute.type == onnx.AttributeProto.GRAPH:
                total += stored(attribute.g)
            elif node.op_type == "Constant" and attribute.type == onnx.AttributeProto.TENSOR:
                array = numpy_helper.to_array(attribute.t)
                total += array.size if array.dtype not in (np.int64, np.bool_) else 0
    return total
