"""Turn groups: find a basis from data, or from the weights alone, and fold it into the weights.  No op is added."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import onnx_ir as ir

from prunegraph.analysis.read_weight import read_initializer
from prunegraph.arrays import Floats
from prunegraph.passes.repair.write import put
from prunegraph.passes.rotate.basis import (
    Basis,
    centred,
    compared_basis,
    energy_share,
    inverse_transposed,
    orthogonal_basis,
    read_basis,
)
from prunegraph.passes.rotate.moments import HeadMoments, Place
from prunegraph.passes.rotate.sites import Held, Part, Turn


@dataclass(frozen=True, slots=True)
class Turned:
    """The bases of one group.

    Attributes:
        matrices: One a part, `[rows, units, units]` in float32: a plan keeps them.
        energy: Of the group's shape: every new dim's share of what the group contributes, descending in each row.
        by_data: Whether data chose the bases; else the weights alone did.
    """

    matrices: tuple[npt.NDArray[np.float32], ...]
    energy: Floats
    by_data: bool


Rotation = Mapping[str, Turned]
"""By id of a group, how it was turned."""


def places(turns: Sequence[Turn]) -> list[Place]:
    """The activations whose moments say how the groups should be turned."""
    observed = [each for turn in turns for part in turn.parts for each in _observed(part)]
    return [(each.value, each.layout) for each in observed if each.layout is not None]


def rotation(model: ir.Model, turns: Sequence[Turn], moments: HeadMoments | None = None) -> Rotation:
    """The bases of groups that may be turned.

    Args:
        model: The normalized model.
        turns: The groups.
        moments: The moments at `places`; None where there are no data.
    """
    return {turn.group.id: _turned(model, turn, moments) for turn in turns}


def rotated(model: ir.Model, turns: Sequence[Turn], how: Rotation) -> ir.Model:
    """A copy of the model with the bases of its groups changed: it computes what it did.

    All is computed in float64 and stored in the format that a weight had.

    Args:
        model: The normalized model.
        turns: The groups that turn.
        how: Their bases.
    """
    changed: dict[str, Floats] = {}
    for turn in turns:
        for part, matrices in zip(turn.parts, how[turn.group.id].matrices, strict=True):
            straight = matrices.astype(np.float64)
            for side, factors in ((part.turned, straight), (part.mirrored, inverse_transposed(straight))):
                for place in side:
                    assert place.layout is not None
                    before = changed.get(place.value)
                    array = read_initializer(model, place.value) if before is None else before
                    changed[place.value] = place.layout.times(array, factors)
    twin = model.clone()
    put(twin, changed)
    return twin


def _turned(model: ir.Model, turn: Turn, moments: HeadMoments | None) -> Turned:
    rows = int(np.prod(turn.group.rows))
    bases: list[list[Basis]] = []
    data = moments is not None and all(each.layout is not None for part in turn.parts for each in _observed(part))
    for part in turn.parts:
        sides = _from_data(model, part, rows, moments) if moments is not None and data else None
        data = data and sides is not None
        first, second = sides or _from_weights(model, part, rows)
        bases.append([_basis(part, first[row], second[row]) for row in range(rows)])
    matrices = tuple(np.stack([basis.matrix for basis in each]).astype(np.float32) for each in bases)
    shares = [energy_share(np.stack([basis.energy for basis in each])) for each in bases]
    return Turned(matrices, np.asarray(sum(shares)).reshape(turn.group.shape), data)


def _basis(part: Part, first: Floats, second: Floats) -> Basis:
    """Of moments on both sides, or of moments and what reads."""
    if part.orthogonal:
        return orthogonal_basis(first, second @ second.T if part.read else second)
    return read_basis(first, second) if part.read else compared_basis(first, second)


def _observed(part: Part) -> list[Held]:
    return [*part.read, *(side for pair in part.compared for side in (pair.left, pair.right))]


Sides = tuple[Sequence[Floats], Sequence[Floats]]


def _from_data(model: ir.Model, part: Part, rows: int, head_moments: HeadMoments) -> Sides | None:
    """Moments of the first side, and of the other or what reads it; None where nothing was seen."""
    if part.read:
        moments = sum(_sums(model, head_moments, place)[:, :-1, :-1] for place in part.read)
        return list(np.asarray(moments)), _readers(model, part, rows)
    if not part.compared:
        return None
    sides: list[Floats] = []
    for side in (0, 1):
        total: Floats | float = 0.0
        for pair in part.compared:
            place = (pair.left, pair.right)[side]
            sums = _shifted(model, _sums(model, head_moments, place), pair.biases[side])
            if place is pair.keys:
                total = total + np.stack([centred(m[:-1, :-1], m[-1, :-1], m[-1, -1]) for m in sums])
            else:
                total = total + sums[:, :-1, :-1]
        sides.append(np.asarray(total))
    return list(sides[0]), list(sides[1])


def _sums(model: ir.Model, moments: HeadMoments, place: Held) -> Floats:
    """`Σ z zᵀ` with `z = (units, 1)` by row; of units that an op makes inside from those of what it is given."""
    assert place.layout is not None
    sums = moments.sums(place.value, place.layout)
    if not place.through:
        return sums
    weight, *biases = place.through
    assert weight.layout is not None and all(bias.layout is not None for bias in biases)
    offsets = [bias.layout.blocks(read_initializer(model, bias.value)) for bias in biases if bias.layout is not None]
    units = weight.layout.positions.shape[1] + 1
    total = np.zeros((int(np.prod(weight.layout.rows)), units, units))
    for (row, block), *added in zip(weight.layout.blocks(read_initializer(model, weight.value)), *offsets, strict=True):
        makes = np.pad(block, ((0, 1), (0, 1)))
        makes[-1, -1] = 1
        for _, offset in added:
            makes[-1, :-1] += offset[0]
        total[row] += makes.T @ sums[0] @ makes
    return total


def _shifted(model: ir.Model, sums: Floats, bias: Held | None) -> Floats:
    """Moments of `x + b` from those of `x`."""
    if bias is None or bias.layout is None:
        return sums
    moved = np.array(sums)
    for row, block in bias.layout.blocks(read_initializer(model, bias.value)):
        shift = np.eye(sums.shape[-1])
        shift[-1, :-1] = block[0]
        moved[row] = shift.T @ sums[row] @ shift
    return moved


def _from_weights(model: ir.Model, part: Part, rows: int) -> Sides:
    """What the weights make of inputs that are all alike: `W Wᵀ + b bᵀ` stands in for the moments."""
    first = _products(model, part.turned, rows)
    return first, _readers(model, part, rows) if part.read else _products(model, part.mirrored, rows)


def _products(model: ir.Model, side: Sequence[Held], rows: int) -> list[Floats]:
    return [z.T @ z for z in _stacked(model, side, rows)]


def _readers(model: ir.Model, part: Part, rows: int) -> list[Floats]:
    return [z.T for z in _stacked(model, part.mirrored, rows)]


def _stacked(model: ir.Model, side: Sequence[Held], rows: int) -> list[Floats]:
    """By row, all that weights hold along the Dim, `[places, units]`."""
    blocks_of_row: list[list[Floats]] = [[] for _ in range(rows)]
    for weight in side:
        assert weight.layout is not None
        for row, block in weight.layout.blocks(read_initializer(model, weight.value)):
            blocks_of_row[row].append(block)
    return [np.concatenate(blocks) for blocks in blocks_of_row]
