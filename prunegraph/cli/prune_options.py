"""The options of `prunegraph prune` alone."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

Output = Annotated[
    Path,
    typer.Option(
        "--output",
        "-o",
        metavar="OUT",
        help="Where to write the slim model, and its plan beside it; a new folder where MODEL is one.",
    ),
]
Ratios = Annotated[
    list[str] | None,
    typer.Option(
        metavar="[KIND=]NUMBER",
        help="Fraction removed, from 0 to less than 1. One number is for every exact kind but qk_dim, v_dim, state "
        "and rank; KIND=NUMBER is for that kind alone, and kinds not named stay. KIND=N,N,… gives every layer "
        "its own, "
        "PATTERN=NUMBER is for groups by id or scope. Repeatable. Or a JSON or YAML file of the same, or a preset "
        "such as snp-deit-base.  [default: 0.5]",
        show_default=False,
    ),
]
KeptNumbers = Annotated[
    list[str] | None,
    typer.Option(metavar="KIND=N", help="How many units stay; N,N,… for every layer its own. Repeatable."),
]
Budgets = Annotated[
    list[str] | None,
    typer.Option(
        metavar="NAME=NUMBER",
        help="Fraction of macs, params or bytes that is left: the smallest ratio that meets it is found, one for "
        "all groups that --ratio and --keep do not speak of.",
    ),
]
Speedup = Annotated[
    float | None,
    typer.Option(
        metavar="NUMBER",
        help="How many times faster the result shall be, measured beside MODEL on --ep. With --data, what goes "
        "where follows from what it does to the outputs; no label is needed. Budgets may stand beside it, no "
        "--ratio.",
        show_default=False,
    ),
]
LatencyMs = Annotated[
    float | None,
    typer.Option(metavar="MS", help="Milliseconds that a run of the result may take on --ep.", show_default=False),
]
MaxDrop = Annotated[
    float | None,
    typer.Option(
        metavar="PERCENT",
        help="The fastest result that loses no more of --metric on --data: points of accuracy or agreement, "
        "percent of the perplexity or of the value of a function.",
        show_default=False,
    ),
]
MetricName = Annotated[
    str,
    typer.Option(
        metavar="NAME",
        help="With --max-drop and --tolerance: see `prunegraph evaluate`.  [default: accuracy with labels, else "
        "agreement]",
        show_default=False,
    ),
]
MacsLeft = Annotated[
    float | None,
    typer.Option(
        metavar="NUMBER",
        help="Multiply-adds that are left, at most: a fraction or their number. Budgets stand alone or beside a speed.",
        show_default=False,
    ),
]
ParamsLeft = Annotated[
    float | None,
    typer.Option(
        metavar="NUMBER", help="Parameters that are left, at most: a fraction or a number.", show_default=False
    ),
]
BytesLeft = Annotated[
    float | None,
    typer.Option(
        "--bytes",
        metavar="NUMBER",
        help="Bytes of weights that are left, at most: a fraction or a number.",
        show_default=False,
    ),
]
TableFile = Annotated[
    Path | None,
    typer.Option(
        metavar="FILE",
        help="By speed: what `prunegraph table` or the script of a bundle measured elsewhere; nothing is timed here.",
        show_default=False,
    ),
]
SearchMinutes = Annotated[
    float,
    typer.Option(metavar="MINUTES", help="By speed: local search after the plan, judged on held-out examples."),
]
Kinds = Annotated[
    list[str] | None,
    typer.Option(
        metavar="KIND",
        help="What one number and a budget are for; without it every exact kind but qk_dim, v_dim, state and rank. "
        "Repeatable.",
    ),
]
RankName = Annotated[
    str | None,
    typer.Option(
        metavar="NAME",
        help="local: a ratio holds in every group; global: over all groups of a kind, units ranked together.  "
        "[default: global where the scorer's scores compare]",
        show_default=False,
    ),
]
Least = Annotated[
    float, typer.Option(metavar="SHARE", help="With --rank global: what every group keeps at least of its units.")
]
Uniform = Annotated[
    bool,
    typer.Option(
        "--uniform", help="All layers keep equally many units of a kind, as a config.json with one number needs it."
    ),
]
AlignTo = Annotated[
    int | None,
    typer.Option(
        metavar="N",
        help="Round what is kept up to a multiple of this (not heads); 1 rounds nothing.  [default: 8 for channels "
        "and widths of at least 32 that a ratio or a budget cuts]",
        show_default=False,
    ),
]
ScorerNames = Annotated[
    list[str] | None,
    typer.Option(
        metavar="[KIND=]NAME",
        help="What decides which units go first: magnitude, random, activation, obs, snp (neurons), taylor, "
        "michel (heads), cahp (heads), or sap (heads, by the syntax in --data); or that of another package. "
        "KIND=NAME is for that kind alone. Repeatable.  [default: magnitude; with --data activation, and snp for "
        "Q/K dims]",
        show_default=False,
    ),
]
Seed = Annotated[int, typer.Option(metavar="N", help="For scorers that draw.")]
Tolerance = Annotated[
    float | None,
    typer.Option(
        metavar="SHARE",
        help="Candidate filtering: take back the removal of heads that cost most, until this share of the metric "
        "on the data is left, such as 0.95.",
        show_default=False,
    ),
]
Policy = Annotated[
    str, typer.Option(metavar="NAME", help="Candidate filtering: stop at the first head too much, or skip it.")
]
Include = Annotated[
    list[str] | None,
    typer.Option(
        metavar="PATTERN",
        help="Prune only groups whose id or scope matches, such as 'ffn.*' or '*.layer.0.*'. Repeatable.",
    ),
]
Exclude = Annotated[
    list[str] | None,
    typer.Option(metavar="PATTERN", help="Leave groups whole whose id or scope matches. Repeatable."),
]
Drop = Annotated[
    list[str] | None,
    typer.Option(
        metavar="PATTERN",
        help="Remove groups of heads, FFN neurons or channels whose id or scope matches whole, with the sub-block "
        "around them, such as ffn.3, 'head.*layer.5.*' or 'channel.layer3.4.*' for a residual block. Without "
        "--ratio, nothing else goes. Repeatable.",
    ),
]
Dead = Annotated[
    bool,
    typer.Option(
        "--dead",
        help="Remove all units that no output hangs on, and constant ones after moving their value into the next "
        "bias; nothing else, without data and without changing any output. No --ratio stands beside it.",
    ),
]
LayerThreshold = Annotated[
    float,
    typer.Option(metavar="SHARE", help="Remove an attention whole where more than this share of its heads would go."),
]
RepairBy = Annotated[
    str | None,
    typer.Option(
        metavar="NAME",
        help="Re-fit what reads removed units on --data, after the proof and without labels: lstsq (weight and "
        "bias), bias (the mean of what went), auto (the better one of each weight; then front to back, where "
        "outputs come nearer that way), sweep (the same, whatever that takes) or none; only where the error on "
        "held-out examples falls.  [default: auto with --data, else none]",
        show_default=False,
    ),
]
Rotate = Annotated[
    bool | None,
    typer.Option(
        "--rotate/--no-rotate",
        help="Turn the dims inside of heads (qk_dim, v_dim) before they are cut, such that the last contribute "
        "least: where --data are given and the scorer is none that is about these dims as they are, always (by "
        "the weights alone without --data), or never.",
        show_default=False,
    ),
]
FinetuneToo = Annotated[
    bool,
    typer.Option("--finetune", help="Train the slim model again on --data, the original as teacher."),
]
Epochs = Annotated[int, typer.Option(metavar="N", help="Fine-tuning: passes over the data, at most.")]
LearningRate = Annotated[float, typer.Option(metavar="RATE", help="Fine-tuning: the highest learning rate.")]
NoVerify = Annotated[
    bool,
    typer.Option("--no-verify", help="Write the result without proving it."),
]
ReportFolder = Annotated[
    Path | None,
    typer.Option(
        metavar="FOLDER",
        help="Write report.html, report.md and report.json there, and figures.",
        show_default=False,
    ),
]
AnnotatedFile = Annotated[
    Path | None,
    typer.Option(
        metavar="FILE",
        help="Write a copy of MODEL there whose nodes say their groups, scores and what stays, for Netron.",
        show_default=False,
    ),
]
Strip = Annotated[
    bool, typer.Option("--strip", help="Leave out of the slim model's metadata what was removed and by whom.")
]
ShardSize = Annotated[
    str | None,
    typer.Option(
        metavar="SIZE",
        help="Split the weights into data files of no more than that, such as 2GB.",
        show_default=False,
    ),
]
