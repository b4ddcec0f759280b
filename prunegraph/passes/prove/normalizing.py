"""Whether normalizing changed nothing: the original and what was analysed, on the same inputs."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

import onnx_ir as ir
import onnxruntime as ort

from prunegraph.passes.prove.choices import behind_choices
from prunegraph.passes.prove.compare import TOLERANCE, Gap
from prunegraph.passes.prove.copies import Copies
from prunegraph.passes.prove.float_reference import unrounded
from prunegraph.passes.prove.judge import SEEDS, all_gaps, both_noises, in_words, worst_of
from prunegraph.passes.prove.runs import Noise, Values, jittered, jittered_feeds, noise_of, run_all
from prunegraph.passes.prove.same_noise import with_same_noise
from prunegraph.passes.prove.trial_inputs import Trial, on_trial_inputs
from prunegraph.runtime.feeds import Feeds
from prunegraph.runtime.limits import UNLIMITED, Limits
from prunegraph.runtime.widen import widened


@dataclass(frozen=True, slots=True)
class Normalizing:
    """How far normalizing moved the outputs.

    Attributes:
        error: Relative to the largest value of each.
        reason: What is to be said of it if that is too far, else empty.
        notes: What else is to be said.
    """

    error: float
    reason: str = ""
    notes: tuple[str, ...] = ()


def compare_outputs(
    original: ir.Model,
    other: ir.Model,
    feeds: Iterable[Feeds] | None,
    sizes: Mapping[str, int],
    *,
    endless: bool = False,
) -> Normalizing:
    """Compare what two models make whose outputs shall be the same, with nothing masked.

    Args:
        original: The model as it was given.
        other: What was made of it.
        feeds: Inputs to compare on; random ones if None.
        sizes: Sizes of dynamic dims by name, for random inputs.
        endless: See `trial_inputs`.

    Raises:
        PruneGraphError: ONNX Runtime does not run the original.
    """
    wide_original, wide_other = (with_same_noise(widened(model)) for model in (original, other))
    plain, small = unrounded(wide_original), unrounded(wide_other)
    copies = Copies(wide_original, wide_other, wide_other, plain, small, small, small, ())
    outputs = [value.name or "" for value in other.graph.outputs]

    def compare(trial: Trial) -> Normalizing:
        before, after = (run_all(model, trial.feeds, outputs, limits=trial.limits) for model in (plain, small))
        return compare_normalized(copies, trial.feeds, outputs, before, after, trial.limits)

    outcome = on_trial_inputs(compare, wide_original, outputs, feeds, sizes, endless=endless)
    return replace(outcome, reason=outcome.reason.replace("normalizing changed the model: ", ""))


def compare_normalized(
    copies: Copies,
    feeds: Sequence[Feeds],
    outputs: Sequence[str],
    before: Sequence[Values],
    plain: Sequence[Values],
    limits: Limits = UNLIMITED,
) -> Normalizing:
    """Compare what the original and the normalized model make, past faults of the optimizer and choices of rounding.

    Args:
        copies: The models.
        feeds: What they ran on.
        outputs: The names of their outputs.
        before: What the original made.
        plain: What the normalized model made.
        limits: What a further run may take.
    """
    gaps = all_gaps(before, plain, [{}] * len(before))
    if worst_of(gaps).rounding:
        return Normalizing(worst_of(gaps).relative)
    notes: tuple[str, ...] = ()
    noise: list[Noise] = [{}] * len(before)
    for seed in SEEDS:
        again = run_all(jittered(copies.normalized, seed), jittered_feeds(feeds, seed), outputs, limits=limits)
        noise = both_noises(noise, noise_of(plain, again))
    gaps = all_gaps(before, plain, noise)
    if not worst_of(gaps).rounding:
        models = (copies.original, copies.normalized)
        unoptimized = [run_all(model, feeds, outputs, optimize=False, limits=limits) for model in models]
        plainly = all_gaps(unoptimized[0], unoptimized[1], noise)
        if worst_of(plainly).rounding:
            notes = (fault_of_runtime("the original", worst_of(gaps)),)
        gaps = plainly
    worst = worst_of(gaps)
    if worst.rounding:
        return Normalizing(worst.relative, "", notes)
    wrong = {name for name, gap in gaps.items() if not gap.rounding}
    return _before_choices(copies, feeds, outputs, wrong, limits) or Normalizing(
        worst.relative, f"normalizing changed the model: {in_words(sorted(wrong), gaps)}", notes
    )


def _before_choices(
    copies: Copies, feeds: Sequence[Feeds], outputs: Sequence[str], wrong: set[str], limits: Limits
) -> Normalizing | None:
    """The comparison of what lies before choices, where all that differs lies behind them and that agrees."""
    graph = copies.normalized.graph
    weights = list(graph.initializers)
    if not wrong <= behind_choices(graph, weights, outputs).values:
        return None
    models = (copies.original, copies.normalized)
    original, normalized = ({value.name for node in model.graph for value in node.outputs} for model in models)
    behind = behind_choices(graph, weights, {name for name in original & normalized if name})
    last = list(behind.last)
    if not last:
        return None
    values = [run_all(model, feeds, outputs, last, optimize=False, limits=limits)[0] for model in models]
    left, right = ([{name: each[name] for name in last}] for each in values)
    inner = all_gaps(left, right, [{}])
    if worst_of(inner).relative > TOLERANCE:
        return None
    note = f"normalizing was compared before {', '.join(behind.nodes[:3])}: rounding flips a choice"
    return Normalizing(worst_of(inner).relative, "", (note,))


def fault_of_runtime(what: str, gap: Gap) -> str:
    """Says that ONNX Runtime is at fault."""
    return (
        f"ONNX Runtime {ort.__version__} computes something else for {what} when it optimizes it, off by "
        f"{gap.relative:.1e} of the output's scale; compared is what it computes without that"
    )
