"""`prunegraph prune`: remove a part of a model, prove the result, and write it."""

from __future__ import annotations

from collections.abc import Iterable
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from prunegraph.cli.arguments import (
    AllowIo,
    BatchSize,
    DataFile,
    Fixed,
    ImageOptions,
    Jobs,
    Json,
    KeepForm,
    LabelColumn,
    Limit,
    Original,
    ParserNoise,
    Protocol,
    RunBy,
    ScorerOptions,
    SequenceLength,
    Size,
    TextColumns,
    Threads,
    Tokenizer,
    data_of,
    load_for,
    parse_budget,
    parse_bytes,
    parse_keep,
    parse_ratio,
    parse_sizes,
    parse_values,
    scorers_of,
    timing_of,
)
from prunegraph.cli.console import progress, say, show, show_json

CHOSEN_BY = "that units were chosen by"
"""What is to be said of examples that a model is judged by, and was pruned by."""

if TYPE_CHECKING:
    import onnx_ir as ir

    from prunegraph.observe.evaluation import Evaluation
    from prunegraph.observe.stream import Data
    from prunegraph.result import PruneResult


def prune(
    context: typer.Context,
    model: Original,
    output: Annotated[
        Path,
        typer.Option(
            "--output",
            "-o",
            metavar="OUT",
            help="Where to write the slim model, and its plan beside it; a new folder where MODEL is one.",
        ),
    ],
    ratio: Annotated[
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
    ] = None,
    keep: Annotated[
        list[str] | None,
        typer.Option(metavar="KIND=N", help="How many units stay; N,N,… for every layer its own. Repeatable."),
    ] = None,
    budget: Annotated[
        list[str] | None,
        typer.Option(
            metavar="NAME=NUMBER",
            help="Fraction of macs, params or bytes that is left: the smallest ratio that meets it is found, one for "
            "all groups that --ratio and --keep do not speak of.",
        ),
    ] = None,
    speedup: Annotated[
        float | None,
        typer.Option(
            metavar="NUMBER",
            help="How many times faster the result shall be, measured beside MODEL on --ep. With --data, what goes "
            "where follows from what it does to the outputs; no label is needed. Budgets may stand beside it, no "
            "--ratio.",
            show_default=False,
        ),
    ] = None,
    latency_ms: Annotated[
        float | None,
        typer.Option(metavar="MS", help="Milliseconds that a run of the result may take on --ep.", show_default=False),
    ] = None,
    max_drop: Annotated[
        float | None,
        typer.Option(
            metavar="PERCENT",
            help="The fastest result that loses no more of --metric on --data: points of accuracy or agreement, "
            "percent of the perplexity or of the value of a function.",
            show_default=False,
        ),
    ] = None,
    metric: Annotated[
        str,
        typer.Option(
            metavar="NAME",
            help="With --max-drop and --tolerance: see `prunegraph evaluate`.  [default: accuracy with labels, else "
            "agreement]",
            show_default=False,
        ),
    ] = "auto",
    macs: Annotated[
        float | None,
        typer.Option(
            metavar="NUMBER",
            help="Multiply-adds that are left, at most: a fraction or their number. Budgets stand alone or beside a "
            "speed.",
            show_default=False,
        ),
    ] = None,
    params: Annotated[
        float | None,
        typer.Option(
            metavar="NUMBER", help="Parameters that are left, at most: a fraction or a number.", show_default=False
        ),
    ] = None,
    bytes_: Annotated[
        float | None,
        typer.Option(
            "--bytes",
            metavar="NUMBER",
            help="Bytes of weights that are left, at most: a fraction or a number.",
            show_default=False,
        ),
    ] = None,
    table: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE",
            help="By speed: what `prunegraph table` or the script of a bundle measured elsewhere; nothing is timed "
            "here.",
            show_default=False,
        ),
    ] = None,
    search: Annotated[
        float,
        typer.Option(metavar="MINUTES", help="By speed: local search after the plan, judged on held-out examples."),
    ] = 0.0,
    batch: BatchSize = 1,
    sequence: SequenceLength = 128,
    threads: Threads = 1,
    protocol: Protocol = "turns",
    keep_form: KeepForm = False,
    kind: Annotated[
        list[str] | None,
        typer.Option(
            metavar="KIND",
            help="What one number and a budget are for; without it every exact kind but qk_dim, v_dim, state and rank. "
            "Repeatable.",
        ),
    ] = None,
    rank: Annotated[
        str | None,
        typer.Option(
            metavar="NAME",
            help="local: a ratio holds in every group; global: over all groups of a kind, units ranked together.  "
            "[default: global where the scorer's scores compare]",
            show_default=False,
        ),
    ] = None,
    least: Annotated[
        float, typer.Option(metavar="SHARE", help="With --rank global: what every group keeps at least of its units.")
    ] = 0.0,
    uniform: Annotated[
        bool,
        typer.Option(
            "--uniform", help="All layers keep equally many units of a kind, as a config.json with one number needs it."
        ),
    ] = False,
    align: Annotated[
        int | None,
        typer.Option(
            metavar="N",
            help="Round what is kept up to a multiple of this (not heads); 1 rounds nothing.  [default: 8 for channels "
            "and widths of at least 32 that a ratio or a budget cuts]",
            show_default=False,
        ),
    ] = None,
    scorer: Annotated[
        list[str] | None,
        typer.Option(
            metavar="[KIND=]NAME",
            help="What decides which units go first: magnitude, random, activation, obs, snp (neurons), taylor, "
            "michel (heads), cahp (heads), or sap (heads, by the syntax in --data); or that of another package. "
            "KIND=NAME is for that kind alone. Repeatable.  [default: magnitude; with --data activation, and snp for "
            "Q/K dims]",
            show_default=False,
        ),
    ] = None,
    scorer_option: ScorerOptions = None,
    seed: Annotated[int, typer.Option(metavar="N", help="For scorers that draw.")] = 0,
    data: DataFile = None,
    tokenizer: Tokenizer = None,
    text_column: TextColumns = None,
    label_column: LabelColumn = "",
    samples: Limit = None,
    image: ImageOptions = None,
    jobs: Jobs = 1,
    ep: RunBy = "cpu",
    parser_noise: ParserNoise = 0.0,
    tolerance: Annotated[
        float | None,
        typer.Option(
            metavar="SHARE",
            help="Candidate filtering: take back the removal of heads that cost most, until this share of the metric "
            "on the data is left, such as 0.95.",
            show_default=False,
        ),
    ] = None,
    policy: Annotated[
        str, typer.Option(metavar="NAME", help="Candidate filtering: stop at the first head too much, or skip it.")
    ] = "stop",
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
    drop: Annotated[
        list[str] | None,
        typer.Option(
            metavar="PATTERN",
            help="Remove groups of heads, FFN neurons or channels whose id or scope matches whole, with the sub-block "
            "around them, such as ffn.3, 'head.*layer.5.*' or 'channel.layer3.4.*' for a residual block. Without "
            "--ratio, nothing else goes. Repeatable.",
        ),
    ] = None,
    dead: Annotated[
        bool,
        typer.Option(
            "--dead",
            help="Remove all units that no output hangs on, and constant ones after moving their value into the next "
            "bias; nothing else, without data and without changing any output. No --ratio stands beside it.",
        ),
    ] = False,
    layer_threshold: Annotated[
        float,
        typer.Option(
            metavar="SHARE", help="Remove an attention whole where more than this share of its heads would go."
        ),
    ] = 1.0,
    allow_io: AllowIo = None,
    size: Size = None,
    fixed: Fixed = None,
    repair: Annotated[
        str | None,
        typer.Option(
            metavar="NAME",
            help="Re-fit what reads removed units on --data, after the proof and without labels: lstsq (weight and "
            "bias), bias (the mean of what went), auto (the better one of each weight; front to back where norms lost "
            "units), sweep (front to back tried in any case) or none; only where the error on held-out examples "
            "falls.  [default: auto with --data, else none]",
            show_default=False,
        ),
    ] = None,
    rotate: Annotated[
        bool | None,
        typer.Option(
            "--rotate/--no-rotate",
            help="Turn the dims inside of heads (qk_dim, v_dim) before they are cut, such that the last contribute "
            "least: where --data are given and the scorer is none that is about these dims as they are, always (by "
            "the weights alone without --data), or never.",
            show_default=False,
        ),
    ] = None,
    finetune: Annotated[
        bool,
        typer.Option("--finetune", help="Train the slim model again on --data, the original as teacher."),
    ] = False,
    epochs: Annotated[int, typer.Option(metavar="N", help="Fine-tuning: passes over the data, at most.")] = 3,
    lr: Annotated[float, typer.Option(metavar="RATE", help="Fine-tuning: the highest learning rate.")] = 5e-5,
    no_verify: Annotated[
        bool,
        typer.Option("--no-verify", help="Write the result without proving it."),
    ] = False,
    report: Annotated[
        Path | None,
        typer.Option(
            metavar="FOLDER",
            help="Write report.html, report.md and report.json there, and figures.",
            show_default=False,
        ),
    ] = None,
    annotate: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE",
            help="Write a copy of MODEL there whose nodes say their groups, scores and what stays, for Netron.",
            show_default=False,
        ),
    ] = None,
    strip: Annotated[
        bool, typer.Option("--strip", help="Leave out of the slim model's metadata what was removed and by whom.")
    ] = False,
    shard: Annotated[
        str | None,
        typer.Option(
            metavar="SIZE",
            help="Split the weights into data files of no more than that, such as 2GB.",
            show_default=False,
        ),
    ] = None,
    json: Json = False,
) -> None:
    """Remove a part of a model, prove the result, and write it.

    The slim model is compared with the original in which the removed units are masked, both run by ONNX Runtime; a
    result that differs by more than rounding is not written. Files appear whole or not at all, and the input is never
    changed. Beside OUT lies NAME.plan.json, which says what was removed; `prunegraph verify` reads it.

    A folder of transformers or Optimum as MODEL becomes a slim folder that loads as it did: exported first where it
    holds no ONNX file, with its tokenizer, a config.json that says what is left, and a model card.

    `prunegraph explain` lists the groups and tells what the kinds are.

    Most of it needs nothing but the core; pip install "prunegraph[all,zoo]" brings all of these:

    \b
      texts as --data                        prunegraph[text]
      images as --data                       prunegraph[image]
      --scorer sap without dependency trees  prunegraph[syntax]
      --scorer cahp                          prunegraph[cluster]
      --scorer taylor, --finetune            prunegraph[torch]
      --report                               prunegraph[report]
      a folder without an ONNX file          prunegraph[zoo]

    \b
    Examples
      prunegraph prune model.onnx -o slim.onnx
      prunegraph prune model.onnx -o slim.onnx --ratio head=0.5 --ratio ffn=0.3
      prunegraph prune model.onnx -o slim.onnx --ratio 0.25 --align 8 --exclude '*.layer.0.*'
      prunegraph prune model.onnx -o slim.onnx --ratio hidden=0.3 --json | jq .params
      prunegraph prune model.onnx -o slim.onnx --speedup 2 --data texts.txt
      prunegraph prune model.onnx -o slim.onnx --latency-ms 4.5 --params 0.5 --data texts.txt
      prunegraph prune model.onnx -o slim.onnx --max-drop 1 --data labelled.csv
      prunegraph prune model.onnx -o slim.onnx --budget macs=0.5 --align 8
      prunegraph prune ./my-bert -o ./my-slim-bert --ratio head=0.5 --ratio ffn=0.5
      prunegraph prune deit.onnx -o slim.onnx --ratio snp-deit-base --scorer snp --data images.npz
      prunegraph prune model.onnx -o slim.onnx --drop head.5 --drop ffn.5
      prunegraph prune model.onnx -o slim.onnx --dead
      prunegraph prune model.onnx -o slim.onnx --ratio head=0.5 --scorer sap \\
        --data texts.txt --tokenizer folder
      prunegraph prune model.onnx -o slim.onnx --scorer cahp --data train.jsonl \\
        --tokenizer folder --finetune --report folder
    """  # noqa: D301 - \b keeps the lines that follow as they are
    amount = parse_ratio(ratio) if ratio else None
    shard_bytes = None if shard is None else parse_bytes("--shard", shard)
    with ExitStack() as stack, progress() as step:
        step("load")
        from prunegraph.api import prune_graph
        from prunegraph.atomic_write import check_target
        from prunegraph.cli.model_folder import config_lines, opened
        from prunegraph.cli.report import commands_of, profiled
        from prunegraph.export.onnx_file import load, save
        from prunegraph.passes.choose.amounts import check_budget
        from prunegraph.passes.choose.head_filter import FilterOptions
        from prunegraph.passes.choose.request import Amount, Scope
        from prunegraph.request import Repair, Request, Step
        from prunegraph.train.options import Finetune

        budgets: dict[str, Any] = parse_budget(budget or ())
        shares = {"macs": macs, "params": params, "bytes": bytes_}
        budgets |= {name: value for name, value in shares.items() if value is not None}
        check_budget(budgets)
        after: list[Step] = [Repair(repair or "auto")] if repair or data is not None else []
        if finetune:
            after.append(Finetune(epochs=epochs, lr=lr, seed=seed))
        request: dict[str, Any] = {
            "amount": Amount(
                amount,
                parse_keep(keep or ()),
                **budgets,
                drop=drop or (),
                dead=dead,
                layer_threshold=layer_threshold,
                kinds=kind or (),
                align=align,
                rank=rank,
                uniform=uniform,
                least=least,
                filtering=None if tolerance is None else FilterOptions(tolerance, policy, metric),
                speedup=speedup,
                ep=ep.split(",")[0],
                latency_ms=latency_ms,
                max_drop=max_drop,
                metric=metric,
                table=table,
                search=search,
                timing=timing_of(batch, sequence, size, threads, protocol),
                keep_form=keep_form,
                rotate=rotate,
            ),
            "scorer": scorers_of(scorer, scorer_option, parser_noise, seed),
            "data": data_of(model, data, tokenizer, text_column, label_column, samples, ep, image, jobs),
            "scope": Scope(
                include or (), exclude or (), allow_io or (), parse_sizes(size or ()), parse_values(fixed or ())
            ),
            "after": after,
            "verify": not no_verify,
        }
        folder = stack.enter_context(opened(model, output, step))
        if folder is None:
            original = load_for(model, output)
        else:
            model, original = folder.model, load(folder.model)
        if annotate is not None:
            check_target(annotate, [model, output])
        if report is not None:
            Request.of(**request, more_extras=["report"])
        result = prune_graph(original, **request, progress=step)
        step("save")
        changed = None
        if folder is None:
            files = list(result.save(output, strip=strip, shard=shard_bytes, progress=step))
        else:
            facts = result.facts(commands=commands_of(context))
            files, changed = folder.write(output, result, facts, strip=strip, shard=shard_bytes)
        if annotate is not None:
            files += save(result.annotated(), annotate)
        evaluation = _evaluation(result, original, request["data"])
        if report is not None:
            facts = result.facts(
                commands=commands_of(context),
                sizes=result.file_sizes(files[0]),
                evaluation=None if evaluation is None else {**evaluation.to_dict(), "on": CHOSEN_BY},
                times=profiled(result, step),
            )
            files += result.write_report(report, facts)
    filtered, tuned = result.filtered, result.tuned
    if json:
        measured = {} if evaluation is None else {"evaluation": {**evaluation.to_dict(), "on": CHOSEN_BY}}
        show_json({**result.to_dict(), **measured, "files": [str(path) for path in files]})
        return
    from prunegraph.cli.evaluate import evaluation_table
    from prunegraph.cli.summary import pruned, speed_lines

    show(pruned(result.report))
    if result.speed:
        for line in speed_lines(result.speed):
            say(line)
    if evaluation is not None:
        show("", evaluation_table(evaluation, CHOSEN_BY))
    if filtered:
        left = f"{filtered.metric} {filtered.before:.3f} -> {filtered.after:.3f}, {filtered.evaluations} evaluations"
        went = f"{len(filtered.removed)} of {len(filtered.candidates)} candidates went ({filtered.ratio:.0%})"
        say(f"\nfiltered: {went}; {left}")
    if tuned:
        change = f"{tuned.metric} {tuned.before:.4f} -> {tuned.after:.4f} of {tuned.examples[1]:,} validation examples"
        say(f"\nfine-tuned: {change}, epoch {tuned.best} of {tuned.history[-1].number}")
        if tuned.evaluation is not None:
            show("", evaluation_table(tuned.evaluation, "held out from training"))
    if changed is not None:
        show("", *(line for each in changed for line in config_lines(each)))
    say("\nwrote ", _listed(files))
    if folder is None or folder.model.is_relative_to(folder.folder):
        say("next: ", (f"prunegraph bench {model} {files[0]}", "bold"))


def _evaluation(result: PruneResult, original: ir.Model, data: Data | None) -> Evaluation | None:
    """The original and the slim model on labelled data; training has its own held-out examples."""
    from prunegraph.errors import PruneGraphError

    if data is None or result.tuned is not None or data.opened().inputs(original).source.first().label is None:
        return None
    try:
        return result.evaluate(data)
    except PruneGraphError as error:
        say(f"not evaluated: {error.message}")
        return None


def _listed(files: Iterable[Path]) -> str:
    from rich.filesize import decimal

    return ", ".join(f"{path} ({decimal(path.stat().st_size)})" for path in files)
