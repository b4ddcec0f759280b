"""`prunegraph prune`: remove a part of a model, prove the result, and write it."""

from __future__ import annotations

from collections.abc import Iterable
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

from prunegraph.cli import prune_options as options
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
)
from prunegraph.cli.console import progress, say, show, show_json
from prunegraph.cli.named import data_of, load_for, scorers_of, timing_of
from prunegraph.cli.parse import parse_budget, parse_bytes, parse_keep, parse_ratio, parse_sizes, parse_values

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
    output: options.Output,
    ratio: options.Ratios = None,
    keep: options.KeptNumbers = None,
    budget: options.Budgets = None,
    speedup: options.Speedup = None,
    latency_ms: options.LatencyMs = None,
    max_drop: options.MaxDrop = None,
    metric: options.MetricName = "auto",
    macs: options.MacsLeft = None,
    params: options.ParamsLeft = None,
    bytes_: options.BytesLeft = None,
    table: options.TableFile = None,
    search: options.SearchMinutes = 0.0,
    batch: BatchSize = 1,
    sequence: SequenceLength = 128,
    threads: Threads = 1,
    protocol: Protocol = "turns",
    keep_form: KeepForm = False,
    kind: options.Kinds = None,
    rank: options.RankName = None,
    least: options.Least = 0.0,
    uniform: options.Uniform = False,
    align: options.AlignTo = None,
    scorer: options.ScorerNames = None,
    scorer_option: ScorerOptions = None,
    seed: options.Seed = 0,
    data: DataFile = None,
    tokenizer: Tokenizer = None,
    text_column: TextColumns = None,
    label_column: LabelColumn = "",
    samples: Limit = None,
    image: ImageOptions = None,
    jobs: Jobs = 1,
    ep: RunBy = "cpu",
    parser_noise: ParserNoise = 0.0,
    tolerance: options.Tolerance = None,
    policy: options.Policy = "stop",
    include: options.Include = None,
    exclude: options.Exclude = None,
    drop: options.Drop = None,
    dead: options.Dead = False,
    layer_threshold: options.LayerThreshold = 1.0,
    allow_io: AllowIo = None,
    size: Size = None,
    fixed: Fixed = None,
    repair: options.RepairBy = None,
    rotate: options.Rotate = None,
    finetune: options.FinetuneToo = False,
    epochs: options.Epochs = 3,
    lr: options.LearningRate = 5e-5,
    no_verify: options.NoVerify = False,
    report: options.ReportFolder = None,
    annotate: options.AnnotatedFile = None,
    strip: options.Strip = False,
    shard: options.ShardSize = None,
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
    if json:
        measured = {} if evaluation is None else {"evaluation": {**evaluation.to_dict(), "on": CHOSEN_BY}}
        show_json({**result.to_dict(), **measured, "files": [str(path) for path in files]})
        return
    _show(result, evaluation)
    if changed is not None:
        show("", *(line for each in changed for line in config_lines(each)))
    say("\nwrote ", _listed(files))
    if folder is None or folder.model.is_relative_to(folder.folder):
        say("next: ", (f"prunegraph bench {model} {files[0]}", "bold"))


def _show(result: PruneResult, evaluation: Evaluation | None) -> None:
    """What went, what the proof saw, and what followed, for people."""
    from prunegraph.cli.evaluate import evaluation_table
    from prunegraph.cli.summary import pruned, speed_lines

    show(pruned(result.report))
    if result.speed:
        for line in speed_lines(result.speed):
            say(line)
    if evaluation is not None:
        show("", evaluation_table(evaluation, CHOSEN_BY))
    if filtered := result.filtered:
        left = f"{filtered.metric} {filtered.before:.3f} -> {filtered.after:.3f}, {filtered.evaluations} evaluations"
        went = f"{len(filtered.removed)} of {len(filtered.candidates)} candidates went ({filtered.ratio:.0%})"
        say(f"\nfiltered: {went}; {left}")
    if tuned := result.tuned:
        change = f"{tuned.metric} {tuned.before:.4f} -> {tuned.after:.4f} of {tuned.examples[1]:,} validation examples"
        say(f"\nfine-tuned: {change}, epoch {tuned.best} of {tuned.history[-1].number}")
        if tuned.evaluation is not None:
            show("", evaluation_table(tuned.evaluation, "held out from training"))


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
