"""Head mask: a graph input `[layers, heads]` that multiplies the context of every head.

Ones leave the model as it is and a zero removes a head, so that one session serves candidate filtering, ablation and
finite differences: no graph is rebuilt.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx_ir as ir
import onnxruntime as ort

from prunegraph.analysis.analyze import Analysis
from prunegraph.analysis.axes import Size
from prunegraph.analysis.slots import Slots, slots
from prunegraph.analysis.solve import Solution
from prunegraph.arrays import Array, Mask
from prunegraph.errors import PruneGraphError
from prunegraph.moved import former_names
from prunegraph.observe.attention_sites import Attention, attentions
from prunegraph.runtime.edit import Editor

HeadMask = npt.NDArray[np.float32]

NAME = "head_gate"


def with_head_mask(model: ir.Model, analysis: Analysis) -> tuple[ir.Model, tuple[Attention, ...]]:
    """A copy of a normalized float32 model with a head mask, and what its rows stand for.

    Args:
        model: The model that `analysis` speaks of.
        analysis: Its analysis.

    Returns:
        The model, with one more input `head_gate [layers, heads]`, and the layers in order.

    Raises:
        PruneGraphError: no head attends in the model.
    """
    sites = attentions(model, analysis)
    if not sites:
        raise PruneGraphError("the model has no attention heads to gate", hint="`prunegraph explain` lists its groups")
    twin = model.clone()
    nodes, editor = list(twin.graph), Editor(twin.graph)
    shape = (len(sites), max(site.heads for site in sites))
    head_mask = ir.Value(name=NAME, type=ir.TensorType(ir.DataType.FLOAT), shape=ir.Shape(shape))
    twin.graph.inputs.append(head_mask)
    for site in sites:
        _Writer(editor, nodes[site.node], site, analysis.solution).write(head_mask)
    return twin, sites


def no_head_masked(sites: Sequence[Attention]) -> HeadMask:
    """A head mask that lets everything through."""
    return np.ones((len(sites), max(site.heads for site in sites)), dtype=np.float32)


def head_mask_of(sites: Sequence[Attention], keep: Mapping[str, Mask]) -> HeadMask:
    """The head mask that closes every head of which a unit goes.

    Args:
        sites: What the rows of the mask stand for.
        keep: By group id a keep array of the group's shape; what is not named stays.
    """
    head_mask = no_head_masked(sites)
    for site in sites:
        for group, units in site.units.items():
            if group in keep:
                stays = np.append(keep[group].reshape(-1), True)  # a head of no unit (-1) stays
                head_mask[site.layer, : site.heads] *= stays[units]
    return head_mask


class HeadMaskSession:
    """A session with its head mask set: to whoever runs it, a session of the model without those heads."""

    def __init__(self, session: ort.InferenceSession, head_mask: HeadMask) -> None:
        """Fix the mask; the session may be shared, by threads too."""
        self._session = session
        self.head_mask = head_mask

    def get_inputs(self) -> list[Any]:
        """The inputs of the model itself."""
        return [value for value in self._session.get_inputs() if value.name != NAME]

    def get_outputs(self) -> list[Any]:
        """The outputs of the model itself."""
        return list(self._session.get_outputs())

    def run(self, names: Iterable[str] | None, feeds: Mapping[str, Array]) -> list[Array]:
        """As a session of ONNX Runtime runs."""
        outputs = None if names is None else list(names)
        return list(self._session.run(outputs, {**feeds, NAME: self.head_mask}))


class _Writer:
    """Multiplies what one attention puts out by its row of the head mask."""

    def __init__(self, editor: Editor, node: ir.Node, site: Attention, solution: Solution) -> None:
        self.here = editor.at(node).after()
        self.output, self.site, self.solution = node.outputs[0], site, solution

    def write(self, head_mask: ir.Value) -> None:
        index = head_index(self.site, self.solution)
        row = self.here.add("Gather", head_mask, self.here.constant(np.array(self.site.layer, dtype=np.int64)))
        factor = self.here.add("Gather", row, self.here.constant(index))
        repeated = [k for k, n in enumerate(index.shape) if n > 1 and self._dynamic(k)]
        if repeated:
            factor = self._tiled(factor, index.shape, repeated)
        self.here.replace(self.output, self.here.add("Mul", self.output, factor, like=self.output))

    def _dynamic(self, axis: int) -> bool:
        return len(set(self.solution.facts.shapes[self.site.context][axis])) > 1

    def _tiled(self, factor: ir.Value, shape: Sequence[int], repeated: Sequence[int]) -> ir.Value:
        """Repeat along dynamic axes (`batch·head`) to the length that they have in this run."""
        chosen = np.isin(np.arange(len(shape)), repeated)
        here = self.here
        lengths = here.add("Div", here.add("Shape", self.output), here.constant(np.array(shape, dtype=np.int64)))
        ones = here.constant(np.ones(len(shape), dtype=np.int64))
        return here.add("Tile", factor, here.add("Where", here.constant(chosen), lengths, ones))


def head_index(site: Attention, solution: Solution) -> npt.NDArray[np.int64]:
    """Which head every position of the context is of, broadcastable to it (`batch·head` counted once).

    Heads are counted as `Attention.axes` counts them: over all factors up to the innermost one that tells heads apart.
    """

    def period(dim: int) -> Size:
        size = solution.dim_size(dim)
        return size if len(set(size)) == 1 else (1,) * len(size)

    axes = solution.resolve(site.context)
    head_dims = _telling(site, solution)
    tables: list[Slots] = [slots(axis, period, head_dims.__contains__) for axis in axes]
    index = np.zeros((1,) * len(axes), dtype=np.int64)
    for dim in head_dims:
        k, where = next((k, where) for k, table in enumerate(tables) for d, where in table if d == dim)
        index = index * period(dim)[0] + where.reshape([-1 if a == k else 1 for a in range(len(axes))])
    return index


def _telling(site: Attention, solution: Solution) -> tuple[int, ...]:
    """The static Dims whose slots tell heads apart, outermost first."""
    return tuple(d for d in site.dims if len(set(solution.dim_size(d))) == 1 and solution.dim_size(d)[0] > 1)


__getattr__ = former_names(__name__, GatedSession=HeadMaskSession, gated=with_head_mask)
