"""What is timed is stored once, whatever its size and wherever its weights lie."""

from __future__ import annotations

from pathlib import Path

import onnx_ir as ir
import pytest

from prunegraph.speed.timer import Stored, Timer
from tests.speed.machine import network


def test_a_model_with_a_data_file_is_timed_and_profiled(tmp_path: Path) -> None:
    ir.save(ir.from_proto(network()), tmp_path / "model.onnx", external_data="model.data")
    model = ir.load(tmp_path / "model.onnx")
    timer = Timer("cpu", {"batch": 2})
    timed = timer.pair(model, ir.from_proto(network()), rounds=6, warmup=0)
    assert [row.model for row in timed.results] == ["whole", "slim"] and timed.results[1].ratio is not None
    whole, slim = timer.profiles(model, ir.from_proto(network()))
    assert "LayerNormalization" in " ".join(whole) and set(whole) == set(slim)


def test_a_message_that_is_too_long_becomes_a_file(monkeypatch: pytest.MonkeyPatch) -> None:
    model = ir.from_proto(network())
    assert isinstance(Stored.of(model).source, bytes)

    class Long:
        def SerializeToString(self) -> bytes:
            raise ValueError("exceeds maximum protobuf size of 2GB")

    monkeypatch.setattr("prunegraph.speed.timer.ir.to_proto", lambda model: Long())
    stored = Stored.of(model)
    monkeypatch.undo()
    assert isinstance(stored.source, str) and len(ir.load(stored.source).graph) == len(model.graph)
    folder = Path(stored.source).parent
    del stored
    assert not folder.exists()


def test_what_others_are_compared_with_is_stored_once(monkeypatch: pytest.MonkeyPatch) -> None:
    stored: list[ir.Model] = []
    of = Stored.of

    def counted(model: ir.Model) -> Stored:
        stored.append(model)
        return of(model)

    monkeypatch.setattr(Stored, "of", staticmethod(counted))
    model, slim = ir.from_proto(network()), ir.from_proto(network())
    timer = Timer("cpu")
    timer.pair(model, slim, rounds=6, warmup=0)
    timer.other().pair(model, slim, rounds=6, warmup=0)
    timer.profiles(model, slim)
    timer.pair(model, model, rounds=6, warmup=0)
    assert sum(each is model for each in stored) == 1
