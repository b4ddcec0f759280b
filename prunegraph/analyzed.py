"""Load a model, normalize it and find its groups and pins."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any, TypeVar

import onnx_ir as ir

from prunegraph.analysis.analyze import Analysis, analyze_graph
from prunegraph.analysis.cost import count_parameters
from prunegraph.analysis.names import check_patterns
from prunegraph.analysis.selection import ModelMark
from prunegraph.clock import Clock
from prunegraph.export.convert import Kind, ModelLike, kind_of, open_source
from prunegraph.export.onnx_file import name_of
from prunegraph.observe.fingerprint import fingerprint
from prunegraph.observe.stream import Data, Inputs
from prunegraph.passes.choose.request import Scope
from prunegraph.passes.dead import Folded, fold_as_planned
from prunegraph.passes.normalize import Normalized, normalize
from prunegraph.passes.normalize.fix_inputs import fix_inputs
from prunegraph.passes.normalize.time_first import time_first
from prunegraph.passes.normalize.unpack_attention import unpack_attention
from prunegraph.passes.rotate import Rotated
from prunegraph.runtime.limits import SECONDS_A_TRIAL, Limits

T = TypeVar("T", bound="Analyzed")


@dataclass(frozen=True)
class Analyzed:
    """A model made analysable, and what was found in it.

    Attributes:
        original: The model as it was given.
        normalized: The form of it that is analysed.
        analysis: Its groups and pins.
        kind: What models are given back as.
        scope: Which part of it may change.
        rotated: How its heads were turned; `normalized` is the turned model. None if it is as it was.
        folded: What of constant units was moved into biases, round by round, before dead units go; `normalized` is the
            model after that. None where dead units are not looked for.
    """

    original: ir.Model
    normalized: Normalized
    analysis: Analysis
    kind: Kind = Kind.PROTO
    scope: Scope = field(default_factory=Scope)
    rotated: Rotated | None = None
    folded: tuple[Folded, ...] | None = None

    @cached_property
    def mark(self) -> ModelMark:
        """Which model it is, for plans: hashes every weight when it is asked for the first time."""
        return ModelMark(name_of(self.original), fingerprint(self.original))

    def inputs(self, data: Data) -> Inputs:
        """Data for this model, at the sizes that it was found to run at.

        Where trial runs did not end, a batch ends when its time is over, too.

        Raises:
            UsageError: they do not fit it.
        """
        inputs = data.inputs(self.original, self.normalized.settled)
        endless = self.normalized.facts.endless
        return replace(inputs, limits=Limits(seconds=SECONDS_A_TRIAL)) if endless else inputs


def load_and_analyze(
    model: ModelLike,
    scope: Scope | None = None,
    clock: Clock | None = None,
    trace: Mapping[str, Any] | None = None,
    likely: Callable[[ir.Model], Mapping[str, int]] | None = None,
) -> Analyzed:
    """Read a model, make it analysable, and find its groups.

    Args:
        model: Anything that `open_source` reads.
        scope: Which part of it may change.
        clock: Told of the steps.
        trace: What a torch module is traced with, see `open_source`.
        likely: Gives lengths of dynamic dims at which the model is known to run, such as those of data.

    Raises:
        ModelError: the model cannot be read or traced, or the ONNX checker rejects it.
        UsageError: a pattern matches no graph input or output.
    """
    clock, scope = clock or Clock(), scope or Scope()
    with clock.step("load"):
        original = open_source(model, **(trace or {}))
    io = [value.name or "" for value in (*original.graph.inputs, *original.graph.outputs)]
    check_patterns(scope.allow_io, io, "graph input or output", hint=f"there are {', '.join(io)}")
    original = unpack_attention(time_first(fix_inputs(original, scope.values)))
    with clock.step("normalize"):
        lengths = likely(original) if likely is not None else None
        normalized = normalize(original, scope.sizes, lengths, tuple(scope.allow_io))
    with clock.step("analyze"):
        analysis = analyze_graph(normalized.model.graph, normalized.facts, tuple(scope.allow_io))
        analysis = replace(analysis, params=count_parameters(original.graph))
    return Analyzed(original, normalized, analysis, kind_of(model), scope)


def turned(analyzed: T, rotated: Rotated) -> T:
    """An analysed model whose heads are turned; its analysis is the same."""
    return replace(analyzed, normalized=replace(analyzed.normalized, model=rotated.model), rotated=rotated)


def with_folded(analyzed: T, rounds: Sequence[Folded]) -> T:
    """An analysed model with constant units moved into biases, as found or as planned, and analysed anew.

    Raises:
        UsageError: the model has no such weights.
    """
    for folded in rounds:
        normalized = fold_as_planned(analyzed.normalized, analyzed.analysis, folded)
        graph, scope = normalized.model.graph, tuple(analyzed.scope.allow_io)
        analysis = replace(analyze_graph(graph, normalized.facts, scope), params=analyzed.analysis.params)
        analyzed = replace(analyzed, normalized=normalized, analysis=analysis)
    return replace(analyzed, folded=(*(analyzed.folded or ()), *rounds))
