"""Files in and out: bad input gets one clear message, good input survives, output appears whole or not at all."""

from __future__ import annotations

import os
import re
import shutil
import signal
import stat
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import onnx
import onnx_ir as ir
import onnxruntime as ort
import pytest
from onnx import TensorProto, helper, numpy_helper

from prunegraph import analyze, prune_graph
from prunegraph import atomic_write as staging
from prunegraph.analysis.read_weight import read_weight
from prunegraph.analysis.selection import Selection
from prunegraph.errors import ModelError, OutputError, UsageError
from prunegraph.export import onnx_file as door
from tests.graphs.builder import Builder

WEIGHT = np.arange(64 * 64, dtype=np.float32).reshape(64, 64) / 4096
X = np.ones((3, 64), np.float32)


def tiny(*initializers: TensorProto, opset: int = 17, op: str = "MatMul") -> onnx.ModelProto:
    """``y = x @ w`` with x (batch, 64), w (64, 64)."""
    graph = helper.make_graph(
        [helper.make_node(op, ["x", "w"], ["y"], name="layer/MatMul")],
        "tiny",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["batch", 64])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["batch", 64])],
        initializers or [numpy_helper.from_array(WEIGHT, "w")],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=9)


def outside(location: str, **stated: int) -> TensorProto:
    """The weight as a reference to external data."""
    tensor = TensorProto(name="w", data_type=TensorProto.FLOAT, dims=(64, 64), data_location=TensorProto.EXTERNAL)
    for key, value in {"location": location, **stated}.items():
        tensor.external_data.add(key=key, value=str(value))
    return tensor


def write_external(folder: Path, location: str = "w.bin", **stated: int) -> Path:
    (folder / "w.bin").write_bytes(WEIGHT.tobytes())
    path = folder / "model.onnx"
    path.write_bytes(tiny(outside(location, **stated)).SerializeToString())
    return path


def data_file(model: Path) -> Path:
    """The one data file that a saved model names."""
    tensors = onnx.load(model, load_external_data=False).graph.initializer
    (name,) = {e.value for tensor in tensors for e in tensor.external_data if e.key == "location"}
    return model.with_name(name)


def output(model: str | Path | onnx.ModelProto) -> np.ndarray:
    given = model.SerializeToString() if isinstance(model, onnx.ModelProto) else str(model)
    (result,) = ort.InferenceSession(given, providers=["CPUExecutionProvider"]).run(None, {"x": X})
    return np.asarray(result)


# --- bad input ---------------------------------------------------------------------------------------------------


def raw(content: bytes) -> Callable[[Path], Path]:
    def write(folder: Path) -> Path:
        (folder / "bad.onnx").write_bytes(content)
        return folder / "bad.onnx"

    return write


def proto(model: onnx.ModelProto) -> Callable[[Path], Path]:
    return raw(model.SerializeToString())


def linked_out(folder: Path) -> Path:
    (folder / "elsewhere").mkdir()
    (folder / "elsewhere" / "secret").write_bytes(WEIGHT.tobytes())
    (folder / "inner").mkdir()
    (folder / "inner" / "link").symlink_to("../elsewhere/secret")
    path = folder / "inner" / "model.onnx"
    path.write_bytes(tiny(outside("link")).SerializeToString())
    return path


def without_outputs() -> onnx.ModelProto:
    model = tiny()
    del model.graph.output[:]
    return model


def edited(raw: Callable[[TensorProto], bytes] | None = None, **fields: object) -> TensorProto:
    """The weight with other content than it states, or stating something else."""
    tensor = numpy_helper.from_array(WEIGHT, "w")
    if raw is not None:
        tensor.raw_data = raw(tensor)
    for name, value in fields.items():
        if isinstance(value, list):
            del getattr(tensor, name)[:]
            getattr(tensor, name).extend(value)
        else:
            setattr(tensor, name, value)
    return tensor


def listed(count: int) -> TensorProto:
    return TensorProto(name="w", data_type=TensorProto.FLOAT, dims=(64, 64), float_data=[0.5] * count)


def linked_round(folder: Path) -> Path:
    (folder / "a").symlink_to("b")
    (folder / "b").symlink_to("a")
    path = folder / "model.onnx"
    path.write_bytes(tiny(outside("a")).SerializeToString())
    return path


def calling(opset: int, op: str) -> onnx.ModelProto:
    """The model with a function of another opset behind the weight."""
    model = tiny()
    body = [helper.make_node(op, ["a"], ["b"])]
    model.functions.append(helper.make_function("mine", "Act", ["a"], ["b"], body, [helper.make_opsetid("", opset)]))
    model.graph.node[0].output[0] = "h"
    model.graph.node.append(helper.make_node("Act", ["h"], ["y"], domain="mine"))
    model.opset_import.append(helper.make_opsetid("mine", 1))
    return model


def calling_with(inputs: Sequence[str], outputs: Sequence[str]) -> onnx.ModelProto:
    """The model with a function of one input and two outputs behind the weight."""
    model = calling(17, "Relu")
    model.functions[0].node.add().CopyFrom(helper.make_node("Neg", ["b"], ["c"]))
    model.functions[0].output.append("c")
    del model.graph.node[-1].input[:], model.graph.node[-1].output[:]
    model.graph.node[-1].input.extend(inputs)
    model.graph.node[-1].output.extend(outputs)
    return model


def stray_sparse() -> onnx.ModelProto:
    values = numpy_helper.from_array(np.ones(1, np.float32), "w")
    indices = numpy_helper.from_array(np.array([64 * 64], np.int64), "i")
    model = tiny()
    del model.graph.initializer[:]
    model.graph.sparse_initializer.append(helper.make_sparse_tensor(values, indices, [64, 64]))
    return model


WHOLE = tiny().SerializeToString()
BAD: dict[str, tuple[Callable[[Path], Path], str, str]] = {
    "missing": (lambda folder: folder / "none.onnx", "does not exist", "current folder"),
    "a folder": (lambda folder: folder, "is a folder", ".onnx"),
    "empty": (raw(b""), "is empty", "again"),
    "text": (raw(b"hello world, this is text"), "not an ONNX model", "export"),
    "random bytes": (raw(np.random.default_rng(0).bytes(5000)), "not an ONNX model", "export"),
    "another protobuf": (raw(b"\x12\x03abc"), "not an ONNX model", "export"),
    "LFS pointer": (raw(b"version https://git-lfs.github.com/spec/v1\noid sha256:0\n"), "Git LFS", "git lfs pull"),
    "web page": (raw(b"\n<!DOCTYPE html><html></html>"), "web page", "download"),
    "checkpoint": (raw(b"PK\x03\x04rest"), "zip archive", "torch.onnx.export"),
    "cut in the weights": (raw(WHOLE[: len(WHOLE) // 2]), "cut short", "again"),
    "cut at the end": (raw(WHOLE[:-1]), "cut short", "again"),
    "data missing": (proto(tiny(outside("gone.bin"))), "gone.bin is missing; it holds 'w'", "copy the data file"),
    "data unnamed": (proto(tiny(outside(""))), "no location", "export"),
    "data too short": (lambda folder: write_external(folder, offset=8), "too short: 'w' ends at byte", "cut short"),
    "data before the file": (lambda folder: write_external(folder, offset=-8), "cannot be understood: ", "pip install"),
    "data of another size": (lambda folder: write_external(folder, length=64), "stated to have 64 bytes", "together"),
    "data by absolute path": (proto(tiny(outside("/etc/hostname"))), "outside the model's folder", "refused"),
    "data above": (proto(tiny(outside("../w.bin"))), "outside the model's folder", "refused"),
    "data above, hidden": (proto(tiny(outside("a/../../w.bin"))), "outside the model's folder", "refused"),
    "data behind a link": (linked_out, "outside the model's folder", "refused"),
    "no outputs": (proto(without_outputs()), "no outputs", "export"),
    "unknown operator": (proto(tiny(op="NoSuchOp")), "not valid ONNX", "pip install"),
    "undefined value": (
        proto(tiny(numpy_helper.from_array(WEIGHT, "v"))),
        "nothing defines the value 'w'",
        "onnx.checker",
    ),
    "weight too short": (
        proto(tiny(edited(lambda t: t.raw_data[:-8]))),
        "holds 16376 bytes, and its shape 64x64",
        "export",
    ),
    "weight too long": (proto(tiny(edited(lambda t: t.raw_data * 2))), "holds 32768 bytes", "export"),
    "weight of another type": (proto(tiny(edited(data_type=TensorProto.FLOAT16))), "of FLOAT16 needs 8192", "export"),
    "weight of no type": (proto(tiny(edited(data_type=0))), "has no type", "export"),
    "weight of an unknown type": (proto(tiny(edited(data_type=99))), "has the unknown type 99", "export"),
    "weight of 72 axes": (proto(tiny(edited(dims=[64, 64] + [1] * 70))), "72 axes", "numpy"),
    "weight below zero": (proto(tiny(edited(dims=[-64, -64]))), "the shape [-64, -64]", "export"),
    "texts as bytes": (proto(tiny(edited(data_type=TensorProto.STRING))), "texts as raw bytes", "export"),
    "too few entries": (proto(tiny(listed(64 * 64 - 1))), "4095 entries of float_data", "export"),
    "data of a null path": (proto(tiny(outside("a\0b"))), "which is no path", "export"),
    "data of a long path": (proto(tiny(outside("a" * 5000))), "which is no path", "export"),
    "data of a loop": (linked_round, "which is no path", "export"),
    "a function of another opset": (proto(calling(11, "Softmax")), "Softmax is another op", "convert_version=True"),
    "a call with too many outputs": (proto(calling_with("h", "yzu")), "3 outputs, and it has 2", "export"),
    "a call with too many inputs": (proto(calling_with("hh", "y")), "2 inputs, and it has 1", "export"),
    "sparse index out of range": (proto(stray_sparse()), "indices of the sparse initializer 'w'", "dense"),
}


def test_a_call_may_leave_out_outputs() -> None:
    model = calling_with("h", "y")
    assert [len(node.outputs) for node in door.load(model).graph] == [1, 2]
    assert not analyze(model).groups


@pytest.mark.parametrize("case", BAD)
def test_bad_input_gets_one_clear_message_with_a_hint(case: str, tmp_path: Path) -> None:
    make, message, hint = BAD[case]
    with pytest.raises(ModelError) as caught:
        door.load(make(tmp_path))
    assert message in caught.value.message
    assert hint in caught.value.hint
    assert "\n" not in caught.value.message


def test_every_truncation_of_a_model_is_noticed(tmp_path: Path) -> None:
    path = tmp_path / "cut.onnx"
    for length in {*range(0, len(WHOLE), 997), *range(40), *range(len(WHOLE) - 40, len(WHOLE))}:
        path.write_bytes(WHOLE[:length])
        with pytest.raises(ModelError):
            door.load(path)


def test_a_wrong_type_is_wrong_usage() -> None:
    with pytest.raises(UsageError, match="list"):
        door.load([])  # type: ignore[arg-type]


# --- good input --------------------------------------------------------------------------------------------------


def rich_model() -> onnx.ModelProto:
    """Everything that must survive: metadata at every level, a function, an If, odd types, odd order."""
    branch = [
        helper.make_graph(
            [helper.make_node(op, ["h"], [f"{op}_out"])],
            f"{op}_branch",
            [],
            [helper.make_tensor_value_info(f"{op}_out", TensorProto.FLOAT, ["batch", 64])],
        )
        for op in ("Relu", "Neg")
    ]
    function = helper.make_function(
        "mine",
        "Linear",
        ["a", "b"],
        ["c"],
        [helper.make_node("MatMul", ["a", "b"], ["c"])],
        [helper.make_opsetid("", 19)],
    )
    nodes = [
        helper.make_node("Linear", ["x", "w"], ["h"], domain="mine", name="layer/Linear"),
        helper.make_node("If", ["flag"], ["y"], then_branch=branch[0], else_branch=branch[1]),
    ]
    graph = helper.make_graph(
        nodes,
        "rich",
        [
            helper.make_tensor_value_info("x", TensorProto.FLOAT, ["batch", 64]),
            helper.make_tensor_value_info("flag", TensorProto.BOOL, []),
        ],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["batch", 64])],
        [
            numpy_helper.from_array(WEIGHT, "w"),
            numpy_helper.from_array(np.array(True), "flag"),
            helper.make_tensor("bf16", TensorProto.BFLOAT16, [700], np.arange(700)),
            helper.make_tensor("f16", TensorProto.FLOAT16, [3], [1, 2, 3]),
            helper.make_tensor("int4", TensorProto.INT4, [3], [1, -2, 3]),
            helper.make_tensor("fp8", TensorProto.FLOAT8E4M3FN, [3], [1, 2, 3]),
            helper.make_tensor("text", TensorProto.STRING, [2], [b"a", b"bc"]),
        ],
    )
    opsets = [helper.make_opsetid("", 19), helper.make_opsetid("mine", 1)]
    model = helper.make_model(graph, opset_imports=opsets, functions=[function], ir_version=10, producer_name="someone")
    model.model_version = 7
    for owner in (model, model.graph, model.graph.node[0]):
        owner.metadata_props.add(key="who", value=type(owner).__name__)
    return model


def facts(model: onnx.ModelProto) -> dict[str, object]:
    """What a user would miss; weights by value, so that inline and external are the same."""
    return {
        "head": (model.ir_version, model.producer_name, model.model_version),
        "opsets": {each.domain: each.version for each in model.opset_import},
        "metadata": [
            [(prop.key, prop.value) for prop in owner.metadata_props]
            for owner in (model, model.graph, *model.graph.node)
        ],
        "nodes": [(node.name, node.op_type, [*node.input], [*node.output]) for node in model.graph.node],
        "functions": [(each.domain, each.name, [*each.input]) for each in model.functions],
        "io": [str(value) for value in (*model.graph.input, *model.graph.output)],
        "weights": [
            (each.name, each.data_type, [*each.dims], numpy_helper.to_array(each).tolist())
            for each in model.graph.initializer
        ],
    }


@pytest.mark.parametrize("external", [False, True], ids=["inline", "external"])
def test_a_round_trip_keeps_everything(external: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    given, back = tmp_path / "given.onnx", tmp_path / "back.onnx"
    given.write_bytes(rich_model().SerializeToString())
    monkeypatch.setattr(door, "INLINE_LIMIT", 1000 if external else 10**9)
    written = door.save(door.load(given), back)
    assert written == ((back, data_file(back)) if external else (back,))
    assert facts(onnx.load(back)) == facts(rich_model())
    assert output(back).tobytes() == output(given).tobytes()


@pytest.mark.parametrize("spelled", ["{}", "./{}", "../here/{}", "../here/../here/./{}", "deep/../{}"])
def test_a_folder_may_be_spelled_as_one_likes(spelled: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    here = tmp_path / "here"
    (here / "deep").mkdir(parents=True)
    for location in ("w.bin", "./w.bin", "deep/../w.bin"):
        name = write_external(here, location).name
        monkeypatch.chdir(here)
        value = door.load(spelled.format(name)).graph.initializers["w"].const_value
        assert value is not None and np.array_equal(value.numpy(), WEIGHT)


def test_external_data_stays_external_and_lazy(tmp_path: Path) -> None:
    given = write_external(tmp_path, offset=0, length=WEIGHT.nbytes)
    model = door.load(given)
    assert isinstance(model.graph.initializers["w"].const_value, ir.ExternalTensor)
    (tmp_path / "out").mkdir()
    slim = tmp_path / "out" / "slim.onnx"
    written = door.save(model, slim)
    assert written == (slim, data_file(slim))
    assert re.fullmatch(r"slim\.onnx\.[0-9a-f]{12}\.data", written[1].name)
    assert output(slim).tobytes() == output(given).tobytes()


def test_a_model_pruned_into_memory_still_goes_out_as_it_came_in(tmp_path: Path) -> None:
    model = door.load(write_external(tmp_path)).clone()
    model.graph.initializers["w"].const_value = ir.tensor(WEIGHT, name="w")
    assert len(door.save(model, tmp_path / "slim.onnx")) == 2


def test_links_inside_the_folder_and_package_caches_are_followed(tmp_path: Path) -> None:
    """A store that keeps both files elsewhere under other names, as the Hugging Face cache does; and hard links."""
    store, shown = tmp_path / "blobs", tmp_path / "snapshots"
    store.mkdir(), shown.mkdir()
    write_external(store)
    (shown / "model.onnx").symlink_to("../blobs/model.onnx")
    (shown / "w.bin").symlink_to("../blobs/w.bin")
    os.link(store / "w.bin", store / "again.bin")
    loaded = door.load(shown / "model.onnx").graph.initializers["w"].const_value
    assert loaded is not None
    np.testing.assert_array_equal(loaded.numpy(), WEIGHT)


def test_external_tensors_outside_the_main_initializers_are_read(tmp_path: Path) -> None:
    """Constant nodes and small weights: neither the checker nor a serializer could follow them."""
    (tmp_path / "w.bin").write_bytes(WEIGHT.tobytes())
    small = TensorProto(name="s", data_type=TensorProto.FLOAT, dims=(64,), data_location=TensorProto.EXTERNAL)
    small.external_data.add(key="location", value="w.bin")
    model = tiny(small)
    model.graph.node[0].output[0] = "h"
    model.graph.node.insert(0, helper.make_node("Constant", [], ["w"], value=outside("w.bin")))
    model.graph.node.append(helper.make_node("Add", ["h", "s"], ["y"]))
    path = tmp_path / "model.onnx"
    path.write_bytes(model.SerializeToString())
    door.save(door.load(path), tmp_path / "slim.onnx")
    np.testing.assert_allclose(output(tmp_path / "slim.onnx"), X @ WEIGHT + WEIGHT[0], rtol=1e-5)


@pytest.mark.parametrize("flat", [True, False])
def test_sparse_initializers_become_dense(flat: bool, tmp_path: Path) -> None:
    places = np.array([[0, 3], [63, 5]], np.int64)
    indices = places @ np.array([64, 1]) if flat else places
    model = stray_sparse()
    (sparse,) = model.graph.sparse_initializer
    sparse.values.CopyFrom(numpy_helper.from_array(np.array([1.5, 2.5], np.float32), "w"))
    sparse.indices.CopyFrom(numpy_helper.from_array(indices, "i"))
    given = model.SerializeToString()
    door.save(door.load(model), tmp_path / "slim.onnx")
    assert output(tmp_path / "slim.onnx")[0, [3, 5]].tolist() == [1.5, 2.5]
    assert model.SerializeToString() == given


@pytest.mark.parametrize("kind", ["ModelProto", "ir.Model"])
def test_the_object_given_is_never_changed(kind: str) -> None:
    given = rich_model() if kind == "ModelProto" else ir.from_proto(rich_model())

    def state() -> bytes:
        shown = given if isinstance(given, onnx.ModelProto) else ir.to_proto(given)
        return bytes(shown.SerializeToString(deterministic=True))

    before = state()
    model = door.load(given)
    for value in list(model.graph.initializers.values()):
        value.name = f"{value.name}_renamed"
    model.graph.metadata_props["new"] = "1"
    for node in model.graph.all_nodes():
        node.metadata_props["score"] = "1"
        node.attributes.clear()
    model.graph.initializers["w_renamed"].const_value = ir.tensor(WEIGHT[:1])
    model.opset_imports["more"] = 1
    assert state() == before


def test_nodes_in_any_order_are_put_in_order() -> None:
    """ONNX Runtime runs such files, and its float16 converter writes them."""
    nodes = [helper.make_node("Relu", ["h"], ["y"]), helper.make_node("Neg", ["x"], ["h"])]
    ends = [helper.make_tensor_value_info(name, TensorProto.FLOAT, ["n"]) for name in ("x", "y")]
    given = helper.make_model(helper.make_graph(nodes, "backwards", ends[:1], ends[1:]), ir_version=10)
    assert [node.op_type for node in door.load(given).graph] == ["Neg", "Relu"]
    assert [node.op_type for node in given.graph.node] == ["Relu", "Neg"]


@pytest.mark.parametrize(("opset", "op"), [(14, "Relu"), (18, "Relu"), (13, "Softmax")])
def test_a_function_of_another_opset_with_the_same_ops_is_read(opset: int, op: str, tmp_path: Path) -> None:
    model = calling(opset, op)
    (tmp_path / "model.onnx").write_bytes(model.SerializeToString())
    analysis = analyze(tmp_path / "model.onnx")
    assert analysis.params == 64 * 64
    (function,) = door.load(model).functions.values()
    assert function.opset_imports[""] == 17


def test_lengths_below_zero_are_left_open() -> None:
    model = tiny()
    for value in (*model.graph.input, *model.graph.output):
        value.type.tensor_type.shape.dim[0].dim_value = -1
    loaded = door.load(model)
    for value in (*loaded.graph.inputs, *loaded.graph.outputs):
        assert value.shape is not None and not isinstance(value.shape[0], int) and value.shape[1] == 64


def test_a_circle_of_nodes_is_no_model() -> None:
    nodes = [helper.make_node("Add", ["x", "y"], ["h"]), helper.make_node("Neg", ["h"], ["y"])]
    ends = [helper.make_tensor_value_info(name, TensorProto.FLOAT, ["n"]) for name in ("x", "y")]
    given = helper.make_model(helper.make_graph(nodes, "circle", ends[:1], ends[1:]), ir_version=10)
    with pytest.raises(ModelError, match=r"cannot be understood.*cycle"):
        door.load(given)


def test_initializers_keep_their_order() -> None:
    names = [each.name for each in rich_model().graph.initializer]
    assert [*door.load(rich_model()).graph.initializers] == names


def test_more_than_2_gb_of_weights(tmp_path: Path) -> None:
    """2.2 GB of zeros that take no room on disk: read lazily. Writing much takes the same path as writing little."""
    rows = 2_200_000_000 // 256
    weight = outside("w.bin")
    weight.dims[0] = rows
    model = tiny(weight)
    model.graph.input[0].type.tensor_type.shape.dim[1].dim_value = rows
    path = tmp_path / "model.onnx"
    path.write_bytes(model.SerializeToString())
    with (tmp_path / "w.bin").open("wb") as file:
        file.truncate(rows * 256)
    loaded = door.load(path)
    tensor = loaded.graph.initializers["w"].const_value
    assert tensor is not None and tensor.nbytes == rows * 256
    assert not tensor.numpy()[-1].any()


# --- output ------------------------------------------------------------------------------------------------------


def test_an_input_is_never_written_over(tmp_path: Path) -> None:
    given = write_external(tmp_path)
    model = door.load(given)
    (tmp_path / "soft.onnx").symlink_to("model.onnx")
    os.link(given, tmp_path / "hard.onnx")
    for name in ("model.onnx", "soft.onnx", "hard.onnx", "w.bin"):
        with pytest.raises(OutputError, match="is an input file"):
            door.save(model, tmp_path / name)
    with pytest.raises(OutputError, match="is an input file"):
        door.save(door.load(tiny()), given, input_path=given)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        (".", "is a folder"),
        ("none/slim.onnx", "does not exist"),
        ("/dev/null", "not a regular"),
        ("/proc/x.onnx", "cannot"),
    ],
)
def test_places_that_cannot_be_written(name: str, message: str, tmp_path: Path) -> None:
    with pytest.raises(OutputError, match=message) as caught:
        door.save(door.load(tiny()), tmp_path / name)
    assert caught.value.hint


@pytest.mark.parametrize("interrupt", [KeyboardInterrupt, OSError(28, "No space left on device")])
@pytest.mark.parametrize("moment", ["serializing", "writing data", "first rename", "second rename"])
@pytest.mark.parametrize("existing", [True, False], ids=["over an old output", "anew"])
def test_an_interrupted_save_changes_nothing(
    interrupt: BaseException, moment: str, existing: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    slim = tmp_path / "slim.onnx"
    monkeypatch.setattr(door, "INLINE_LIMIT", 0)
    if existing:
        door.save(door.load(tiny(numpy_helper.from_array(WEIGHT * 2, "w"))), slim)
    before = {path: path.read_bytes() for path in tmp_path.iterdir()}
    model = door.load(tiny())
    replace, calls = os.replace, iter(["first rename", "second rename"])

    def fail(*_: object, **__: object) -> None:
        raise interrupt

    def failing_replace(source: str | Path, final: str | Path) -> None:
        if Path(final).parent == tmp_path and next(calls, None) == moment:
            raise interrupt
        replace(source, final)

    with monkeypatch.context() as patch:
        if moment == "serializing":
            patch.setattr(onnx, "save", fail)
        elif moment == "writing data":
            patch.setattr(ir.LazyTensor, "tofile", fail)
        else:
            patch.setattr(staging.os, "replace", failing_replace)
        with pytest.raises(KeyboardInterrupt if interrupt is KeyboardInterrupt else OutputError):
            door.save(model, slim)
    assert {path: path.read_bytes() for path in tmp_path.iterdir()} == before
    door.save(model, slim)
    np.testing.assert_allclose(output(slim), X @ WEIGHT, rtol=1e-5)


@pytest.mark.parametrize("external", [False, True], ids=["inline", "external"])
def test_a_disk_without_room_is_told_before_anything_is_written(
    external: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(door, "INLINE_LIMIT", 0 if external else 10**9)
    monkeypatch.setattr(staging.shutil, "disk_usage", lambda _: SimpleNamespace(free=WEIGHT.nbytes - 1, total=10**9))
    monkeypatch.setattr(staging.tempfile, "mkdtemp", pytest.fail)
    with pytest.raises(OutputError, match=rf"it needs {WEIGHT.nbytes:,} bytes, and {WEIGHT.nbytes - 1:,} are free"):
        door.save(door.load(tiny()), tmp_path / "slim.onnx", companions={"slim.plan.json": "{}"})
    assert not list(tmp_path.iterdir())


def test_a_disk_that_fills_up_is_told_with_what_was_being_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(door, "INLINE_LIMIT", 0)

    def fill_up(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(ir.LazyTensor, "tofile", fill_up)
    with pytest.raises(
        OutputError, match=r"No space left on device while 16,384 bytes were written; nothing of them was kept"
    ):
        door.save(door.load(tiny()), tmp_path / "slim.onnx")
    assert not list(tmp_path.iterdir())


def test_temporary_files_without_room_are_told_with_another_place(monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as patched:
        patched.setattr(staging.shutil, "disk_usage", lambda _: SimpleNamespace(free=9, total=10**9))
        with pytest.raises(OutputError, match=r"temporary files in .*: it needs 10 bytes, and 9 are free") as caught:
            with staging.temporary_folder(10):
                pytest.fail("it was opened")
        assert "TMPDIR" in caught.value.hint
    message = r"temporary files in .*: No space left"
    with pytest.raises(OutputError, match=message), staging.temporary_folder() as folder:
        raise OSError(28, "No space left on device")
    assert not folder.exists()
    with pytest.raises(OSError, match="no such file"), staging.temporary_folder():
        raise OSError(2, "no such file")


def test_progress_of_a_data_file_is_told_in_bytes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(door, "INLINE_LIMIT", 0)
    calls: list[tuple[int, int]] = []
    door.save(door.load(tiny()), tmp_path / "slim.onnx", progress=lambda done, total: calls.append((done, total)))
    assert calls == [(0, WEIGHT.nbytes)]


def test_the_data_may_be_split_and_come_back(tmp_path: Path) -> None:
    """Three weights of 16 KiB in files of two; what is written over them later leaves none of these."""
    graph = helper.make_graph(
        [helper.make_node("Sum", ["a", "b", "c"], ["w"]), helper.make_node("MatMul", ["x", "w"], ["y"])],
        "split",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["batch", 64])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["batch", 64])],
        [numpy_helper.from_array(WEIGHT * k, name) for k, name in enumerate("abc", 1)],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)
    slim = tmp_path / "slim.v2.onnx"
    calls: list[int] = []
    files = door.save(door.load(model), slim, shard=2 * WEIGHT.nbytes, progress=lambda done, _: calls.append(done))
    assert files[0] == slim and [path.stat().st_size for path in files[1:]] == [2 * WEIGHT.nbytes, WEIGHT.nbytes]
    assert calls == [0, WEIGHT.nbytes, 2 * WEIGHT.nbytes]
    assert {path.name for path in tmp_path.iterdir()} == {path.name for path in files}
    assert output(slim).tobytes() == output(model).tobytes()
    (tmp_path / "again").mkdir()
    again = door.save(door.load(slim), tmp_path / "again" / "one.onnx")
    assert output(again[0]).tobytes() == output(model).tobytes()
    shutil.rmtree(tmp_path / "again")
    whole = door.save(door.load(model), slim)
    assert {path.name for path in tmp_path.iterdir()} == {path.name for path in whole} == {slim.name}


def test_large_weights_begin_where_files_can_be_mapped(tmp_path: Path) -> None:
    large = np.ones((1 << 19), np.float32)
    names = {"small": WEIGHT, "large": large, "last": large * 2}
    graph = helper.make_graph(
        [helper.make_node("Sum", ["x", "last", "large"], ["y"]), helper.make_node("MatMul", ["z", "small"], ["v"])],
        "mapped",
        [helper.make_tensor_value_info("x", 1, [1 << 19]), helper.make_tensor_value_info("z", 1, ["batch", 64])],
        [helper.make_tensor_value_info("y", 1, [1 << 19]), helper.make_tensor_value_info("v", 1, ["batch", 64])],
        [numpy_helper.from_array(array, name) for name, array in names.items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)
    path, _ = door.save(door.load(model), tmp_path / "m.onnx", shard=1 << 30)
    tensors = {each.name: each for each in onnx.load(path, load_external_data=False).graph.initializer}
    offsets = {name: {e.key: e.value for e in tensors[name].external_data}["offset"] for name in ("large", "last")}
    assert all(int(offset) % (1 << 16) == 0 for offset in offsets.values())


def test_a_data_file_that_goes_while_it_is_read_is_named_with_its_tensor(tmp_path: Path) -> None:
    model = door.load(write_external(tmp_path))
    tensor = model.graph.initializers["w"].const_value
    assert tensor is not None
    (tmp_path / "w.bin").write_bytes(b"")
    with pytest.raises(ModelError, match=r"w\.bin cannot be read any more; it holds 'w'"):
        read_weight(tensor)
    (tmp_path / "w.bin").unlink()
    with pytest.raises(ModelError, match=r"w\.bin cannot be read any more; it holds 'w'"):
        read_weight(tensor)


def test_files_get_the_permissions_of_any_new_file_or_keep_their_own(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(door, "INLINE_LIMIT", 0)
    plain = tmp_path / "plain"
    plain.touch()
    slim, plan = tmp_path / "slim.onnx", tmp_path / "slim.plan.json"
    slim.touch()
    slim.chmod(0o6700)  # setuid and setgid are not for new content
    written = door.save(door.load(tiny()), slim, companions={plan.name: "{}"})
    data = data_file(slim)
    assert written == (slim, data, plan)
    assert stat.S_IMODE(slim.stat().st_mode) == 0o700
    assert stat.S_IMODE(data.stat().st_mode) == stat.S_IMODE(plain.stat().st_mode) == stat.S_IMODE(plan.stat().st_mode)
    assert plan.read_text() == "{}"


def test_a_link_at_the_target_is_replaced_and_not_followed(tmp_path: Path) -> None:
    (tmp_path / "kept").write_text("kept")
    (tmp_path / "slim.onnx").symlink_to("kept")
    door.save(door.load(tiny()), tmp_path / "slim.onnx")
    assert (tmp_path / "kept").read_text() == "kept"
    assert output(tmp_path / "slim.onnx").shape == (3, 64)


def test_the_same_target_twice_leaves_one_data_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(door, "INLINE_LIMIT", 0)
    slim = tmp_path / "slim.onnx"
    legacy = tmp_path / "slim.onnx.data"
    onnx.save(tiny(), slim, save_as_external_data=True, location=legacy.name, size_threshold=0)
    strange = tmp_path / "slim.onnx.mine.data"
    strange.touch()
    for scale in (1, 2, 2, 3):
        door.save(door.load(tiny(numpy_helper.from_array(WEIGHT * scale, "w"))), slim)
        assert {*tmp_path.iterdir()} == {slim, data_file(slim), strange}
        np.testing.assert_allclose(output(slim), X @ WEIGHT * scale, rtol=1e-5)
    monkeypatch.setattr(door, "INLINE_LIMIT", 10**9)
    door.save(door.load(tiny()), slim)
    assert {*tmp_path.iterdir()} == {slim, strange}


def test_a_name_that_is_no_utf_8_has_data_whose_name_is(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(door, "INLINE_LIMIT", 0)
    slim = tmp_path / os.fsdecode(b"\xffslim.onnx")
    for _ in range(2):
        written = door.save(door.load(tiny()), slim)
        assert written == (slim, data_file(slim)) and written[1].name.startswith("_slim.onnx.")
        assert {*tmp_path.iterdir()} == {*written}


def test_data_of_an_input_stay_though_the_name_is_taken_over(tmp_path: Path) -> None:
    """A model that lies beside a target that names its data, too."""
    (tmp_path / "slim.onnx.data").write_bytes(WEIGHT.tobytes())
    for name in ("model.onnx", "slim.onnx"):
        (tmp_path / name).write_bytes(tiny(outside("slim.onnx.data")).SerializeToString())
    door.save(door.load(tmp_path / "model.onnx"), tmp_path / "slim.onnx")
    assert output(tmp_path / "model.onnx").tobytes() == output(tmp_path / "slim.onnx").tobytes()


KILLED = """
import os, signal, sys
import onnx_ir as ir
from prunegraph.export import onnx_file as door
door.INLINE_LIMIT = 0
source, target, stop = sys.argv[1], sys.argv[2], int(sys.argv[3])
model, count, replace = door.load(source), 0, os.replace
def counted(*arguments):
    global count
    replace(*arguments)
    count += os.path.dirname(arguments[1]) == os.path.dirname(target)
    if count == stop:
        os.kill(os.getpid(), signal.SIGKILL)
def half(tensor, file):
    file.write(tensor.tobytes()[: tensor.nbytes // 2])
    file.flush()
    os.kill(os.getpid(), signal.SIGKILL)
os.replace = counted
if not stop:
    ir.LazyTensor.tofile = half
door.save(model, target, companions={"slim.plan.json": "{}"})
"""


@pytest.mark.slow
def test_a_kill_in_the_data_or_between_two_files_leaves_all_old_or_all_new_and_the_next_run_cleans_up(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(door, "INLINE_LIMIT", 0)
    given, folder = tmp_path / "given.onnx", tmp_path / "out"
    folder.mkdir()
    given.write_bytes(tiny(numpy_helper.from_array(WEIGHT * 2, "w")).SerializeToString())
    slim = folder / "slim.onnx"
    kills = []
    for stop in (0, 1, 2, 3, 4):
        door.save(door.load(tiny()), slim)
        code = subprocess.run([sys.executable, "-c", KILLED, given, slim, str(stop)], timeout=60).returncode
        kills.append(code)
        scale = 2 if stop >= 3 else 1
        np.testing.assert_allclose(output(slim), X @ WEIGHT * scale, rtol=1e-5)
    assert kills == [-signal.SIGKILL] * 4 + [0]
    door.save(door.load(tiny()), slim)
    assert {*folder.iterdir()} == {slim, data_file(slim), folder / "slim.plan.json"}


def test_what_another_process_is_writing_stays(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(door, "INLINE_LIMIT", 0)
    slim = tmp_path / "slim.onnx"
    theirs = tmp_path / f"{staging._staging(slim)}{staging._machine()}-{os.getppid()}-x"
    theirs.mkdir()
    data = tmp_path / "slim.onnx.0123456789ab.data"
    data.touch()
    door.save(door.load(tiny()), slim)
    assert theirs.is_dir() and data.is_file()
    theirs.rename(tmp_path / f"{staging._staging(slim)}{staging._machine()}-{2**22 + 1}-x")  # no such process
    door.save(door.load(tiny()), slim)
    assert {*tmp_path.iterdir()} == {slim, data_file(slim)}


@pytest.mark.parametrize("kind", ["path", "ir.Model"])
def test_the_model_of_a_result_needs_no_file(kind: str, tmp_path: Path) -> None:
    """Of a model with external data some weights stay as they were."""
    rng = np.random.default_rng(0)
    weights = {"w1": (64, 64), "w2": (64, 64), "w3": (64, 64)}
    nodes = [
        helper.make_node("MatMul", ["x", "w1"], ["h"]),
        helper.make_node("Relu", ["h"], ["r"]),
        helper.make_node("MatMul", ["r", "w2"], ["z"]),
        helper.make_node("Softmax", ["z"], ["p"]),
        helper.make_node("MatMul", ["p", "w3"], ["y"]),
    ]
    ends = [helper.make_tensor_value_info(name, TensorProto.FLOAT, ["n", 64]) for name in ("x", "y")]
    values = [numpy_helper.from_array(rng.standard_normal(s).astype("f4"), name) for name, s in weights.items()]
    graph = helper.make_graph(nodes, "outside", ends[:1], ends[1:], values)
    given = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9)
    path = tmp_path / "model.onnx"
    onnx.save(given, path, save_as_external_data=True, location="weights", size_threshold=0)
    result = prune_graph(path if kind == "path" else ir.load(path), 0.5)
    written = result.save(tmp_path / "slim.onnx")
    assert written[1].suffix == ".data"
    model = result.model if isinstance(result.model, onnx.ModelProto) else ir.to_proto(result.model)
    assert not any(tensor.external_data for tensor in model.graph.initializer)
    for each in tmp_path.glob("weights"):
        each.unlink() if kind == "path" else None
    assert output(model).tobytes() == output(tmp_path / "slim.onnx").tobytes()


def test_a_plan_appears_whole_or_not_at_all(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "plan.json"
    old, new = (Selection({"ffn.0": np.array([True, False, last])}) for last in (True, False))
    old.save(path)
    assert Selection.load(path).to_json() == old.to_json()

    def cut_off(self: Path, text: str, **_: object) -> int:
        self.write_bytes(text.encode()[:10])
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patched:
        patched.setattr(Path, "write_text", cut_off)
        with pytest.raises(OutputError, match="No space left"):
            new.save(path)
    assert Selection.load(path).to_json() == old.to_json()
    assert [each.name for each in tmp_path.iterdir()] == ["plan.json"]
    with pytest.raises(OutputError, match="does not exist") as caught:
        new.save(tmp_path / "nowhere" / "plan.json")
    assert caught.value.hint


def test_maps_as_outputs_are_refused_by_name(tmp_path: Path) -> None:
    """What skl2onnx writes by default: probabilities by class."""
    g = Builder("zipmap", opset=17)
    g.domains["ai.onnx.ml"] = 3
    scores = g("Softmax", g("MatMul", g.input("x", None, 4), g.weight("w", 4, 3)))
    g.output(g("ZipMap", scores, domain="ai.onnx.ml", classlabels_int64s=[0, 1, 2]), None)
    model = g.model(full_check=False)
    entry = helper.make_map_type_proto(TensorProto.INT64, helper.make_tensor_type_proto(TensorProto.FLOAT, []))
    model.graph.output[0].type.CopyFrom(helper.make_sequence_type_proto(entry))
    onnx.save(model, tmp_path / "zipmap.onnx")
    with pytest.raises(ModelError, match="'zipmap1' is a map of classes") as refused:
        door.load(tmp_path / "zipmap.onnx")
    assert "'zipmap': False" in (refused.value.hint or "")
