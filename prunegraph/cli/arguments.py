"""Arguments that several commands take, and how the text of some becomes values."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Annotated

import typer

from prunegraph.errors import UsageError

Model = Annotated[Path, typer.Argument(metavar="MODEL", help="The ONNX file as it was exported; it is never changed.")]
AllowIo = Annotated[
    list[str] | None,
    typer.Option(
        metavar="PATTERN",
        help="Graph inputs and outputs that may shrink with the rest, such as 'last_*'. Repeatable.",
    ),
]
Json = Annotated[bool, typer.Option("--json", help="Print JSON for programs.")]

DataFile = Annotated[
    Path | None,
    typer.Option(
        "--data",
        metavar="FILE",
        help="What to run the model on: texts (.txt .csv .tsv .jsonl .conllu) or inputs (.npz).",
    ),
]
Tokenizer = Annotated[
    Path | None, typer.Option(metavar="PATH", help="The model's tokenizer.json, or its folder; for texts.")
]
TextColumns = Annotated[
    list[str] | None,
    typer.Option("--text-column", metavar="NAME", help="Column of text; twice for pairs.  [default: usual names]"),
]
LabelColumn = Annotated[
    str, typer.Option("--label-column", metavar="NAME", help="Column of class numbers.", show_default=False)
]
Limit = Annotated[
    int | None, typer.Option("--samples", metavar="N", min=1, help="Read only the first N examples of the data.")
]
ScorerOptions = Annotated[
    list[str] | None,
    typer.Option(
        "--scorer-option", metavar="NAME=VALUE", help="An option of the scorer, such as k=7 of sap. Repeatable."
    ),
]
ParserNoise = Annotated[
    float,
    typer.Option(metavar="P", min=0, max=1, help="Corrupt this fraction of dependency arcs, to see what that does."),
]


def parse_options(given: Iterable[str], noise: float = 0.0) -> dict[str, object]:
    """Options of a scorer by name.

    >>> parse_options(["k=7", "rules=both"])
    {'k': '7', 'rules': 'both'}

    Raises:
        UsageError: something is no NAME=VALUE.
    """
    found: dict[str, object] = {}
    for text in given:
        name, equals, value = text.partition("=")
        if not equals or not name.strip():
            raise UsageError(f"--scorer-option: {text!r} is no NAME=VALUE", hint="for example --scorer-option k=7")
        found[name.strip()] = value.strip()
    return {**found, "noise": noise} if noise else found


def parse_ratio(given: Iterable[str]) -> float | dict[str, float]:
    """One number for all kinds, or one a kind.

    >>> parse_ratio(["0.5"]), parse_ratio(["head=0.5", "ffn=0.3"])
    (0.5, {'head': 0.5, 'ffn': 0.3})

    Raises:
        UsageError: something is no number, is given twice, or one number stands beside kinds.
    """
    by_kind: dict[str, float] = {}
    for text in given:
        kind, _, number = text.rpartition("=")
        if ("=" in text and not kind.strip()) or kind.strip() in by_kind:
            what = f"{kind.strip()} is given twice" if kind.strip() else f"{text!r} names no kind"
            raise UsageError(f"--ratio: {what}", hint="give each kind once: --ratio head=0.5 --ratio ffn=0.3")
        by_kind[kind.strip()] = _number(number, text)
    if "" in by_kind and len(by_kind) > 1:
        hint = "give one number for all kinds, or one a kind: --ratio head=0.5 --ratio ffn=0.3"
        raise UsageError("--ratio: a number for all kinds beside one for some", hint=hint)
    return by_kind[""] if "" in by_kind else by_kind


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


def _number(number: str, text: str) -> float:
    try:
        return float(number)
    except ValueError:
        hint = "a ratio is the fraction removed: --ratio 0.5, or --ratio head=0.5"
        raise UsageError(f"--ratio: {text!r} is no number", hint=hint) from None
