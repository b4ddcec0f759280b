"""Choose: observe what the scorers need, score, and keep the best."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

from prunegraph.analysis.analyze import Analysis
from prunegraph.analysis.groups import Group
from prunegraph.analysis.selection import Selection
from prunegraph.observe.cache import default_cache
from prunegraph.observe.gradients import Backward
from prunegraph.observe.stream import Inputs
from prunegraph.passes.choose.budget import cost
from prunegraph.passes.choose.rank import filter_groups, global_counts, select
from prunegraph.passes.choose.request import Options
from prunegraph.passes.choose.targets import aligned_count, kept_numbers, ratios, resolve_counts, with_own_amount
from prunegraph.passes.normalize import Normalized
from prunegraph.passes.score import Context, KindScorers, ScoringReport, observe_for, score_with


def target_counts(analysis: Analysis, normalized: Normalized, options: Options) -> dict[str, int]:
    """By id of every group that gets smaller, or may where a scorer decides over several, how many units stay.

    Raises:
        UsageError: an amount does not fit the model, or a budget cannot be met.
    """
    groups = analysis.groups
    mine = {group.id for group in filter_groups(groups, options.include, options.exclude)}
    keep = resolve_counts(groups, options, mine, cost(analysis, normalized))
    free = scorer_decides(groups, options)
    if options.ratio is None and options.scorers.every is not None and options.scorers.every.decides:
        # nobody asked for less of what the scorer does not decide
        keep = {name: count for name, count in keep.items() if name in free | with_own_amount(groups, options)}
    open_ended = free | {group.id for group in ranked_globally(groups, options)}
    return {
        group.id: keep[group.id]
        for group in groups
        if group.id in keep and (keep[group.id] < group.units or group.id in open_ended)
    }


def scorer_decides(groups: Sequence[Group], options: Options) -> set[str]:
    """The ids of exact groups of which the scorer itself decides how much stays: the caller gives no amount."""
    if options.budget or isinstance(options.ratio, (int, float)):
        return set()
    said = with_own_amount(groups, options)
    return {g.id for g in groups if options.scorers.of(g.kind).decides and g.exact and g.id not in said}


def ranked_globally(groups: Sequence[Group], options: Options) -> list[Group]:
    """Groups that are ranked with others of their kind: by ratio, in one piece, and by scores that compare."""
    if options.budget:
        return []
    fraction, number = ratios(groups, options), kept_numbers(groups, options)
    free = scorer_decides(groups, options)
    return [
        group
        for group in groups
        if options.scorers.of(group.kind).comparable
        and not group.rows
        and fraction[group.id] > 0
        and group.id not in free
        and group.id not in number
    ]


def observe_for_scorers(
    scorers: KindScorers,
    groups: Sequence[Group],
    context: Context,
    inputs: Inputs | None,
    progress: Callable[[int], None],
    backward: Backward | None = None,
) -> Context:
    """The context with what the scorers need observed, from the cache where it was seen before."""
    shares = scorers.shares(groups)
    return observe_for(shares, context, inputs, cache=default_cache(), progress=progress, backward=backward)


def scoring_reports(scorers: KindScorers, groups: Sequence[Group], context: Context) -> dict[str, ScoringReport]:
    """By name of a scorer what it has to say, after `rank_and_keep`."""
    reports = {scorer.name: scorer.report(context.of(scorer)) for scorer in scorers.shares(groups)}
    return {name: report for name, report in reports.items() if report is not None}


def rank_and_keep(groups: Sequence[Group], keep: Mapping[str, int], context: Context, options: Options) -> Selection:
    """Score groups and keep the best of each, or the best of all of a kind where the scorer's scores compare.

    Args:
        groups: The groups to choose in.
        keep: How many units stay of each, see `target_counts`.
        context: For the scorers.
        options: What the caller asked for.
    """
    scores = score_with(options.scorers, groups, context)
    fraction = ratios(context.analysis.groups, options)
    ranked = global_counts(
        [group for group in ranked_globally(context.analysis.groups, options) if group.id in keep],
        scores,
        lambda group: fraction[group.id],
    )
    free = scorer_decides(context.analysis.groups, options)
    own: dict[str, int] = {group.id: group.units for group in groups if group.id in free}
    for scorer, members in options.scorers.shares(group for group in groups if group.id in free).items():
        own |= scorer.counts(members, context.of(scorer))
    rounded = {group.id: aligned_count(group, options, 0.0, ranked[group.id]) for group in groups if group.id in ranked}
    return select(groups, scores, {**keep, **rounded, **own})
