"""What pruning and verifying found, as text for people."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Sequence

from rich.console import Group as Lines
from rich.console import RenderableType
from rich.text import Text

from prunegraph.cli.plain_table import plain_table
from prunegraph.cli.wording import span, times_faster
from prunegraph.passes.choose.meet_time import OVER
from prunegraph.passes.choose.rank import WIDTH_MULTIPLE, is_slow
from prunegraph.passes.prove.verify import TOLERANCE, Verification
from prunegraph.passes.repair import Repaired
from prunegraph.passes.rotate import Rotated
from prunegraph.report import GroupReport, Report, SpeedReport


def pruned(report: Report) -> RenderableType:
    """A short table, and what the proof saw."""
    table = plain_table("", "before", "after", "change")
    table.add_row("parameters", *_change([report.params[0]], [report.params[1]]))
    table.add_row("multiply-adds", *_change([report.macs[0]], [report.macs[1]]))
    if report.sizes:
        table.caption = f"multiply-adds at {', '.join(f'{name} = {size}' for name, size in report.sizes.items())}"
        table.caption_justify = "left"
    by_kind: dict[str, list[GroupReport]] = defaultdict(list)
    for group in report.groups:
        by_kind[" per ".join((group.kind, *group.per))].append(group)
    for kind, groups in by_kind.items():
        where = f" in {len(groups)} groups" if len(groups) > 1 else ""
        table.add_row(f"{kind}{where}", *_change([g.before for g in groups], [g.after for g in groups]))
    scorer_lines = [Text(line) for account in report.accounts.values() for line in account.lines]
    after = (*rotation(report.rotate), *repair(report.repair), *slow_widths(report.groups))
    return Lines(table, Text(), *scorer_lines, *proof(report.verify), *after)


def slow_widths(groups: Sequence[GroupReport]) -> Sequence[Text]:
    """What to know of widths that kernels do not like, in words."""
    slow = [f"{group.id} {group.after}" for group in groups if is_slow(group.kind, group.before, group.after)]
    if not slow:
        return []
    listed = ", ".join(slow[:3]) + (f" and {len(slow) - 3} more" if len(slow) > 3 else "")
    return [
        Text(f"slow widths: {listed} are no multiples of {WIDTH_MULTIPLE}; --align {WIDTH_MULTIPLE} rounds them up")
    ]


def proof(verification: Verification | None) -> Sequence[Text]:
    """What the comparison with the masked original says, in words."""
    if verification is None:
        return [Text("not verified: nothing compared the slim model with the original", style="bold yellow")]
    oracle = "the masked original" if verification.exact else "the original under masked statistics"
    if not verification.ok:
        where = f"; {verification.reason}" if verification.reason else ""
        return [
            Text(
                f"NOT equal to {oracle}: off by {_worst(verification):.1e} of the output's scale{where}",
                style="bold red",
            )
        ]
    error = (
        f"largest error {_worst(verification):.1e} of the output's scale (at most {TOLERANCE:.0e} counts as rounding)"
    )
    lines = [Text.assemble(("verified: ", "bold green"), f"equal to {oracle}; {error}")]
    if verification.vacuous:
        lines.append(Text("the removed units were dead: without them the outputs are the same"))
    else:
        lines.append(
            Text(f"what was removed moves the outputs of the original by up to {verification.moved:.1%} of their scale")
        )
    return [*lines, *map(Text, _sight(verification)), *map(Text, verification.notes)]


def _sight(verification: Verification) -> Iterator[str]:
    """What the proof could have seen, and where it ended."""
    by_place: dict[str, list[str]] = defaultdict(list)
    for group in verification.groups:
        by_place[group.seen.split()[0]].append(group.id)
    parts = [
        f"{len(by_place[place])} {words}"
        for place, words in (("output", "at an output"), ("inside", "at a value inside"), ("dead", "nowhere: dead"))
        if by_place[place]
    ]
    if parts:
        yield f"a wrong weight would have been seen, by group: {', '.join(parts)}"
    if verification.unseen:
        more = ", …" if len(verification.unseen) > 3 else ""
        yield f"other numbers in {', '.join(verification.unseen[:3])}{more} would move nothing"
    if verification.compared_before:
        yield f"compared before {', '.join(verification.compared_before[:3])}: rounding flips what is chosen there"
    filled = [group for group in verification.groups if "number" in group.fill or "the sum is" in group.fill]
    for group in filled[:3]:
        yield f"{group.id}: removed units are filled with {group.fill}"


def rotation(done: Rotated | None) -> Sequence[Text]:
    """What was turned into another basis before it was cut, in words."""
    if done is None:
        return []
    lines = []
    if done.rotation:
        by = "the data" if any(turned.by_data for turned in done.rotation.values()) else "the weights alone"
        same = "" if done.error is None else f"; the turned original equals the original to {done.error:.1e}"
        streams = {stream.group.id for stream in done.streams}
        heads = len(done.rotation) - len(streams)
        counts = [f"{heads} groups of dims inside of heads"] if heads else []
        counts += [f"{len(streams)} residual width{'s' if len(streams) > 1 else ''}"] if streams else []
        text = f"{' and '.join(counts)} by {by}{same}"
        lines.append(Text.assemble(("rotated: ", "bold green"), text))
    if done.reasons:
        name, reason = next(iter(done.reasons.items()))
        lines.append(Text(f"not rotated: {len(done.reasons)} groups; {name}: {reason}"))
    return lines


def repair(done: Repaired | None) -> Sequence[Text]:
    """What was re-fitted after the proof, in words."""
    if done is None or not done.outcomes:
        return []
    tried = [outcome for outcome in done.outcomes if outcome.errors]
    chosen = ", ".join(f"{name} {count}" for name, count in sorted(done.chosen.items()))
    left = [outcome for outcome in done.outcomes if outcome.reason]
    lines = []
    if tried:
        worst = " -> ".join(f"{max(each):.2f}" for each in ([o.before for o in tried], [o.after for o in tried]))
        mean = " -> ".join(
            f"{sum(each) / len(each):.2f}" for each in ([o.before for o in tried], [o.after for o in tried])
        )
        error = f"error of their outputs on held-out examples: mean {mean}, worst {worst}"
        lines.append(Text.assemble(("repaired: ", "bold green"), f"{len(tried)} weights ({chosen}); {error}"))
    if done.ways:
        figures = ", ".join(f"{way} {harm:.3g}" for way, harm in done.ways.items())
        lines.append(Text(f"repair {done.way!r} was taken: harm on examples set apart: {figures}"))
    if left:
        lines.append(Text(f"not repaired: {len(left)} weights; {left[0].weight or left[0].where[0]}: {left[0].reason}"))
    return lines


def speed_lines(done: SpeedReport) -> Iterator[str]:
    """How fast the result is, beside what was asked for."""
    ratio, requested = done.met.best.ratio, done.met.asked
    times = times_faster(ratio)
    if done.predicted:
        yield f"speed: {ratio.median:.2f} times, as the latency table of {done.ep} says; nothing was timed here"
    elif done.drop is not None:
        yield f"speed: {times}, on {done.ep}: the fastest within {done.drop.limit:g} percent"
    else:
        sure = "" if done.met.sure else "; this machine is too noisy to be sure"
        if ratio.median > OVER * requested:
            sure = "; the next smaller plan is slower than asked"
        yield f"speed: {times} of {requested:g} asked, on {done.ep}{sure}"
    if done.latency_ms is not None:
        before, after = done.latency_ms
        yield f"  timed in {done.settings.get('protocol', 'turns')}: {before:.3g} -> {after:.3g} ms"
    for protocol, other in done.other.items():
        yield f"  timed in {protocol}: {times_faster(other)}"
    if done.drop is not None:
        drop, (whole, slim) = done.drop, done.drop.values
        yield f"  {drop.metric} {whole:.4f} -> {slim:.4f} of {drop.examples:,} examples: {drop.drop:.2f} percent lost"
    for name, (limit, left) in done.budgets.items():
        yield f"  {left:.3f} of {name} left, {limit:.3f} allowed"
    for trial in done.forms:
        kept = "written" if trial.kept else "left as it was"
        yield f"  {trial.name}: {times_faster(trial.ratio)}, {kept}"
    if done.same_form is not None:
        yield f"  beside the original in the same form {times_faster(done.same_form)}"
    harms = ", ".join(f"{name} {value:.4g}" for name, value in done.harm.items())
    yield f"  planned by {done.plan}" + (f" (harm: {harms})" if harms else "")
    if done.searched:
        yield f"  local search: harm on held-out examples {done.searched['before']:.4g} -> {done.searched['after']:.4g}"
    for model, profile in done.profile.items():
        total = sum(profile.values())
        parts = ", ".join(f"{op} {ms / total:.0%}" for op, ms in list(profile.items())[:5])
        yield f"  {model} spends its time in {parts}"


def _worst(verification: Verification) -> float:
    return max(verification.max_rel_error, verification.normalize_error)


def _change(before: Sequence[int], after: Sequence[int]) -> tuple[str, str, str]:
    """Before, after and what is gone; of several groups their common number, or the range of their numbers."""
    return span(before), span(after), f"{sum(after) / max(sum(before), 1) - 1:+.1%}"
