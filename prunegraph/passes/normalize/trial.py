"""A model under trial: what can be seen of it at given sizes, by inference where that is exact, or by running it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence, Set
from dataclasses import dataclass

import numpy as np
import onnx
import onnx_ir as ir

from prunegraph.analysis.ops import traits_of
from prunegraph.arrays import Array
from prunegraph.passes.normalize.depends_on_data import depends_on_data
from prunegraph.passes.normalize.infer import NotUnderstood, Seen, constants_of, infer, static_shapes
from prunegraph.passes.normalize.names import name_inner_values
from prunegraph.passes.normalize.state_defaults import state_defaults
from prunegraph.passes.normalize.without_weights import is_large, without_weights
from prunegraph.runtime.feeds import Feeds, check_size, constant_feeds
from prunegraph.runtime.inputs import InputSpec, input_specs, shape_of
from prunegraph.runtime.limits import TRIAL, CannotRun, TooLong
from prunegraph.runtime.session import open_session, run
from prunegraph.runtime.trial_sizes import Plan
from prunegraph.runtime.widen import widened_feeds


@dataclass(frozen=True, slots=True)
class Trial:
    """A model that is looked at.

    Attributes:
        model: Flat, its constants initializers, in float32.
        blank: The same as a message, its weights blank.
        specs: Its inputs.
        stated: Names of values that follow from constants and from shapes alone, whatever the weights and the data.
        values: Names of all tensors that nodes make.
        written: Names of values by whose positions a ScatterND writes.
    """

    model: ir.Model
    blank: onnx.ModelProto
    specs: tuple[InputSpec, ...]
    stated: tuple[str, ...]
    values: tuple[str, ...]
    written: frozenset[str]

    @classmethod
    def of(cls, model: ir.Model) -> Trial:
        """Prepare a model.

        Raises:
            ModelError: an input is no tensor of known rank.
        """
        graph = model.graph
        values = (v.name for node in graph for v in node.outputs if v.name and not traits_of(node).sequences)
        blank = without_weights(model)
        state_defaults(blank)
        name_inner_values(blank)
        return cls(
            model,
            ir.to_proto(blank),
            input_specs(graph),
            _stated(graph),
            tuple(values),
            _written(graph),
        )

    @property
    def graph(self) -> ir.Graph:
        """The graph of the model."""
        return self.model.graph

    @property
    def dynamic(self) -> bool:
        """Whether any length of an input is open."""
        return any(isinstance(dim, str) for spec in self.specs for dim in spec.dims)

    @property
    def asks_weights(self) -> bool:
        """Whether any length is open that a weight may tell: no weight tells a batch."""
        return any(isinstance(dim, str) for spec in self.specs for dim in spec.dims[1:])

    @property
    def computed(self) -> tuple[str, ...]:
        """Names of stated values that nodes make."""
        return tuple(name for name in self.stated if name not in self.graph.initializers)

    def can_infer(self, plans: Sequence[Plan]) -> bool:
        """Whether inference tells all shapes, at one of these sizes, or fails at all of them."""
        for plan in plans:
            try:
                return self._complete(self.infer(plan[:1]))
            except NotUnderstood:
                return False
            except CannotRun:
                continue
        return True

    def look(self, plan: Plan, unvaried: Set[str]) -> list[Seen]:
        """What can be seen at these sizes.

        Args:
            plan: For every run a size for every dynamic dim.
            unvaried: Dims that have one size in all runs: what hangs on them is not remembered.

        Raises:
            CannotRun: the model does not run at one of these sizes, or not within the limits.
        """
        for sizes in plan:
            check_size(self.specs, sizes)
        inferred = self._inferred(plan)
        by_probe = inferred if self._complete(inferred) else self._run(plan, inferred)
        if unvaried:
            for each, certain in zip(by_probe, self._inferred(plan, unvaried), strict=True):
                each.held = {name: array for name, array in each.held.items() if name in certain.held}
                each.blocks = {name: block for name, block in each.blocks.items() if name in certain.blocks}
        return by_probe

    def infer(self, plan: Plan, unvaried: Set[str] = frozenset()) -> list[Seen]:
        """What follows from these sizes, but for those that are to stay open.

        Raises:
            CannotRun: they do not fit the model.
        """
        constants = constants_of(self.graph, self.stated)
        inputs = (
            {
                spec.name: tuple(
                    None if dim in unvaried else n for dim, n in zip(spec.dims, shape_of(spec, sizes), strict=True)
                )
                for spec in self.specs
            }
            for sizes in plan
        )
        return [infer(self.blank, dims, constants, self.computed, self.written) for dims in inputs]

    def _inferred(self, plan: Plan, unvaried: Set[str] = frozenset()) -> list[Seen]:
        """The same; nothing, where inference does not understand the model at any size."""
        try:
            return self.infer(plan, unvaried)
        except NotUnderstood:
            return [Seen() for _ in plan]

    def static_shapes(self, plan: Plan) -> list[dict[str, tuple[int, ...]]]:
        """Shapes at sizes at which the model does not run, as far as they lie before the trouble."""
        inputs = ({spec.name: shape_of(spec, sizes) for spec in self.specs} for sizes in plan or ({},))
        constants = constants_of(self.graph, self.stated)
        return [static_shapes(self.blank, dims, constants) for dims in inputs]

    def _complete(self, seen: Sequence[Seen]) -> bool:
        return all(name in each.shapes for each in seen for name in self.values)

    def _run(self, plan: Plan, inferred: Sequence[Seen]) -> list[Seen]:
        """Run it on ones, or on zeros where it does not take ones, and look at what inference could not tell."""
        missing = [name for name in self.values if any(name not in each.shapes for each in inferred)]
        unknown = [name for name in self.computed if any(name not in each.held for each in inferred)]
        reason = CannotRun("no inputs to try")
        with open_session(without_weights(self.model, missing, unknown), optimize=False, trial=True) as session:
            for fill in (1, 0):
                try:
                    runs = [run(session, _filled(self.specs, sizes, fill), limits=TRIAL) for sizes in plan]
                except TooLong:
                    raise
                except CannotRun as error:
                    reason = error
                    continue
                shapes = [_shapes(known, missing, arrays) for known, arrays in zip(inferred, runs, strict=True)]
                hang_on_data = depends_on_data(self.graph, self.stated, shapes)
                return [
                    self._together(known, each, unknown, arrays[len(missing) :], hang_on_data)
                    for known, each, arrays in zip(inferred, shapes, runs, strict=True)
                ]
        raise reason

    def _together(
        self,
        inferred: Seen,
        shapes: Mapping[str, tuple[int, ...]],
        unknown: Sequence[str],
        arrays: Sequence[Array],
        hang_on_data: Set[str],
    ) -> Seen:
        """What was inferred, and what a run gave: shapes, and what `unknown` values held."""
        learnt = Seen(dict(shapes), dict(inferred.held), dict(inferred.blocks))
        stated = zip(unknown, arrays, strict=True)
        learnt.remember({name: array for name, array in stated if name not in hang_on_data}, self.written)
        return learnt


def _shapes(inferred: Seen, missing: Sequence[str], arrays: Sequence[Array]) -> dict[str, tuple[int, ...]]:
    """Shapes that were inferred, and those of `missing` values as a run put them out first."""
    seen = {name: tuple(int(n) for n in shape) for name, shape in zip(missing, arrays, strict=False)}
    return {**inferred.shapes, **seen}


def _filled(specs: Sequence[InputSpec], sizes: dict[str, int], fill: int) -> Feeds:
    feeds = constant_feeds(specs, sizes)
    return widened_feeds(
        {n: np.asarray(a * a.dtype.type(fill)) if a.dtype.kind != "O" else a for n, a in feeds.items()}
    )


def _stated(graph: ir.Graph) -> tuple[str, ...]:
    """Values that follow from constants and from shapes alone, whatever the weights and the data."""
    stated = {
        name: value
        for name, value in graph.initializers.items()
        if not value.is_graph_input() and value.const_value is not None and not is_large(value.const_value)
    }
    for node in graph:
        traits = traits_of(node)  # folded, a weight would no longer be a quantized one
        bodies = any(a.type == ir.AttributeType.GRAPH for a in node.attributes.values())
        if traits.random or traits.varies or traits.quantizes or bodies:
            continue
        if traits.states_lengths or all(v is None or v.name in stated for v in node.inputs):
            stated.update((value.name or "", value) for value in node.outputs)
    return tuple(stated)


def _written(graph: ir.Graph) -> frozenset[str]:
    scatters = (node for node in graph if node.op_type == "ScatterND")
    return frozenset(value.name or "" for node in scatters if (value := node.inputs[1]) is not None)
