"""Shrink: cut every constant by the slots that stay, and write every stated length anew.

Nothing here knows an op or a layer: constants are cut along the axes that the analysis found, and integers are rewritten where a
rule said that they state a length.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from fractions import Fraction

import numpy as np
import numpy.typing as npt
import onnx_ir as ir

from prunegraph.analysis.axes import Axis, Size
from prunegraph.analysis.facts import Facts
from prunegraph.analysis.sizes import Keeps, axis_size, compress, kept_positions
from prunegraph.analysis.solve import Site, Solution
from prunegraph.passes.constants import add_constant

_INT64_END = 1 << 62


def shrink(model: ir.Model, solution: Solution, keeps: Keeps) -> ir.Model:
    """A smaller copy of a normalized model.

    Args:
        model: The model that `solution` speaks of.
        solution: Its settled axes.
        keeps: What stays of every Dim that shrinks, see `Selection.keeps`.
    """
    slim = model.clone()
    lengths = Lengths(solution, keeps)
    _cut_constants(slim.graph, solution, keeps)
    nodes = list(slim.graph)
    for (node, place), sites in _by_place(solution.sites).items():
        changed = [site for site in sites if lengths.changed(site.axis)]
        if changed and isinstance(place, str):
            _rewrite_attribute(nodes[node], place, changed, lengths)
        elif changed and isinstance(place, int):
            _rewrite_operand(nodes[node], place, sites, lengths, solution.facts)
    for (node, place), sites in _by_place(solution.lengths).items():
        changed = [site for site in sites if lengths.changed(site.axis)]
        if changed:
            _keep_stating(nodes[node], changed, lengths)
    _restate_shapes(slim.graph, solution, lengths)
    return slim


class Lengths:
    """How long axes were and will be."""

    def __init__(self, solution: Solution, keeps: Keeps) -> None:
        self._solution = solution
        self._keeps = keeps
        self._probes = solution.space.probes
        self._known: dict[Axis, tuple[Size, Size]] = {}

    def _new_dim(self, dim: int) -> Size:
        keep = self._keeps.get(dim)
        return self._solution.dim_size(dim) if keep is None else (keep.count,) * self._probes

    def both(self, axis: Axis) -> tuple[Size, Size]:
        """The old length and the new one."""
        if axis not in self._known:
            old = axis_size(axis, self._solution.dim_size, self._probes)
            new = old if not any(d in self._keeps for d in axis.dims()) else axis_size(axis, self._new_dim, self._probes)
            self._known[axis] = old, new
        return self._known[axis]

    def changed(self, axis: Axis) -> bool:
        """Whether the axis gets shorter."""
        old, new = self.both(axis)
        return old != new

    def ratio(self, axis: Axis) -> Fraction:
        """New over old, the same in every run."""
        old, new = self.both(axis)
        ratios = {Fraction(n, o) for n, o in zip(new, old, strict=True)}
        assert len(ratios) == 1, "a dynamic axis does not shrink in proportion"
        return ratios.pop()


def slim_facts(solution: Solution, keeps: Keeps) -> Facts:
    """The facts that probes of the slim model would find."""
    lengths = Lengths(solution, keeps)
    shapes = {name: tuple(lengths.both(axis)[1] for axis in solution.resolve(name)) for name in solution.axes}
    return Facts(solution.facts.probes, shapes, solution.facts.integers)


def _by_place(sites: Sequence[Site]) -> Mapping[tuple[int, int | str], list[Site]]:
    grouped: dict[tuple[int, int | str], list[Site]] = defaultdict(list)
    for site in sites:
        grouped[site.node, site.place].append(site)
    return grouped


# ---- constants --------------------------------------------------------------------------------------------------------------


def _cut_constants(graph: ir.Graph, solution: Solution, keeps: Keeps) -> None:
    for name, value in graph.initializers.items():
        if name not in solution.axes or value.const_value is None:
            continue
        axes = solution.resolve(name)
        if not any(dim in keeps for axis in axes for dim in axis.dims()):
            continue
        masks = kept_positions(axes, keeps, solution.dim_size)
        array = np.ascontiguousarray(compress(value.const_value.numpy(), masks))
        value.const_value = ir.Tensor(array, dtype=value.const_value.dtype, name=name)
        value.shape = ir.Shape(array.shape)


# ---- stated lengths ---------------------------------------------------------------------------------------------------------


def _restated(value: int, site: Site, lengths: Lengths, probe: int) -> int:
    """The integer that states the new length; what states none (0: copy, -1: infer, 1: broadcast, the far end) stays."""
    old, new = lengths.both(site.axis)
    if value == old[probe]:
        return new[probe]
    if value < -1 and value > -_INT64_END:
        return new[probe]  # counted from the end; counted from the start it is the same place
    return value


def _rewrite_attribute(node: ir.Node, name: str, sites: Sequence[Site], lengths: Lengths) -> None:
    attribute = node.attributes[name]
    if attribute.type == ir.AttributeType.INT:
        node.attributes[name] = ir.AttrInt64(name, _restated(attribute.as_int(), sites[0], lengths, 0))
        return
    values = list(attribute.as_ints())
    for site in sites:
        assert site.entry is not None
        values[site.entry] = _restated(values[site.entry], site, lengths, 0)
    node.attributes[name] = ir.AttrInt64s(name, values)


def _rewrite_operand(node: ir.Node, index: int, sites: Sequence[Site], lengths: Lengths, facts: Facts) -> None:
    operand = node.inputs[index] if index < len(node.inputs) else None
    if operand is None:
        # Equal parts needed no lengths; unequal ones do.
        stated = np.array([lengths.both(site.axis)[1][0] for site in sites], dtype=np.int64)
        node.resize_inputs(max(index + 1, len(node.inputs)))
        node.replace_input_with(index, _constant(node, index, stated))
        node.attributes.pop("num_outputs", None)
        return
    if operand.const_value is not None and operand.is_initializer():
        array = operand.const_value.numpy().copy()
        flat = array.reshape(-1)
        for site in sites:
            flat[site.entry or 0] = _restated(int(flat[site.entry or 0]), site, lengths, 0)
        if not np.array_equal(array, operand.const_value.numpy()):
            node.replace_input_with(index, _constant(node, index, array))
        return
    seen = facts.integers.get(operand.name or "")
    ratios: dict[int, Fraction] = {}
    for site in sites:
        entry = site.entry or 0
        old = lengths.both(site.axis)[0]
        if lengths.changed(site.axis) and (seen is None or all(int(a.reshape(-1)[entry]) == o for a, o in zip(seen, old, strict=True))):
            ratios[entry] = lengths.ratio(site.axis)
    if ratios:
        rank = 1 if seen is None else seen[0].ndim
        width = max(ratios) + 1 if seen is None else seen[0].size
        node.replace_input_with(index, _scaled(node, operand, ratios, width, rank, before=True))


def _keep_stating(node: ir.Node, sites: Sequence[Site], lengths: Lengths) -> None:
    """Let an output of Shape go on stating the old lengths: what else was computed from them must not change."""
    output = node.outputs[0]
    uses = list(output.uses())
    ratios = {site.entry or 0: 1 / lengths.ratio(site.axis) for site in sites}
    width = output.shape[0] if output.shape is not None and isinstance(output.shape[0], int) else max(ratios) + 1
    restored = _scaled(node, output, ratios, max(int(width), max(ratios) + 1), 1, before=False)
    for user, index in uses:
        user.replace_input_with(index, restored)


def _scaled(node: ir.Node, value: ir.Value, ratios: Mapping[int, Fraction], width: int, rank: int, *, before: bool) -> ir.Value:
    """`value * new // old`, entry by entry: exact, since the old length divides the value."""
    numbers = [np.ones(width, dtype=np.int64), np.ones(width, dtype=np.int64)]
    for entry, ratio in ratios.items():
        numbers[0][entry], numbers[1][entry] = ratio.numerator, ratio.denominator
    current = value
    anchor = node
    for op, array in zip(("Mul", "Div"), numbers, strict=True):
        constant = _constant(node, op, array if rank else array.reshape(()))
        scale = ir.node(op, [current, constant], num_outputs=1)
        scale.name = f"{node.name}/{op}_length"
        scale.outputs[0].name = f"{value.name}/{node.name}/{op}_length"
        scale.outputs[0].dtype, scale.outputs[0].shape = value.dtype, value.shape
        assert node.graph is not None
        if before:
            node.graph.insert_before(node, scale)
        else:
            node.graph.insert_after(anchor, scale)
            anchor = scale
        current = scale.outputs[0]
    return current


def _constant(node: ir.Node, place: int | str, array: npt.NDArray[np.int64]) -> ir.Value:
    assert isinstance(node.graph, ir.Graph)
    return add_constant(node.graph, f"{node.name}/{place}/length", array)


# ---- annotations ------------------------------------------------------------------------------------------------------------


def _restate_shapes(graph: ir.Graph, solution: Solution, lengths: Lengths) -> None:
    values = [*graph.inputs, *graph.outputs, *(value for node in graph for value in node.outputs)]
    for value in values:
        if value.shape is None or value.name not in solution.axes or value.is_initializer():
            continue
        axes = solution.resolve(value.name)
        if len(axes) != len(value.shape) or not any(map(lengths.changed, axes)):
            continue
        dims: list[int | str | None] = []
        for axis, dim in zip(axes, value.shape, strict=True):
            old, new = lengths.both(axis)
            kept = dim if isinstance(dim, int) else dim.value
            dims.append(kept if old == new else new[0] if len(set(new)) == 1 else None)
        value.shape = ir.Shape(dims)
