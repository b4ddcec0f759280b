"""Options of scorers read from text: the fields of a dataclass, typed by their annotations."""

from __future__ import annotations

import math
import types
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import fields, is_dataclass
from typing import Any, TypeVar, Union, get_args, get_origin, get_type_hints

from prunegraph.errors import UsageError

T = TypeVar("T")

_TRUTH = {"true": True, "yes": True, "false": False, "no": False}
_NOTHING = ("none", "auto")


def option_names(cls: type) -> tuple[str, ...]:
    """The names of a scorer's options."""
    return tuple(field.name for field in fields(cls) if field.init) if is_dataclass(cls) else ()


def read_options(cls: type[T], settings: Mapping[str, Any]) -> T:
    """A scorer with these options; text stands for what the annotation of the field says.

    Args:
        cls: A dataclass with the attribute `name`.
        settings: By name; values that are no text are taken as they are.

    Raises:
        UsageError: there is no such option, or its value cannot be.
    """
    name = getattr(cls, "name", None)
    scorer = name if isinstance(name, str) else cls.__name__
    known = option_names(cls)
    for option in settings:
        if option not in known:
            raise UsageError(f"{scorer} has no option {option!r}", hint=_hint(known))
    types_of = get_type_hints(cls) if known else {}
    return cls(**{option: _typed(scorer, option, value, types_of[option]) for option, value in settings.items()})


def check_choice(scorer: str, option: str, value: object, allowed: Iterable[str]) -> None:
    """Check an option that is one of some words.

    Raises:
        UsageError: it is another.
    """
    allowed = tuple(allowed)
    if value not in allowed:
        raise UsageError(f"{scorer}: {option} cannot be {value!r}", hint=f"choose {', '.join(allowed)}")


def _hint(known: Sequence[str]) -> str:
    if not known:
        return "it has none"
    return f"its options are {', '.join(sorted(known))}" if len(known) > 1 else f"its option is {known[0]}"


def _typed(scorer: str, option: str, value: Any, annotation: Any) -> Any:
    if not isinstance(value, str):
        return value
    members = get_args(annotation) if get_origin(annotation) in (Union, types.UnionType) else (annotation,)
    if type(None) in members and value.lower() in _NOTHING:
        return None
    if any(get_origin(member) in (tuple, Sequence) for member in members):
        return tuple(part.strip() for part in value.split(",") if part.strip())
    if bool in members:
        if value.lower() not in _TRUTH:
            raise UsageError(f"{scorer}: {option} cannot be {value!r}", hint="choose true, false")
        return _TRUTH[value.lower()]
    number = _number(value, whole=float not in members) if {int, float} & set(members) else None
    if number is not None or str in members:
        return value if number is None else number
    raise UsageError(f"{scorer}: {option} cannot be {value!r}", hint="give a number")


def _number(text: str, *, whole: bool) -> float | int | None:
    """The number that a text says; None if it says none."""
    try:
        number = float(text)
    except ValueError:
        return None
    if not math.isfinite(number) or (whole and number != int(number)):
        return None
    return int(number) if whole else number
