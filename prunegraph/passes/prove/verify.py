"""Verify: run the slim graph and the masked original, and compare every output.

The proof has two halves, both by ONNX Runtime: normalizing changed nothing, and what Shrink made equals the original
with the removed units masked.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from itertools import chain

import numpy as np
import onnx_ir as ir

from prunegraph.analysis.analyze import Analysis
from prunegraph.analysis.slots import Keeps, compress, kept_positions
from prunegraph.errors import PruneGraphError, VerificationFailed
from prunegraph.passes.prove.float_reference import unrounded
from prunegraph.passes.prove.mask import masked
from prunegraph.runtime.feeds import Feeds, input_specs, random_feeds
from prunegraph.runtime.session import Array, CannotRun, open_session, run, widened, widened_feeds
from prunegraph.runtime.trial_sizes import size_plans

logger = logging.getLogger(__name__)

TOLERANCE = 1e-4
"""Largest difference, relative to the largest value of the output, that counts as rounding."""

MOVED = 1e-6
"""A masking that changes outputs by less than this proves nothing."""

_REPORT = "please report the model; exclude the groups at fault meanwhile"

SHORT, LONG = {"batch": 3, "row": 17}, {"batch": 1, "row": 130}
"""Sizes that no probe has used; the long one tells a length that is static from one that is padded to a multiple."""


@dataclass(frozen=True, slots=True)
class Verification:
    """What the comparison saw.

    Attributes:
        ok: Whether slim and masked original agree to rounding.
        exact: Whether every removed unit could be zeroed instead; False where masked statistics had to stand in.
        max_abs_error: Largest difference of any output.
        max_rel_error: The same, relative to the largest value of that output.
        moved: How far masking moved the outputs of the original, relative to their largest value.
        vacuous: The masking moved nothing, so that the agreement proves nothing: dead units.
        normalize_error: Relative difference between the file given and its normalized form.
        runs: How many inputs were compared.
    """

    ok: bool
    exact: bool
    max_abs_error: float
    max_rel_error: float
    moved: float
    vacuous: bool
    normalize_error: float
    runs: int

    def to_dict(self) -> dict[str, float | bool | int]:
        """For JSON."""
        return asdict(self)


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
        PruneGraphError: ONNX Runtime cannot run the original.
        VerificationFailed: it cannot run the normalized or the slim model.
    """
    solution = analysis.solution
    wide = [widened(model) for model in (original, normalized, slim)]
    given, before = _outputs(wide[0], feeds, sizes or {})
    cut = [_cut(feed, [value.name or "" for value in slim.graph.inputs], analysis, keeps) for feed in given]
    outputs = [value.name or "" for value in normalized.graph.outputs]
    smooth = unrounded(wide[1])
    if smooth is not wide[1]:
        before = _run_all(unrounded(wide[0]), given)
    try:
        plain = _run_all(smooth, given)
        zeroed = _run_all(unrounded(masked(wide[1], solution, keeps)), given)
    except CannotRun as reason:
        message = f"ONNX Runtime runs the original at sizes at which it does not run what was analysed: {reason}"
        raise VerificationFailed(message, hint="please report the model") from reason
    normalize_error = _difference(before, plain)[1]
    try:
        slimmed = _run_all(wide[2], cut)
        finite = _finite(slimmed)
        if smooth is not wide[1]:
            slimmed = _run_all(unrounded(wide[2]), cut)
    except CannotRun as reason:
        raise VerificationFailed(f"ONNX Runtime does not run the slim model: {reason}", hint=_REPORT) from reason
    zeroed_cut = [_cut(dict(zip(outputs, run, strict=True)), outputs, analysis, keeps) for run in zeroed]
    expected = [[run[name] for name in outputs] for run in zeroed_cut]
    absolute, relative = _difference(expected, slimmed)
    moved = _difference(plain, zeroed)[1]
    dims = set(keeps)
    return Verification(
        ok=finite and relative <= TOLERANCE and normalize_error <= TOLERANCE,
        exact=all(group.exact for group in analysis.groups if group.dim in dims),
        max_abs_error=absolute,
        max_rel_error=relative,
        moved=moved,
        vacuous=moved < MOVED,
        normalize_error=normalize_error,
        runs=len(given),
    )


def _outputs(
    model: ir.Model, feeds: Iterable[Feeds] | None, sizes: Mapping[str, int]
) -> tuple[list[Feeds], list[list[Array]]]:
    """Inputs that the original accepts, and what it makes of them."""
    reason: Exception = CannotRun("no inputs to run it on")
    for given in [list(feeds)] if feeds is not None else _random(model, sizes):
        try:
            return given, _run_all(model, given)
        except CannotRun as error:
            reason = error
    raise PruneGraphError(
        f"cannot verify: ONNX Runtime does not run the original ({reason})",
        hint="give inputs that it accepts, or skip the proof (verify=False, --no-verify)",
    )


def _random(model: ir.Model, known: Mapping[str, int]) -> Iterable[list[Feeds]]:
    """Random inputs, short and long ones where the sequence is dynamic; short ones alone if the long are too long."""
    specs = input_specs(model.graph)
    both = next(iter(size_plans(specs, (SHORT, LONG))))
    same_batch = next(iter(size_plans(specs, (SHORT, {**SHORT, "row": LONG["row"]}))))
    plans = size_plans(specs, (SHORT,))
    for plan in plans if same_batch[0] == same_batch[1] else chain([both], plans):
        yield [random_feeds(specs, {**sizes, **known}, seed) for seed, sizes in enumerate(plan)]


def _run_all(model: ir.Model, feeds: Sequence[Feeds]) -> list[list[Array]]:
    with open_session(model, prepack=False) as session:
        return [run(session, widened_feeds(feed)) for feed in feeds]


def _finite(runs: Sequence[Sequence[Array]]) -> bool:
    return all(np.isfinite(array).all() for run in runs for array in run if array.dtype.kind == "f")


def _cut(arrays: Mapping[str, Array], names: Sequence[str], analysis: Analysis, keeps: Keeps) -> Feeds:
    """Inputs or outputs as the slim model has them: the same, unless the caller allowed them to shrink."""
    solution = analysis.solution
    found = dict(arrays)
    for name in names:
        if name in found and name in solution.axes:
            axes = solution.resolve(name)
            if any(dim in keeps for axis in axes for dim in axis.dims()):
                found[name] = compress(found[name], kept_positions(axes, keeps, solution.dim_size))
    return found


def _difference(a: Sequence[Sequence[Array]], b: Sequence[Sequence[Array]]) -> tuple[float, float]:
    """Largest difference, absolute and relative to the output's largest value; infinite where shapes or NaNs differ."""
    absolute = relative = 0.0
    for x, y in ((x, y) for run_a, run_b in zip(a, b, strict=True) for x, y in zip(run_a, run_b, strict=True)):
        if x.shape != y.shape:
            return float("inf"), float("inf")
        if x.size == 0 or x.dtype.kind not in "fiub":
            continue
        left, right = x.astype(np.float64), y.astype(np.float64)
        same = (left == right) | (np.isnan(left) & np.isnan(right))
        gap = np.where(same, 0.0, np.abs(left - right))
        if np.isnan(gap).any():
            return float("inf"), float("inf")
        scale = float(np.max(np.abs(left[np.isfinite(left)]), initial=0.0))
        absolute = max(absolute, float(gap.max()))
        relative = max(relative, float(gap.max()) / max(scale, 1e-12))
    return absolute, relative
