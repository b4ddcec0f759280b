"""Laws of unification: what Dims are made of never changes but by refinement, and a CannotUnify leaves no trace."""

from __future__ import annotations

from math import gcd
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from prunegraph.analysis.slots import axis_size
from prunegraph.analysis.space import UNIT, CannotUnify, Pin, Space
from tests.laws.space_programs import PIN, Program, build, canonical, equate, kept, masks, programs, resolved, text

pytestmark = pytest.mark.slow

many = settings(derandomize=True, deadline=None, max_examples=120, database=None)


@many
@given(programs(pins=True))
def test_sizes_are_preserved(program: Program) -> None:
    space, dims = build(program)
    before = [space.size(dim) for dim in dims]
    for i, j in program.equal:
        equate(space, dims[i], dims[j])
        assert [space.size(dim) for dim in dims] == before
        assert [axis_size(axis, space.size, 1) for axis in resolved(space, dims)] == before


@many
@given(programs(pins=True))
def test_what_is_pinned_stays_pinned(program: Program) -> None:
    space, dims = build(program)
    for i, j in program.equal:
        equate(space, dims[i], dims[j])
        assert all(space.pins(leaf) for k in program.pinned for leaf in space.leaves(dims[k]))


@many
@given(programs())
def test_equal_is_the_same_axis(program: Program) -> None:
    """What has been equated stays one and the same, whatever is learnt later."""
    space, dims = build(program)
    worked = [(i, j) for i, j in program.equal if equate(space, dims[i], dims[j])]
    axes = resolved(space, dims)
    for i, j in worked:
        assert axes[i] == axes[j]


@many
@given(programs(), st.integers(0, 99))
def test_structure_is_kept(program: Program, seed: int) -> None:
    """Whatever choice the leaves leave: what stays of a product or a sum is what stays of its parts."""
    space, dims = build(program)
    for i, j in program.equal:
        equate(space, dims[i], dims[j])
    keeps = masks(space, dims, seed)
    stays = [kept(space, axis, keeps) for axis in resolved(space, dims)]
    for entry, mask in zip(program.dims, stays, strict=True):
        if not isinstance(entry, int):
            left, right = (stays[i] for i in entry[1])
            whole = np.outer(left, right).ravel() if entry[0] == "product" else np.concatenate([left, right])
            np.testing.assert_array_equal(mask, whole)


@many
@given(programs(pins=True))
def test_symmetric(program: Program) -> None:
    space, dims = build(program)
    other, mirrored = build(program)
    for i, j in program.equal:
        assert equate(space, dims[i], dims[j]) == equate(other, mirrored[j], mirrored[i])
        assert canonical(space, dims) == canonical(other, mirrored)


@many
@given(programs(), st.randoms(use_true_random=False))
def test_order_does_not_matter(program: Program, random: Any) -> None:
    """Where all equations hold together, any order finds the same."""
    space, dims = build(program)
    if not all([equate(space, dims[i], dims[j]) for i, j in program.equal]):
        return
    order = list(program.equal)
    random.shuffle(order)
    other, same = build(program)
    assert all([equate(other, same[i], same[j]) for i, j in order])
    assert canonical(other, same) == canonical(space, dims)


@many
@given(programs(pins=True))
def test_a_clash_leaves_no_trace(program: Program) -> None:
    space, dims = build(program)
    for i, j in program.equal:
        axes, before = canonical(space, dims), space.snapshot()
        if not equate(space, dims[i], dims[j]):
            assert canonical(space, dims) == axes
            assert space.snapshot()[: len(before)] == before


@many
@given(programs(pins=True))
def test_a_transaction_restores_everything(program: Program) -> None:
    """Even what worked inside goes when something later in the same transaction does not."""
    space, dims = build(program)
    axes, before = canonical(space, dims), space.snapshot()
    with pytest.raises(CannotUnify), space.transaction():
        for i, j in program.equal:
            space.equate(dims[i], dims[j])
        space.pin(dims[0], Pin("in vain", "nowhere"))
        raise CannotUnify("at the end")
    assert canonical(space, dims) == axes
    assert space.snapshot()[: len(before)] == before


@many
@given(programs(pins=True))
def test_again_changes_nothing(program: Program) -> None:
    space, dims = build(program)
    worked = [(i, j) for i, j in program.equal if equate(space, dims[i], dims[j])]
    once = canonical(space, dims)
    assert all(equate(space, dims[i], dims[j]) for i, j in worked)
    assert canonical(space, dims) == once


@pytest.mark.parametrize(("by", "length"), [(4, 8), (2, 6), (4, 6), (3, 9), (6, 9), (2, 10), (3, 7), (1, 5)])
def test_a_rotation_couples(by: int, length: int) -> None:
    """`a + b` equal to `b + a`: what is left is one leaf as long as the greatest common divisor, again and again."""
    space = Space(1)
    a, b = space.dim((by,)), space.dim((length - by,))
    assert equate(space, space.concat([a, b]), space.concat([b, a]))
    step = gcd(by, length)
    leaves = {leaf for leaf in space.leaves(space.concat([a, b])) if leaf != UNIT}
    assert len(leaves) == (step > 1)
    assert all(space.size(leaf) == (step,) for leaf in leaves)
    (axis,) = resolved(space, [space.concat([a, b])])
    assert len(axis.terms) == length // step


def test_a_flat_axis_becomes_a_product_everywhere() -> None:
    space = Space(1)
    weight, bias, row = (space.dim((12,)) for _ in range(3))
    h, d = space.dim((3,)), space.dim((4,))
    assert equate(space, weight, bias) and equate(space, space.product([h, d]), weight) and equate(space, bias, row)
    assert set(text(space, [weight, bias, row])) == {"d0[3]·d1[4]"}


def test_factors_that_do_not_divide_clash() -> None:
    space = Space(1)
    left = space.product([space.dim((3,)), space.dim((8,))])
    right = space.product([space.dim((8,)), space.dim((3,))])
    assert not equate(space, left, right)


def test_factors_in_common_are_found() -> None:
    space = Space(1)
    a, b, c, d = (space.dim((n,)) for n in (2, 12, 8, 3))
    assert equate(space, space.product([a, b]), space.product([c, d]))
    assert text(space, [a, b, c, d]) == ["d0[2]", "d1[4]·d2[3]", "d0[2]·d1[4]", "d2[3]"]


def test_what_is_fixed_absorbs() -> None:
    """A pinned axis takes any shape and learns nothing; what it is equated with is pinned."""
    space = Space(1)
    left = space.product([space.dim((3,)), space.dim((8,))])
    right = space.product([space.dim((8,)), space.dim((3,))])
    space.pin(left, PIN)
    assert equate(space, left, right)
    assert space.is_fixed(right)
    assert all(space.pins(leaf) == (PIN,) for leaf in space.leaves(right))


def test_slots_alone_leave_no_choice() -> None:
    """Two slots together cannot be two slots taken one by one."""
    space = Space(1)
    one, pair, apart = UNIT, space.dim((2,)), space.concat([UNIT, UNIT, UNIT])
    assert equate(space, space.concat([pair, one]), apart)
    assert text(space, [pair]) == ["1 + 1"]


def test_pins_follow_refinement() -> None:
    space = Space(1)
    flat, h, d = space.dim((12,)), space.dim((3,)), space.dim((4,))
    space.pin(flat, PIN)
    assert equate(space, flat, space.product([h, d]))
    assert space.pins(h) == space.pins(d) == (PIN,)


def test_pins_follow_a_split() -> None:
    space = Space(1)
    a, b, c, d = (space.dim((n,)) for n in (12, 2, 3, 8))
    space.pin(a, PIN)
    assert equate(space, space.product([a, b]), space.product([c, d]))
    assert text(space, [a, b, c, d]) == ["d0[3]!·d1[4]!", "d2[2]", "d0[3]!", "d1[4]!·d2[2]"]


def test_part_of_an_axis_is_pinned() -> None:
    """A pin on one part of a sum leaves the other free."""
    space = Space(1)
    a, b, whole = space.dim((4,)), space.dim((5,)), space.dim((9,))
    space.pin(a, PIN)
    assert equate(space, whole, space.concat([a, b]))
    assert [bool(space.pins(leaf)) for leaf in space.leaves(whole)] == [True, False]


def test_sizes_must_agree_in_every_probe() -> None:
    space = Space(2)
    assert not equate(space, space.dim((4, 8)), space.dim((4, 4)))
    dynamic = space.product([space.dim((2, 3)), space.dim((4, 4))])
    assert equate(space, space.dim((8, 12)), dynamic)


def test_a_slot_alone_is_no_choice() -> None:
    space = Space(1)
    assert space.dim((1,)) == UNIT
    a = space.dim((5,))
    assert space.product([space.dim((1,)), a, space.dim((1,))]) == a
