"""Laws of weights in data files: who does not need them reads none; who cuts or widens them holds few at a time."""

from __future__ import annotations

import weakref
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnx_ir as ir
import pytest
from onnx import numpy_helper

import prunegraph as pg
from benchmarks.zoo.decoder import DecoderShape, write_decoder
from prunegraph.analysis.read_weight import LateTensor, is_uniform, late, lies_in_file, read_samples, read_weight
from prunegraph.runtime import blocks

pytestmark = pytest.mark.slow

LARGE = 4096
"""Numbers in a weight of rank 2 of the decoders here, at least."""


def decoder(folder: Path, layers: int) -> Path:
    path = folder / f"decoder{layers}.onnx"
    shape = DecoderShape(layers, hidden=256, heads=8, kv_heads=2, head_dim=32, ffn=2048, vocabulary=64)
    write_decoder(shape, path, half=True)
    return path


class Weights:
    """What is read of data files and made of that: how many bytes at once at most, and the largest piece."""

    def __init__(self) -> None:
        self.alive: dict[int, int] = {}
        self.peak = self.largest = 0

    def add(self, array: np.ndarray[Any, Any]) -> None:
        key = id(array)
        self.alive[key] = array.nbytes
        weakref.finalize(array, self.alive.pop, key, None)
        self.peak = max(self.peak, sum(self.alive.values()))
        self.largest = max(self.largest, array.size)


@contextmanager
def watched(monkeypatch: pytest.MonkeyPatch) -> Iterator[Weights]:
    weights, read, make = Weights(), ir.ExternalTensor.numpy, LateTensor._evaluate

    def watch_read(tensor: ir.ExternalTensor) -> np.ndarray[Any, Any]:
        array = read(tensor)
        weights.add(array)
        return array

    def watch_make(tensor: LateTensor) -> ir.TensorProtocol:
        proto = make(tensor)
        weights.add(proto.numpy())
        return proto

    with monkeypatch.context() as patch:
        patch.setattr(ir.ExternalTensor, "numpy", watch_read)
        patch.setattr(LateTensor, "_evaluate", watch_make)
        yield weights


def test_analysis_reads_no_weight_whole(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with watched(monkeypatch) as weights:
        graph = pg.analyze(decoder(tmp_path, 2))
    assert {group.kind for group in graph.groups} >= {"ffn", "kv_group", "hidden"}
    assert 0 < weights.largest < LARGE


def test_pruning_without_proof_holds_a_few_weights_at_a_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with watched(monkeypatch) as weights:
        result = pg.prune_graph(decoder(tmp_path, 3), 0.3, verify=False)
        tensors = [value.const_value for value in result.ir_model.graph.initializers.values()]
        assert all(lies_in_file(tensor) for tensor in tensors if tensor is not None and tensor.size >= LARGE)
        result.save(tmp_path / "slim.onnx")
    largest = 256 * 2048 * 2
    assert largest <= weights.peak <= 4 * largest < (tmp_path / "decoder3.onnx.data").stat().st_size / 2


def test_the_proof_of_many_layers_holds_the_weights_of_a_block(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A block is one weight here: in memory are what it is read of, and what is made of that."""
    largest = 64 * 256 * 4
    monkeypatch.setattr(blocks, "BYTES_A_BLOCK", largest)
    path = tmp_path / "narrow.onnx"
    shape = DecoderShape(layers=10, hidden=64, heads=4, kv_heads=2, head_dim=16, ffn=256, vocabulary=64)
    write_decoder(shape, path, half=True)
    with watched(monkeypatch) as weights:
        assert pg.prune_graph(path, {"ffn": 0.3}).report.verify
    assert largest <= weights.peak <= 4 * largest < shape.parameters * 4 / 8


def test_a_model_in_a_data_file_is_pruned_as_one_in_memory(tmp_path: Path) -> None:
    path = decoder(tmp_path, 2)
    slim = [pg.prune_graph(model, {"ffn": 0.3, "kv_group": 0.5}).model for model in (path, onnx.load(path))]
    weights = [{t.name: numpy_helper.to_array(t) for t in model.graph.initializer} for model in slim]
    assert weights[0].keys() == weights[1].keys()
    assert all(np.array_equal(weights[0][name], weights[1][name]) for name in weights[0])


def external(folder: Path, array: np.ndarray[Any, Any], dtype: ir.DataType | None = None) -> ir.ExternalTensor:
    (folder / "w.bin").write_bytes(b"head" + ir.tensor(array).tobytes())
    dtype = dtype or ir.DataType.from_numpy(array.dtype)
    nbytes = len((folder / "w.bin").read_bytes()) - 4
    return ir.ExternalTensor("w.bin", 4, nbytes, dtype, shape=ir.Shape(array.shape), name="w", base_dir=str(folder))


@pytest.mark.parametrize("dtype", ["float32", "float16", "bfloat16", "int8", "int4"])
def test_samples_of_a_file_are_those_of_the_array(dtype: str, tmp_path: Path) -> None:
    array = np.arange(7 * 11).reshape(7, 11) % 8
    typed = array.astype(ir.DataType[dtype.upper()].numpy() if dtype != "float32" else np.float32)
    tensor = external(tmp_path, typed)
    expected = typed.reshape(-1)
    assert np.array_equal(read_samples(tensor, 3, 5), np.stack([expected[k : k + 5] for k in (0, 25, 50)]))
    assert np.array_equal(read_samples(ir.tensor(typed), 3, 5), read_samples(tensor, 3, 5))
    assert np.array_equal(read_weight(tensor), typed)


@pytest.mark.parametrize(("place", "uniform"), [(None, True), (0, False), (3, False), (76, False)])
def test_one_number_everywhere_is_uniform(place: int | None, uniform: bool, tmp_path: Path) -> None:
    array = np.full(77, 2.5, np.float32)
    if place is not None:
        array[place] = 0
    assert is_uniform(external(tmp_path, array)) == is_uniform(ir.tensor(array)) == uniform


def test_what_is_made_late_is_made_of_the_stated_shape() -> None:
    good = late(lambda: np.zeros((2, 3), np.float32), ir.DataType.FLOAT, (2, 3), "w")
    assert lies_in_file(good) and good.nbytes == 24 and good.numpy().shape == (2, 3)
    bad = late(lambda: np.zeros((3, 2), np.float32), ir.DataType.FLOAT, (2, 3), "w")
    with pytest.raises(AssertionError, match="was to have the shape"):
        bad.numpy()
