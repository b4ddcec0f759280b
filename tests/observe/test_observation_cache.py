"""The cache of observations: one model never gets another's, and whatever is odd counts as absent."""

from __future__ import annotations

import io
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt
import onnx
import onnx_ir as ir
import pytest
from onnx import TensorProto, helper, numpy_helper

from prunegraph.export.onnx_file import load
from prunegraph.observe import cache
from prunegraph.observe.fingerprint import fingerprint

N = 2048
Numbers = npt.NDArray[np.float64]


def branching(table: Numbers | None = None, scale: float = 1.0, words: Sequence[str] = ("a", "b")) -> onnx.ModelProto:
    """`y = x * table`, the table a Constant in both branches of an If; nodes have no names."""
    table = np.ones(N) if table is None else table
    bodies = []
    for name in ("then", "else"):
        value = numpy_helper.from_array(table.astype("f4"), f"{name}_table")
        constant = helper.make_node("Constant", [], [f"{name}_value"], value=value)
        out = helper.make_tensor_value_info(f"{name}_value", TensorProto.FLOAT, [N])
        bodies.append(helper.make_graph([constant], name, [], [out]))
    nodes = [
        helper.make_node("If", ["condition"], ["g"], then_branch=bodies[0], else_branch=bodies[1]),
        helper.make_node("Mul", ["x", "g"], ["scaled"]),
        helper.make_node("LeakyRelu", ["scaled"], ["y"], alpha=scale),
        helper.make_node("Constant", [], ["words"], value_strings=list(words)),
    ]
    graph = helper.make_graph(
        nodes,
        "branching",
        [
            helper.make_tensor_value_info("x", TensorProto.FLOAT, ["b", N]),
            helper.make_tensor_value_info("condition", TensorProto.BOOL, []),
        ],
        [
            helper.make_tensor_value_info("y", TensorProto.FLOAT, ["b", N]),
            helper.make_tensor_value_info("words", TensorProto.STRING, [2]),
        ],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)


def test_a_model_has_one_fingerprint_however_it_is_loaded(tmp_path: Path) -> None:
    model = branching()
    path = tmp_path / "model.onnx"
    onnx.save(model, path)
    prints = {fingerprint(load(model)), fingerprint(load(path)), fingerprint(load(path).clone())}
    onnx.save(model, tmp_path / "outside.onnx", save_as_external_data=True, location="data", size_threshold=0)
    assert len({*prints, fingerprint(load(tmp_path / "outside.onnx"))}) == 1


def other_last() -> Numbers:
    table = np.ones(N)
    table[-1] = 2
    return table


OTHERS: dict[str, Callable[[], onnx.ModelProto]] = {
    "one number of a table in a branch": lambda: branching(other_last()),
    "an attribute": lambda: branching(scale=0.5),
    "a text": lambda: branching(words=("a", "c")),
    "the place of a comma": lambda: branching(words=("a', 'b", "")),
}


@pytest.mark.parametrize("what", OTHERS)
def test_whatever_differs_gives_another_fingerprint(what: str) -> None:
    assert fingerprint(load(OTHERS[what]())) != fingerprint(load(branching()))


def test_numbers_of_every_type_count() -> None:
    for dtype in (ir.DataType.BFLOAT16, ir.DataType.INT4, ir.DataType.BOOL, ir.DataType.FLOAT8E4M3FN):
        prints = set()
        for last in (0, 1):
            model = load(branching())
            array = np.array([0, 1, last]).astype(dtype.numpy())
            model.graph.register_initializer(
                ir.Value(name="more", const_value=ir.Tensor(array, dtype=dtype, name="more"))
            )
            prints.add(fingerprint(model))
        assert len(prints) == 2, dtype


class Counts:
    """A statistic whose numbers are easy to know."""

    key = "counts"

    def __init__(self) -> None:
        self.numbers, self.name, self.gathered = np.zeros(3), "", 0

    def state(self) -> dict[str, npt.NDArray[np.generic]]:
        return {"numbers": self.numbers, "name": np.array([self.name])}

    def restore(self, state: object) -> None:
        self.numbers, self.name = state["numbers"], str(state["name"][0])  # type: ignore[index]


def through(folder: Path, model: ir.Model, data: str = "data") -> Counts:
    def gather(missing: Sequence[Counts]) -> None:
        for each in missing:
            each.numbers, each.name, each.gathered = np.array([1.0, 2.0, 3.0]), "whole", each.gathered + 1

    counts = Counts()
    cache.through_cache([counts], gather, model, data, folder)
    return counts


def rewritten(change: Callable[[dict[str, npt.NDArray[np.generic]]], None]) -> Callable[[bytes], bytes]:
    """The archive with other arrays, in order otherwise."""

    def edit(content: bytes) -> bytes:
        arrays = dict(np.load(io.BytesIO(content)))
        change(arrays)
        target = io.BytesIO()
        np.savez(target, **arrays)  # type: ignore[arg-type]
        return target.getvalue()

    return edit


ODD: dict[str, Callable[[bytes], bytes]] = {
    "empty": lambda content: b"",
    "cut short": lambda content: content[: len(content) // 2],
    "cut by a byte": lambda content: content[:-1],
    "text": lambda content: b"hello",
    "one bit": lambda content: content[:200] + bytes([content[200] ^ 1]) + content[201:],
    "another number": rewritten(lambda arrays: arrays.update(numbers=np.array([1.0, 2.0, 4.0]))),
    "another shape": rewritten(lambda arrays: arrays.update(numbers=np.array([[1.0, 2.0, 3.0]]))),
    "another type": rewritten(lambda arrays: arrays.update(numbers=np.array([1, 2, 3]))),
    "an array more": rewritten(lambda arrays: arrays.update(more=np.zeros(1))),
    "an array less": rewritten(lambda arrays: arrays.__delitem__("name")),
    "no checksum": rewritten(lambda arrays: arrays.__delitem__("checksum")),
    "objects": rewritten(lambda arrays: arrays.update(numbers=np.array([None], dtype=object))),
}


@pytest.mark.parametrize("what", ODD)
def test_a_file_that_is_odd_is_gathered_again_and_replaced(what: str, tmp_path: Path) -> None:
    model = load(branching())
    assert through(tmp_path, model).gathered == 1 and through(tmp_path, model).gathered == 0
    (path,) = tmp_path.iterdir()
    path.write_bytes(ODD[what](path.read_bytes()))
    again = through(tmp_path, model)
    assert again.gathered == 1 and again.numbers.tolist() == [1, 2, 3]
    assert through(tmp_path, model).gathered == 0
    assert list(tmp_path.iterdir()) == [path]


def test_a_file_under_the_name_of_another_is_odd_too(tmp_path: Path) -> None:
    model = load(branching())
    through(tmp_path, model)
    (first,) = tmp_path.iterdir()
    through(tmp_path, model, "other data")
    (second,) = set(tmp_path.iterdir()) - {first}
    second.write_bytes(first.read_bytes())
    assert through(tmp_path, model, "other data").gathered == 1


def test_another_version_reads_nothing_of_this_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    model = load(branching())
    through(tmp_path, model)
    monkeypatch.setattr(cache, "installed_version", lambda otherwise: "0.0.0")
    assert through(tmp_path, model).gathered == 1


def test_what_cannot_be_written_is_no_failure_and_leaves_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object, **__: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(cache.np, "savez", full)
    assert through(tmp_path, load(branching())).gathered == 1
    assert not list(tmp_path.iterdir())
