"""The text of arguments becomes values."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Any, TypeVar

from prunegraph.errors import UsageError

if TYPE_CHECKING:
    from prunegraph.observe.images import Images


def parse_options(given: Iterable[str], noise: float = 0.0) -> dict[str, object]:
    """Options of a scorer by name.

    >>> parse_options(["k=7", "rules=both"])
    {'k': '7', 'rules': 'both'}

    Raises:
        UsageError: something is no NAME=VALUE.
    """
    values: dict[str, object] = {}
    for text in given:
        name, equals, value = text.partition("=")
        if not equals or not name.strip():
            raise UsageError(f"--scorer-option: {text!r} is no NAME=VALUE", hint="for example --scorer-option k=7")
        values[name.strip()] = value.strip()
    return {**values, "noise": noise} if noise else values


def parse_images(given: Iterable[str]) -> Images:
    """How images become inputs.

    >>> parse_images(["size=224", "resize=256", "mean=0.5", "std=0.5"]).size
    (224, 224)

    Raises:
        UsageError: something is no NAME=VALUE, or wrong; or there is no size.
    """
    from prunegraph.observe.images import Images

    hint = "for example --image size=224 --image mean=0.485,0.456,0.406 --image std=0.229,0.224,0.225"
    values: dict[str, Any] = {}
    for text in given:
        name, _, value = (part.strip() for part in text.partition("="))
        try:
            match name:
                case "size":
                    sides = [int(side) for side in value.split("x")]
                    values[name] = (sides[0], sides[-1])
                case "resize":
                    values[name] = int(value)
                case "mean" | "std":
                    values[name] = tuple(float(number) for number in value.split(","))
                case "resampling":
                    values[name] = value
                case _:
                    raise UsageError(f"--image: there is no {name!r}", hint=hint)
        except ValueError:
            raise UsageError(f"--image: {text!r} is no number", hint=hint) from None
    if "size" not in values:
        raise UsageError("--image: the size of the input is missing", hint=hint)
    return Images(**values)


def parse_ratio(given: Iterable[str]) -> float | str | dict[str, float | list[float]]:
    """One number for all kinds; or one a kind or pattern, or a list by layer; or a preset or file.

    >>> parse_ratio(["0.5"]), parse_ratio(["head=0.5", "ffn=0.3,0.4"]), parse_ratio(["snp-deit-base"])
    (0.5, {'head': 0.5, 'ffn': [0.3, 0.4]}, 'snp-deit-base')

    Raises:
        UsageError: something is no number, is given twice, or one number stands beside kinds.
    """
    texts = list(given)
    if len(texts) == 1 and "=" not in texts[0] and not _is_number(texts[0]) and _names_source(texts[0]):
        return texts[0]
    hint = "a ratio is the fraction removed: --ratio 0.5, or --ratio head=0.5"
    by_kind = _by_kind("--ratio", texts, float, hint, "give each kind once: --ratio head=0.5 --ratio ffn=0.3")
    if "" in by_kind and len(by_kind) > 1:
        hint = "give one number for all kinds, or one a kind: --ratio head=0.5 --ratio ffn=0.3"
        raise UsageError("--ratio: a number for all kinds beside one for some", hint=hint)
    if isinstance(by_kind.get(""), list):
        raise UsageError("--ratio: a list names no kind", hint="give the kind: --ratio ffn=0.5,0.25")
    return by_kind[""] if "" in by_kind else by_kind  # type: ignore[return-value]


def parse_keep(given: Iterable[str]) -> dict[str, int | list[int]]:
    """Kept numbers by kind or pattern.

    >>> parse_keep(["head=6", "ffn=512,256"])
    {'head': 6, 'ffn': [512, 256]}

    Raises:
        UsageError: something is no KIND=N, or is given twice.
    """
    hint = "give kinds and how many units stay: --keep head=6 --keep ffn=512,256"
    return _named("--keep", _by_kind("--keep", given, int, hint, hint), hint)


def parse_budget(given: Iterable[str]) -> dict[str, float]:
    """Fractions left by what is limited.

    >>> parse_budget(["macs=0.5"])
    {'macs': 0.5}

    Raises:
        UsageError: something is no NAME=NUMBER, or is given twice.
    """
    hint = "give the fraction left of macs, params or bytes: --budget macs=0.5"
    values = _named("--budget", _by_kind("--budget", given, float, hint, hint), hint)
    if any(isinstance(value, list) for value in values.values()):
        raise UsageError("--budget: one number each", hint=hint)
    return values


def parse_scorers(given: Iterable[str]) -> str | dict[str, str]:
    """One scorer, or one a kind.

    >>> parse_scorers(["snp"]), parse_scorers(["head=michel", "ffn=snp"])
    ('snp', {'head': 'michel', 'ffn': 'snp'})

    Raises:
        UsageError: there are several, and one names no kind or a kind that was named before.
    """
    texts = list(given)
    if len(texts) == 1 and "=" not in texts[0]:
        return texts[0]
    values: dict[str, str] = {}
    for text in texts:
        kind, _, name = text.partition("=")
        if not name or kind in values:
            hint = "give one scorer, or one a kind: --scorer head=michel --scorer ffn=snp"
            raise UsageError(f"--scorer: {text!r} names no kind, or one named before", hint=hint)
        values[kind] = name
    return values


N = TypeVar("N", int, float)


def _by_kind(
    option: str, given: Iterable[str], number: Callable[[str], N], hint: str, once: str
) -> dict[str, N | list[N]]:
    """KIND=NUMBER or KIND=NUMBER,NUMBER; a number alone is that of no kind."""
    values: dict[str, N | list[N]] = {}
    for text in given:
        kind, _, numbers = (part.strip() for part in text.rpartition("="))
        if ("=" in text and not kind) or kind in values:
            what = f"{kind} is given twice" if kind else f"{text!r} names no kind"
            raise UsageError(f"{option}: {what}", hint=once)
        try:
            each = [number(part) for part in numbers.split(",")]
        except ValueError:
            raise UsageError(f"{option}: {text!r} is no number", hint=hint) from None
        values[kind] = each if "," in numbers else each[0]
    return values


def _named(option: str, values: dict[str, Any], hint: str) -> dict[str, Any]:
    if "" in values:
        raise UsageError(f"{option}: a number stands alone", hint=hint)
    return values


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True


def _names_source(text: str) -> bool:
    """Whether this looks like a preset or a file rather than a slip in a number."""
    return any(character.isalpha() for character in text) and ("-" in text or "." in text)


def parse_sizes(given: Iterable[str]) -> dict[str, int]:
    """Sizes of dynamic dims by name.

    >>> parse_sizes(["height=224", "width=224"])
    {'height': 224, 'width': 224}

    Raises:
        UsageError: something is no NAME=N.
    """
    sizes = {}
    for text in given:
        name, _, number = text.rpartition("=")
        if not name or not number.strip().isdecimal():
            raise UsageError(f"--size: {text!r} is no NAME=N", hint="for example --size height=224")
        sizes[name] = int(number)
    return sizes


def parse_bytes(option: str, text: str) -> int:
    """A size such as `2GB`, `500 MB` or `1GiB` in bytes.

    Raises:
        UsageError: it is none.

    >>> parse_bytes("--shard", "2GB"), parse_bytes("--shard", "1.5 MiB"), parse_bytes("--shard", "4096")
    (2000000000, 1572864, 4096)
    """
    match = re.fullmatch(r"\s*([0-9]*\.?[0-9]+)\s*(?:([kmgt]?)(i?)b?)\s*", text, re.IGNORECASE)
    size = (
        0
        if match is None
        else int(float(match[1]) * (1024 if match[3] else 1000) ** " kmgt".index(match[2].lower() or " "))
    )
    if size < 1:
        raise UsageError(f"{option}: {text!r} is no size", hint=f"for example {option} 2GB")
    return size


def parse_values(given: Iterable[str]) -> dict[str, float]:
    """Values of inputs by name.

    >>> parse_values(["sr=16000", "use_cache_branch=true"])
    {'sr': 16000, 'use_cache_branch': True}

    Raises:
        UsageError: something is no NAME=VALUE.
    """
    values: dict[str, float] = {}
    for text in given:
        name, _, value = (part.strip() for part in text.rpartition("="))
        truths = {"true": True, "false": False}
        try:
            values[name] = truths[value.lower()] if value.lower() in truths else _number(value)
        except ValueError:
            name = ""
        if not name:
            hint = "for example --set sr=16000, or --set use_cache_branch=true"
            raise UsageError(f"--set: {text!r} is no NAME=VALUE", hint=hint)
    return values


def _number(text: str) -> float:
    return int(text) if text.lstrip("+-").isdecimal() else float(text)
