"""Sizes that run, facts that are facts, and trials that end: what Normalize learns of a model before it is analysed."""

from __future__ import annotations

import os
import pickle
import signal
import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import onnx
import onnx_ir as ir
import onnxruntime as ort
import pytest
from onnx import TensorProto, helper, numpy_helper
from typer.testing import CliRunner

import prunegraph as pg
from prunegraph import prune_graph
from prunegraph.cli import app
from prunegraph.errors import ModelError, UsageError
from prunegraph.passes.normalize import Normalized, normalize
from prunegraph.passes.normalize.depends_on_data import depends_on_data
from prunegraph.passes.normalize.trial import Trial
from prunegraph.runtime.inputs import InputSpec, input_specs
from prunegraph.runtime.limits import Limits, TooLong, interruptible
from prunegraph.runtime.roles import role_of
from prunegraph.runtime.sizes_from_weights import sizes_from_weights
from prunegraph.runtime.trial_sizes import narrow_plans
from tests.graphs.builder import Builder
from tests.graphs.fused import multi_head_cache
from tests.graphs.run import outputs

pytestmark = pytest.mark.slow


def normalized(model: onnx.ModelProto, **known: dict[str, int]) -> Normalized:
    return normalize(ir.from_proto(model), **known)


def halved(model: onnx.ModelProto, kind: str) -> list[tuple[int, int]]:
    """How many units of every group of a kind there were and are, half of them gone, proven equal."""
    result = prune_graph(model, {kind: 0.5})
    assert result.report.verify is not None and result.report.verify.ok and result.report.verify.moved > 1e-3
    return [(g.before, g.after) for g in result.report.groups if g.kind == kind]


# ---- sizes that follow from the graph ------------------------------------------------------------------------------


def image_net(g: Builder, image: str) -> str:
    h = g("Relu", g("Conv", image, g.weight("stem", 12, 3, 3, 3), pads=[1] * 4))
    h = g("Relu", g("Conv", h, g.weight("second", 16, 12, 3, 3), pads=[1] * 4))
    return g("MatMul", g("Flatten", g("GlobalAveragePool", h)), g.weight("head", 16, 5))


def channels_from_a_convolution() -> onnx.ModelProto:
    g = Builder("channels")
    g.output(image_net(g, g.input("x", "batch", "num_channels", "height", "width")), "batch", 5)
    return g.model()


def channels_behind_a_scale() -> onnx.ModelProto:
    """The dim passes through elementwise ops, a Transpose and a Cast before a weight says how long it is."""
    g = Builder("behind")
    x = g("Cast", g.input("x", "batch", "height", "width", "channels", dtype=TensorProto.DOUBLE), to=TensorProto.FLOAT)
    x = g("Transpose", g("Mul", g("Sub", x, 0.5), 2.0), perm=[0, 3, 1, 2])
    g.output(image_net(g, x), "batch", 5)
    return g.model()


def channels_beside_a_mean() -> onnx.ModelProto:
    """A mean a channel is taken off first: by broadcasting alone there could be one channel as well."""
    g = Builder("mean")
    x = g("Transpose", g.input("x", "batch", "height", "width", "channels"), perm=[0, 3, 1, 2])
    g.output(image_net(g, g("Div", g("Sub", x, g.weight("mean", 1, 3, 1, 1)), 0.5)), "batch", 5)
    return g.model()


def features_beside_others() -> onnx.ModelProto:
    """Features stand beside columns of an embedding: a matrix says how long both are together."""
    g = Builder("beside_others")
    table, ids = g.weight("table", 9, 4), g.input("ids", "batch", dtype=TensorProto.INT64)
    both = g("Concat", g("Gather", table, ids), g.input("x", "batch", "features"), axis=1)
    g.output(g("MatMul", g("Relu", g("MatMul", both, g.weight("up", 11, 12))), g.weight("down", 12, 5)), "batch", 5)
    return g.model()


def features_from_a_matrix() -> onnx.ModelProto:
    g = Builder("features")
    h = g("Relu", g("MatMul", g.input("x", "batch", "rows", "features"), g.weight("up", 7, 12)))
    g.output(g("MatMul", h, g.weight("down", 12, 5)), "batch", "rows", 5)
    return g.model()


def cache_from_the_heads() -> onnx.ModelProto:
    """`past[b, kv, p, d]` is concatenated with keys of 3 heads of 4: both dims follow, though all are names."""
    g = Builder("cache")
    x = g.input("x", "batch", "rows", 12)
    pasts = [g.input(f"past_{k}", "batch", "kv_heads", "past", "head_dim") for k in "kv"]
    q, k, v = (
        g("Transpose", g("Reshape", g("MatMul", x, g.weight(f"W{n}", 12, 12)), [0, 0, 3, 4]), perm=[0, 2, 1, 3])
        for n in "qkv"
    )
    k, v = (g("Concat", past, new, axis=2) for past, new in zip(pasts, (k, v), strict=True))
    scores = g("Softmax", g("MatMul", q, g("Transpose", k, perm=[0, 1, 3, 2])), axis=-1)
    o = g("Reshape", g("Transpose", g("MatMul", scores, v), perm=[0, 2, 1, 3]), [0, 0, 12])
    h = g("Relu", g("MatMul", g("MatMul", o, g.weight("Wo", 12, 12)), g.weight("up", 12, 10)))
    g.output(g("MatMul", h, g.weight("down", 10, 5)), "batch", "rows", 5)
    return g.model()


def cache_of_a_fused_op() -> onnx.ModelProto:
    """ONNX knows no shapes of the op; ONNX Runtime does."""
    model = multi_head_cache()
    for value in (*model.graph.input, *model.graph.output):
        if value.name.startswith(("past", "multiheadattention")):
            for axis in (1, 3):
                value.type.tensor_type.shape.dim[axis].dim_param = f"{'heads' if axis == 1 else 'head_dim'}"
    return model


FOLLOWS: dict[str, tuple[Callable[[], onnx.ModelProto], dict[str, int]]] = {
    "channels of a convolution": (channels_from_a_convolution, {"num_channels": 3}),
    "channels behind other ops": (channels_behind_a_scale, {"channels": 3}),
    "channels beside a mean": (channels_beside_a_mean, {"channels": 3}),
    "features beside others": (features_beside_others, {"features": 7}),
    "features of a matrix": (features_from_a_matrix, {"features": 7}),
    "heads of a cache": (cache_from_the_heads, {"kv_heads": 3, "head_dim": 4}),
    "heads of a cache of a fused op": (cache_of_a_fused_op, {"heads": 3, "head_dim": 4}),
}


@pytest.mark.parametrize("case", FOLLOWS)
def test_what_weights_say_is_never_guessed(case: str) -> None:
    make, expected = FOLLOWS[case]
    assert normalized(make()).settled == expected


def test_a_network_whose_channels_are_declared_dynamic_is_pruned() -> None:
    assert halved(channels_from_a_convolution(), "channel") == [(12, 6), (16, 8)]


def test_lengths_that_meet_by_chance_say_nothing() -> None:
    """A Flatten makes one length of many: none of these is as long as what a matrix reads of it."""
    g = Builder("flat")
    flat = g("Flatten", g.input("x", "batch", "channels", 3, 3))
    g.output(g("MatMul", g("Relu", g("MatMul", flat, g.weight("up", 18, 12))), g.weight("down", 12, 5)), "batch", 5)
    trial = Trial.of(ir.from_proto(g.model()))
    assert sizes_from_weights(trial.graph, trial.blank, trial.specs).certain == {}


def test_a_table_of_positions_fits_one_size_of_height_and_width() -> None:
    g = Builder("patches")
    h = g("Conv", g.input("x", "batch", 3, "height", "width"), g.weight("patch", 8, 3, 16, 16), strides=[16, 16])
    h = g("Transpose", g("Reshape", h, [0, 8, -1]), perm=[0, 2, 1])
    h = g("Add", h, g.weight("positions", 1, 36, 8))
    h = g("Relu", g("MatMul", h, g.weight("up", 8, 12)))
    g.output(g("MatMul", h, g.weight("down", 12, 5)), "batch", "patches", 5)
    assert normalized(g.model()).settled == {"height": 96, "width": 96}
    assert halved(g.model(), "ffn") == [(12, 6)]


FUNCTIONS: dict[str, tuple[int, dict[str, object]]] = {
    "Celu": (21, {}),
    "CenterCropPad": (21, {}),
    "Elu": (21, {}),
    "Gelu": (21, {}),
    "GroupNormalization": (21, {"num_groups": 2}),
    "HardSigmoid": (21, {}),
    "HardSwish": (21, {}),
    "LayerNormalization": (21, {}),
    "LogSoftmax": (13, {}),
    "MeanVarianceNormalization": (13, {}),
    "Mish": (21, {}),
    "PRelu": (21, {}),
    "ReduceL2": (21, {}),
    "ReduceLogSumExp": (21, {}),
    "ReduceSumSquare": (18, {}),
    "RMSNormalization": (23, {}),
    "Softmax": (13, {}),
    "Softplus": (21, {}),
    "Swish": (24, {}),
    "ThresholdedRelu": (21, {}),
}
"""Ops that ONNX defines as functions: the opset, and the attributes that have no default."""


@pytest.mark.parametrize("op", FUNCTIONS)
def test_shapes_of_ops_that_are_functions_are_seen(op: str) -> None:
    """With all attributes left to their defaults."""
    opset, attributes = FUNCTIONS[op]
    g = Builder("function", opset=opset)
    x = g.input("x", 3, 4, 8, 8)
    match op:
        case "CenterCropPad":
            operands = [x, [3, 4, 6, 6]]
        case "GroupNormalization":
            operands = [x, g.weight("scale", 4), g.weight("bias", 4)]
        case "LayerNormalization" | "RMSNormalization" | "PRelu":
            operands = [x, g.weight("scale", 8)]
        case _:
            operands = [x]
    y = g(op, *operands, **attributes)
    g.output(y, "a", "b", "c", "d")
    trial = Trial.of(ir.from_proto(g.model(full_check=False)))
    shape = {"CenterCropPad": (3, 4, 6, 6)}.get(op, (1, 1, 1, 1) if op.startswith("Reduce") else (3, 4, 8, 8))
    assert [each.shapes[y] for each in trial.look(({},), set())] == [shape]


def test_texts_that_follow_from_constants_are_written_to_the_file() -> None:
    g = Builder("texts")
    h = g("Relu", g("MatMul", g.input("x", "batch", 8), g.weight("up", 8, 12)))
    g.output(g("MatMul", h, g.weight("down", 12, 5)), "batch", 5)
    table = g.const("table", np.array(["a", "é"], object))
    known = g("Concat", table, table, axis=0)
    g.output(
        g("Concat", known, g.input("words", "n", dtype=TensorProto.STRING), axis=0), None, dtype=TensorProto.STRING
    )
    result = prune_graph(g.model(), {"ffn": 0.5})
    assert [(group.before, group.after) for group in result.report.groups] == [(12, 6)]
    feeds = {"x": np.ones((1, 8), np.float32), "words": np.array(["z"], object)}
    assert outputs(result.model, feeds)[1].tolist() == ["a", "é", "a", "é", "z"]


# ---- few sizes that run --------------------------------------------------------------------------------------------


def baked(shape: Sequence[int]) -> onnx.ModelProto:
    """A Reshape to numbers that somebody traced."""
    g = Builder("baked")
    h = g("Relu", g("MatMul", g.input("x", "batch", "rows", 8), g.weight("up", 8, 12)))
    h = g("Reshape", g("Reshape", h, list(shape)), [shape[0], shape[1], 12])
    g.output(g("MatMul", h, g.weight("down", 12, 5)), "batch", "rows", 5)
    return g.model()


@pytest.mark.parametrize(
    ("shape", "settled"),
    [
        ((-1, 9, 3, 4), {"rows": 9}),
        ((-1, 77, 3, 4), {"rows": 77}),
        ((1, -1, 3, 4), {}),
        ((1, 19, 3, 4), {"batch": 1, "rows": 19}),
    ],
)
def test_sizes_are_tried_until_one_runs(shape: tuple[int, ...], settled: dict[str, int]) -> None:
    assert normalized(baked(shape)).settled == settled
    assert sorted(halved(baked(shape), "ffn")) == [(3, 2), (4, 2)]


def test_two_sequences_may_have_a_length_each() -> None:
    g = Builder("two")
    a, b = (
        g("Reshape", g("Reshape", g.input(name, "batch", f"{name}_rows", 8), [-1, n, 2, 4]), [-1, n, 8])
        for name, n in (("left", 9), ("right", 14))
    )
    h = g("Relu", g("MatMul", g("Concat", a, b, axis=1), g.weight("up", 8, 12)))
    g.output(g("MatMul", h, g.weight("down", 12, 5)), "batch", "rows", 5)
    assert normalized(g.model()).settled == {"left_rows": 9, "right_rows": 14}
    assert halved(g.model(), "ffn") == [(12, 6)]


def test_a_signal_is_a_few_windows_long() -> None:
    """Only so many samples leave one frame."""
    g = Builder("windows")
    frames = g(
        "Conv", g("Unsqueeze", g.input("x", "batch", "samples"), [1]), g.weight("window", 8, 1, 48), strides=[24]
    )
    one = g("Squeeze", g("Conv", g("Relu", frames), g.weight("three", 12, 8, 3)), [2])
    g.output(g("MatMul", g("Relu", one), g.weight("out", 12, 5)), "batch", 5)
    assert normalized(g.model()).settled == {"samples": 96}
    assert halved(g.model(), "channel") == [(8, 4), (12, 6)]


def test_the_sizes_of_the_caller_come_first() -> None:
    model = features_from_a_matrix()
    assert normalized(model, sizes={"rows": 5}).sizes == {"batch": 1, "rows": 5, "features": 7}
    assert normalized(model, likely={"rows": 5}).sizes == {"batch": 1, "rows": 128, "features": 7}


@pytest.mark.parametrize(
    ("sizes", "message"), [({"row": 5}, "no dynamic dim named row"), ({"rows": 0}, "not positive")]
)
def test_sizes_that_make_no_sense_are_refused(sizes: dict[str, int], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        normalized(features_from_a_matrix(), sizes=sizes)


def test_sizes_of_data_are_tried_where_the_usual_ones_fail() -> None:
    assert normalized(of_35_rows(), likely={"rows": 35}).settled == {"rows": 35}


def test_static_shapes_tell_what_lies_before_the_trouble() -> None:
    """No size runs: what is before the wall keeps its shapes, the rest is pinned with the reason of ONNX Runtime."""
    g = Builder("wall")
    h = g("Relu", g("MatMul", g.input("x", "batch", 8), g.weight("up", 8, 12)))
    h = g("MatMul", h, g.weight("down", 12, 6))
    broken = g("Conv", g("Unsqueeze", h, [1]), g.weight("kernel", 1, 1, 9))
    g.output(g("Flatten", broken), "batch", None)
    model = g.model(full_check=False)
    normal = normalized(model)
    assert not normal.plan and "a kernel of 9" in normal.facts.unseen
    assert normal.facts.shapes[h][1] == (6, 6, 6) and broken not in normal.facts.shapes


# ---- facts that are none -------------------------------------------------------------------------------------------


def frozen_names(model: onnx.ModelProto) -> set[str]:
    return {name for name in normalized(model).model.graph.initializers if name.endswith("/frozen")}


def frames(kernel: int, stride: int, op: str = "Conv") -> onnx.ModelProto:
    """The number of frames that a long kernel leaves of samples, read by Shape."""
    g = Builder("frames")
    x = g("Unsqueeze", g.input("x", "batch", "samples"), [1])
    h = (
        g("Conv", x, g.weight("K", 8, 1, kernel), strides=[stride])
        if op == "Conv"
        else g("AveragePool", g("Conv", x, g.weight("K", 8, 1, 1)), kernel_shape=[kernel], strides=[stride])
    )
    h = g("Transpose", h, perm=[0, 2, 1])
    length = g("Gather", g("Shape", h), [1], axis=0)
    h = g("Reshape", g("Relu", g("MatMul", h, g.weight("up", 8, 12))), g("Concat", [-1], length, [12], axis=0))
    g.output(g("MatMul", h, g.weight("down", 12, 5)), "batch", "frames", 5)
    return g.model()


@pytest.mark.parametrize("op", ["Conv", "AveragePool"])
@pytest.mark.parametrize(("kernel", "stride"), [(14, 16), (40, 64), (400, 320), (2000, 4096)])
def test_lengths_that_a_kernel_does_not_fit_prove_nothing(op: str, kernel: int, stride: int) -> None:
    model = frames(kernel, stride, op)
    slim = prune_graph(model, {"ffn": 0.5}, verify=False).ir_model
    samples = kernel + 2 * stride + 5
    feeds = {"x": np.random.default_rng(0).normal(size=(2, samples)).astype(np.float32)}
    assert outputs(slim, feeds)[0].shape == (2, 3, 5)
    assert min(n for sizes in normalized(model).facts.shapes.values() for size in sizes for n in size) > 0


def counted(choice: Callable[[Builder, str], str]) -> onnx.ModelProto:
    """How many a choice by data leaves, read by Shape and used in a Reshape."""
    g = Builder("counted")
    x = g.input("x", "batch", 8)
    h = g("MatMul", x, g.weight("up", 8, 12))
    rows = choice(g, g("ReduceMax", h, axes=[1], keepdims=0))  # [n, 1]
    picked = g("Gather", h, g("Reshape", rows, [-1]), axis=0)
    count = g("Gather", g("Shape", picked), [0], axis=0)
    h = g("Reshape", g("Relu", picked), g("Concat", count, [12], axis=0))
    g.output(g("MatMul", h, g.weight("down", 12, 5)), "n", 5)
    return g.model()


def by_nonzero(g: Builder, scores: str) -> str:
    return g("Transpose", g("NonZero", g("Greater", scores, 0.0)), perm=[1, 0])


def by_topk(g: Builder, scores: str) -> str:
    count = g("ReduceSum", g("Cast", g("Greater", scores, 0.0), to=TensorProto.INT64), [0], keepdims=1)
    return g("TopK", scores, count, n=2, axis=0)[1]


def by_unique(g: Builder, scores: str) -> str:
    places = g("Unique", g("Cast", g("Greater", scores, 0.0), to=TensorProto.INT64), n=2, axis=0)[1]
    return places


def by_compress(g: Builder, scores: str) -> str:
    rows = g("Range", np.array(0), g("Reshape", g("Size", scores), np.zeros(0, np.int64)), np.array(1))
    return g("Compress", rows, g("Greater", scores, 0.0), axis=0)


@pytest.mark.parametrize("choice", [by_nonzero, by_topk, by_unique, by_compress])
def test_counts_that_hang_on_data_are_not_frozen(choice: Callable[[Builder, str], str]) -> None:
    model = counted(choice)
    slim = prune_graph(model, {"ffn": 0.5}, verify=False)
    assert [(g.before, g.after) for g in slim.report.groups] == [(12, 6)]
    rng = np.random.default_rng(1)
    sessions = [
        ort.InferenceSession(m.SerializeToString(), providers=["CPUExecutionProvider"])
        for m in (model, ir.to_proto(slim.ir_model))
    ]
    x = rng.normal(size=(9, 8)).astype(np.float32)
    assert all(session.run(None, {"x": x})[0].ndim == 2 for session in sessions)


def test_what_lies_downstream_of_a_choice_hangs_on_data_and_nothing_else_does() -> None:
    g = Builder("downstream")
    h = g("MatMul", g.input("x", "batch", 8), g.weight("up", 8, 12))
    beside = g("Shape", h)
    chosen = g("NonZero", h)
    after = g("Shape", g("Cast", chosen, to=TensorProto.FLOAT))
    g.output(beside, 2, dtype=TensorProto.INT64)
    g.output(after, 2, dtype=TensorProto.INT64)
    graph = ir.from_proto(g.model()).graph
    hang = depends_on_data(graph, [beside, after])
    assert {chosen, after} <= hang and not {h, beside} & hang


def test_a_dim_that_could_not_be_varied_freezes_nothing_that_hangs_on_it() -> None:
    g = Builder("unvaried")
    h = g("Relu", g("MatMul", g.input("x", "batch", "rows", 8), g.weight("up", 8, 12)))
    shape = g("Shape", h)
    batch, width = (g("Gather", shape, [k], axis=0) for k in (0, 2))
    h = g("Reshape", h, g("Concat", batch, [-1], width, axis=0))
    g.output(g("MatMul", h, g.weight("down", 12, 5)), "batch", "rows", 5)
    assert f"{batch}/frozen" not in frozen_names_of(g.model(), {"batch": 1})
    assert f"{width}/frozen" in frozen_names_of(g.model(), {"batch": 1})


def frozen_names_of(model: onnx.ModelProto, sizes: dict[str, int]) -> set[str]:
    return set(normalized(model, sizes=sizes).model.graph.initializers)


# ---- inputs of all kinds -------------------------------------------------------------------------------------------


def with_input(value: onnx.ValueInfoProto) -> onnx.ModelProto:
    g = Builder("strange")
    h = g("Relu", g("MatMul", g.input("x", "batch", 8), g.weight("up", 8, 12)))
    g.output(g("MatMul", h, g.weight("down", 12, 5)), "batch", 5)
    g.nodes.append(helper.make_node("Identity", [value.name], ["same"]))
    g.inputs.append(value)
    same = onnx.ValueInfoProto(name="same")
    same.type.CopyFrom(value.type)
    g.outputs.append(same)
    return g.model()


def optional_of_a_tensor() -> onnx.ValueInfoProto:
    tensor = helper.make_tensor_type_proto(TensorProto.FLOAT, ["n"])
    return helper.make_value_info("odd", helper.make_optional_type_proto(tensor))


PRUNED = {
    "a scalar": lambda: helper.make_tensor_value_info("odd", TensorProto.INT64, []),
    "a boolean scalar": lambda: helper.make_tensor_value_info("odd", TensorProto.BOOL, []),
    "a dim of -1": lambda: helper.make_tensor_value_info("odd", TensorProto.FLOAT, [-1, 3]),
    "strings": lambda: helper.make_tensor_value_info("odd", TensorProto.STRING, ["n"]),
}
REFUSED = {
    "a sequence": lambda: helper.make_tensor_sequence_value_info("odd", TensorProto.FLOAT, None),
    "an optional value": optional_of_a_tensor,
}


@pytest.mark.parametrize("case", PRUNED)
def test_inputs_of_any_tensor_are_taken(case: str) -> None:
    assert halved(with_input(PRUNED[case]()), "ffn") == [(12, 6)]


@pytest.mark.parametrize("case", REFUSED)
def test_inputs_that_are_no_tensors_are_refused_by_name(case: str) -> None:
    with pytest.raises(ModelError, match="'odd'") as refused:
        normalized(with_input(REFUSED[case]()))
    assert refused.value.hint


def test_inputs_of_no_known_rank_are_refused_by_name() -> None:
    model = features_from_a_matrix()
    model.graph.input[0].type.tensor_type.ClearField("shape")
    with pytest.raises(ModelError, match="how many axes the input 'x' has") as refused:
        normalized(model)
    assert refused.value.hint


def test_a_dim_that_no_memory_holds_is_not_tried() -> None:
    g = Builder("huge")
    h = g("Relu", g("MatMul", g.input("x", 2**40, 8), g.weight("up", 8, 12)))
    g.output(g("MatMul", h, g.weight("down", 12, 5)), 2**40, 5)
    normal = normalized(g.model())
    assert not normal.plan and "GiB" in normal.facts.unseen


# ---- runs that end -------------------------------------------------------------------------------------------------


def endless() -> onnx.ModelProto:
    value = helper.make_tensor_value_info
    body = helper.make_graph(
        [helper.make_node("Add", ["c", "c"], ["d"]), helper.make_node("Identity", ["go"], ["on"])],
        "body",
        [value("i", TensorProto.INT64, []), value("go", TensorProto.BOOL, []), value("c", TensorProto.FLOAT, None)],
        [value("on", TensorProto.BOOL, []), value("d", TensorProto.FLOAT, None)],
    )
    weights = {"turns": np.array(2**62), "yes": np.array(True), "up": np.ones((4, 6), np.float32)}
    graph = helper.make_graph(
        [
            helper.make_node("Loop", ["turns", "yes", "x"], ["h"], body=body),
            helper.make_node("MatMul", ["h", "up"], ["y"]),
        ],
        "endless",
        [value("x", TensorProto.FLOAT, ["b", 4])],
        [value("y", TensorProto.FLOAT, ["b", 6])],
        [numpy_helper.from_array(array, name) for name, array in weights.items()],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)


def endless_session() -> ort.InferenceSession:
    options = ort.SessionOptions()
    options.log_severity_level = 4
    return ort.InferenceSession(endless().SerializeToString(), options, providers=["CPUExecutionProvider"])


def test_a_run_without_end_ends_when_its_time_is_over() -> None:
    with pytest.raises(TooLong, match="did not end"):
        interruptible(endless_session(), {"x": np.ones((1, 4), np.float32)}, None, seconds=0.2)


def test_a_square_image_follows_from_a_weight_behind_a_flatten() -> None:
    """Height and width are left open, and 40 is no usual size."""
    g = Builder("flat")
    h = g("Relu", g("Conv", g.input("x", "batch", "c", "h", "w"), g.weight("stem", 4, 3, 3, 3), pads=[1] * 4))
    h = g("Flatten", g("MaxPool", h, kernel_shape=[4, 4], strides=[4, 4]))
    g.output(g("Gemm", h, g.weight("out", 400, 3), g.weight("bias", 3)), "batch", 3)
    assert normalized(g.model()).sizes == {"batch": 1, "c": 3, "h": 40, "w": 40}


def test_a_model_without_end_is_pinned_after_one_trial(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("prunegraph.passes.normalize.trial.TRIAL", Limits(memory=True, seconds=0.2))
    normal = normalized(endless())
    assert not normal.plan and "did not end" in normal.facts.unseen and normal.facts.endless


def test_an_interruption_ends_a_run() -> None:
    session = endless_session()
    threading.Timer(0.3, os.kill, [os.getpid(), signal.SIGINT]).start()
    start = time.monotonic()
    with pytest.raises(KeyboardInterrupt):
        interruptible(session, {"x": np.ones((1, 4), np.float32)}, None)
    assert time.monotonic() - start < 60


def test_a_trial_that_wants_too_much_memory_is_refused() -> None:
    """A data-dependent length makes 16 GiB of ones: the arena of a trial ends before, and the machine goes on."""
    g = Builder("memory")
    x = g.input("x", "batch", 8)
    many = g("Cast", g("Mul", g("ReduceMax", x, axes=[0, 1], keepdims=1), 2.0**29), to=TensorProto.INT64)
    wide = g(
        "Expand",
        g("Unsqueeze", x, [1]),
        g("Reshape", g("Concat", g("Shape", x, end=1), g("Reshape", many, [1]), [8], axis=0), [3]),
    )
    g.output(g("ReduceSum", wide, [1], keepdims=0), "batch", 8)
    normal = normalized(g.model())
    assert not normal.plan or normal.sizes == {"batch": 1}


@pytest.mark.parametrize("rows", [[], [9], [9, 77]])
def test_narrow_plans_are_few_and_begin_with_small_sizes(rows: list[int]) -> None:
    specs = input_specs(ir.from_proto(baked((-1, 9, 3, 4))).graph)
    plans = list(narrow_plans(specs, rows))
    assert len(plans) == 2 * (1 + len(rows)) and plans[0] == ({"batch": 1, "rows": 11}, {"batch": 2, "rows": 23})


# ---- roles ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("dims", "dtype", "roles"),
    [
        (("batch", "sequence"), "float32", ["batch", "row"]),
        (("sequence", "batch", 8), "float32", ["row", "batch"]),
        (("s0", "s1", 8), "float32", ["batch", "row"]),
        (("b", "s"), "int64", ["batch", "mask"]),
        (("b", 3, "h", "w"), "float32", ["batch", "image", "image"]),
        (("b", 4, "past", 16), "float32", ["batch", "past"]),
        (("b", "heads", "past_sequence_length", "head_dim"), "float32", ["batch", "row", "past", "row"]),
        (("samples",), "float32", ["batch"]),
        ((2, "state.1", 128), "float32", ["batch"]),
        ((1, "state.1", 128), "float32", ["row"]),
    ],
)
def test_every_dynamic_dim_has_a_role(dims: tuple[int | str, ...], dtype: str, roles: list[str]) -> None:
    spec = InputSpec("x", np.dtype(dtype), dims)
    assert [role_of(spec, axis) for axis, dim in enumerate(dims) if isinstance(dim, str)] == roles


# ---- the caller's sizes, by every door -----------------------------------------------------------------------------


def of_35_rows() -> onnx.ModelProto:
    """35 rows are two factors of a Reshape: no single number of the graph names them."""
    g = Builder("factors")
    h = g("Relu", g("MatMul", g.input("x", "batch", "rows", 8), g.weight("up", 8, 12)))
    h = g("Reshape", g("Reshape", h, [-1, 5, 7, 12]), [-1, 35, 12])
    g.output(g("MatMul", h, g.weight("down", 12, 5)), "batch", "rows", 5)
    return g.model()


def test_sizes_given_in_the_scope_reach_the_proof() -> None:
    result = prune_graph(of_35_rows(), {"ffn": 0.5}, scope=pg.Scope(sizes={"rows": 35}))
    assert result.report.verify is not None and result.report.verify.ok
    assert result.report.sizes == {"batch": 1, "rows": 35}


@pytest.mark.parametrize("scorer", ["magnitude", "activation"])
def test_sizes_of_data_reach_normalize_and_the_proof(scorer: str) -> None:
    x = np.random.default_rng(0).normal(size=(6, 35, 8)).astype(np.float32)
    result = prune_graph(of_35_rows(), {"ffn": 0.5}, scorer=scorer, data={"x": x})
    assert [(g.before, g.after) for g in result.report.groups] == [(12, 6)]
    assert result.report.verify is not None and result.report.verify.ok


def test_data_run_in_batches_that_the_model_takes() -> None:
    """A batch of one is baked in: 6 examples are six runs."""
    g = Builder("one")
    h = g("Relu", g("MatMul", g.input("x", "batch", "rows", 8), g.weight("up", 8, 12)))
    length = g("Gather", g("Shape", h), [1], axis=0)
    h = g("Reshape", h, g("Concat", [1], length, [12], axis=0))
    g.output(g("MatMul", h, g.weight("down", 12, 5)), 1, "rows", 5)
    x = np.random.default_rng(0).normal(size=(6, 7, 8)).astype(np.float32)
    result = prune_graph(g.model(), {"ffn": 0.5}, scorer="activation", data={"x": x})
    assert [(g.before, g.after) for g in result.report.groups] == [(12, 6)]


def test_a_graph_pickles_with_the_sizes_at_which_it_runs() -> None:
    graph = pg.analyze(of_35_rows(), scope=pg.Scope(sizes={"rows": 35}))
    again = pickle.loads(pickle.dumps(graph))
    assert again.normalized.settled == {"rows": 35} and [g.id for g in again.groups] == [g.id for g in graph.groups]


def test_the_command_line_takes_sizes(tmp_path: Path) -> None:
    path, slim = tmp_path / "m.onnx", tmp_path / "slim.onnx"
    onnx.save(of_35_rows(), path)
    size = ("--size", "rows=35")
    for command in (
        ("explain", path, "--json", *size),
        ("prune", path, "-o", slim, "--ratio", "ffn=0.5", *size),
        ("verify", path, slim, *size),
    ):
        outcome = CliRunner().invoke(app, [str(part) for part in command])
        assert outcome.exit_code == 0, outcome.output
    wrong = CliRunner().invoke(app, ["explain", str(path), "--size", "row=35"])
    assert isinstance(wrong.exception, UsageError) or wrong.exit_code == 2


# ---- alike in all probes, and yet not static -----------------------------------------------------------------------


def padded(count: Callable[[Builder, str], str]) -> onnx.ModelProto:
    """Rows are padded by a count that follows from their length, and taken off again."""
    g = Builder("padded")
    x = g.input("x", "batch", "rows", 8)
    length = g("Gather", g("Shape", x), [1], axis=0)
    more = count(g, length)
    ends = g("Concat", [0, 0, 0, 0], more, [0], axis=0)
    h = g("MatMul", g("Pad", x, ends), g.weight("up", 8, 12))
    h = g("Relu", g("Add", h, g("Cast", more, to=TensorProto.FLOAT)))
    g.output(g("MatMul", h, g.weight("down", 12, 5)), "batch", "padded", 5)
    return g.model()


COUNTS: dict[str, Callable[[Builder, str], str]] = {
    "at least 8": lambda g, n: g("Max", g("Sub", [8], n), [0]),
    "a thousand or more": lambda g, n: g("Cast", g("Greater", n, [1000]), to=TensorProto.INT64),
    "in thousands": lambda g, n: g("Div", n, [1000]),
    "by a condition": lambda g, n: g("Where", g("Less", n, [9]), [3], [0]),
}


@pytest.mark.parametrize("case", COUNTS)
@pytest.mark.parametrize("rows", [5, 40, 1100])
def test_what_only_looks_static_is_not_frozen(case: str, rows: int) -> None:
    model = padded(COUNTS[case])
    x = np.random.default_rng(0).normal(size=(2, rows, 8)).astype(np.float32)
    frozen = normalized(model).model
    given, normal = (outputs(each, {"x": x})[0] for each in (model, frozen))
    assert given.shape == normal.shape
    np.testing.assert_allclose(normal, given, rtol=1e-4, atol=1e-5)
