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
    from prunegraph.passes.score import Context
    from prunegraph.passes.score.sap import SapResult


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
        from prunegraph.passes.score import ACCOUNTS

        settings = parse_options(scorer_option or (), parser_noise)
        options = Options(scorer=scorer, seed=seed, scorer_options=settings, providers=ep.split(","))
        given = None
        if data is not None:
            given = Calibration(
                data, tokenizer_for(model, tokenizer), text=text_column or (), label=label_column, limit=samples
            )
        scores, context = _score(model, options, given, step)
        told = {scorer: ACCOUNTS[scorer](context.of(scorer))} if scorer in ACCOUNTS else {}
    found = _syntax(context) if scorer == "sap" else None
    if json:
        more = _to_dict(found) if found else {name: dict(account.facts) for name, account in told.items()}
        show_json({"scorer": scorer, "scores": {name: array.tolist() for name, array in scores.items()}, **more})
        return
    if found is not None:
        show(_labels(found), "", _heads(found))
    else:
        show(*[line for account in told.values() for line in account.lines], _units(scores))


def _score(
    model: Path, options: Options, data: Calibration | None, step: Callable[[str], None]
) -> tuple[dict[str, Any], Context]:
    from prunegraph.clock import Clock
    from prunegraph.errors import NothingToPrune
    from prunegraph.passes.choose.select_units import observe_for_scorers
    from prunegraph.passes.score import Context, score_with, scores_kind
    from prunegraph.pipeline import gradients, load_and_analyze, open_calibration

    data = open_calibration(options, data)
    clock = Clock(step)
    found = load_and_analyze(model, (), clock)
    inputs = data.inputs(found.original) if data is not None else None
    assert isinstance(options.scorer, str)
    groups = [group for group in found.analysis.groups if scores_kind(options.scorer, group.kind)]
    if not groups:
        hint = "`prunegraph explain` lists its groups"
        raise NothingToPrune(f"the model has no group that {options.scorer} could score", hint=hint)
    context = Context(found.normalized.model, found.analysis, options.seed, options.scorer_options)
    with clock.step("observe"):
        context = observe_for_scorers(options.scorer, groups, context, inputs, clock.count, gradients())
    with clock.step("score"):
        return score_with(options.scorer, groups, context), context


def _syntax(context: Context) -> SapResult:
    from prunegraph.passes.score.sap import OBSERVATION, SapOptions, result

    return result(context.observations[OBSERVATION], SapOptions.of(context.settings))


def _to_dict(found: SapResult) -> dict[str, Any]:
    return {
        "causal": found.causal,
        "labels": [
            {"label": r.label, "count": r.count, "rank": r.rank, "top": r.top, "weight": r.weight} for r in found.labels
        ],
        "layers": [
            {"label": site.label, "penalties": penalty.tolist(), "threshold": tau.tolist()}
            for site, penalty, tau in zip(found.sites, found.penalties, found.tau, strict=True)
        ],
    }


def _table(title: str, *headings: str) -> Table:
    from rich.table import Table

    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), header_style="dim", title=title, title_justify="left")
    for k, heading in enumerate(headings):
        table.add_column(heading, justify="right" if k else "left")
    return table


def _labels(found: SapResult) -> Table:
    """The ranked labels; those above the line are the frequent ones."""
    total = sum(rank.count for rank in found.labels)
    table = _table("Relations by frequency", "label", "rank", "pairs", "share", "weight", "")
    for rank in found.labels:
        style = "bold" if rank.top else "dim"
        rule = "top" if rank.top else "rest"
        numbers = (f"{rank.rank}", f"{rank.count:,}", f"{rank.count / total:.1%}", f"{rank.weight}", rule)
        table.add_row(rank.label, *numbers, style=style)
    return table


def _heads(found: SapResult) -> Table:
    """Penalty counts, a layer a row; the darker a head, the sooner it goes."""
    from rich.text import Text

    worst = max(max(float(penalty.max()) for penalty in found.penalties), 1.0)
    heads = max(site.heads for site in found.sites)
    table = _table("Penalty of every head: the largest go first", "layer", *map(str, range(heads)))
    for site, penalty in zip(found.sites, found.penalties, strict=True):
        cells = []
        for value in penalty:
            shade = "green" if value < worst / 3 else "yellow" if value < 2 * worst / 3 else "red"
            cells.append(Text(f"{value:,.0f}", style=shade))
        table.add_row(str(site.layer), *cells)
    return table


def _units(scores: dict[str, Any]) -> Table:
    import numpy as np

    table = _table("Scores by group: the smallest go first", "group", "units", "smallest", "median", "largest")
    for name, array in scores.items():
        low, middle, high = np.quantile(array, (0, 0.5, 1))
        table.add_row(name, str(array.size), *(f"{value:.4g}" for value in (low, middle, high)))
    return table
