"""A Selection: which units of which groups stay.  The only input of Shrink and of verify; a plan file is its JSON."""

from __future__ import annotations

import json
import math
import os
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, TypeGuard

import numpy as np

from prunegraph.analysis.former_kinds import present_keys
from prunegraph.analysis.groups import Group
from prunegraph.analysis.slots import Keep
from prunegraph.arrays import Mask
from prunegraph.atomic_write import check_target, write_text
from prunegraph.errors import UsageError
from prunegraph.strict_json import parse_json

SCHEMA = 1
_UNITS_LIMIT = 1 << 28
"""Units of a group; more than any model has, and little memory for a plan that states it."""

_PLAN_HINT = "use the plan file that was written beside the slim model, together with the model it was made from"


@dataclass(frozen=True, slots=True)
class ModelMark:
    """Which model a plan belongs to.

    Attributes:
        name: What its file is called; only said, never compared.
        digest: A hash of its graph and of all that it stores, wherever it lies.
    """

    name: str
    digest: str

    def __str__(self) -> str:
        """The name of the file and how its digest begins, for messages."""
        return f"{self.name} ({self.digest[:12]})"


@dataclass(frozen=True, slots=True)
class Selection:
    """For some groups a boolean keep array of the group's shape `(*rows, units)`; groups not named stay whole.

    Attributes:
        keep: The arrays, by group id.
        made_for: The model that it belongs to, if it knows.

    >>> Selection({"ffn.0": np.array([True, False, True])}).removed
    1
    """

    keep: Mapping[str, Mask]
    made_for: ModelMark | None = field(default=None, compare=False)

    @staticmethod
    def of(
        groups: Iterable[Group],
        keep: Mapping[str, Sequence[int] | Mask] | None = None,
        *,
        remove: Mapping[str, Sequence[int] | Mask] | None = None,
    ) -> Selection:
        """A selection from numbers of units, or from boolean arrays of the groups' shapes.

        Args:
            groups: The groups of the model.
            keep: By group id what stays: `{"ffn.0": [0, 1, 5]}`; in every row where the group is chosen row by row.
            remove: By group id what goes.

        Raises:
            UsageError: a group or a unit does not exist, or an array has another shape.
        """
        known = {group.id: group for group in groups}
        masks = {name: _units(known, name, units) for name, units in present_keys(keep or {}).items()}
        masks |= {name: ~_units(known, name, units) for name, units in present_keys(remove or {}).items()}
        return Selection(masks)

    @staticmethod
    def load(path: str | os.PathLike[str]) -> Selection:
        """Read a plan file.

        Raises:
            UsageError: it cannot be read, or is no plan.
        """
        try:
            return Selection.from_json(Path(path).read_text(encoding="utf-8-sig"))
        except (OSError, UnicodeDecodeError) as error:
            raise UsageError(f"the plan {path} cannot be read: {error}", hint=_PLAN_HINT) from error

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write a plan file, which appears whole or not at all.

        Raises:
            OutputError: it cannot be written.
        """
        target = Path(path)
        check_target(target)
        write_text(target, self.to_json())

    def replaced(self, other: Selection) -> Selection:
        """This selection, with what another one says of its groups in the place of what this one says of them."""
        return Selection({**self.keep, **other.keep}, self.made_for)

    def check_model(self, mark: Callable[[], ModelMark]) -> None:
        """Refuse to be used on another model than the one that it was made for, if it knows.

        Args:
            mark: Says which model it is; only called if that matters.

        Raises:
            UsageError: it is another one.
        """
        if self.made_for is not None and (other := mark()).digest != self.made_for.digest:
            hint = f'{_PLAN_HINT}; its entry "model" says which: without that entry nothing is compared'
            raise UsageError(f"the plan was made for {self.made_for}, and this is {other}", hint=hint)

    @property
    def removed(self) -> int:
        """How many units go away in all."""
        return int(sum(np.size(mask) - np.count_nonzero(mask) for mask in self.keep.values()))

    def count(self, group: Group) -> int:
        """How many units of a group stay, in every row."""
        keep = self.keep.get(group.id)
        return group.units if keep is None else int(np.asarray(keep).reshape(-1, group.units)[0].sum())

    def counts(self, groups: Iterable[Group]) -> dict[str, int]:
        """By group id how many units stay, of the groups that are named."""
        known = {group.id: group for group in groups}
        return {name: self.count(known[name]) for name in self.keep}

    def keeps(self, groups: Iterable[Group]) -> dict[int, Keep]:
        """What stays, by Dim.

        Raises:
            UsageError: a group does not exist, or an array has another shape, or keeps unequal rows.
        """
        known = {group.id: group for group in groups}
        keeps = {}
        for name, mask in self.keep.items():
            group = known.get(name)
            if group is None:
                raise UsageError(f"the model has no group {name!r}", hint="`prunegraph explain` lists the groups")
            if mask.shape != group.shape:
                raise UsageError(f"{name} has the shape {group.shape}, the selection {mask.shape}", hint=_PLAN_HINT)
            counts = np.unique(mask.sum(axis=-1))
            if counts.size != 1:
                raise UsageError(
                    f"the selection keeps unequal numbers of units per row of {name}",
                    hint="keep the same number in every row",
                )
            if counts[0] < group.least > 1:
                raise UsageError(
                    f"the selection keeps {counts[0]} of {name}, and the router picks {group.least}",
                    hint=f"keep at least {group.least}",
                )
            if not mask.all():
                keeps[group.dim] = Keep(group.outer, np.asarray(mask, dtype=bool), int(counts[0]))
        return keeps

    def then(self, later: Selection, groups: Sequence[Group], left: Collection[int] | None = None) -> Selection:
        """The selection that does at once what this one and then `later` (on the slim model) do.

        Args:
            later: A selection for what this one leaves over.
            groups: The groups of the model that this one is for.
            left: Their Dims that the slim model still has; None if no group went whole.
        """
        keeps = self.keeps(groups)
        combined = {name: mask.copy() for name, mask in self.keep.items()}
        number: Counter[str] = Counter()
        for group in groups:
            if left is not None and group.dim not in left:
                continue
            mask = later.keep.get(f"{group.kind}.{number[group.kind]}")
            number[group.kind] += 1
            if mask is None:
                continue
            before = combined.get(group.id, np.ones(group.shape, dtype=bool))
            alive = _rows_left(group, keeps)
            both = before & (
                np.cumsum(before, axis=-1) <= mask.sum(axis=-1).flat[0]
            )  # any will do in rows that are gone
            both[alive] = False
            both[before & alive[..., None]] = mask.reshape(-1)
            combined[group.id] = both
        return Selection(combined, self.made_for)

    def to_dict(self) -> dict[str, Any]:
        """The plan as JSON has it: for every group the kept units."""
        groups = {
            name: {"shape": list(mask.shape), "kept": np.flatnonzero(mask).tolist()} for name, mask in self.keep.items()
        }
        mark = {} if self.made_for is None else {"model": asdict(self.made_for)}
        return {"prunegraph_plan": SCHEMA, **mark, "groups": groups}

    def to_json(self) -> str:
        """The plan as text."""
        return json.dumps(self.to_dict())

    @staticmethod
    def from_json(text: str) -> Selection:
        """Read a plan.

        Raises:
            UsageError: the text is no plan.
        """
        try:
            data = parse_json(text)
        except ValueError as error:
            raise UsageError(f"this is no plan file: {error}", hint=_PLAN_HINT) from error
        version = data.get("prunegraph_plan") if isinstance(data, dict) else None
        groups = data.get("groups") if isinstance(data, dict) else None
        if version is None or not isinstance(groups, dict):
            problem = "it states no version" if version is None else "it has no groups"
            raise UsageError(f"this is no plan file: {problem}", hint=_PLAN_HINT)
        if isinstance(version, bool) or version != SCHEMA:
            raise UsageError(f"the plan has version {version!r}, not {SCHEMA}", hint=_PLAN_HINT)
        masks = {name: _mask(name, entry) for name, entry in present_keys(groups).items()}
        return Selection(masks, _mark(data.get("model")))


def _rows_left(group: Group, keeps: Mapping[int, Keep]) -> Mask:
    """Which rows of a group's keep array are left when outer Dims lose slots themselves."""
    left = np.ones(group.rows, dtype=bool)
    position = dict(zip(group.outer, np.indices(group.rows, sparse=True), strict=True))
    for dim in group.outer:
        if dim in keeps:
            left &= keeps[dim].mask[(*(position[outer] for outer in keeps[dim].outer), position[dim])]
    return left


def _units(groups: Mapping[str, Group], name: str, units: Sequence[int] | Mask) -> Mask:
    """A mask of a group with True at these units.

    Raises:
        UsageError: the group or a unit does not exist, or an array has another shape.
    """
    group = groups.get(name)
    if group is None:
        raise UsageError(f"the model has no group {name!r}", hint="`prunegraph explain` lists the groups")
    given = np.asarray(units)
    if given.dtype == bool:
        if given.shape != group.shape:
            raise UsageError(
                f"{name} has the shape {group.shape}, the array {given.shape}", hint="give one for every unit"
            )
        return given.copy()
    mask = np.zeros(group.shape, dtype=bool)
    numbers = given.astype(np.int64) if given.size else np.zeros(0, np.int64)
    if given.ndim != 1 or np.any(numbers != given) or np.any((numbers < 0) | (numbers >= group.units)):
        raise UsageError(f"{name} has the units 0 to {group.units - 1}, not {units!r}", hint="give numbers of units")
    mask[..., numbers] = True
    return mask


def _mark(entry: object) -> ModelMark | None:
    """The model that a plan states; none in those of former releases.

    Raises:
        UsageError: it states something else.
    """
    if entry is None:
        return None
    name, digest = (entry.get("name"), entry.get("digest")) if isinstance(entry, dict) else (None, None)
    if not isinstance(name, str) or not isinstance(digest, str):
        raise UsageError("this is no plan file: its model is not stated by name and digest", hint=_PLAN_HINT)
    return ModelMark(name, digest)


def _mask(name: str, entry: object) -> Mask:
    """The keep array that a plan states for a group.

    Raises:
        UsageError: it states none, or something else than positions in it, each once.
    """
    shape, kept = (entry.get("shape"), entry.get("kept")) if isinstance(entry, dict) else (None, None)
    if not _whole_numbers(shape, 1) or not shape:
        raise UsageError(f"this is no plan file: the shape of {name} is not one of lengths", hint=_PLAN_HINT)
    units = math.prod(shape)
    if units > _UNITS_LIMIT:
        raise UsageError(f"this is no plan file: {name} is stated to have {units} units", hint=_PLAN_HINT)
    if not _whole_numbers(kept, 0):
        raise UsageError(f"this is no plan file: what stays of {name} is not a list of positions", hint=_PLAN_HINT)
    if any(position >= units for position in kept):
        raise UsageError(f"this is no plan file: {name} has {units} units, and {max(kept)} stays", hint=_PLAN_HINT)
    if len(set(kept)) < len(kept):
        raise UsageError(f"this is no plan file: a unit of {name} stays twice", hint=_PLAN_HINT)
    flat = np.zeros(units, dtype=bool)
    flat[np.asarray(kept, dtype=np.int64)] = True
    return flat.reshape(shape)


def _whole_numbers(given: object, least: int) -> TypeGuard[list[int]]:
    return isinstance(given, list) and all(isinstance(n, int) and not isinstance(n, bool) and n >= least for n in given)
