"""`prunegraph sweep`: one model at several speeds."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from prunegraph.cli.arguments import (
    Align,
    BatchSize,
    DataFile,
    ImageOptions,
    Json,
    KeepForm,
    LabelColumn,
    Limit,
    Model,
    Protocol,
    RunBy,
    SequenceLength,
    Size,
    TextColumns,
    Threads,
    Tokenizer,
)
from prunegraph.cli.console import progress, say, show, show_json
from prunegraph.cli.named import data_of, scorers_of, timing_of

if TYPE_CHECKING:
    from rich.table import Table

    from prunegraph.speed.versions import Sweep


def sweep(
    model: Model,
    output: Annotated[
        Path, typer.Option("--output", "-o", metavar="FOLDER", help="A new folder for models, JSON, plot and report.")
    ],
    speedup: Annotated[
        str, typer.Option(metavar="NUMBER,...", help="How many times faster the versions shall be.")
    ] = "1.25,1.5,2,3,4",
    data: DataFile = None,
    tokenizer: Tokenizer = None,
    text_column: TextColumns = None,
    label_column: LabelColumn = "",
    samples: Limit = None,
    image: ImageOptions = None,
    evaluate: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE",
            help="Other examples, that the original and all versions are compared on.",
            show_default=False,
        ),
    ] = None,
    metric: Annotated[
        str,
        typer.Option(
            metavar="NAME",
            help="See `prunegraph evaluate`.  [default: accuracy with labels, else agreement]",
            show_default=False,
        ),
    ] = "auto",
    kind: Annotated[
        list[str] | None, typer.Option(metavar="KIND", help="What may go, see `prunegraph prune`. Repeatable.")
    ] = None,
    align: Align = None,
    scorer: Annotated[
        list[str] | None,
        typer.Option(metavar="[KIND=]NAME", help="See `prunegraph prune`.", show_default=False),
    ] = None,
    search: Annotated[float, typer.Option(metavar="MINUTES", help="Local search after every plan.")] = 0.0,
    ep: RunBy = "cpu",
    batch: BatchSize = 1,
    sequence: SequenceLength = 128,
    size: Size = None,
    threads: Threads = 1,
    protocol: Protocol = "turns",
    keep_form: KeepForm = False,
    no_verify: Annotated[bool, typer.Option("--no-verify", help="Write the results without proving them.")] = False,
    json: Json = False,
) -> None:
    """Make one model at several speeds, measured, and compare how good the versions are.

    The model is analysed and observed once, and so are the tables of time and of harm that plans are made from. FOLDER
    holds the models with their plans, sweep.json, sweep.png with the metric over the measured latency, and report.html.
    Without --evaluate the versions are judged by how far their outputs are from the original's on --data.

    Needs: pip install "prunegraph[report]"

    \b
    Examples
      prunegraph sweep model.onnx --data texts.txt --evaluate test.csv -o versions
      prunegraph sweep model.onnx --speedup 1.5,2,3 --data texts.txt --metric cosine -o versions
    """  # noqa: D301 - \b keeps the lines that follow as they are
    speedups = parse_speedups(speedup)
    with progress() as step:
        step("load")
        from prunegraph.atomic_write import check_new_folder
        from prunegraph.extras import require_extras
        from prunegraph.passes.choose.request import Amount
        from prunegraph.speed.versions import sweep as run

        require_extras(["report"])
        check_new_folder(output)
        amount = Amount(
            speedup=speedups[0],
            kinds=kind or (),
            align=align,
            search=search,
            ep=ep.split(",")[0],
            timing=timing_of(batch, sequence, size, threads, protocol),
            keep_form=keep_form,
        )
        result = run(
            model,
            speedups,
            amount,
            scorer=scorers_of(scorer, None, 0.0, 0),
            data=data_of(model, data, tokenizer, text_column, label_column, samples, ep, image),
            evaluate=data_of(model, evaluate, tokenizer, text_column, label_column, None, ep, image),
            metric=metric,
            verify=not no_verify,
            progress=step,
        )
        step("save")
        result.save(output, model.stem, step)
    if json:
        show_json(result.to_dict())
    else:
        show(sweep_table(result))
    for each, reason in result.refused.items():
        say(f"{each:g} times: {reason}")
    say("wrote ", str(output))


def parse_speedups(text: str) -> list[float]:
    """Speed-ups from a list.

    >>> parse_speedups("1.5,2")
    [1.5, 2.0]

    Raises:
        UsageError: something is no number.
    """
    from prunegraph.errors import UsageError

    try:
        return [float(part) for part in text.split(",")]
    except ValueError:
        raise UsageError(f"--speedup: {text!r} is no list of numbers", hint="for example --speedup 1.5,2,3") from None


def sweep_table(result: Sweep) -> Table:
    """A row a version: what was asked for, what was measured, and how good it is; those on the front are marked.

    Args:
        result: The versions.
    """
    from prunegraph.cli.plain_table import plain_table
    from prunegraph.speed.versions import title

    table = plain_table("", "ms", "times faster", "95 %", "parameters", result.metric, "95 %", "front")
    points = {point["name"]: point for point in result.points()}
    front = result.front()
    rows = {"original": None, **{title(speedup): each for speedup, each in result.results.items()}}
    for name, each in rows.items():
        point = points.get(name)
        good = ("", "") if point is None else (f"{point['metric']:.4f}", f"[{point['low']:.4f}, {point['high']:.4f}]")
        ms = "" if point is None else f"{point['latency_ms']:.3g}"
        if each is None or each.speed is None:
            table.add_row(name, ms, "", "", "", *good, "*" if name in front else "")
            continue
        ratio = each.speed.met.best.ratio
        params = f"{each.report.params[1]:,}"
        faster = (f"{ratio.median:.2f}", f"[{ratio.low:.2f}, {ratio.high:.2f}]")
        table.add_row(name, ms, *faster, params, *good, "*" if name in front else "")
    return table
