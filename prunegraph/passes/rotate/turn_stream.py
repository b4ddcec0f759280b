"""Turn residual streams: find a basis from what their norms see, fold it into all that writes and reads them."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import numpy as np
import onnx_ir as ir

from prunegraph.analysis.read_weight import read_initializer
from prunegraph.analysis.slots import Keeps
from prunegraph.arrays import Array, Floats
from prunegraph.observe.attention_sites import ObservedValue
from prunegraph.observe.padding import rows_of
from prunegraph.observe.text import Batch
from prunegraph.passes.repair.write import put
from prunegraph.passes.rotate.basis import energy_share, inverse_transposed
from prunegraph.passes.rotate.rotate import Rotation, Turned
from prunegraph.passes.rotate.sites import Held
from prunegraph.passes.rotate.stream import seen_by_norm, stream_basis
from prunegraph.passes.rotate.stream_sites import StreamNorm, StreamTurn


class StreamMoments:
    """For every stream the sum of `seen_by_norm` over its norms and all positions but padding."""

    def __init__(self, turns: Sequence[StreamTurn]) -> None:
        """Gather what the norms of these streams see."""
        self._norms = {turn.group.id: [norm.x for norm in turn.norms] for turn in turns}
        self._centred = {turn.group.id: turn.centred for turn in turns}
        self._sums = {turn.group.id: np.zeros((turn.group.units, turn.group.units)) for turn in turns}

    @property
    def key(self) -> str:
        """Differs where other norms are observed."""
        return f"stream moments/{sorted(self._norms.items())}/{sorted(self._centred.items())}"

    def observed_values(self) -> Sequence[ObservedValue]:
        """The inputs of the norms."""
        return [ObservedValue(name) for name in dict.fromkeys(x for norms in self._norms.values() for x in norms)]

    def update(self, batch: Batch, values: Mapping[str, Array]) -> None:
        """Add one batch; positions that are not finite do not count."""
        for group, norms in self._norms.items():
            for x in norms:
                rows = rows_of(values[x], -1, batch).astype(np.float64)
                rows = rows[np.isfinite(rows).all(axis=1)]
                self._sums[group] += seen_by_norm(rows, centred=self._centred[group])

    def sums(self, group: str) -> Floats:
        """`[width, width]` of one stream."""
        return self._sums[group]

    def merge(self, other: StreamMoments) -> None:
        """Add what another has gathered of the same streams."""
        for group, sums in other._sums.items():
            self._sums[group] += sums

    def state(self) -> dict[str, Array]:
        """One array a stream, numbered."""
        return {f"s{k}": self._sums[group] for k, group in enumerate(sorted(self._sums))}

    def restore(self, state: Mapping[str, Array]) -> None:
        """Take over what `state` once gave."""
        for k, group in enumerate(sorted(self._sums)):
            self._sums[group] = np.asarray(state[f"s{k}"], dtype=np.float64)


def stream_rotation(turns: Sequence[StreamTurn], moments: StreamMoments, widths: Mapping[str, int]) -> Rotation:
    """The bases of streams, each for the width that it shall have."""
    how: dict[str, Turned] = {}
    for turn in turns:
        name = turn.group.id
        basis = stream_basis(moments.sums(name), widths[name], centred=turn.centred)
        how[name] = Turned((basis.matrix[None].astype(np.float32),), energy_share(basis.energy), True)
    return how


def turn_streams(model: ir.Model, turns: Sequence[StreamTurn], how: Rotation) -> None:
    """Change the bases of the streams of a model, in place: it computes what it did.

    Gains and offsets of norms go into what reads them, as they would weigh the directions against each other.
    """
    for turn in turns:
        (matrix,) = how[turn.group.id].matrices[0].astype(np.float64)
        for writer in turn.written:
            _change(model, writer, matrix)
        for norm in turn.norms:
            _turn_norm(model, norm, matrix)


def _turn_norm(model: ir.Model, norm: StreamNorm, matrix: Floats) -> None:
    """Turn back what reads a norm, and give it the gain and the offset, as far as the norm does not keep them."""
    gain = _array(model, norm.gain) if norm.gain else np.ones(len(matrix))
    offset = _array(model, norm.offset) if norm.offset else np.zeros(len(matrix))
    given = np.ones_like(gain) if norm.keeps_gain else gain
    for reader in norm.readers:
        if reader.tied:
            continue  # it has turned with the writers
        if reader.bias and norm.offset:
            assert reader.held.layout is not None
            weight = np.moveaxis(_array(model, reader.held.value), reader.held.layout.axis, -1)
            bias = _array(model, reader.bias)
            put(model, {reader.bias: bias + (weight @ offset).reshape(bias.shape)})
        _change(model, reader.held, given[:, None] * inverse_transposed(matrix))
    left = np.divide(offset, given, out=np.zeros_like(offset), where=offset != 0)
    left = left @ matrix if norm.keeps_offset else np.zeros_like(offset)
    for name, array in ((norm.gain, gain / given), (norm.offset, left)):
        if name:
            put(model, {name: array})


def lengthened(slim: ir.Model, turns: Sequence[StreamTurn], keeps: Keeps) -> dict[str, Array]:
    """Gains of the norms of cut streams, by name: the root of how much larger the mean square of what stays is.

    A norm divides by the mean over fewer numbers; where those that went held nothing, this makes it what it was.

    Args:
        slim: What Shrink made of the turned model.
        turns: Its streams.
        keeps: What stays.
    """
    gains: dict[str, Array] = {}
    for turn in turns:
        keep = keeps.get(turn.group.dim)
        if keep is None:
            continue
        for norm in turn.norms:
            value = slim.graph.initializers.get(norm.gain)
            if value is not None and value.shape is not None:
                gains[norm.gain] = _array(slim, norm.gain) * math.sqrt(turn.group.units / keep.count)
    return gains


def _change(model: ir.Model, weight: Held, matrix: Floats) -> None:
    assert weight.layout is not None
    put(model, {weight.value: weight.layout.times(_array(model, weight.value), matrix[None])})


def _array(model: ir.Model, name: str) -> Floats:
    return np.asarray(read_initializer(model, name), dtype=np.float64)
