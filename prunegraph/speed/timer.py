"""Time models side by side on one provider, the same way for tables, for promises and for reports."""

from __future__ import annotations

import contextlib
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import onnx_ir as ir

from prunegraph.bench.compare import compare
from prunegraph.bench.device_table import WHOLE
from prunegraph.bench.latency import PROTOCOLS
from prunegraph.bench.profile import profile
from prunegraph.bench.results import Comparison
from prunegraph.bench.stats import PairedRatio

ROUNDS, TABLE_ROUNDS, MORE_ROUNDS = 60, 30, 240
"""Rounds of a timing: for what is promised, for a table, and for a promise where the interval is wide."""

WIDE = 0.03
"""Wider intervals, as a share of the ratio, are timed once more with `MORE_ROUNDS`."""

PAIR_SECONDS = 45.0
"""For one timing, at most."""

TIMING: Mapping[str, Any] = {"rounds": ROUNDS, "warmup": 5, "max_seconds": PAIR_SECONDS}


@dataclass(frozen=True, slots=True)
class Stored:
    """A model as sessions read it: a message, or a file where it is too long for one.

    Attributes:
        source: The message, or the path.
        folder: Holds the file as long as somebody holds this.
    """

    source: bytes | str
    folder: tempfile.TemporaryDirectory[str] | None = None

    @staticmethod
    def of(model: ir.Model) -> Stored:
        """Store a model: in one message, unless its weights lie elsewhere or are too many for one."""
        weights = [value.const_value for value in model.graph.initializers.values()]
        if not any(isinstance(weight, ir.ExternalTensor) for weight in weights):
            with contextlib.suppress(ValueError):  # protobuf writes no message of more than 2 GB
                return Stored(ir.to_proto(model).SerializeToString())
        folder = tempfile.TemporaryDirectory(prefix="prunegraph-")
        path = Path(folder.name) / "model.onnx"
        ir.save(model, path, external_data="model.onnx.data")
        return Stored(str(path), folder)


@dataclass(slots=True)
class Timer:
    """Times models side by side on one provider.

    Attributes:
        ep: Its short name.
        settings: Batch, sequence, sizes, threads and protocol, see `bench.compare`.
    """

    ep: str
    settings: Mapping[str, Any] = field(default_factory=dict)
    _last: tuple[ir.Model, Stored] | None = field(default=None, repr=False)

    @property
    def protocol(self) -> str:
        """How models take turns."""
        return str(self.settings.get("protocol", next(iter(PROTOCOLS))))

    def pair(self, first: ir.Model, second: ir.Model, *, name: str = "slim", **settings: Any) -> Comparison:
        """Two models side by side.

        Args:
            first: What the second is compared with; it is serialized once as long as it stays the same object.
            second: The other.
            name: What the second is called.
            settings: Other than those of the timer, see `bench.compare`.
        """
        whole = self._whole(first)
        other = whole if second is first else Stored.of(second)
        both = [whole.source, other.source]
        return compare(both, names=[WHOLE, name], providers=[self.ep], **{**TIMING, **self.settings, **settings})

    def sure_pair(self, first: ir.Model, second: ir.Model) -> Comparison:
        """Two models side by side, once more with more rounds where the machine is noisy.

        Args:
            first: What the second is compared with.
            second: The other.
        """
        timed = self.pair(first, second)
        ratio = timed.results[1].ratio
        if ratio is not None and ratio.high - ratio.low > WIDE * ratio.median:
            timed = self.pair(first, second, rounds=MORE_ROUNDS)
        return timed

    def ratio(self, first: ir.Model, second: ir.Model, **settings: Any) -> PairedRatio:
        """How many times faster the second is."""
        ratio = self.pair(first, second, **settings).results[1].ratio
        assert ratio is not None
        return ratio

    def profiles(self, first: ir.Model, second: ir.Model) -> tuple[dict[str, float], dict[str, float]]:
        """Milliseconds of a run by op type, of both.

        Raises:
            ModelError: ONNX Runtime cannot run one of them.
        """
        both = self._whole(first), Stored.of(second)
        whole, slim = (profile(each.source, self.ep, **self.settings) for each in both)
        return whole, slim

    def other(self) -> Timer:
        """A timer with the other protocol."""
        names = [name for name in PROTOCOLS if name != self.protocol]
        return Timer(self.ep, {**self.settings, "protocol": names[0]}, self._last)

    def _whole(self, model: ir.Model) -> Stored:
        if self._last is None or self._last[0] is not model:
            self._last = model, Stored.of(model)
        return self._last[1]
