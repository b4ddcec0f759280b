"""`prunegraph verify`: compare a slim model with the masked original by its plan."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated

import typer

from prunegraph.cli.arguments import (
    AllowIo,
    DataFile,
    ImageOptions,
    Json,
    Limit,
    Model,
    Size,
    TextColumns,
    Tokenizer,
    onnx_file,
)
from prunegraph.cli.console import complain, progress, show, show_json
from prunegraph.cli.named import data_of
from prunegraph.cli.parse import parse_sizes


def verify(
    model: Model,
    slim: Annotated[Path, typer.Argument(metavar="SLIM", help="What was made of it.", callback=onnx_file)],
    plan: Annotated[
        Path | None,
        typer.Option(
            metavar="PLAN",
            help="What was removed. [default: NAME.plan.json or NAME.vocab.json beside SLIM]",
            show_default=False,
        ),
    ] = None,
    allow_io: AllowIo = None,
    data: DataFile = None,
    tokenizer: Tokenizer = None,
    text_column: TextColumns = None,
    samples: Limit = None,
    image: ImageOptions = None,
    size: Size = None,
    json: Json = False,
) -> None:
    """Prove that a slim model is its original minus what was removed.

    What was removed stands in the plan. In the original those units are masked where something sums over them; both
    graphs run in ONNX Runtime on the same random inputs, at sizes that pruning did not look at, and on --data if there
    are any. Nothing of the slim model's making is trusted but the plan.

    Where the plan says that heads were turned into another basis before they were cut, the original is turned alike,
    and compared with itself first. Weights that the plan says were re-fitted are put back to what Shrink makes of the
    original before that; all others must be as they are in it.

    A model that `prunegraph vocab` made is compared by the ids in its NAME.vocab.json: every weight must hold the rows
    of kept tokens, and their logits be what they were.

    Exits with 0 only if all outputs are equal to rounding, else with 1.

    \b
    Examples
      prunegraph verify model.onnx slim.onnx
      prunegraph verify model.onnx slim.onnx --plan elsewhere/slim.plan.json --json
      prunegraph verify model.onnx slim.onnx --data images.npz
      prunegraph verify model.onnx slim.onnx --data images/ --image size=224
    """  # noqa: D301 - \b keeps the lines that follow as they are
    from prunegraph.cli.plan_file import vocabulary_plan

    if (tokens := vocabulary_plan(plan, slim)) is not None:
        _verify_vocabulary(model, slim, tokens, parse_sizes(size or ()), json=json)
        return
    plan = plan or slim.with_name(f"{slim.stem}.plan.json")
    with progress() as step:
        step("load")
        from prunegraph.api import verify_files
        from prunegraph.cli.plan_file import read_plan
        from prunegraph.errors import PruneGraphError

        stated = read_plan(plan)
        if stated.trained:
            again = "prune without --finetune, verify, and train what comes of that with `prunegraph finetune`"
            raise PruneGraphError("all weights were trained after the proof: there is nothing to compare", hint=again)
        if stated.quantized:
            again = "verify the float model, and quantize what comes of that with `prunegraph quantize`"
            raise PruneGraphError("the weights were quantized after the proof: none is as it was", hint=again)

        examples = data_of(model, data, tokenizer, text_column, samples=samples, image=image)
        rotation, repair = stated.rotation, stated.repair
        verification = verify_files(
            model,
            slim,
            stated.selection,
            repair=repair,
            rotation=rotation,
            dead=stated.dead,
            allow_io=allow_io or stated.allow_io,
            sizes=parse_sizes(size or ()),
            values=stated.values,
            data=examples,
            progress=step,
        )
    if json:
        show_json({"equal": verification.ok, **verification.to_dict(), "refitted": [*repair.changed, *repair.added]})
    else:
        from prunegraph.cli.summary import proof

        show(*proof(verification))
        if rotation:
            show(f"{len(rotation)} groups were turned into another basis before they were cut, as the plan says")
        if repair:
            count = len(repair.changed) + len(repair.added)
            show(f"{count} weights and biases were re-fitted, as the plan says: compared is the model without that")
    if not verification.ok:
        complain(
            f"{slim} is not {model} minus what {plan} removes",
            "one of the files was changed, or they do not belong together; prune again to get all of them anew",
        )
        raise typer.Exit(1)


def _verify_vocabulary(model: Path, slim: Path, plan: Path, sizes: Mapping[str, int], *, json: bool) -> None:
    with progress() as step:
        step("load")
        from prunegraph.api import analyze
        from prunegraph.export.convert import open_source
        from prunegraph.passes.choose.request import Scope
        from prunegraph.vocabulary import VocabularyPlan, verify_vocabulary

        stated = VocabularyPlan.load(plan)
        graph = analyze(model, scope=Scope(sizes=sizes), progress=step)
        step("verify")
        result = verify_vocabulary(graph, open_source(slim), stated)
    if json:
        tokens = [result.size, len(result.kept)]
        show_json({"equal": True, "tokens": tokens, "max_rel_error": result.error, "outputs": result.outputs})
        return
    tokens_left = f"{len(result.kept):,} of {result.size:,} tokens stay"
    show(f"equal: {tokens_left}; largest error {result.error:.1e} of the output's scale")
