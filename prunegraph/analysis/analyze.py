"""The analysis as a whole: groups, pins and everything that Shrink and verify need to know."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field

import onnx_ir as ir

from prunegraph.analysis.axes import Axis, Ref
from prunegraph.analysis.cost import count_parameters, numbers_held
from prunegraph.analysis.facts import Facts
from prunegraph.analysis.groups import Group, Place, outer_dims
from prunegraph.analysis.names import readable_names, scopes
from prunegraph.analysis.ops import traits_of
from prunegraph.analysis.roles import Roles, beside_states, kind_of, sharing
from prunegraph.analysis.solve import Solution, solve
from prunegraph.analysis.space import Pin
from prunegraph.analysis.walk import gather_roles


@dataclass(frozen=True, slots=True)
class Pinned:
    """An axis of a weight that stays whole, and why."""

    place: Place
    units: int
    pins: tuple[Pin, ...]


@dataclass(frozen=True, slots=True, repr=False)
class Analysis:
    """What may be removed from a graph, what may not and why; frozen, compared and hashed by its groups and pins.

    Attributes:
        groups: Every choice there is, in the order of the graph.
        pinned: Axes of weights that stay whole.
        solution: The settled axes of all values.
        params: Numbers in the weights.
        names: Every weight's name for people, in the order of use.
    """

    groups: tuple[Group, ...]
    pinned: tuple[Pinned, ...]
    solution: Solution = field(compare=False)
    params: int
    names: Mapping[str, str] = field(compare=False)

    def __repr__(self) -> str:
        """How many groups of which kind, and what stays whole."""
        kinds = Counter(group.kind for group in self.groups)
        groups = ", ".join(f"{count} {kind}" for kind, count in kinds.items()) or "no groups"
        return f"Analysis({groups}; {len(self.pinned)} pinned axes; {self.params:,} parameters)"

    def group(self, name: str) -> Group:
        """The group of this id.

        Raises:
            KeyError: there is none.
        """
        return next((g for g in self.groups if g.id == name), None) or _no_group(name)

    def render(self, axis: Axis) -> str:
        """An axis printed like einops, with groups' ids for Dims that may shrink and lengths for those that may not."""
        names = {group.dim: group.id for group in self.groups}
        return axis.render(lambda dim: names.get(dim) or _length(self.solution, dim))


def _no_group(name: str) -> Group:
    raise KeyError(name)


def _length(solution: Solution, dim: int) -> str:
    size = solution.dim_size(dim)
    return str(size[0]) if len(set(size)) == 1 else "?"


def analyze_graph(graph: ir.Graph, facts: Facts, allow_io: Sequence[str] = ()) -> Analysis:
    """Find every choice of a normalized graph.

    Args:
        graph: A graph whose constants are initializers; see `passes.normalize`.
        facts: What was seen when it ran.
        allow_io: Patterns of graph inputs and outputs that may shrink with the rest.
    """
    solution = solve(graph, facts, allow_io)
    roles = gather_roles(graph, solution)
    holders = _holders(solution)
    aligned = _aligned(solution)
    weights = [name for name in graph.initializers if name in solution.axes]
    places = _places(graph, solution, weights)
    first = _first_nodes(graph, solution)
    free = [leaf for leaf in first if leaf in places and roles[leaf].has_maker and _is_choice(leaf, solution)]
    free.sort(key=lambda leaf: min(roles[leaf].makers.values(), default=first[leaf]))
    values = list(solution.axes)
    shared = sharing(solution, values, {leaf for leaf in free if roles[leaf].batched})
    for leaf in shared:  # an einsum over groups and the queries of each repeats no keys
        if roles[leaf].apart:
            roles[leaf].batched = roles[leaf].copied = True
    queries = {leaf for leaf in free if roles[leaf].copied and roles[leaf].batched}
    grouped = sharing(solution, values, queries)
    names = readable_names(graph)
    makers = _makers(graph, solution, roles, places)
    scope = scopes(names, {leaf: makers[leaf] or holders_of for leaf, holders_of in places.items()})
    groups = _groups(free, solution, roles, grouped, holders, aligned, places, scope)
    return Analysis(
        groups=groups,
        pinned=tuple(_pinned(solution, weights, graph)),
        solution=solution,
        params=count_parameters(graph),
        names=names,
    )


def _is_choice(leaf: int, solution: Solution) -> bool:
    size = solution.dim_size(leaf)
    return not solution.space.pins(leaf) and len(set(size)) == 1 and size[0] > 1


def _first_nodes(graph: ir.Graph, solution: Solution) -> Mapping[int, int]:
    """Free leaves in the order in which nodes meet them, and the position of the first one that does."""
    first: dict[int, int] = {}
    values = [(-1, value) for value in graph.inputs]
    values += [
        (k, value) for k, node in enumerate(graph) for value in (*node.inputs, *node.outputs) if value is not None
    ]
    for k, value in values:
        for dim in solution.axes.get(value.name or "", ()):
            for leaf in solution.space.leaves(dim):
                first.setdefault(leaf, k)
    return first


def _makers(
    graph: ir.Graph, solution: Solution, roles: Roles, places: Mapping[int, Sequence[tuple[str, int]]]
) -> Mapping[int, list[tuple[str, int]]]:
    """The places of a leaf that lie in weights that make it: not those that read it, norms, biases and tables."""
    producers = {value.name: node for node in graph for value in node.outputs}

    def behind(value: str, leaf: int) -> set[str]:
        """What a weight is computed from, itself included, as far as it holds the leaf."""
        names, waiting = set[str](), [value]
        while waiting:
            name = waiting.pop()
            if name not in names and leaf in solution.leaves(name):
                names.add(name)
                node = producers.get(name)
                waiting += [each.name or "" for each in node.inputs if each is not None] if node is not None else []
        return names

    makers = {}
    for leaf, holding in places.items():
        sources = set[str]().union(*(behind(value, leaf) for value in roles[leaf].makers))
        makers[leaf] = [place for place in holding if place[0] in sources]
    return makers


def _holders(solution: Solution) -> Mapping[int, set[tuple[Axis, ...]]]:
    """Which combinations of axes hold a free leaf: what decides whether a choice may be ragged."""
    holders: dict[int, set[tuple[Axis, ...]]] = defaultdict(set)
    counted: set[tuple[int, ...]] = set()
    space = solution.space
    for dims in solution.axes.values():
        key = tuple(space.find(dim) for dim in dims)
        if key in counted:
            continue
        counted.add(key)
        leaves = {leaf for dim in dims for leaf in space.leaves(dim) if not space.pins(leaf)}
        if leaves:
            axes = tuple(space.resolve(dim) for dim in dims)
            for leaf in leaves:
                holders[leaf].add(axes)
    return holders


def _aligned(solution: Solution) -> Callable[[int, int], bool]:
    """Whether a leaf may be chosen differently over the slots of a Dim, as far as nodes that mix these slots tell.

    `q[h, d] · k[h', d]` over all pairs of h and h' sums up slots d of different choices, and so does a softmax over h.
    """
    together: dict[int, frozenset[int]] = {}
    mixed: dict[int, set[int]] = defaultdict(set)
    for site in solution.contractions():
        rows = site.batch | site.summed
        for leaf in site.summed:
            together[leaf] = together.get(leaf, rows) & rows
    for k in range(len(solution.labels)):
        for leaf, dims in _mixed(k, solution):
            mixed[leaf] |= dims
    return lambda leaf, dim: dim in together.get(leaf, {dim}) and dim not in mixed[leaf]


def _mixed(node: int, solution: Solution) -> Iterator[tuple[int, frozenset[int]]]:
    """What stays of a value that a node works along other axes of, and the Dims that make up these."""
    rule = solution.rules[node]
    along: dict[str, set[int]] = defaultdict(set)
    for expr in (*(reduce.ref for reduce in rule.reduces), *(expr for expr, _ in rule.pins)):
        if isinstance(expr, Ref):
            along[solution.value_of(node, expr)].add(expr.axis)
    for value, axes in along.items():
        moved = frozenset[int]().union(*(solution.leaves(value, axis) for axis in axes))
        for axis in range(len(solution.axes[value])):
            if axis not in axes:
                yield from ((leaf, moved) for leaf in solution.leaves(value, axis))


def _places(graph: ir.Graph, solution: Solution, weights: Sequence[str]) -> Mapping[int, list[tuple[str, int]]]:
    places: dict[int, list[tuple[str, int]]] = defaultdict(list)
    for name in weights:
        dtype = graph.initializers[name].dtype
        if dtype is not None and dtype in (ir.DataType.INT64, ir.DataType.BOOL):
            continue
        for k, dim in enumerate(solution.axes[name]):
            for leaf in dict.fromkeys(solution.space.leaves(dim)):
                places[leaf].append((name, k))
    return places


def _groups(
    free: Sequence[int],
    solution: Solution,
    roles: Roles,
    grouped: frozenset[int],
    holders: Mapping[int, set[tuple[Axis, ...]]],
    aligned: Callable[[int, int], bool],
    places: Mapping[int, list[tuple[str, int]]],
    scope: Mapping[int, str],
) -> tuple[Group, ...]:
    counts: dict[str, int] = defaultdict(int)
    beside = beside_states(solution, roles)
    groups = []
    for leaf in free:
        kind = kind_of(leaf, roles, grouped, beside)
        outer = tuple(d for d in outer_dims(leaf, holders[leaf], solution.dim_size) if aligned(leaf, d))
        units = solution.dim_size(leaf)[0]
        rows = tuple(solution.dim_size(d)[0] for d in outer)
        group_places = tuple(
            Place(name, k, solution.resolve(name)[k].render(lambda d: _length(solution, d))) for name, k in places[leaf]
        )
        total = sum(numbers_held(solution, name, {leaf}) for name in dict.fromkeys(name for name, _ in places[leaf]))
        groups.append(
            Group(
                id=f"{kind}.{counts[kind]}",
                dim=leaf,
                kind=kind,
                units=units,
                outer=outer,
                rows=rows,
                exact=not (roles[leaf].mean or roles[leaf].extreme),
                places=group_places,
                scope=scope.get(leaf, ""),
                params=total // units,
                least=roles[leaf].least,
            )
        )
        counts[kind] += 1
    return tuple(groups)


def _pinned(solution: Solution, weights: Sequence[str], graph: ir.Graph) -> Iterator[Pinned]:
    space = solution.space
    for name in weights:
        value = graph.initializers[name]
        if value.dtype in (ir.DataType.INT64, ir.DataType.BOOL) or _states_lengths(value):
            continue
        for k, dim in enumerate(solution.axes[name]):
            for leaf in dict.fromkeys(space.leaves(dim)):
                if pins := space.pins(leaf):
                    expression = space.resolve(dim).render(lambda d: _length(solution, d))
                    yield Pinned(Place(name, k, expression), space.size(leaf)[0], pins)


def _states_lengths(value: ir.Value) -> bool:
    """Whether a constant is no weight: nodes read lengths from it, such as the scales of a Resize."""
    uses = list(value.uses())
    return bool(uses) and all(index in traits_of(node).lengths_from for node, index in uses)
