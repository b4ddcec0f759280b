"""Prove a slim model against the masked original, whoever made it: repaired and turned ones too."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

import onnx_ir as ir

from prunegraph.analysis.kept_positions import Positions
from prunegraph.analysis.selection import Selection
from prunegraph.analysis.slots import Keeps
from prunegraph.analyzed import Analyzed, turned, with_folded
from prunegraph.clock import Clock
from prunegraph.errors import REPORT_MODEL, UsageError, VerificationFailed
from prunegraph.observe.stream import Data
from prunegraph.passes.dead import Folded
from prunegraph.passes.prove.normalizing import compare_outputs
from prunegraph.passes.prove.verify import TOLERANCE, Verification, verify
from prunegraph.passes.repair import Written, restored
from prunegraph.passes.rewrite.cleanup import cleanup
from prunegraph.passes.rewrite.remove_groups import remove_whole_groups
from prunegraph.passes.rotate import Rotation, rotate_as_planned, rotation_error, tolerance
from prunegraph.runtime.feeds import Feeds

SAMPLES = 8
"""So many of the caller's samples does the proof run on."""


def prove(analyzed: Analyzed, slim: ir.Model, keeps: Keeps, data: Data | None = None) -> Verification:
    """Compare a slim model with the masked original, on data if there are any and on random inputs.

    Raises:
        VerificationFailed: they differ by more than rounding.
    """
    proof = _verified(analyzed, slim, keeps, data)
    if not proof.ok and analyzed.folded is not None:
        hint = "please report the model; --exclude leaves out the groups at fault"
        raise VerificationFailed(f"without its dead units the model differs: {proof.reason}", hint=hint)
    if not proof.ok:
        has_turned = analyzed.rotated is not None and analyzed.rotated.rotation
        basis = ", and --no-rotate heads in their basis" if has_turned else ""
        raise VerificationFailed(
            f"the slim model differs from the masked original: {proof.reason}; it was discarded",
            hint=REPORT_MODEL + basis,
        )
    return proof


def _verified(analyzed: Analyzed, slim: ir.Model, keeps: Keeps, data: Data | None) -> Verification:
    """The proof; of a turned model in two halves: turning changed nothing, and the rest as always.

    One comparison shows both where turned weights are stored as finely as others; it is by halves that a weight in 16
    bits may be rounded anew, and that a fault is told to be of one or of the other.
    """
    model, sizes, rotated = analyzed.normalized.model, analyzed.normalized.settled, analyzed.rotated
    inputs = analyzed.inputs(data).first(SAMPLES) if data is not None else None
    feeds = [batch.feeds for batch in inputs.batches()] if inputs is not None else None
    if rotated is None or not rotated.rotation:
        proof = verify(analyzed.original, model, slim, analyzed.analysis, keeps, feeds, sizes=sizes)
        return proof if analyzed.folded is None else _unchanged(proof, analyzed.original, slim, feeds, sizes)
    allowed = tolerance(rotated.before, model)
    if allowed <= TOLERANCE:
        proof = verify(analyzed.original, model, slim, analyzed.analysis, keeps, feeds, sizes=sizes)
        if proof.ok and proof.normalize_error <= allowed:
            return proof
    error = rotation_error(analyzed.original, model, analyzed.analysis, feeds, sizes)
    proof = verify(model, model, slim, analyzed.analysis, keeps, feeds, sizes=sizes)
    is_same = error <= allowed
    reason = proof.reason or ("" if is_same else f"turning heads into another basis moved the outputs by {error:.1e}")
    return replace(proof, ok=proof.ok and is_same, normalize_error=error, reason=reason)


def _unchanged(
    proof: Verification,
    original: ir.Model,
    slim: ir.Model,
    feeds: list[Feeds] | None,
    sizes: Mapping[str, int],
) -> Verification:
    """The proof of a model without its dead units: the reference is the original itself, with nothing masked."""
    same = compare_outputs(original, slim, feeds, sizes)
    reason = proof.reason or (f"of the original itself, {same.reason}" if same.reason else "")
    return replace(proof, ok=not reason, reason=reason, max_rel_error=max(proof.max_rel_error, same.error))


def compare(
    analyzed: Analyzed,
    slim: ir.Model,
    plan: Selection,
    *,
    repair: Written | None = None,
    rotation: Rotation | None = None,
    dead: Sequence[Folded] | None = None,
    data: Data | None = None,
    clock: Clock | None = None,
) -> Verification:
    """Compare a slim model with the masked original, whoever made it; nothing of it is trusted but the plan.

    Args:
        analyzed: The original.
        slim: What was made of it.
        plan: What stays of every group that got smaller.
        repair: Which weights were re-fitted: those that Shrink makes stand in for them.
        rotation: How the original was turned before it was cut.
        dead: What of constant units was moved into biases before dead units went; None where others went.
        data: Compare on these, too.
        clock: Told of the steps.

    Raises:
        VerificationFailed: the plan does not fit the model, or the slim model has other inputs or outputs, or does
            not run.
    """
    clock = clock or Clock()
    try:
        if dead is not None:
            analyzed = with_folded(analyzed, dead)
        plan.check_model(lambda: analyzed.mark)
        keeps = plan.keeps(analyzed.analysis.groups)
        if rotation:
            rotated = rotate_as_planned(analyzed.normalized.model, analyzed.analysis, rotation)
            analyzed = turned(analyzed, rotated)
    except UsageError as error:
        hint = "use the plan written beside the slim model, the model it was made from, and the same --allow-io"
        raise VerificationFailed(f"the plan does not fit the model: {error}", hint=hint) from error
    check_interface(analyzed.original, slim, Positions(analyzed.analysis.solution, keeps))
    if repair:
        with clock.step("shrink"):
            slim = undo_repair(analyzed, slim, keeps, repair)
    with clock.step("verify"):
        return _verified(analyzed, slim, keeps, data)


def check_interface(model: ir.Model, slim: ir.Model, positions: Positions) -> None:
    """Check that a slim model is called as its original is, but for inputs and outputs of which nothing is left.

    Raises:
        VerificationFailed: it has other inputs or outputs.
    """
    for what in ("inputs", "outputs"):
        before, after = ([value.name or "" for value in getattr(each.graph, what)] for each in (model, slim))
        before = [name for name in before if name in after or not positions.nothing_left(name)]
        if before != after:
            raise VerificationFailed(
                f"the slim model has other {what}: {', '.join(map(str, after))} "
                f"instead of {', '.join(map(str, before))}",
                hint="compare a model with what was made of it by pruning",
            )


def undo_repair(analyzed: Analyzed, slim: ir.Model, keeps: Keeps, written: Written) -> ir.Model:
    """A repaired slim model with the weights that Shrink gave it.

    Raises:
        VerificationFailed: it does not have the weights that were re-fitted.
    """
    shrunk = remove_whole_groups(analyzed.normalized.model, analyzed.analysis.solution, keeps)
    bare = dict(shrunk.model.graph.initializers)
    bare |= cleanup(shrunk.model, analyzed.analysis.solution, shrunk.lengths).graph.initializers
    try:
        return restored(slim, bare, written)
    except KeyError as name:
        hint = "use the plan written beside the slim model; weights that another tool has renamed cannot be compared"
        raise VerificationFailed(f"the slim model does not have the re-fitted weight {name}", hint=hint) from None
