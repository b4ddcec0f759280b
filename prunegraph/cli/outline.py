"""The outline of a model for people: lists of modules in short, and blocks that repeat; told from dotted names."""

from __future__ import annotations

import re
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

from prunegraph.analysis.groups import Group
from prunegraph.analysis.names import module_of

Modules = Mapping[str, tuple[str, ...]]
"""By group id, the modules whose weights shrink together."""

_PART = "part"


@dataclass(frozen=True, slots=True)
class Block:
    """Blocks that are alike: the first one stands for all.

    Attributes:
        stem: What their names have in common, such as `encoder.layer`; the whole name of one that has no number.
        numbers: Their numbers; empty for what has none.
        members: One row a choice, in the order of the graph: the groups of all blocks that are that choice there.
    """

    stem: str
    numbers: tuple[int, ...]
    members: tuple[tuple[Group, ...], ...]

    @property
    def title(self) -> str:
        """The names of all of them."""
        return ".".join(filter(None, (self.stem, ranges(self.numbers))))

    def each(self) -> Iterator[Block]:
        """The blocks one by one."""
        if not self.numbers:
            yield self
        for k, number in enumerate(self.numbers):
            yield Block(self.stem, (number,), tuple((row[k],) for row in self.members))

    @property
    def first(self) -> str:
        """The name of the first one, with the dot that its modules' names go on with; "" for what has no number."""
        return f"{'.'.join(filter(None, (self.stem, str(self.numbers[0]))))}." if self.numbers else ""


def modules(groups: Iterable[Group], names: Mapping[str, str]) -> Modules:
    """The modules whose weights shrink with each group, in the order of use.

    Args:
        groups: The groups.
        names: Every weight's name for people, see `names.readable_names`.
    """
    order = {name: k for k, name in enumerate(names)}
    modules_by_group = {}
    for group in groups:
        weight_names = sorted({place.name for place in group.places}, key=lambda name: order.get(name, len(order)))
        modules_by_group[group.id] = tuple(dict.fromkeys(module_of(names.get(name, name)) for name in weight_names))
    return modules_by_group


def shared_prefix(names: Iterable[str]) -> str:
    """What all names begin with, in whole modules and with the dot that follows; names without a module do not count.

    What is left must not begin with a number: that says nothing to anybody.
    """
    parts = [name.split(".") for name in names if "." in name]
    shared: list[str] = []
    for column in zip(*(p[:-1] for p in parts), strict=False):
        if len(set(column)) > 1:
            break
        shared.append(column[0])
    while shared and any(p[len(shared)].isdigit() for p in parts):
        shared.pop()
    return "".join(f"{part}." for part in shared)


def ranges(numbers: Sequence[int]) -> str:
    """Numbers in short.

    >>> ranges([0, 1, 2, 4, 7, 8])
    '0-2,4,7-8'
    """
    runs: list[list[int]] = []
    for number in sorted(numbers):
        if runs and number == runs[-1][-1] + 1:
            runs[-1].append(number)
        else:
            runs.append([number])
    return ",".join(str(run[0]) if len(run) == 1 else f"{run[0]}-{run[-1]}" for run in runs)


def shorten(names: Iterable[str]) -> str:
    """Dotted names in short: what begins alike is said once, what differs by a number alone is one.

    >>> shorten(["attention.query", "attention.key", "output"])
    'attention.(query, key), output'
    >>> shorten(["h.0.fc", "h.0.proj", "h.1.proj", "h.1.fc", "head"])
    'h.0-1.(fc, proj), head'
    """
    return ", ".join(_children([name.split(".") for name in dict.fromkeys(names)]).values())


def _children(paths: Sequence[Sequence[str]]) -> dict[object, str]:
    """The children of a module in short, by what tells one from another: the order of what lies in it does not."""
    below: dict[str, list[Sequence[str]]] = defaultdict(list)
    for path in paths:
        below[path[0]].append(path[1:])
    alike: dict[tuple[str, object], list[str]] = defaultdict(list)
    inside: dict[object, str] = {frozenset(): ""}
    for head, rests in below.items():
        stem = "" if head.isdigit() else _PART if head.removeprefix(_PART).isdigit() else head
        if any(not rest for rest in rests):
            alike[stem, frozenset()].append(head)
        if deeper := _children([rest for rest in rests if rest]):
            texts = list(deeper.values())
            inside.setdefault(frozenset(deeper), f".({', '.join(texts)})" if len(texts) > 1 else f".{texts[0]}")
            alike[stem, frozenset(deeper)].append(head)
    return {
        (_numbered(stem, heads), inner): _numbered(stem, heads) + inside[inner]
        for (stem, inner), heads in alike.items()
    }


def _numbered(stem: str, heads: Sequence[str]) -> str:
    return stem if stem in heads else stem + ranges([int(head.removeprefix(stem)) for head in heads])


def blocks(groups: Sequence[Group], module_names: Modules) -> tuple[Block, ...]:
    """Groups by block, blocks that are alike as one, in the order of the graph.

    A block is a scope that ends in a number which varies, `layer.3`: the innermost one that has a sibling like itself,
    else the outermost one.  Groups that lie in no such scope are one block without a number.
    """
    inside = _inside(groups)
    shape = {name: _signature(name, members, module_names) for name, members in inside.items()}
    siblings: dict[tuple[str, object], int] = defaultdict(int)
    for name, signature in shape.items():
        siblings[name.rpartition(".")[0], signature] += 1
    owned: dict[tuple[str, int | None], list[Group]] = defaultdict(list)
    for group in groups:
        candidates = [name for name in inside if f"{group.scope}.".startswith(f"{name}.")]
        best = [name for name in candidates if siblings[name.rpartition(".")[0], shape[name]] > 1] or candidates[:1]
        stem, _, number = best[-1].rpartition(".") if best else (group.scope, "", "")
        owned[(stem, int(number)) if best else ("", None)].append(group)
    return _merged(owned, module_names)


def _inside(groups: Sequence[Group]) -> dict[str, list[Group]]:
    """The groups under every scope that ends in a number which varies; outer scopes first."""
    under: dict[str, list[Group]] = defaultdict(list)
    for group in groups:
        parts = group.scope.split(".")
        for k, part in enumerate(parts):
            if part.isdigit():
                under[".".join(parts[: k + 1])].append(group)
    numbers: dict[str, int] = defaultdict(int)
    for name in under:
        numbers[name.rpartition(".")[0]] += 1
    return {name: under[name] for name in sorted(under, key=len) if numbers[name.rpartition(".")[0]] > 1}


def _merged(owned: Mapping[tuple[str, int | None], Sequence[Group]], module_names: Modules) -> tuple[Block, ...]:
    alike: dict[tuple[str, object], list[tuple[int | None, Sequence[Group]]]] = defaultdict(list)
    for (stem, number), members in owned.items():
        name = f"{stem}.{number}".strip(".")
        key = _signature(name, members, module_names) if number is not None else None
        twins = alike[stem, key]
        if twins and number is not None:
            members = _in_order_of(twins[0], stem, number, members, module_names)
        twins.append((number, members))
    merged = []
    for (stem, _), twins in alike.items():
        numbers = tuple(number for number, _ in twins if number is not None)
        columns = zip(*(members for _, members in twins), strict=True)
        merged.append(Block(stem, numbers, tuple(tuple(column) for column in columns)))
    return tuple(merged)


def _in_order_of(
    first: tuple[int | None, Sequence[Group]], stem: str, number: int, members: Sequence[Group], module_names: Modules
) -> list[Group]:
    """The groups of a block in the order in which its twin has its own."""
    left: dict[object, list[Group]] = defaultdict(list)
    for group in members:
        left[_choice(f"{stem}.{number}".strip("."), group, module_names)].append(group)
    return [left[_choice(f"{stem}.{first[0]}".strip("."), group, module_names)].pop(0) for group in first[1]]


def _signature(name: str, members: Sequence[Group], module_names: Modules) -> object:
    """What makes two blocks alike, in whatever order: the same choices about the same modules.

    How many parameters go may differ.
    """
    return frozenset(Counter(_choice(name, group, module_names) for group in members).items())


def _choice(name: str, group: Group, module_names: Modules) -> object:
    """A group seen from its block; what it shares with a sibling of the block counts as its own."""
    stem = name.rpartition(".")[0]
    sibling = re.compile(rf"{re.escape(f'{stem}.' if stem else '')}\d+\.")

    def own(module: str) -> str:
        beginning = sibling.match(module)
        return module[beginning.end() :] if beginning else module

    return group.kind, group.units, group.rows, group.exact, frozenset(map(own, module_names[group.id]))
