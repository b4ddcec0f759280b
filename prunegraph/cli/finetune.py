"""`prunegraph finetune`: train a pruned model again."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from prunegraph.cli.arguments import ImageOptions, Json, LabelColumn, Limit, TextColumns, Tokenizer, onnx_file
from prunegraph.cli.console import progress, rounds, say, show, show_json
from prunegraph.cli.named import data_of

if TYPE_CHECKING:
    from rich.console import RenderableType

    from prunegraph.train.finetune import FinetuneResult


def finetune(
    model: Annotated[
        Path, typer.Argument(metavar="SLIM", help="The pruned ONNX file; it is never changed.", callback=onnx_file)
    ],
    output: Annotated[Path, typer.Option("--output", "-o", metavar="OUT", help="Where to write the result.")],
    data: Annotated[
        Path,
        typer.Option(
            "--data",
            metavar="FILE",
            help="Examples: texts (.txt .csv .tsv .jsonl), inputs (.npz) or a folder of class folders of images, with "
            "class numbers unless there is a teacher.",
        ),
    ],
    validation: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Examples to judge every epoch by.", show_default=False)
    ] = None,
    validation_share: Annotated[
        float, typer.Option(metavar="SHARE", help="Which share of --data is held out where there is no --validation.")
    ] = 0.1,
    teacher: Annotated[
        Path | None,
        typer.Option(metavar="MODEL", help="The model before pruning, to learn from what it says.", show_default=False),
    ] = None,
    tokenizer: Tokenizer = None,
    text_column: TextColumns = None,
    label_column: LabelColumn = "",
    samples: Limit = None,
    image: ImageOptions = None,
    epochs: Annotated[int, typer.Option(metavar="N", help="Passes over the data, at most.")] = 3,
    lr: Annotated[float, typer.Option(metavar="RATE", help="The highest learning rate.")] = 5e-5,
    batch_size: Annotated[int, typer.Option(metavar="N", help="Examples a step.")] = 32,
    distill: Annotated[
        float, typer.Option(metavar="WEIGHT", help="What the teacher weighs; the labels weigh the rest of 1.")
    ] = 0.5,
    temperature: Annotated[
        float, typer.Option(metavar="T", help="What logits are divided by before they are compared.")
    ] = 2.0,
    hidden: Annotated[
        float, typer.Option(metavar="WEIGHT", help="What the teacher's hidden states weigh, on top.")
    ] = 0.0,
    freeze: Annotated[
        list[str] | None,
        typer.Option(metavar="PATTERN", help="Weights that stay, such as '*word_embeddings*'. Repeatable."),
    ] = None,
    patience: Annotated[
        int, typer.Option(metavar="N", help="Stop after so many epochs without a better validation metric.")
    ] = 2,
    metric: Annotated[
        str,
        typer.Option(
            metavar="NAME", help="accuracy, agreement (with the teacher's argmax) or cosine (to its vectors)."
        ),
    ] = "auto",
    seed: Annotated[int, typer.Option(metavar="N", help="For the order of the examples and the split.")] = 0,
    device: Annotated[str, typer.Option(metavar="NAME", help="cpu or cuda.")] = "cpu",
    checkpoint: Annotated[
        Path | None,
        typer.Option(metavar="FOLDER", help="Keep the state there, every minute.", show_default=False),
    ] = None,
    resume: Annotated[bool, typer.Option("--resume", help="Go on with the run in --checkpoint.")] = False,
    json: Json = False,
) -> None:
    """Train a pruned model again: by labels, by what the unpruned model says, or by both.

    The graph stays as it is and gets other weights: those of the epoch that validates best. Needs no source of the
    model; a graph has no dropout left in it.

    Needs: pip install "prunegraph[torch]"

    \b
    Examples
      prunegraph finetune slim.onnx -o tuned.onnx --data images.npz --epochs 10 --lr 1e-3
      prunegraph finetune slim.onnx -o tuned.onnx --data train.jsonl --tokenizer folder \\
        --teacher model.onnx
      prunegraph finetune slim.onnx -o tuned.onnx --data texts.txt --tokenizer folder \\
        --teacher model.onnx --checkpoint run --resume
    """  # noqa: D301 - \b keeps the lines that follow as they are
    with progress() as step:
        step("load")
        from prunegraph.atomic_write import check_target
        from prunegraph.export.onnx_file import check_outputs, files_of, load
        from prunegraph.train.finetune import finetune as run

        check_target(output, [model, *([teacher] if teacher else [])])
        given = load(model)
        check_outputs(output, files_of(given).files)
    examples = data_of(model, data, tokenizer, text_column, label_column, samples, image=image)
    judged = data_of(model, validation, tokenizer, text_column, label_column, image=image)
    assert examples is not None
    with rounds() as report:
        result = run(
            given, examples, teacher=teacher, validation=judged, checkpoint=checkpoint, resume=resume, progress=report,
            validation_share=validation_share, epochs=epochs, lr=lr, batch_size=batch_size, distill=distill,
            temperature=temperature, hidden=hidden, freeze=tuple(freeze or ()), patience=patience, metric=metric,
            seed=seed, device=device,
        )  # fmt: skip
    files = result.save(output)
    if json:
        show_json({**result.to_dict(), "files": [str(path) for path in files]})
        return
    show(*_lines(result))
    say("\nwrote ", ", ".join(f"{path} ({path.stat().st_size / 1e6:,.1f} MB)" for path in files))
    say("next: ", (f"prunegraph bench {teacher or model} {output}", "bold"))


def _lines(result: FinetuneResult) -> list[RenderableType]:
    """A line for every epoch, and what that did."""
    from rich.text import Text

    from prunegraph.cli.plain_table import plain_table

    table = plain_table("epoch", "loss", "validation loss", result.metric, labels=0)
    number: Callable[[float], str] = "{:.4f}".format
    for epoch in result.history:
        first = "-" if epoch.number == 0 else number(epoch.loss)
        style = "bold green" if epoch.number == result.best else ""
        table.add_row(str(epoch.number), first, number(epoch.validation_loss), number(epoch.metric), style=style)
    train, validated = result.examples
    change = f"{result.metric} {result.before:.4f} -> {result.after:.4f} of {validated:,} validation examples"
    lines = [Text(), Text(f"{change}, run by ONNX Runtime"), Text(f"trained on {train:,} examples")]
    if result.best == 0:
        lines.append(Text("no epoch was better than the model as given, which is the result", style="bold yellow"))
    if result.evaluation is None:
        return [table, *lines]
    from prunegraph.cli.evaluate import evaluation_table

    return [table, *lines, Text(), evaluation_table(result.evaluation, "held out from training")]
