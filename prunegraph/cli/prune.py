"""`prunegraph prune`."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from prunegraph.cli.arguments import AllowIo, Json, Model, parse_ratio
from prunegraph.cli.console import progress, say, show, show_json

if TYPE_CHECKING:
    from prunegraph.api import PruneResult
    from prunegraph.options import Options

_HOW_MUCH, _WHICH, _PROOF = "How much goes", "What goes first, and what stays", "Proof and output"


def prune(
    model: Model,
    output: Annotated[
        Path,
        typer.Option("--output", "-o", metavar="OUT", help="Where to write the slim model, and its plan beside it."),
    ],
    ratio: Annotated[
        list[str] | None,
        typer.Option(
            metavar="[KIND=]NUMBER",
            help="Fraction removed, from 0 to less than 1. One number is for every exact kind but qk_dim and v_dim; "
            "KIND=NUMBER is for that kind alone, and kinds not named stay. Repeatable.  [default: 0.5]",
            show_default=False,
        ),
    ] = None,
    align: Annotated[
        int,
        typer.Option(metavar="N", help="Round what is kept up to a multiple of this (not heads)."),
    ] = 1,
    scorer: Annotated[
        str,
        typer.Option(metavar="NAME", help="What decides which units go first: magnitude or random."),
    ] = "magnitude",
    seed: Annotated[int, typer.Option(metavar="N", help="For scorers that draw.")] = 0,
    include: Annotated[
        list[str] | None,
        typer.Option(
            metavar="PATTERN",
            help="Prune only groups whose id or scope matches, such as 'ffn.*' or '*.layer.0.*'. Repeatable.",
        ),
    ] = None,
    exclude: Annotated[
        list[str] | None,
        typer.Option(metavar="PATTERN", help="Leave groups whole whose id or scope matches. Repeatable."),
    ] = None,
    allow_io: AllowIo = None,
    no_verify: Annotated[
        bool,
        typer.Option("--no-verify", help="Write the result without proving it."),
    ] = False,
    json: Json = False,
) -> None:
    """Remove a part of a model, prove the result, and write it.

    The slim model is compared with the original in which the removed units are masked, both run by ONNX Runtime; a
    result that differs by more than rounding is not written. Files appear whole or not at all, and the input is never
    changed. Beside OUT lies NAME.plan.json, which says what was removed; `prunegraph verify` reads it.

    `prunegraph explain` lists the groups and tells what the kinds are.

    \b
    Examples
      prunegraph prune model.onnx -o slim.onnx
      prunegraph prune model.onnx -o slim.onnx --ratio head=0.5 --ratio ffn=0.3
      prunegraph prune model.onnx -o slim.onnx --ratio 0.25 --align 8 --exclude '*.layer.0.*'
      prunegraph prune model.onnx -o slim.onnx --ratio hidden=0.3 --json | jq .params
    """  # noqa: D301 - \b keeps the lines that follow as they are
    amount = parse_ratio(ratio if ratio else ["0.5"])
    with progress() as step:
        step("load")
        from prunegraph.options import Options

        options = Options(
            amount, scorer, align, include or (), exclude or (), allow_io or (), seed=seed, verify=not no_verify
        )
        result, files = _prune(model, output, options, step)
    if json:
        show_json({**result.report.to_dict(), "files": [str(path) for path in files]})
        return
    from prunegraph.cli.summary import pruned

    show(pruned(result.report))
    say("\nwrote ", _listed(files))
    say("next: ", (f"prunegraph bench {model} {output}", "bold"))


def _prune(
    model: Path, output: Path, options: Options, step: Callable[[str], None]
) -> tuple[PruneResult, tuple[Path, ...]]:
    """Everything between the arguments and the report; where nothing can be written, nothing is begun."""
    from prunegraph.api import Clock, apply, choose, find
    from prunegraph.export.onnx import load, source_of
    from prunegraph.export.stage import check_target
    from prunegraph.passes.score import find_scorer

    find_scorer(options.scorer)
    clock = Clock(step)
    check_target(output, [model])
    with clock.step("load"):
        given = load(model)
    for name in (output.name, f"{output.stem}.plan.json", f"{output.name}.data"):
        check_target(output.parent / name, source_of(given).files)
    found = find(given, options.allow_io, clock)
    result = apply(found, choose(found, options, clock), check=options.verify, clock=clock)
    with clock.step("save"):
        return result, result.save(output)


def _listed(files: Sequence[Path]) -> str:
    from rich.filesize import decimal

    return ", ".join(f"{path} ({decimal(path.stat().st_size)})" for path in files)
