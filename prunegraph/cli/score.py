"""`prunegraph score`: the scores of all units, without removing any."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from prunegraph.cli.arguments import (
    DataFile,
    ImageOptions,
    Jobs,
    Json,
    LabelColumn,
    Limit,
    Model,
    ParserNoise,
    RunBy,
    ScorerOptions,
    TextColumns,
    Tokenizer,
)
from prunegraph.cli.console import progress, say, show, show_json
from prunegraph.cli.named import data_of, scorers_of

if TYPE_CHECKING:
    from rich.table import Table

    from prunegraph.passes.choose.scored import Scores
    from prunegraph.passes.score import ReportTable


def score(
    model: Model,
    scorer: Annotated[
        str, typer.Option(metavar="NAME", help="Any of `prunegraph prune`: sap (syntax), cahp, michel, taylor, …")
    ] = "sap",
    scorer_option: ScorerOptions = None,
    seed: Annotated[int, typer.Option(metavar="N", help="For scorers that draw, and for parser noise.")] = 0,
    data: DataFile = None,
    tokenizer: Tokenizer = None,
    text_column: TextColumns = None,
    label_column: LabelColumn = "",
    samples: Limit = None,
    image: ImageOptions = None,
    jobs: Jobs = 1,
    ep: RunBy = "cpu",
    parser_noise: ParserNoise = 0.0,
    output: Annotated[
        Path | None,
        typer.Option(
            "--output",
            "-o",
            metavar="FILE",
            help="Write a copy of MODEL there whose nodes say their groups and scores, for Netron.",
            show_default=False,
        ),
    ] = None,
    json: Json = False,
) -> None:
    """Show how a scorer judges the units of a model; nothing is removed.

    sap parses the texts, ranks the relations between words by frequency, and counts for every head how often it
    misses frequent ones: the head map shows these penalties, and what has the most goes first.

    Needs for texts: pip install "prunegraph[text]", for sap without dependency trees "prunegraph[syntax]", for cahp
    "prunegraph[cluster]", for taylor "prunegraph[torch]"

    \b
    Examples
      prunegraph score model.onnx --data reviews.txt --tokenizer folder
      prunegraph score model.onnx --scorer magnitude -o annotated.onnx
      prunegraph score model.onnx --data trees.conllu --tokenizer folder --scorer-option k=7
      prunegraph score model.onnx --data reviews.txt --tokenizer folder \\
        --scorer-option rules=both --json
    """  # noqa: D301 - \b keeps the lines that follow as they are
    with progress() as step:
        step("load")
        from prunegraph.api import analyze
        from prunegraph.atomic_write import check_target
        from prunegraph.errors import NothingToPrune, UsageError
        from prunegraph.export.onnx_file import save
        from prunegraph.passes.score import needs_data

        scorers = scorers_of([scorer], scorer_option, parser_noise, seed)
        judge = scorers.every
        assert judge is not None
        examples = data_of(model, data, tokenizer, text_column, label_column, samples, ep, image, jobs)
        if examples is not None:
            examples = examples.opened()
        elif any(needs_data(judge, kind) for kind in judge.kinds):
            hint = "give texts with the model's tokenizer: data=…, tokenizer=… (--data FILE --tokenizer FOLDER)"
            raise UsageError(f"the scorer {judge.name!r} needs data to run the model on", hint=hint)
        if output is not None:
            check_target(output, [model])
        graph = analyze(model, progress=step)
        groups = [group.id for group in graph.groups if group.kind in judge.kinds]
        if not groups:
            hint = "`prunegraph explain` lists its groups"
            raise NothingToPrune(f"the model has no group that {judge.name} could score", hint=hint)
        scores = graph.score(scorers, examples, groups=groups)
        report = scores.reports.get(judge.name)
        if output is not None:
            step("save")
            save(graph.annotated(scores), output)
    if json:
        facts = dict(report.facts) if report is not None else {}
        show_json({"scorer": scorer, "scores": {name: array.tolist() for name, array in scores.items()}, **facts})
        return
    lines = report.lines if report is not None else ()
    tables = [_colored(table) for table in report.tables] if report is not None else []
    show(*lines, *(part for table in tables or [_units(scores)] for part in ("", table)))
    if output is not None:
        say("\nwrote ", str(output))


def _colored(table: ReportTable) -> Table:
    """A scorer's table: rows that stand out bold, hot cells red."""
    from rich.text import Text

    from prunegraph.cli.plain_table import plain_table

    drawn = plain_table(*table.headings, title=table.title)
    for k, (first, *cells) in enumerate(table.rows):
        style = None if not table.strong else "bold" if table.strong[k] else "dim"
        colors = [_color(heat) for heat in table.heat[k]] if table.heat else [""] * len(cells)
        drawn.add_row(first, *(Text(cell, style=color) for cell, color in zip(cells, colors, strict=True)), style=style)
    return drawn


def _color(heat: float) -> str:
    return "green" if heat < 1 / 3 else "yellow" if heat < 2 / 3 else "red"


def _units(scores: Scores) -> Table:
    import numpy as np

    from prunegraph.cli.plain_table import plain_table
    from prunegraph.cli.wording import units_of

    title = "Scores by group: the smallest go first"
    table = plain_table("group", "units", "smallest", "median", "largest", title=title)
    groups = {group.id: group for group in scores.context.analysis.groups}
    for name, array in scores.items():
        quantiles = (f"{value:.4g}" for value in np.quantile(array, (0, 0.5, 1)))
        table.add_row(name, units_of(groups[name], list(groups.values())), *quantiles)
    return table
