"""Shrink: cut every constant by the slots that stay, and write every stated length anew.

Nothing here knows an op or a layer: constants are cut along the axes that the analysis found, and integers are
rewritten where a rule said that they state a length.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from fractions import Fraction
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx_ir as ir

from prunegraph.analysis.facts import Facts
from prunegraph.analysis.lengths import Lengths
from prunegraph.analysis.read_weight import late, lies_in_file, read_weight
from prunegraph.analysis.relations import IntArray
from prunegraph.analysis.slots import Keeps, compress, kept_positions
from prunegraph.analysis.solve import Site, Solution
from prunegraph.arrays import Mask
from prunegraph.runtime.edit import Editor, Insertion


@dataclass(frozen=True, slots=True)
class Shrunk:
    """A smaller model, and what probes of it would see."""

    model: ir.Model
    facts: Facts


def shrink(model: ir.Model, solution: Solution, keeps: Keeps) -> Shrunk:
    """A smaller copy of a normalized model.

    Args:
        model: The model that `solution` speaks of.
        solution: Its settled axes.
        keeps: What stays of every Dim that shrinks, see `Selection.keeps`.
    """
    return shrink_in_place(model.clone(), solution, keeps)


def shrink_in_place(slim: ir.Model, solution: Solution, keeps: Keeps) -> Shrunk:
    """`shrink` for a model that nobody needs any more: it becomes the smaller one."""
    lengths = Lengths(solution, keeps)
    _cut_constants(slim.graph, solution, keeps, lengths)
    integers = dict(solution.facts.integers)
    _restate_lengths(slim.graph, solution, lengths, integers)
    _restate_shapes(slim.graph, solution, lengths)
    shapes = {name: tuple(lengths.both(axis)[1] for axis in solution.resolve(name)) for name in solution.axes}
    for name, arrays in integers.items():
        shapes.setdefault(name, tuple(tuple(a.shape[k] for a in arrays) for k in range(arrays[0].ndim)))
    return Shrunk(slim, replace(solution.facts, shapes=shapes, integers=integers))


# ---- constants -----------------------------------------------------------------------------------------------------


def _cut_constants(graph: ir.Graph, solution: Solution, keeps: Keeps, lengths: Lengths) -> None:
    for name, value in graph.initializers.items():
        if name not in solution.axes or value.const_value is None:
            continue
        axes = solution.resolve(name)
        if not any(dim in keeps for axis in axes for dim in axis.dims()):
            continue
        masks = kept_positions(axes, keeps, solution.dim_size)
        shape = tuple(lengths.both(axis)[1][0] for axis in axes)
        value.const_value = _cut(value.const_value, masks, shape, name)
        value.shape = ir.Shape(shape)


def _cut(
    tensor: ir.TensorProtocol, masks: Sequence[Mask | None], shape: tuple[int, ...], name: str
) -> ir.TensorProtocol:
    """What stays of a tensor; of one in a data file it is cut out when it is read, by whoever writes it."""
    if lies_in_file(tensor):
        return late(lambda: np.ascontiguousarray(compress(read_weight(tensor), masks)), tensor.dtype, shape, name)
    whole = tensor.numpy()
    cut = compress(whole, masks)
    # A view would keep all of the weight in memory.
    array = cut.copy() if np.may_share_memory(cut, whole) else np.ascontiguousarray(cut)
    return ir.Tensor(array, dtype=tensor.dtype, name=name)


# ---- stated lengths ------------------------------------------------------------------------------------------------


def _restate_lengths(
    graph: ir.Graph, solution: Solution, lengths: Lengths, integers: dict[str, tuple[IntArray, ...]]
) -> None:
    nodes, editor = list(graph), Editor(graph)
    for (k, place), sites in _by_place(solution.rewrites).items():
        if not any(lengths.changed(site.axis) for site in sites):
            continue
        writer = _Writer(editor, nodes[k], lengths, integers)
        if isinstance(place, str):
            writer.attribute(place, sites)
        else:
            writer.operand(place, sites)
    for (k, _), sites in _by_place(solution.frozen_lengths).items():
        changed = [site for site in sites if lengths.changed(site.axis)]
        if changed:
            _Writer(editor, nodes[k], lengths, integers).keep_stating(changed, width=len(sites))


def _by_place(sites: Sequence[Site]) -> Mapping[tuple[int, int | str], list[Site]]:
    grouped: dict[tuple[int, int | str], list[Site]] = defaultdict(list)
    for site in sites:
        grouped[site.node, site.place].append(site)
    return grouped


class _Writer:
    """Writes the lengths that one node states; what it writes is added to the known integers."""

    def __init__(
        self, editor: Editor, node: ir.Node, lengths: Lengths, integers: dict[str, tuple[IntArray, ...]]
    ) -> None:
        self.editor, self.node, self.lengths, self.integers = editor, node, lengths, integers

    def attribute(self, name: str, sites: Sequence[Site]) -> None:
        attribute = self.node.attributes.get(name)
        if attribute is None:
            # Equal parts needed no lengths; unequal ones do.
            self.node.attributes[name] = ir.AttrInt64s(name, [self.lengths.both(site.axis)[1][0] for site in sites])
            return
        if attribute.type == ir.AttributeType.INT:
            self.node.attributes[name] = ir.AttrInt64(name, self._restated(attribute.as_int(), sites[0]))
            return
        values = list(attribute.as_ints())
        for site in sites:
            values[site.entry or 0] = self._restated(values[site.entry or 0], site)
        self.node.attributes[name] = ir.AttrInt64s(name, values)

    def operand(self, index: int, sites: Sequence[Site]) -> None:
        operand = self.node.inputs[index] if index < len(self.node.inputs) else None
        if operand is None:
            # Equal parts needed no lengths; unequal ones do.
            stated = np.array([self.lengths.both(site.axis)[1][0] for site in sites], dtype=np.int64)
            self.node.resize_inputs(max(index + 1, len(self.node.inputs)))
            self.node.replace_input_with(index, self._constant(str(index), stated))
            self.node.attributes.pop("num_outputs", None)
        elif operand.is_initializer() and operand.const_value is not None:
            array = np.array(operand.const_value.numpy())
            flat = array.reshape(-1)
            for site in sites:
                flat[site.entry or 0] = self._restated(int(flat[site.entry or 0]), site)
            self.node.replace_input_with(index, self._constant(str(index), array))
        elif (operand.name or "") not in self.integers:
            self.node.replace_input_with(index, self._scaled_where_stated(operand, sites))
        else:
            values = self.integers[operand.name or ""]
            stated_here = [site for site in sites if self.lengths.changed(site.axis) and self._states(values, site)]
            ratios = {site.entry or 0: self.lengths.ratio(site.axis) for site in stated_here}
            here = self.editor.at(self.node).before()
            self.node.replace_input_with(index, self._scaled(here, operand, values, ratios))

    def _scaled_where_stated(self, operand: ir.Value, sites: Sequence[Site]) -> ir.Value:
        """The operand of a node that hangs on data: whatever of it is positive states a length."""
        here = self.editor.at(self.node).before()
        ratios = {site.entry or 0: self.lengths.ratio(site.axis) for site in sites if self.lengths.changed(site.axis)}
        unknown = np.zeros(max(site.entry or 0 for site in sites) + 1, dtype=np.int64)
        scaled = self._scaled(here, operand, (unknown,) * self.lengths.probes, ratios)
        states = here.add("Greater", operand, self._constant("none", np.array(0)), name=f"{scaled.name}/states")
        written = here.add("Where", states, scaled, operand, name=f"{scaled.name}/stated", like=operand)
        self.integers.pop(scaled.name or "", None)
        return written

    def keep_stating(self, sites: Sequence[Site], width: int) -> None:
        """Let an output of Shape go on stating the old lengths: what else was computed from them must not change."""
        output = self.node.outputs[0]
        ratios = {site.entry or 0: 1 / self.lengths.ratio(site.axis) for site in sites}
        values = self.integers.get(output.name or "", (np.zeros(width, dtype=np.int64),) * self.lengths.probes)
        here = self.editor.at(self.node).after()
        restored = self._scaled(here, output, values, ratios)
        here.replace(output, restored, rename=output.is_graph_output())

    def _states(self, values: tuple[IntArray, ...], site: Site) -> bool:
        old = self.lengths.both(site.axis)[0]
        stated = (int(array.reshape(-1)[site.entry or 0]) for array in values)
        return all(value == site.sign * length for value, length in zip(stated, old, strict=True))

    def _restated(self, value: int, site: Site) -> int:
        """The integer that states the new length; what states none (0 copies, -1 infers, the far end) stays."""
        old, new = self.lengths.both(site.axis)
        return site.sign * new[0] if value == site.sign * old[0] else value

    def _scaled(
        self, here: Insertion, value: ir.Value, before: tuple[IntArray, ...], ratios: Mapping[int, Fraction]
    ) -> ir.Value:
        """`value * new // old`, entry by entry: exact, since the old length divides the value."""
        factors, divisors = np.ones(before[0].size, dtype=np.int64), np.ones(before[0].size, dtype=np.int64)
        for entry, ratio in ratios.items():
            factors[entry], divisors[entry] = ratio.numerator, ratio.denominator
        values = before
        for op, flat in (("Mul", factors), ("Div", divisors)):
            if np.all(flat == 1):
                continue
            by = flat.reshape(before[0].shape)
            constant = self._constant(op, by)
            value = here.add(op, value, constant, name=f"{constant.name}/{op}", like=value)
            values = tuple(array * by if op == "Mul" else array // by for array in values)
            self.integers[value.name or ""] = values
        return value

    def _constant(self, place: str, array: npt.NDArray[Any]) -> ir.Value:
        value = self.editor.constant(array, f"{self.node.name}/{place}/length")
        self.integers[value.name or ""] = (array,) * self.lengths.probes
        return value


# ---- annotations ---------------------------------------------------------------------------------------------------


def _restate_shapes(graph: ir.Graph, solution: Solution, lengths: Lengths) -> None:
    values = [*graph.inputs, *graph.outputs, *(value for node in graph for value in node.outputs)]
    for value in values:
        if value.shape is None or not value.name or value.name not in solution.axes or value.is_initializer():
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
