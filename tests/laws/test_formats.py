"""Number formats and files: narrow floats stay narrow, weights in data files stay there, both are pruned and proven."""

from __future__ import annotations

from pathlib import Path

import ml_dtypes
import numpy as np
import numpy.typing as npt
import onnx
import onnx_ir as ir
import pytest

from prunegraph import prune_graph
from tests.graphs.skeleton import load_skeleton

pytestmark = pytest.mark.slow

RATIO = {"head": 0.5, "qk_dim": 0.25, "v_dim": 0.25, "ffn": 0.5}


def narrowed(proto: onnx.ModelProto, dtype: ir.DataType) -> ir.Model:
    """The model with all its floats in another format."""
    model = ir.from_proto(proto)
    narrow: npt.DTypeLike = dtype.numpy()
    for value in model.graph.initializers.values():
        if value.dtype == ir.DataType.FLOAT and value.const_value is not None:
            value.const_value = ir.Tensor(value.const_value.numpy().astype(narrow), dtype=dtype, name=value.name)
            value.type = ir.TensorType(dtype)
    for node in model.graph:
        for name, attribute in list(node.attributes.items()):
            if attribute.type == ir.AttributeType.TENSOR and attribute.as_tensor().dtype == ir.DataType.FLOAT:
                tensor = ir.Tensor(attribute.as_tensor().numpy().astype(narrow), dtype=dtype)
                node.attributes[name] = ir.AttrTensor(name, tensor)
            elif name == "to" and attribute.as_int() == ir.DataType.FLOAT:
                node.attributes[name] = ir.AttrInt64(name, int(dtype))
    for value in (*model.graph.inputs, *(value for node in model.graph for value in node.outputs)):
        if value.dtype == ir.DataType.FLOAT:
            value.type = ir.TensorType(dtype)
    return model


@pytest.mark.parametrize("name", ["zoo_deit", "zoo_deit_legacy"])
@pytest.mark.parametrize(
    ("dtype", "scalar"), [(ir.DataType.FLOAT16, np.float16), (ir.DataType.BFLOAT16, ml_dtypes.bfloat16)]
)
def test_narrow_floats_stay_narrow(name: str, dtype: ir.DataType, scalar: type) -> None:
    model = narrowed(load_skeleton(name), dtype)
    result = prune_graph(model, RATIO)
    proof = result.report.verify
    assert proof is not None and proof.ok and proof.moved > 1e-3
    floats = {
        value.const_value.numpy().dtype
        for value in result.ir_model.graph.initializers.values()
        if value.const_value is not None and value.const_value.dtype.is_floating_point()
    }
    assert floats == {np.dtype(scalar)}
    assert result.report.params[1] < result.report.params[0]


def test_weights_in_a_data_file_stay_in_one(tmp_path: Path) -> None:
    given = tmp_path / "model.onnx"
    onnx.save(load_skeleton("zoo_bert"), given, save_as_external_data=True, location="weights.bin", size_threshold=0)
    before = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    result = prune_graph(given, RATIO)
    written = result.save(tmp_path / "slim.onnx")
    model, data, plan = written
    assert (model.name, data.suffix, plan.name) == ("slim.onnx", ".data", "slim.plan.json")
    assert data.stat().st_size < (tmp_path / "weights.bin").stat().st_size
    onnx.checker.check_model(str(tmp_path / "slim.onnx"), full_check=True)
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir() if path.name in before} == before


def test_the_opset_the_doors_and_the_metadata_survive() -> None:
    model = load_skeleton("minilm_l3")
    model.metadata_props.add(key="author", value="somebody")
    slim = prune_graph(model, 0.5, verify=False).model
    assert {o.domain: o.version for o in slim.opset_import} == {o.domain: o.version for o in model.opset_import}
    assert [value.name for value in slim.graph.output] == [value.name for value in model.graph.output]
    assert [str(value.type.tensor_type) for value in slim.graph.input] == [
        str(value.type.tensor_type) for value in model.graph.input
    ]
    assert {p.key: p.value for p in slim.metadata_props}["author"] == "somebody"
