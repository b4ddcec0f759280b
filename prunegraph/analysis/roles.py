"""Kinds of groups (head, ffn, channel, …), from what happens to the slots of every Dim, as `walk` saw it."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, field

from prunegraph.analysis.solve import Solution

KINDS = (
    *("head", "kv_group", "query_head", "qk_dim", "v_dim", "ffn", "dense", "channel", "hidden", "expert"),
    *("inner", "state", "rank"),
)
"""Every kind of group, as `ratio={kind: …}` names them."""


@dataclass(slots=True)
class Role:
    """What happens to the slots of one Dim."""

    batched: bool = False  # batch factor of activation x activation
    scored: bool = False  # summed there
    carried: bool = False  # free there
    summed: bool = False  # summed by a weight
    made: bool = False  # made by a weight
    convolved: bool = False  # made by a convolution
    joined: bool = False  # activations of different origin are added along it, not only what weights have just made
    streams: bool = False  # what is added is computed from what it is added to, by way of a weight
    recurs: bool = False  # the same without a weight
    added_up: bool = False  # activations are summed along it, without a weight
    read_straight: bool = False  # a weight reads what another has just made, with nothing but linear ops between
    read_bent: bool = False  # a weight reads it after an op that is not linear
    read_before: bool = False  # a weight reads it where no attention has carried it yet
    narrow: bool = True  # it is shorter than all that it is made from, and than all that is made from it
    copied: bool = False  # keys or values are copied along it
    compared: bool = False  # free where dims that weights make are summed, as they are of queries and keys
    apart: bool = False  # the same, and still there where a softmax weighs what came of that
    looked_up: bool = False  # column of an embedding table
    mean: bool = False  # a mean is taken over it
    extreme: bool = False  # the largest or smallest of its slots is taken, and zero might be that
    ranked: bool = False  # a router ranks its slots
    least: int = 1  # how many slots must stay
    makers: dict[str, int] = field(default_factory=dict)  # weights that make it, and at which node each does so first
    feeds: set[int] = field(default_factory=set)  # Dims that a weight makes from it
    fed_by: set[int] = field(default_factory=set)  # Dims that a weight makes it from

    @property
    def has_maker(self) -> bool:
        """Whether something computes the slots; columns of a constant table that is only read are no choice."""
        return self.made or self.convolved or self.looked_up or self.batched

    @property
    def is_state(self) -> bool:
        """Whether it is the state of a recurrence: carried on from step to step, read out by activations alone."""
        return self.recurs and not self.streams and not self.summed and (self.scored or self.added_up)


Roles = defaultdict[int, Role]


def kind_of(leaf: int, roles: Roles, grouped: frozenset[int], beside_state: frozenset[int]) -> str:
    """The kind of a group, from roles alone.

    Args:
        leaf: The Dim that it is about.
        roles: What happens to every Dim.
        grouped: Dims that share an axis with query heads.
        beside_state: Dims that share a value with the state of a recurrence.
    """
    role = roles[leaf]
    if role.ranked:
        return "expert"
    if role.is_state:
        return "state"
    if role.summed and leaf in beside_state:
        return "inner"
    if role.batched or _mixes_heads(role, roles):
        return "query_head" if role.copied else "kv_group" if leaf in grouped else "head"
    if role.scored:
        return "qk_dim"
    if role.carried and role.summed and not role.read_before:
        return "v_dim"
    if role.convolved and not role.made and not role.looked_up:
        return "channel"
    if role.joined or (role.looked_up and not role.made):  # what a picked weight makes is looked up as well
        return "hidden"
    if role.read_straight and role.narrow and not role.read_bent:
        return "rank"
    # An FFN leaves a stream and returns to it, or stands where there is none; a pooler or a neck leads away from one.
    leaves_stream = any(roles[source].joined for source in role.fed_by) and not role.fed_by & role.feeds
    return "dense" if leaves_stream else "ffn"


def _mixes_heads(role: Role, roles: Roles) -> bool:
    """Whether a weight makes the slots from heads and another makes heads from them (talking heads)."""
    both = (role.fed_by, role.feeds)
    return all(dims and all(roles[dim].batched for dim in dims) for dims in both)


def sharing(solution: Solution, values: Sequence[str], leaves: set[int]) -> frozenset[int]:
    """Dims that stand in one product with any of the given leaves."""
    sharing_dims: set[int] = set()
    if leaves:
        for value in values:
            for axis in solution.resolve(value):
                for term in axis.terms:
                    flat = {f for f in term if isinstance(f, int)}
                    if flat & leaves:
                        sharing_dims |= flat - leaves
    return frozenset(sharing_dims)


def beside_states(solution: Solution, roles: Roles) -> frozenset[int]:
    """Dims that an activation holds together with the state of a recurrence, on another axis."""
    states = {leaf for leaf, role in roles.items() if role.is_state}
    beside = set[int]()
    for value in solution.axes if states else ():
        leaves = [solution.leaves(value, axis) for axis in range(len(solution.axes[value]))]
        state_axes = [axis for axis, each in enumerate(leaves) if each & states]
        if state_axes and value not in solution.weights:
            beside |= {leaf for axis, each in enumerate(leaves) if axis not in state_axes for leaf in each}
    return frozenset(beside - states)
