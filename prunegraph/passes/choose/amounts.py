"""How much goes: numbers, lists, files and named presets, checked before a model is read."""

from __future__ import annotations

import json
import os
import reprlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from importlib.resources import files
from pathlib import Path
from typing import Any

from prunegraph.analysis.roles import KINDS
from prunegraph.errors import UsageError
from prunegraph.extras import needs_extra
from prunegraph.strict_json import parse_json

Ratio = float | Mapping[str, float | Sequence[float]] | str | os.PathLike[str]
"""One number, one (or a list) a kind or pattern, the name of a preset, or a JSON or YAML file of the same."""

KeptNumbers = Mapping[str, int | Sequence[int]]
BUDGETS = ("macs", "params", "bytes")
ABSOLUTE = 1000
"""Smaller budgets above 1 are slips, such as percent: no model costs so little."""

_SHORT = reprlib.Repr()
_SHORT.maxstring = _SHORT.maxother = 80
_SECTIONS = {"ratio", "keep", "fits", "source"}
_FRACTION = "a ratio is the fraction removed, at least 0 and less than 1, such as 0.5"
_LAYERS = 'give one number, or a list with one for every group: {"ffn": [0.5, 0.25]}'


@dataclass(frozen=True, slots=True)
class Amounts:
    """What a file or a preset says.

    Attributes:
        ratio: See `Ratio`.
        keep: Kept numbers by kind or pattern.
        fits: By kind, the shape of every group of a model that it is for; empty where it is for any.
        name: Where it comes from.
    """

    ratio: float | Mapping[str, float | Sequence[float]] | None = None
    keep: KeptNumbers = field(default_factory=dict)
    fits: Mapping[str, Sequence[int]] = field(default_factory=dict)
    name: str = ""


def presets() -> dict[str, Any]:
    """The presets that come with the package, by name."""
    table: dict[str, Any] = json.loads((files("prunegraph.passes.choose") / "presets.json").read_text(encoding="utf-8"))
    return table


def read_amounts(where: str | os.PathLike[str]) -> Amounts:
    """Read a preset or a file.

    A file holds what `ratio` takes (`{"head": 0.5, "ffn": [0.5, 0.25]}`), or sections `ratio` and `keep`.

    Raises:
        UsageError: there is no such preset or file, or it says something else.
    """
    named = presets()
    if str(where) in named:
        return Amounts(**{k: v for k, v in named[str(where)].items() if k != "source"}, name=str(where))
    path = Path(where)
    if path.suffix.lower() not in (".json", ".yaml", ".yml"):
        hint = f"give a number, a .json or .yaml file, or one of {', '.join(sorted(named))}"
        raise UsageError(f"there is no preset {str(where)!r}", hint=hint)
    try:
        text = path.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise UsageError(f"{path} cannot be read: {error}", hint="give a JSON or YAML file of ratios") from error
    content = _parsed(path, text)
    if not isinstance(content, Mapping) or not content or not set(content) <= _SECTIONS:
        return Amounts(content, name=str(path))
    amounts = Amounts(**{name: content[name] for name in content if name != "source"}, name=str(path))
    check_keep(amounts.keep)
    _check_fits(amounts.fits)
    return amounts


def _parsed(path: Path, text: str) -> Any:
    hint = 'write what ratio takes, such as {"head": 0.5, "ffn": [0.5, 0.25]}'
    if path.suffix.lower() == ".json":
        try:
            return parse_json(text)
        except ValueError as error:
            raise UsageError(f"{path} is no JSON: {error}", hint=hint) from error
    with needs_extra("yaml", "pyyaml", "write JSON"):
        import yaml
    try:
        return yaml.safe_load(text)
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        raise UsageError(f"{path} is no YAML: {error}", hint=hint) from error


def is_pattern(key: str) -> bool:
    """Whether a key names groups by id or scope (`ffn.0`, `*.layer.0.*`) instead of a kind."""
    return any(character in key for character in ".*?[/")


def check_ratio(ratio: object) -> None:
    """Check one number, or one or several a kind or pattern.

    Raises:
        UsageError: a ratio is no fraction, or a kind does not exist.
    """
    if not isinstance(ratio, Mapping):
        _check_fraction(ratio, "the ratio")
        return
    if not ratio:
        raise UsageError("no ratio was given", hint='give one, for example ratio=0.5 or ratio={"head": 0.5}')
    for key, value in _by_key(ratio):
        _check_fraction(value, f"the ratio of {key}")


def check_keep(keep: object) -> None:
    """Check kept numbers.

    Raises:
        UsageError: one is no positive whole number, or a kind does not exist.
    """
    if not isinstance(keep, Mapping):
        raise UsageError(f"keep must name kinds, not {_shown(keep)}", hint='for example keep={"head": 6}')
    for key, value in _by_key(keep):
        if isinstance(value, bool) or not isinstance(value, int) or value < 1:
            hint = "give how many units stay, at least 1; a fraction is a ratio"
            raise UsageError(
                f"the number of {key} kept must be a positive whole number, not {_shown(value)}", hint=hint
            )


def check_budget(budget: object) -> None:
    """Check what may be left of the cost: fractions, or whole numbers above 1.

    Raises:
        UsageError: one is neither, or of something else than MACs, parameters or bytes.
    """
    hint = 'a budget is what is left of macs, params or bytes, a fraction or a number: budget={"macs": 0.5}'
    if not isinstance(budget, Mapping):
        raise UsageError(f"budget must name what is limited, not {_shown(budget)}", hint=hint)
    for name, value in budget.items():
        if name not in BUDGETS:
            raise UsageError(f"there is no budget of {name!r}", hint=hint)
        number = isinstance(value, (int, float)) and not isinstance(value, bool)
        if not number or not (0 < value <= 1 or (value >= ABSOLUTE and float(value).is_integer())):
            problem = f"the budget of {name} must be in (0, 1], or a whole number from {ABSOLUTE}, not {_shown(value)}"
            raise UsageError(problem, hint=hint)


def check_kinds(kinds: Iterable[object]) -> None:
    """Check names of kinds.

    Raises:
        UsageError: one does not exist.
    """
    for kind in kinds:
        if kind not in KINDS:
            raise UsageError(
                f"there is no kind of group called {_shown(kind)}", hint=f"the kinds are {', '.join(KINDS)}"
            )


def _check_fits(fits: object) -> None:
    hint = 'fits states the shape that every group of a kind has: {"head": [12]}'
    if not isinstance(fits, Mapping):
        raise UsageError(f"fits must name kinds, not {_shown(fits)}", hint=hint)
    check_kinds(fits)
    for kind, shape in fits.items():
        if not isinstance(shape, list) or not all(isinstance(n, int) and not isinstance(n, bool) for n in shape):
            raise UsageError(f"the shape of {kind} must be a list of lengths, not {_shown(shape)}", hint=hint)


def _shown(value: object) -> str:
    """A value in a message, however large it is."""
    return _SHORT.repr(value)


def _by_key(given: Mapping[Any, Any]) -> Iterable[tuple[str, Any]]:
    for key, value in given.items():
        if not isinstance(key, str) or not is_pattern(key):
            check_kinds([key])
        if isinstance(value, str) or not isinstance(value, Sequence):
            yield key, value
            continue
        if not value:
            raise UsageError(f"an empty list was given for {key}", hint=_LAYERS)
        yield from ((key, entry) for entry in value)


def _check_fraction(value: object, what: str) -> None:
    if isinstance(value, bool) or not isinstance(value, (int, float)) or value != value:
        raise UsageError(f"{what} must be a number, not {_shown(value)}", hint=_FRACTION)
    if not 0 <= value < 1:
        raise UsageError(f"{what} must be in [0, 1), not {_shown(value)}", hint=_FRACTION)
