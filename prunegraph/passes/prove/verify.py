"""Verify: run the slim graph and the masked original, and compare every output and what shows a rewritten weight first.

The proof has three parts, all by ONNX Runtime: normalizing changed nothing; what Shrink made equals the original with
the removed units masked; and for every weight that was rewritten, other numbers in it would have been seen.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, fields
from typing import Any

import numpy as np
import onnx_ir as ir

from prunegraph.analysis.analyze import Analysis
from prunegraph.analysis.kept_positions import Positions
from prunegraph.analysis.read_weight import initializer_tensor, read_initializer, read_weight
from prunegraph.analysis.slots import Keeps
from prunegraph.errors import REPORT_MODEL, VerificationFailed
from prunegraph.passes.normalize.flatten import flatten_as
from prunegraph.passes.prove.choices import behind_choices
from prunegraph.passes.prove.compare import TOLERANCE, Gap, are_apart, compare, same_bytes
from prunegraph.passes.prove.copies import Copies
from prunegraph.passes.prove.group_facts import DEAD, OUTPUT, GroupFacts, fills, seen_at_outputs, weights_of
from prunegraph.passes.prove.inner import Perturbation, Shadow, perturbation, shared_values, with_shadows
from prunegraph.passes.prove.judge import Judge, in_words, worst_of
from prunegraph.passes.prove.look import Look
from prunegraph.passes.prove.normalizing import compare_normalized, compare_outputs, fault_of_runtime
from prunegraph.passes.prove.parts import bytes_together, estimated_bytes, in_parts
from prunegraph.passes.prove.runs import Noise, Values, run_all
from prunegraph.passes.prove.trial_inputs import Trial, on_trial_inputs
from prunegraph.runtime.blocks import bytes_of_weights
from prunegraph.runtime.feeds import Feeds
from prunegraph.runtime.limits import CannotRun, OutOfLimits

__all__ = ["TOLERANCE", "GroupFacts", "Verification", "verify"]

logger = logging.getLogger(__name__)

MOVED = 1e-6
"""A masking that changes outputs by less than this moves nothing."""


@dataclass(frozen=True, slots=True)
class Verification:
    """What the comparison saw.

    Attributes:
        ok: Whether slim and masked original agree to rounding.
        exact: Whether every removed unit could be zeroed instead; False where masked statistics had to stand in.
        max_abs_error: Largest difference of any output.
        max_rel_error: The same, relative to the largest value of that output.
        moved: How far masking moved the outputs of the original, relative to their largest value.
        vacuous: Masking moved nothing: dead units went.  What would have been seen stands in `groups`.
        normalize_error: Relative difference between the file given and its normalized form.
        runs: How many inputs were compared.
        reason: What differs, and where, if anything does; else empty.
        groups: What would have been seen of every group.
        unseen: Rewritten weights in which other numbers would have moved nothing that was compared.
        compared_before: The nodes before which the comparison ended, since rounding flips what they choose.
        notes: What else is to be said: faults of the runtime, numbers that are none.
    """

    ok: bool
    exact: bool
    max_abs_error: float
    max_rel_error: float
    moved: float
    vacuous: bool
    normalize_error: float
    runs: int
    reason: str = ""
    groups: tuple[GroupFacts, ...] = ()
    unseen: tuple[str, ...] = ()
    compared_before: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()

    def to_dict(self) -> dict[str, Any]:
        """The fields as JSON writes them."""
        plain = {each.name: getattr(self, each.name) for each in fields(self)}
        lists = {name: list(value) for name, value in plain.items() if isinstance(value, tuple)}
        return {**plain, **lists, "groups": [group.to_dict() for group in self.groups]}


def verify(
    original: ir.Model,
    normalized: ir.Model,
    slim: ir.Model,
    analysis: Analysis,
    keeps: Keeps,
    feeds: Iterable[Feeds] | None = None,
    sizes: Mapping[str, int] | None = None,
) -> Verification:
    """Compare a slim model with the original minus what was removed.

    Quantized models are run as they are, and compared without the rounding of activations, see `unrounded`.

    Args:
        original: The model as it was given.
        normalized: The form of it that was analysed.
        slim: What Shrink made of that.
        analysis: The analysis of `normalized`.
        keeps: What stays.
        feeds: Inputs to compare on; random ones at sizes no probe has used if None.
        sizes: Sizes of dynamic dims by name, for random inputs.

    Raises:
        PruneGraphError: ONNX Runtime cannot run the original, or not within the limits, or makes no numbers of it.
        VerificationFailed: it cannot run the normalized or the slim model.
    """
    nested, endless = slim, analysis.solution.facts.endless
    if flatten_as(slim := slim.clone(), normalized):
        feeds = None if feeds is None else list(feeds)
        try:
            reason = compare_outputs(nested, slim, feeds, sizes or {}, endless=endless).reason
        except CannotRun as error:
            problem = f"branches cannot be run side by side, so that nothing can be compared: {error}"
            raise VerificationFailed(problem, hint="take one of them: --set NAME=VALUE, Scope(values=…)") from error
        if reason:
            problem = f"branches and bodies do not compute what they do outside of their If or Loop: {reason}"
            raise VerificationFailed(problem, hint=REPORT_MODEL)
    copies = Copies.of(original, normalized, slim, analysis, keeps)
    positions = Positions(analysis.solution, keeps)
    outputs = _outputs_left(normalized, slim, positions)

    def proven(trial: Trial) -> Verification:
        return _Proof(normalized.graph, copies, outputs, trial, analysis, keeps, positions).verification()

    return on_trial_inputs(proven, copies.given, outputs, feeds, sizes, endless=endless)


def _outputs_left(normalized: ir.Model, slim: ir.Model, positions: Positions) -> list[str]:
    """The outputs of a model that a slim one has, too.

    Raises:
        VerificationFailed: it lacks one of which something should be left.
    """
    outputs = [value.name or "" for value in normalized.graph.outputs]
    there = {value.name for value in slim.graph.outputs}
    if missing := [name for name in outputs if name not in there and not positions.nothing_left(name)]:
        raise VerificationFailed(f"the slim model lacks the output {missing[0]}", hint=REPORT_MODEL)
    return [name for name in outputs if name in there]


@dataclass
class _Proof:
    """One comparison, from the first run to what is said of it."""

    analyzed: ir.Graph
    copies: Copies
    outputs: list[str]
    trial: Trial
    analysis: Analysis
    keeps: Keeps
    positions: Positions
    notes: list[str] = field(default_factory=list)

    def verification(self) -> Verification:
        copies, outputs, feeds = self.copies, self.outputs, self.trial.feeds
        if self.trial.finite < 1:
            share = f"{1 - self.trial.finite:.1%} of the numbers that the original makes of the inputs tried"
            self.notes.append(f"{share} are not finite; where they are not, the slim model must make the same")
        before = self.trial.outputs if copies.original is copies.given else self._run(copies.original, outputs)
        plain = _original(lambda: self._run(copies.normalized, outputs))
        normalizing = compare_normalized(copies, feeds, outputs, before, plain, self.trial.limits)
        self.notes += normalizing.notes
        look = self._look()
        first, *further = look.parts
        expected = _original(lambda: self._run(copies.oracle, outputs, first, optimize=False))
        moved = max(_apart(a, b) for a, b in zip(plain, expected, strict=True))
        left = [self.positions.cut_all(values) for values in expected]
        del expected, plain, before
        try:
            slimmed = self._run(copies.slim, outputs, feeds=look.feeds)
            real = self._run(copies.small, outputs, feeds=look.feeds) if copies.rounded else slimmed
            looked = look.at([*outputs, *first])
        except OutOfLimits:
            raise
        except CannotRun as error:
            raise VerificationFailed(f"ONNX Runtime does not run the slim model: {error}", hint=REPORT_MODEL) from error
        judge = self._judge(look, feeds, outputs, first, left)
        faults = judge.faults([{**{k: looked[k] for k in first}, **slimmed[0]}, *slimmed[1:]])
        if faults and set(faults) & set(outputs):
            faults = self._without_optimizing(judge, look.feeds, looked)
        seen_at = _seen(look.shadows, looked, left[0], judge.noise[0])
        gaps = judge.gaps
        del looked, left
        judge.expected = ()  # as large as what further parts are compared with
        for part in further:
            faults += self._judge_part(part, look, gaps, seen_at)
        compared_before: tuple[str, ...] = ()
        if faults and judge.only_choices(faults, look.shadows):
            compared_before, faults = look.behind.nodes, []
        unfinite = _new_holes(self.trial.outputs, real, self.positions)
        reason = normalizing.reason or (f"not finite: {unfinite}" if unfinite else "") or in_words(faults, gaps)
        reason = reason or self._other_weight()
        hidden = look.behind.values if compared_before else frozenset[str]()
        shown = [gaps[name] for name in outputs if name in gaps and name not in hidden]
        return Verification(
            ok=not reason,
            exact=all(group.exact for group in self._groups()),
            max_abs_error=max((gap.absolute for gap in shown), default=0.0),
            max_rel_error=max((gap.relative for gap in shown), default=0.0),
            moved=moved,
            vacuous=moved < MOVED,
            normalize_error=normalizing.error,
            runs=len(feeds),
            reason=reason,
            groups=tuple(self._facts(seen_at, look, proven=not reason)),
            unseen=tuple(name for name in look.other if name not in seen_at),
            compared_before=compared_before,
            notes=tuple(self.notes),
        )

    # ---- the parts of the proof ------------------------------------------------------------------------------------

    def _look(self) -> Look:
        copies, solution = self.copies, self.analysis.solution
        there = [name for name in copies.weights if name in copies.slim.graph.initializers]
        other = {name: numbers for name in there if (numbers := self._other_numbers(name)) is not None}
        common = {*shared_values(copies.oracle.graph, copies.slim.graph, solution), *self.outputs}
        shadowed, shadows = with_shadows(copies.slim, other, common)
        behind = behind_choices(copies.slim.graph, list(other), common)
        inner = dict.fromkeys([*(shadow.value for shadow in shadows), *behind.last])
        size = estimated_bytes(solution.facts, self.trial.feeds[0])
        most = bytes_together(bytes_of_weights(copies.slim.graph))
        parts = in_parts([name for name in inner if name not in self.outputs], size, most)
        feeds = [self._cut_inputs(feed) for feed in self.trial.feeds]
        return Look(shadowed, shadows, other, behind, parts, feeds, self.trial.limits)

    def _judge(
        self,
        look: Look,
        feeds: Sequence[Feeds],
        outputs: Sequence[str],
        inner: Sequence[str],
        expected: Sequence[Values],
    ) -> Judge:
        noise: list[Noise] = [{}] * len(feeds)
        oracle, behind, limits = self.copies.oracle, look.behind, self.trial.limits
        return Judge(oracle, feeds, outputs, inner, expected, self.positions, behind, noise, limits)

    def _judge_part(self, part: Sequence[str], look: Look, gaps: dict[str, Gap], seen_at: dict[str, str]) -> list[str]:
        """What is wrong of further inner values; adds what is seen of them."""
        feeds = self.trial.feeds[:1]
        expected = _original(lambda: self._run(self.copies.oracle, [], part, feeds=feeds, optimize=False))
        left = [self.positions.cut_all(expected.pop())]
        looked = look.at(part)
        judge = self._judge(look, feeds, [], part, left)
        faults = judge.faults([{name: looked[name] for name in part}])
        gaps.update(judge.gaps)
        for weight, value in _seen(look.shadows, looked, left[0], judge.noise[0]).items():
            seen_at.setdefault(weight, value)
        return faults

    def _without_optimizing(self, judge: Judge, small: Sequence[Feeds], looked: Values) -> list[str]:
        """What is still wrong where ONNX Runtime runs the slim model as it is written."""
        optimized = judge.gaps
        plainly = self._run(self.copies.slim, self.outputs, feeds=small, optimize=False)
        faults = judge.faults([{**{k: looked[k] for k in judge.inner}, **plainly[0]}, *plainly[1:]])
        if not set(faults) & set(self.outputs):
            worst = worst_of({name: optimized[name] for name in self.outputs})
            self.notes.append(fault_of_runtime("the slim model", worst))
        return faults

    def _groups(self) -> list[Any]:
        return [group for group in self.analysis.groups if group.dim in self.keeps]

    def _facts(self, seen_at: Mapping[str, str], look: Look, *, proven: bool) -> Iterable[GroupFacts]:
        groups = self._groups()
        weights_by_group = weights_of(groups, list(look.other), self.analyzed)
        # One weight of each: all of them in the same other order may well compute the same.
        shown = {group: [name for name in names if name in seen_at] for group, names in weights_by_group.items()}
        sizes = {name: initializer_tensor(self.copies.slim, name).size for name in look.other}
        largest = {group: max(names, key=sizes.__getitem__) for group, names in shown.items() if names}
        alive = {group: (name, look.other[name]) for group, name in largest.items()}
        candidates = [self._cut_inputs(self.trial.light), look.feeds[0]] if proven else []
        moving = seen_at_outputs(self.copies.slim, alive, candidates, self.outputs, self.trial.limits)
        filled = fills(self.analyzed, self.analysis.solution, self.keeps)
        for group in groups:
            where = [seen_at[name] for name in weights_by_group[group.id] if name in seen_at]
            inside = OUTPUT if where and where[0] in self.outputs else f"inside {where[0]}" if where else DEAD
            yield GroupFacts(group.id, OUTPUT if group.id in moving else inside, filled.get(group.dim, ""))

    # ---- runs and arrays -------------------------------------------------------------------------------------------

    def _run(
        self,
        model: ir.Model,
        outputs: Sequence[str],
        inner: Sequence[str] = (),
        *,
        feeds: Sequence[Feeds] | None = None,
        optimize: bool = True,
    ) -> list[Values]:
        feeds = self.trial.feeds if feeds is None else feeds
        return run_all(model, feeds, outputs, inner, optimize=optimize, limits=self.trial.limits)

    def _cut_inputs(self, feed: Feeds) -> Feeds:
        """Inputs as the slim model takes them: the same, unless the caller allowed them to shrink."""
        doors = {value.name for value in self.copies.slim.graph.inputs}
        return {name: self.positions.cut(name, array) if name in doors else array for name, array in feed.items()}

    def _other_weight(self) -> str:
        """A weight under its old name that is no part of what it was: what the inputs tried do not read is seen so."""
        for name in self.copies.weights:
            new, old = (graph.initializers.get(name) for graph in (self.copies.small.graph, self.copies.plain.graph))
            if old is None or new is None or old.const_value is None or new.const_value is None:
                continue
            kept, there = self.positions.cut(name, read_weight(old.const_value)), read_weight(new.const_value)
            if kept.dtype == there.dtype and kept.shape == there.shape and not same_bytes(kept, there):
                return f"the weight {name} does not hold the numbers that stay of it in the original"
        return ""

    def _other_numbers(self, name: str) -> Perturbation | None:
        whole = self.copies.normalized.graph.initializers.get(name)
        shape = whole.const_value.shape.numpy() if whole is not None and whole.const_value is not None else None
        return perturbation(read_initializer(self.copies.slim, name), shape)


def _original(runs: Any) -> Any:
    try:
        return runs()
    except OutOfLimits:
        raise
    except CannotRun as reason:
        message = f"ONNX Runtime runs the original at sizes at which it does not run what was analysed: {reason}"
        raise VerificationFailed(message, hint=REPORT_MODEL) from reason


def _apart(a: Values, b: Values) -> float:
    """How far two runs are apart, relative to the largest value of each output."""
    return max((compare(a[name], b[name]).relative for name in a.keys() & b.keys()), default=0.0)


def _new_holes(before: Sequence[Values], after: Sequence[Values], positions: Positions) -> str:
    """An output in which the slim model makes something that is not finite where the original makes a number."""
    for left, right in zip(before, after, strict=True):
        for name, array in right.items():
            whole = positions.cut(name, left[name])
            if array.dtype.kind == "f" and whole.shape == array.shape:
                if (~np.isfinite(array) & np.isfinite(whole)).any():
                    return f"the slim model makes NaN or Inf in {name} where the original makes numbers"
    return ""


def _seen(shadows: Sequence[Shadow], looked: Values, expected: Values, noise: Noise) -> dict[str, str]:
    """By weight the first of the values looked at that other numbers in it move by more than rounding."""
    seen_at: dict[str, str] = {}
    for shadow in shadows:
        if shadow.weight not in seen_at and shadow.name in looked:
            if are_apart(expected[shadow.value], looked[shadow.name], noise.get(shadow.value)):
                seen_at[shadow.weight] = shadow.value
    return seen_at
