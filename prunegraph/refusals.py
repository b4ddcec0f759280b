"""What is refused before or instead of a result, each with its fix."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import onnx_ir as ir

from prunegraph.analysis.analyze import Analysis
from prunegraph.analysis.names import matches
from prunegraph.errors import NothingToPrune, UsageError, VerificationFailed
from prunegraph.passes.choose.amounts import is_pattern
from prunegraph.passes.choose.request import Options


def check_patterns(patterns: Sequence[str], names: Sequence[str], what: str, *, hint: str) -> None:
    """A pattern that matches nothing is a slip, and one that changes the result in silence."""
    for pattern in patterns:
        if names and not matches(names, [pattern]):
            raise UsageError(f"no {what} matches {pattern!r}", hint=hint)


def check_doors(model: ir.Model, slim: ir.Model) -> None:
    """A slim model is called as its original is."""
    for what in ("inputs", "outputs"):
        old, new = ([value.name for value in getattr(each.graph, what)] for each in (model, slim))
        if old != new:
            raise VerificationFailed(
                f"the slim model has other {what}: {', '.join(map(str, new))} instead of {', '.join(map(str, old))}",
                hint="compare a model with what was made of it by pruning",
            )


def cannot_go_whole(analysis: Analysis, refused: Mapping[int, str]) -> UsageError:
    """Why nothing may be left out altogether of some groups."""
    group = next((group for group in analysis.groups if group.dim in refused), None)
    name, why = (group.id, refused[group.dim]) if group else ("a group", next(iter(refused.values())))
    return UsageError(f"{name} cannot go whole: {why}", hint="keep at least one unit of it")


def nothing_to_prune(analysis: Analysis, options: Options) -> NothingToPrune:
    """Why no group got smaller, from what is there and from the pins."""
    said = [*(options.ratio if isinstance(options.ratio, Mapping) else ()), *options.keep]
    wanted = sorted({key for key in said if not is_pattern(key)})
    missing = [kind for kind in wanted if all(g.kind != kind for g in analysis.groups)]
    if analysis.groups and not missing:
        return NothingToPrune(
            "nothing to prune: the ratio, the patterns or the alignment leave every group whole",
            hint="`prunegraph explain` lists the groups and their sizes",
        )
    reasons = [str(pin) for pinned in analysis.pinned for pin in pinned.pins]
    common = max(set(reasons), key=reasons.count) if reasons else "the model has no weights"
    what = f"the model has no group of kind {', '.join(missing)}" if missing else "nothing to prune: no axis is free"
    hint = "`prunegraph explain -v` shows every pin and its node"
    if common.startswith(("graph input", "graph output")):
        hint += "; --allow-io lets inputs and outputs shrink"
    return NothingToPrune(f"{what}; most axes are held by: {common}", hint=hint)
