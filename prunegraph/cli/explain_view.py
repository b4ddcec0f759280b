"""Explain: what an analysis found, as text for people."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any

from rich.console import Group as Lines
from rich.console import RenderableType
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from prunegraph.analysis.analyze import Analysis, Pinned
from prunegraph.analysis.explain import free_share
from prunegraph.analysis.groups import Group
from prunegraph.analysis.names import dotted, module_of
from prunegraph.analysis.relations import Reduction
from prunegraph.analysis.space import Pin
from prunegraph.cli.names import break_lines, longest_piece
from prunegraph.cli.outline import Block, Modules, blocks, modules, ranges, shared_prefix, shorten
from prunegraph.cli.wording import amount, count, outer_kind, percent, some, span, units_of

OVERCOUPLED = 0.05
"""A unit that takes more than this share of all parameters with it deserves a second look."""

_WHY_INEXACT = {
    Reduction.RANK: "what a router gives the rest changes a little when units go",
    Reduction.MEAN: "the mean over this axis changes a little when units go",
    Reduction.MAX: "the maximum over this axis is that of what stays, while zeroed units might be larger",
    Reduction.MIN: "the minimum over this axis is that of what stays, while zeroed units might be smaller",
}
"""What a reduction makes of the difference between a unit that goes and one that is zero."""


def render(
    analysis: Analysis,
    *,
    title: str = "",
    verbose: bool = False,
    bases: Mapping[str, str] | None = None,
    width: int = 100,
) -> RenderableType:
    """The analysis as text for people, for `rich.console.Console.print`.

    Args:
        analysis: What was found.
        title: What to call the model.
        verbose: List every group and every pin, nothing summed up.
        bases: See `to_dict`.
        width: Columns that there are.
    """
    view = _View(analysis, verbose, bases or {}, width)
    return Lines(*view.summary(title), *view.groups(), *view.notes(), *view.pins())


def drawn_blocks(analysis: Analysis) -> list[dict[str, Any]]:
    """Blocks and their groups for `export.report.explained`, the first of those that are alike."""
    view = _View(analysis, False, {}, 0)
    return [
        {
            "title": block.title if block.numbers else "across the model",
            "alike": max(len(block.numbers), 1),
            "groups": [view.drawn(block, members) for members in block.members],
        }
        for block in view.outline()
    ]


class _View:
    """One analysis on its way to the screen."""

    def __init__(self, analysis: Analysis, verbose: bool, bases: Mapping[str, str], width: int) -> None:
        self.width = width
        self.bases = bases
        self.analysis = analysis
        self.verbose = verbose
        modules_by_group = modules(analysis.groups, analysis.names)
        pinned = [self._module(axis.place.name) for axis in analysis.pinned]
        self.prefix = shared_prefix([name for names in modules_by_group.values() for name in names] + pinned)
        self.modules: Modules = {group: tuple(map(self._short, names)) for group, names in modules_by_group.items()}

    def _module(self, weight: str) -> str:
        return module_of(self.analysis.names.get(weight, weight))

    def _short(self, name: str) -> str:
        return name.removeprefix(self.prefix)

    def _share(self, params: int) -> float:
        return params / max(self.analysis.params, 1)

    # ---- above ------------------------------------------------------------------------------------------------------

    def summary(self, title: str) -> Iterator[RenderableType]:
        groups, total = self.analysis.groups, self.analysis.params
        kinds = Counter(g.kind for g in groups)
        which = f" ({', '.join(f'{n} {kind}' for kind, n in kinds.items())})" if kinds else ""
        name = f"{title}: " if title else ""
        yield Text(f"{name}{amount(total)} parameters, {count(groups, 'group')}{which}", style="bold")
        if not groups:
            yield Text("Nothing can be removed: every axis of every weight is pinned, for the reasons below.")
            return
        exact, either = free_share(self.analysis, exact=True), free_share(self.analysis, exact=False)
        more = f", {either:.0%} with the inexact ones" if not all(g.exact for g in groups) else ""
        yield Text(f"{exact:.0%} of the parameters lie in exact groups (removing a unit equals zeroing it){more}.")
        if self.prefix:
            yield Text(f"Names below leave out {self.prefix}", style="dim")

    # ---- groups -----------------------------------------------------------------------------------------------------

    def outline(self) -> tuple[Block, ...]:
        """The groups by block, blocks that are alike as one."""
        shown = [replace(g, scope=self._short(f"{g.scope}.").rstrip(".")) for g in self.analysis.groups]
        return blocks(shown, self.modules)

    def drawn(self, block: Block, members: Sequence[Group]) -> dict[str, Any]:
        """A choice of a block, with the modules that it makes smaller."""
        group, row = members[0], self._row(block, members)
        return {
            "id": row[0],
            "held": row[-1],
            "units": units_of(group, self.analysis.groups),
            "exact": group.exact,
            "params": span([each.params for each in members]),
            "modules": [name.removeprefix(block.first) for name in self.modules[group.id]],
        }

    def groups(self) -> Iterator[RenderableType]:
        outline = self.outline()
        if self.verbose:
            outline = tuple(one for block in outline for one in block.each())
        parts = [[self._row(block, members) for members in block.members] for block in outline]
        every = [_HEADINGS, *(row for rows in parts for row in rows)]
        widths = [max(len(row[k]) for row in every) for k in range(4)]
        for block, rows in zip(outline, parts, strict=True):
            yield Text()
            yield self._heading(block)
            headed = block is outline[0]
            if not self.verbose:
                yield from _group_table(rows, widths, self.width, headed=headed)
                continue
            for k, (row, (group, *_)) in enumerate(zip(rows, block.members, strict=True)):
                yield from _group_table([row], widths, self.width, headed=headed and k == 0)
                yield Padding(self._weights(group, block), (0, 0, 0, 6))

    def _weights(self, group: Group, block: Block) -> RenderableType:
        """Every axis that the group makes shorter, one a line."""
        lines = (f"{self._weight(p.name).removeprefix(block.first)}[{p.axis}] = {p.expression}" for p in group.places)
        return Lines(*map(Text, lines))

    def _heading(self, block: Block) -> Text:
        if not block.numbers:
            return Text("across the model", style="bold cyan")
        alike = f"  {len(block.numbers)} blocks alike" if len(block.numbers) > 1 else ""
        return Text.assemble((block.title, "bold cyan"), (alike, "dim"))

    def _row(self, block: Block, members: Sequence[Group]) -> tuple[str, ...]:
        group = members[0]
        ids = f"{group.kind}.{ranges([int(g.id.rpartition('.')[2]) for g in members])}"
        module_names = shorten(name.removeprefix(block.first) for name in self.modules[group.id])
        return (
            ids,
            f"{units_of(group, self.analysis.groups)}{'' if group.exact else ' ~'}",
            span([g.params for g in members]),
            percent(self._share(max(g.params for g in members))),
            module_names,
        )

    def _weight(self, name: str) -> str:
        readable = self.analysis.names.get(name, name)
        return self._short(readable) if readable == name else f"{self._short(readable)} ({name})"

    def _outer(self, dim: int, rows: int) -> str:
        return outer_kind(dim, rows, self.analysis.groups)

    # ---- notes ------------------------------------------------------------------------------------------------------

    def notes(self) -> Iterator[RenderableType]:
        notes = [*self._ragged(), *self._alike(), *self._inexact(), *self._overcoupled(), *self._bases()]
        yield from [Text(), *notes] if notes else []

    def _ragged(self) -> Iterator[Text]:
        pairs = [pair for g in self.analysis.groups for pair in zip(g.outer, g.rows, strict=True)]
        for kind in dict.fromkeys(self._outer(*pair) for pair in pairs):
            text = f"every {kind} keeps its own choice, all the same number; a unit is one in every {kind}"
            yield Text.assemble((f"per {kind}: ", "bold"), text)

    def _alike(self) -> Iterator[Text]:
        """Dims of heads that are chosen once for all of them."""
        heads = {group.dim for group in self.analysis.groups if group.kind in ("head", "kv_group", "query_head")}
        alike = [g.id for g in self.analysis.groups if g.kind in ("qk_dim", "v_dim") and not heads & set(g.outer)]
        if alike and heads:
            text = f"{_ids(alike)}: every head loses the same dims, as positions (in pairs) or a norm have them once"
            yield Text.assemble(("one choice for all heads: ", "bold"), text)

    def _inexact(self) -> Iterator[Text]:
        left = [group for group in self.analysis.groups if not group.exact]
        for kind, why in _WHY_INEXACT.items():
            concerned = [group for group in left if self._nodes_that(kind, [group])]
            left = [group for group in left if group not in concerned]
            if concerned:
                nodes = self._nodes_that(kind, concerned)
                text = (
                    f"{why}; it is taken by {count(nodes, 'node')} ({some(nodes)}); a plain "
                    f"ratio leaves such groups whole, --ratio {concerned[0].kind}=0.3 prunes them"
                )
                yield Text.assemble(("~ inexact: ", "bold"), text)

    def _nodes_that(self, kind: Reduction, groups: Sequence[Group]) -> list[str]:
        """Nodes that reduce an axis of one of these groups in this way."""
        solution, dims = self.analysis.solution, {group.dim for group in groups}
        places = ((site, solution.inputs[site.node][site.index]) for site in solution.reduces if site.kind is kind)
        nodes = (site.node for site, value in places if dims & solution.leaves(value, site.axis))
        return list(dict.fromkeys(self._node(solution.labels[node]) for node in nodes))

    def _bases(self) -> Iterator[Text]:
        free = [name for name, reason in self.bases.items() if not reason]
        if free:
            text = f"{_ids(free)}: turned before they are cut where data are given, so that the last contribute least"
            yield Text.assemble(("rotates: ", "bold"), text)
        alike: dict[str, list[str]] = defaultdict(list)
        for name, reason in self.bases.items():
            if reason:
                alike[reason if self.verbose else reason.partition(" (")[2] or reason].append(name)
        for names in alike.values():
            yield Text.assemble(("keeps its basis: ", "bold"), f"{_ids(names)}: {self.bases[names[0]]}")

    def _overcoupled(self) -> Iterator[Text]:
        large = [g for g in self.analysis.groups if self._share(g.params) > OVERCOUPLED]
        if large:
            most = max(self._share(g.params) for g in large)
            units = f"one unit of {some([g.id for g in large])}"
            text = f"{units} takes up to {most:.0%} of all parameters with it; --exclude leaves a group whole"
            yield Text.assemble(("warning: ", "bold yellow"), text)

    # ---- pins -------------------------------------------------------------------------------------------------------

    def pins(self) -> Iterator[RenderableType]:
        pinned = self.analysis.pinned
        if not pinned:
            return
        yield Text()
        yield Text.assemble(("pinned", "bold cyan"), (f"  stays whole: {count(pinned, 'axis')} of weights", "dim"))
        yield Padding(self._every_pin() if self.verbose else self._reasons(), (0, 0, 0, 2))
        if any(pin.why in ("graph input", "graph output") for axis in pinned for pin in axis.pins):
            yield Text(
                "Inputs and outputs keep their sizes; --allow-io NAME lets one shrink with the rest.", style="dim"
            )

    def _reasons(self) -> Table:
        by_why: dict[str, list[Pinned]] = defaultdict(list)
        for axis in self.analysis.pinned:
            by_why[axis.pins[0].why].append(axis)
        table = _grid("axes", "reason: the node, input or output to blame")
        table.columns[0].justify = "right"
        for why, axes in sorted(by_why.items(), key=lambda item: -len(item[1])):
            blamed = dict.fromkeys(self._node(pin.where) for axis in axes for pin in axis.pins if pin.why == why)
            module_names = shorten(self._short(self._module(axis.place.name)) for axis in axes)
            reason = Text.assemble((f"{why}: ", "bold"), some(list(blamed)))
            inside = (
                Text(line, "dim") for line in break_lines(f"in {module_names}", self.width - _INDENT - len("axes  "))
            )
            table.add_row(str(len(axes)), Lines(reason, *inside))
        return table

    def _every_pin(self) -> RenderableType:
        """The axes that share their reasons, one a line, under these reasons."""
        by_pins: dict[tuple[Pin, ...], list[Pinned]] = defaultdict(list)
        for axis in self.analysis.pinned:
            by_pins[axis.pins].append(axis)
        lines: list[RenderableType] = []
        for pins, axes in by_pins.items():
            lines += [Text.assemble((f"{pin.why}: ", "bold"), pin.where) for pin in pins]
            places = (f"{self._weight(axis.place.name)}[{axis.place.axis}] = {axis.units}" for axis in axes)
            lines.append(Padding(Lines(*map(Text, places)), (0, 0, 0, 4)))
        return Lines(*lines)

    def _node(self, name: str) -> str:
        return name if self.verbose else self._short(dotted(name))


_HEADINGS = ("group", "units", "one unit takes", "of all", "shrink together")


def _ids(names: Sequence[str]) -> str:
    """Ids of groups, those of a kind together.

    >>> _ids(["qk_dim.0", "v_dim.0", "qk_dim.1"])
    'qk_dim.0-1, v_dim.0'
    """
    numbers: dict[str, list[int]] = defaultdict(list)
    for name in names:
        kind, _, number = name.rpartition(".")
        numbers[kind].append(int(number))
    return ", ".join(f"{kind}.{ranges(of_kind)}" for kind, of_kind in numbers.items())


_INDENT, _NARROWEST = 2, 24


def _group_table(
    rows: Sequence[Sequence[str]], widths: Sequence[int], width: int, *, headed: bool
) -> Iterator[RenderableType]:
    """A row a choice; where there is no room for the last column, what it holds stands under its row."""
    room = width - _INDENT - sum(widths) - 2 * len(widths)
    if room >= max(_NARROWEST, *(longest_piece(row[-1]) for row in rows)):
        yield _table(_HEADINGS, [(*row[:-1], break_lines(row[-1], room)) for row in rows], widths, headed)
        return
    for k, row in enumerate(rows):
        yield _table(_HEADINGS[:-1], [row[:-1]], widths, headed and k == 0)
        yield Padding(Lines(*map(Text, break_lines(row[-1], width - 3 * _INDENT))), (0, 0, 0, 3 * _INDENT))


def _table(
    headings: Sequence[str], rows: Sequence[Sequence[str | Sequence[str]]], widths: Sequence[int], headed: bool
) -> Padding:
    table = _grid(*headings)
    table.show_header = headed
    for column, width in zip(table.columns, widths, strict=False):
        column.min_width = width
        column.no_wrap = True
    table.columns[2].justify = table.columns[3].justify = "right"
    for row in rows:
        table.add_row(*(Text(cell) if isinstance(cell, str) else Lines(*map(Text, cell)) for cell in row))
    return Padding(table, (0, 0, 0, _INDENT))


def _grid(*headings: str) -> Table:
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), header_style="dim")
    for heading in headings:
        table.add_column(heading, overflow="fold")
    return table
