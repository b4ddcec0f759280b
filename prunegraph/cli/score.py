"""`prunegraph score`."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from prunegraph.cli.arguments import (
    DataFile,
    Json,
    LabelColumn,
    Limit,
    Model,
    ParserNoise,
    RunBy,
    ScorerOptions,
    TextColumns,
    Tokenizer,
    parse_options,
    tokenizer_for,
)
from prunegraph.cli.console import progress, show, show_json

if TYPE_CHECKING:
    from rich.table import Table

    from prunegraph.observe.stream import Calibration
    from prunegraph.passes.choose.request import Options
    from prunegraph.passes.score import ReportTable, ScoringReport


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
    ep: RunBy = "cpu",
    parser_noise: ParserNoise = 0.0,
    json: Json = False,
) -> None:
    """Show how a scorer judges the units of a model; nothing is removed.

    sap parses the texts, ranks the relations between words by frequency, and counts for every head how often it
    misses frequent ones: the head map shows these penalties, and what has the most goes first.

    \b
    Examples
      prunegraph score model.onnx --data reviews.txt --tokenizer folder
      prunegraph score model.onnx --data trees.conllu --tokenizer folder --scorer-option k=7
      prunegraph score model.onnx --data reviews.txt --tokenizer folder \\
        --scorer-option rules=both --json
    """  # noqa: D301 - \b keeps the lines that follow as they are
    with progress() as step:
        step("load")
        from prunegraph.observe.stream import Calibration
        from prunegraph.passes.choose.request import Options

        settings = parse_options(scorer_option or (), parser_noise)
        options = Options(scorer=scorer, seed=seed, scorer_options=settings, providers=ep.split(","))
        given = None
        if data is not None:
            given = Calibration(
                data, tokenizer_for(model, tokenizer), text=text_column or (), label=label_column, limit=samples
            )
        scores, report = _score(model, options, given, step)
    if json:
        facts = dict(report.facts) if report is not None else {}
        show_json({"scorer": scorer, "scores": {name: array.tolist() for name, array in scores.items()}, **facts})
        return
    lines = report.lines if report is not None else ()
    tables = [_colored(table) for table in report.tables] if report is not None else []
    show(*lines, *(part for table in tables or [_units(scores)] for part in ("", table)))


def _score(
    model: Path, options: Options, data: Calibration | None, step: Callable[[str], None]
) -> tuple[dict[str, Any], ScoringReport | None]:
    from prunegraph.clock import Clock
    from prunegraph.errors import NothingToPrune
    from prunegraph.passes.choose.select_units import observe_for_scorers
    from prunegraph.passes.score import Context, score_with
    from prunegraph.pipeline import gradients, load_and_analyze, open_calibration

    data = open_calibration(options, data)
    clock = Clock(step)
    found = load_and_analyze(model, (), clock)
    inputs = data.inputs(found.original) if data is not None else None
    scorer = options.scorers.every
    assert scorer is not None
    groups = [group for group in found.analysis.groups if group.kind in scorer.kinds]
    if not groups:
        hint = "`prunegraph explain` lists its groups"
        raise NothingToPrune(f"the model has no group that {scorer.name} could score", hint=hint)
    context = Context(found.normalized.model, found.analysis, options.seed)
    with clock.step("observe"):
        context = observe_for_scorers(options.scorers, groups, context, inputs, clock.count, gradients())
    with clock.step("score"):
        return score_with(options.scorers, groups, context), scorer.report(context.of(scorer))


def _table(title: str, *headings: str) -> Table:
    from rich.table import Table

    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), header_style="dim", title=title, title_justify="left")
    for k, heading in enumerate(headings):
        table.add_column(heading, justify="right" if k else "left")
    return table


def _colored(table: ReportTable) -> Table:
    """A scorer's table: rows that stand out bold, hot cells red."""
    from rich.text import Text

    drawn = _table(table.title, *table.headings)
    for k, (first, *cells) in enumerate(table.rows):
        style = None if not table.strong else "bold" if table.strong[k] else "dim"
        colors = [_color(heat) for heat in table.heat[k]] if table.heat else [""] * len(cells)
        drawn.add_row(first, *(Text(cell, style=color) for cell, color in zip(cells, colors, strict=True)), style=style)
    return drawn


def _color(heat: float) -> str:
    return "green" if heat < 1 / 3 else "yellow" if heat < 2 / 3 else "red"


def _units(scores: dict[str, Any]) -> Table:
    import numpy as np

    table = _table("Scores by group: the smallest go first", "group", "units", "smallest", "median", "largest")
    for name, array in scores.items():
        low, middle, high = np.quantile(array, (0, 0.5, 1))
        table.add_row(name, str(array.size), *(f"{value:.4g}" for value in (low, middle, high)))
    return table
