from __future__ import annotations

import numpy as np
import onnx
import onnxruntime as ort
import pytest
from onnx import ModelProto, helper, numpy_helper

from tests.graphs.skeleton import KEEP_ELEMENTS, MARK, fill, load_skeleton, skeleton_names, strip

RNG = np.random.default_rng(0)
WEIGHT = RNG.normal(size=(12, 20)).astype(np.float32)
CONSTANTS = {
    "weight": WEIGHT,
    "twin": WEIGHT.copy(),
    "half": RNG.normal(size=(20, 12)).astype(np.float16),
    "norm_weight": np.ones(12, np.float32),
    "norm_bias": np.zeros(12, np.float32),
    "small": RNG.normal(size=8).astype(np.float32),
    "mask": np.triu(np.full((12, 12), -np.inf, np.float32)),
    "levels": np.where(RNG.random((12, 12)) > 0.5, -100, 0).astype(np.float32),
    "uniform": np.zeros((9, 9), np.float32),
    "ids": np.arange(100),
    "scalar": np.array(0.5, np.float32),
}
LOST = {"weight", "twin", "half"}
FRESH = {"norm_weight", "norm_bias"}


def model_of(constants: dict[str, np.ndarray]) -> ModelProto:
    """A graph that reads the constants, with text of the kind that exporters leave."""
    nodes = [helper.make_node("Identity", [name], [name + "_out"], doc_string="File a.py") for name in constants]
    nodes.append(helper.make_node("LayerNormalization", ["x", "norm_weight", "norm_bias"], ["y"]))
    helper.set_model_props(
        model := helper.make_model(helper.make_graph(nodes, "g", [], [])), {"k": "v", "long": "v" * 999}
    )
    for name, values in constants.items():
        tensor = model.graph.initializer.add()
        tensor.CopyFrom(numpy_helper.from_array(values, name))
        tensor.metadata_props.add(key="pkg.torch.onnx.original_node_name", value="p_" + name)
    model.graph.node[0].metadata_props.add(key="namespace", value="a/b")
    model.graph.node[0].metadata_props.add(key="pkg.torch.onnx.stack_trace", value="File a.py")
    return model


def values_of(model: ModelProto) -> dict[str, np.ndarray]:
    return {tensor.name: numpy_helper.to_array(tensor) for tensor in model.graph.initializer}


def test_strip_removes_only_large_random_floats() -> None:
    model = model_of(CONSTANTS)
    before = model.SerializeToString(deterministic=True)
    slim = strip(model)
    assert model.SerializeToString(deterministic=True) == before
    assert {t.name for t in slim.graph.initializer if t.doc_string.startswith(MARK)} == LOST
    for tensor in slim.graph.initializer:
        assert list(tensor.dims) == list(CONSTANTS[tensor.name].shape)
        if tensor.name in LOST:
            assert not tensor.raw_data
        else:
            np.testing.assert_array_equal(numpy_helper.to_array(tensor), CONSTANTS[tensor.name])


def test_strip_keeps_where_things_came_from_and_drops_the_rest() -> None:
    slim = strip(model_of(CONSTANTS))
    assert {p.key for p in slim.graph.node[0].metadata_props} == {"namespace"}
    assert all(not node.doc_string for node in slim.graph.node)
    assert slim.graph.initializer[0].metadata_props[0].value == "p_weight"
    assert {p.key: p.value for p in slim.metadata_props} == {"k": "v"}


def test_fill_gives_every_parameter_values_that_differ() -> None:
    full = values_of(fill(strip(model_of(CONSTANTS))))
    for name, values in full.items():
        assert values.dtype == CONSTANTS[name].dtype
        assert values.shape == CONSTANTS[name].shape
        if name in LOST | FRESH:
            assert len(np.unique(values)) > values.size // 2
        else:
            np.testing.assert_array_equal(values, CONSTANTS[name])
    assert abs(full["norm_weight"].mean() - 1) < 0.2 > abs(full["norm_bias"].mean())
    np.testing.assert_array_equal(full["weight"], full["twin"])


def test_seed_decides_the_values() -> None:
    slim = strip(model_of(CONSTANTS))
    assert fill(slim, 1) == fill(slim, 1)
    assert not (values_of(fill(slim, 1))["weight"] == values_of(fill(slim, 2))["weight"]).any()


def test_running_variances_are_positive() -> None:
    model = model_of({"weight": WEIGHT, "variance": RNG.random(2 * KEEP_ELEMENTS).astype(np.float32)})
    model.graph.node.append(helper.make_node("BatchNormalization", ["x", "s", "b", "m", "variance"], ["z"]))
    assert values_of(fill(strip(model)))["variance"].min() >= 0.5


def test_fan_in_follows_the_use() -> None:
    wide = RNG.normal(size=(4, 4000)).astype(np.float32)
    model = model_of({"right": wide, "turned": wide + 1, "conv": wide + 2})
    model.graph.node.append(helper.make_node("MatMul", ["x", "right"], ["a"]))
    model.graph.node.append(helper.make_node("Gemm", ["x", "turned"], ["b"], transB=1))
    del model.graph.node[:3]
    deviations = {name: float(values.std()) for name, values in values_of(fill(strip(model))).items()}
    assert deviations == pytest.approx({"right": 4**-0.5, "turned": 4000**-0.5, "conv": 4000**-0.5}, rel=0.1)


LARGE = ("deit_tiny", "minilm", "resnet18", "vit_base")
"""Graphs with the widths of real models; other tests run them."""


@pytest.mark.parametrize("name", [name for name in skeleton_names() if not name.startswith(LARGE)])
def test_committed_graph_runs(name: str) -> None:
    model = load_skeleton(name)
    onnx.checker.check_model(model)
    assert not any(t.doc_string.startswith(MARK) for t in model.graph.initializer)
    options = ort.SessionOptions()
    options.log_severity_level = 3
    session = ort.InferenceSession(model.SerializeToString(), options)
    assert all(np.isfinite(y).all() and y.std() > 1e-3 for y in session.run(None, example_feed(session)))


def example_feed(session: ort.InferenceSession) -> dict[str, np.ndarray]:
    """Random inputs of batch 2; small token ids, since a position table may be short.

    An axis with a name of the exporter's own covers past and present, so these are half as long.
    """
    feed = {}
    for value in session.get_inputs():
        sizes = {"batch": 2, "sequence": 3, "past": 3}
        shape = [sizes.get(d, 6) if isinstance(d, str) else d for d in value.shape]
        if value.type == "tensor(float)":
            feed[value.name] = RNG.normal(size=shape).astype(np.float32)
        elif "mask" in value.name:
            feed[value.name] = np.ones(shape, np.int64)
        else:
            feed[value.name] = RNG.integers(0, 2, shape)
    return feed
