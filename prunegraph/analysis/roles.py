"""What happens to the slots of every Dim, gathered from what all nodes say; kinds follow from it."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field

import onnx_ir as ir

from prunegraph.analysis.axes import Axis, Expr
from prunegraph.analysis.relations import AxisRule, Contraction, Reduction
from prunegraph.analysis.solve import Solution

KINDS = ("head", "kv_group", "query_slot", "qk_dim", "v_dim", "ffn", "dense", "channel", "hidden", "expert")
"""Every kind of group, as `ratio={kind: …}` names them."""


_TABLES = {"Gather": 0, "EmbedLayerNormalization": 2, "GatherBlockQuantized": 0}
"""Ops that look up rows of a table, and which input holds it."""

_PICKS = frozenset(("Gather", "GatherND", "Slice", "Split", "Transpose", "Reshape", "Squeeze", "Unsqueeze", "Cast"))
"""Ops that pick slots of a weight, such as the expert that a router names; what they give is a weight still."""


@dataclass(slots=True)
class Role:
    """What happens to the slots of one Dim."""

    batched: bool = False  # batch factor of activation x activation
    scored: bool = False  # summed there
    carried: bool = False  # free there
    summed: bool = False  # summed by a weight
    made: bool = False  # made by a weight
    convolved: bool = False  # made by a convolution
    joined: bool = False  # activations of different origin are added along it
    copied: bool = False  # keys or values are copied along it
    looked_up: bool = False  # column of an embedding table
    mean: bool = False  # a mean is taken over it
    ranked: bool = False  # a router ranks its slots
    least: int = 1  # how many slots must stay
    feeds: set[int] = field(default_factory=set)  # Dims that a weight makes from it
    fed_by: set[int] = field(default_factory=set)  # Dims that a weight makes it from

    @property
    def has_maker(self) -> bool:
        """Whether something computes the slots; columns of a constant table that is only read are no choice."""
        return self.made or self.convolved or self.looked_up or self.batched


Roles = defaultdict[int, Role]


def gather_roles(graph: ir.Graph, solution: Solution) -> Roles:
    """One walk over the nodes in order."""
    roles: Roles = defaultdict(Role)
    origin: dict[str, int] = {}
    picked: dict[str, bool] = {}  # slots of weights, and whether a router picks them
    copies: dict[str, set[int]] = {}  # along which Dims a value is the same everywhere
    for k, (node, rule) in enumerate(zip(graph, solution.rules, strict=True)):
        if node.op_type in _PICKS and node.inputs[0] is not None:
            source, routed = node.inputs[0], any(roles[leaf].ranked for leaf in _value_leaves(solution, node.inputs[0]))
            if _is_weight(source, solution) or source.name in picked:
                given = routed or picked.get(source.name or "", False)
                picked |= {value.name or "": given for value in node.outputs}
        _copies(k, node, rule, solution, copies)
        _contractions(k, node, rule, solution, roles, picked, copies)
        _joins(k, node, rule, solution, roles, origin, picked)
        for reduce in rule.reduces:
            for leaf in _leaves(solution, k, [reduce.ref]):
                roles[leaf].mean |= reduce.kind.weighs
                roles[leaf].ranked |= reduce.kind is Reduction.RANK
            if reduce.least > 1:
                _must_stay(solution.space.resolve(solution.dim_of(k, reduce.ref)), reduce.least, solution, roles)
        table = _TABLES.get(node.op_type)
        if table is not None and _is_weight(node.inputs[table], solution):
            for leaf in _value_leaves(solution, node.outputs[0]):
                roles[leaf].looked_up = True
    return roles


def kind_of(leaf: int, roles: Roles, grouped: frozenset[int]) -> str:
    """The kind of a group, from roles alone.  `grouped` are Dims that share an axis with query slots."""
    role = roles[leaf]
    if role.ranked:
        return "expert"
    if role.batched or _mixes_heads(role, roles):
        return "query_slot" if role.copied else "kv_group" if leaf in grouped else "head"
    if role.scored:
        return "qk_dim"
    if role.carried and role.summed:
        return "v_dim"
    if role.convolved and not role.made and not role.looked_up:
        return "channel"
    if role.joined or (role.looked_up and not role.made):  # what a picked weight makes is looked up as well
        return "hidden"
    # An FFN leaves a stream and returns to it, or stands where there is none; a pooler or a neck leads away from one.
    leaves_stream = any(roles[source].joined for source in role.fed_by) and not role.fed_by & role.feeds
    return "dense" if leaves_stream else "ffn"


def _mixes_heads(role: Role, roles: Roles) -> bool:
    """Whether a weight makes the slots from heads and another makes heads from them (talking heads)."""
    both = (role.fed_by, role.feeds)
    return all(dims and all(roles[dim].batched for dim in dims) for dims in both)


def _is_weight(value: ir.Value | None, solution: Solution) -> bool:
    return value is not None and value.name in solution.weights


def _leaves(solution: Solution, node: int, refs: Iterable[Expr]) -> set[int]:
    return {leaf for ref in refs for leaf in solution.space.leaves(solution.dim_of(node, ref))}


def _value_leaves(solution: Solution, value: ir.Value) -> set[int]:
    return {leaf for dim in solution.axes.get(value.name or "", ()) for leaf in solution.space.leaves(dim)}


def _must_stay(axis: Axis, least: int, solution: Solution, roles: Roles) -> None:
    """So many slots of an axis must stay; in a product of Dims, the last one has to see to that as far as it can."""
    for term in axis.terms:
        open_ = least
        for factor in reversed(term):
            if isinstance(factor, Axis):
                _must_stay(factor, open_, solution, roles)
                continue
            share = min(open_, solution.dim_size(factor)[0])
            roles[factor].least = max(roles[factor].least, share)
            open_ = math.ceil(open_ / share)


def _copies(k: int, node: ir.Node, rule: AxisRule, solution: Solution, copies: dict[str, set[int]]) -> None:
    """Follow what Expand makes: it is the same along a Dim until it meets something that is not."""
    inputs = [value for value in node.inputs if value is not None]
    found = set() if not rule.copies or _is_weight(node.inputs[0], solution) else _leaves(solution, k, rule.copies)
    given = [copies.get(value.name or "", set()) for value in inputs]
    for leaf in set().union(*given):
        if all(leaf in same or leaf not in _value_leaves(solution, v) for v, same in zip(inputs, given, strict=True)):
            found.add(leaf)
    if found:
        copies |= {value.name or "": found for value in node.outputs}


def _contractions(
    k: int,
    node: ir.Node,
    rule: AxisRule,
    solution: Solution,
    roles: Roles,
    picked: Collection[str],
    copies: Mapping[str, set[int]],
) -> None:
    for contraction in rule.contractions:
        operands = [node.inputs[index] for index in contraction.operands]
        weight = [_is_weight(value, solution) for value in operands]
        if all(weight):
            continue
        if not any(weight) and sum(each := [value is not None and value.name in picked for value in operands]) == 1:
            weight = each
        if any(weight):
            _weight_contraction(k, contraction, weight.index(True), solution, roles)
            continue
        for leaf in _leaves(solution, k, contraction.batch):
            roles[leaf].batched = True
            roles[leaf].copied |= any(leaf in copies.get(value.name or "", ()) for value in operands if value)
        for leaf in _leaves(solution, k, contraction.summed):
            roles[leaf].scored = True
        for leaf in _leaves(solution, k, (*contraction.left, *contraction.right)):
            roles[leaf].carried = True


def _weight_contraction(k: int, contraction: Contraction, weight: int, solution: Solution, roles: Roles) -> None:
    made = _leaves(solution, k, (contraction.left, contraction.right)[weight])
    sources = _leaves(solution, k, contraction.summed)
    for leaf in made:
        roles[leaf].made |= not contraction.conv
        roles[leaf].convolved |= contraction.conv
        roles[leaf].fed_by |= sources
    for leaf in sources:
        roles[leaf].summed = True
        roles[leaf].feeds |= made


def _joins(
    k: int,
    node: ir.Node,
    rule: AxisRule,
    solution: Solution,
    roles: Roles,
    origin: dict[str, int],
    picked: Mapping[str, bool],
) -> None:
    """Follow where activations come from: `x + x³` inside an activation function joins nothing, a residual does."""
    sources = {
        index: origin.get(value.name or "", -1)
        for index, value in enumerate(node.inputs)
        if value is not None and not _is_weight(value, solution) and not picked.get(value.name or "")
    }
    came_from = set(sources.values())
    fresh = bool(rule.contractions) or len(came_from) != 1
    for value in node.outputs:
        origin[value.name or ""] = k if fresh else next(iter(came_from))
    if len(came_from) > 1 and rule.joins:
        by_leaf: dict[int, set[int]] = defaultdict(set)
        for ref in rule.joins:
            for leaf in _leaves(solution, k, [ref]):
                by_leaf[leaf].add(sources[ref.index])
        for leaf, places in by_leaf.items():
            roles[leaf].joined |= len(places) > 1


def sharing(solution: Solution, values: Sequence[str], leaves: set[int]) -> frozenset[int]:
    """Dims that stand in one product with any of the given leaves."""
    found: set[int] = set()
    if leaves:
        for value in values:
            for axis in solution.resolve(value):
                for term in axis.terms:
                    flat = {f for f in term if isinstance(f, int)}
                    if flat & leaves:
                        found |= flat - leaves
    return frozenset(found)
