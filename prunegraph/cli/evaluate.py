"""`prunegraph evaluate`: the same examples through several models, with a metric."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from prunegraph.cli.arguments import (
    DataFile,
    ImageOptions,
    Json,
    LabelColumn,
    Limit,
    Model,
    RunBy,
    TextColumns,
    Tokenizer,
    onnx_files,
)
from prunegraph.cli.console import progress, show, show_json
from prunegraph.cli.named import data_of

if TYPE_CHECKING:
    from rich.table import Table

    from prunegraph.observe.evaluation import Evaluation


def evaluate(
    model: Model,
    others: Annotated[
        list[Path] | None,
        typer.Argument(metavar="SLIM", help="Other versions of it, compared with the first.", callback=onnx_files),
    ] = None,
    data: DataFile = None,
    tokenizer: Tokenizer = None,
    metric: Annotated[
        str,
        typer.Option(
            metavar="NAME",
            help="accuracy, macro-f1, top5 or another number (labels); agreement, cosine, spearman (with MODEL); "
            "perplexity; or module:function.  [default: accuracy with labels, else agreement]",
            show_default=False,
        ),
    ] = "auto",
    output: Annotated[
        str, typer.Option(metavar="NAME", help="The output that is judged.  [default: the first]", show_default=False)
    ] = "",
    text_column: TextColumns = None,
    label_column: LabelColumn = "",
    samples: Limit = None,
    image: ImageOptions = None,
    ep: RunBy = "cpu",
    json: Json = False,
) -> None:
    """Measure models on labelled or unlabelled examples, side by side.

    All models see the same examples. Differences to the first model come with the 95 % interval of the paired bootstrap
    over examples. A folder with a folder a class is data where the model reads images; preprocessor_config.json beside
    MODEL, or --image, says how an image becomes an input.

    Needs for texts: pip install "prunegraph[text]", for images: pip install "prunegraph[image]"

    \b
    Examples
      prunegraph evaluate model.onnx slim.onnx --data test.csv --tokenizer folder
      prunegraph evaluate model.onnx slim.onnx --data sentences.txt --metric cosine
      prunegraph evaluate model.onnx slim.onnx --data images/ --metric top5
      prunegraph evaluate decoder.onnx slim.onnx --data texts.txt --metric perplexity --json
    """  # noqa: D301 - \b keeps the lines that follow as they are
    with progress() as step:
        step("load")
        from prunegraph.errors import UsageError
        from prunegraph.export.onnx_file import load
        from prunegraph.observe.evaluation import evaluate_models

        if data is None:
            raise UsageError("nothing to evaluate on", hint="give examples: --data test.csv")
        examples = data_of(model, data, tokenizer, text_column, label_column, samples, ep, image)
        assert examples is not None
        given = examples.opened()
        models = {str(path): load(path) for path in [model, *(others or ())]}
        step("evaluate")
        result = evaluate_models(models, given.inputs(models[str(model)]), metric, output=output)
    if json:
        show_json(result.to_dict())
    else:
        show(evaluation_table(result))


def evaluation_table(result: Evaluation, on: str = "") -> Table:
    """Models side by side, with intervals.

    Args:
        result: What they reached.
        on: What is to be said of the examples.
    """
    from prunegraph.cli.plain_table import plain_table

    table = plain_table("model", result.metric, "95 %", "change", "95 %")
    for score in result.scores:
        change = "" if score.change is None else f"{score.change:+.4f}"
        interval = "" if score.change_low is None else f"[{score.change_low:+.4f}, {score.change_high:+.4f}]"
        table.add_row(score.model, f"{score.value:.4f}", f"[{score.low:.4f}, {score.high:.4f}]", change, interval)
    table.caption = " ".join(filter(None, (f"{result.examples:,} examples", on)))
    table.caption_justify = "left"
    return table
