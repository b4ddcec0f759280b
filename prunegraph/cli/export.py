"""`prunegraph export`: models of transformers and timm to ONNX files."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from prunegraph.cli.arguments import Json
from prunegraph.cli.console import progress, say, show, show_json


def export(
    source: Annotated[
        str,
        typer.Argument(
            metavar="MODEL",
            help="hf:DIR, a local folder that save_pretrained of transformers wrote, or timm:NAME.",
        ),
    ],
    output: Annotated[Path, typer.Option("--output", "-o", metavar="OUT", help="Where to write the ONNX file.")],
    task: Annotated[
        str | None,
        typer.Option(
            metavar="NAME",
            help="What the model is for, as transformers calls it: feature-extraction, text-classification, "
            "fill-mask, text-generation, ... [default: the class that config.json names]",
            show_default=False,
        ),
    ] = None,
    pretrained: Annotated[
        bool, typer.Option("--pretrained/--random", help="With trained weights, or with random ones.")
    ] = True,
    opset: Annotated[
        int | None,
        typer.Option(metavar="N", help="The ONNX opset. [default: the exporter's own]", show_default=False),
    ] = None,
    batch: Annotated[int, typer.Option(metavar="N", help="Rows of the example; the axis is dynamic.")] = 2,
    sequence: Annotated[int, typer.Option(metavar="N", help="Tokens of the example; the axis is dynamic.")] = 16,
    json: Json = False,
) -> None:
    """Export a model of transformers or timm to ONNX, with dynamic batch and sequence, in float32.

    The file is compared with the module in ONNX Runtime, at the sizes of the example and at larger ones, and written
    only if they agree. No code from a folder runs, and nothing is downloaded but weights of timm that are not there.

    Needs: pip install "prunegraph[zoo]"

    \b
    Examples
      prunegraph export hf:./my-bert -o bert.onnx
      prunegraph export hf:./my-bert -o bert.onnx --task feature-extraction
      prunegraph export timm:deit_tiny_patch16_224 -o deit.onnx --random
    """  # noqa: D301 - \b keeps the lines that follow as they are
    with progress() as step:
        step("load")
        from prunegraph.export.hub import export_model
        from prunegraph.export.hub_inputs import ExampleSizes

        done = export_model(
            source,
            output,
            task=task,
            pretrained=pretrained,
            opset=opset,
            sizes=ExampleSizes(batch, sequence),
            progress=step,
        )
    files = [str(path) for path in done.files]
    if json:
        show_json({"files": files, "inputs": done.inputs, "outputs": done.outputs, "max_rel_error": done.difference})
        return
    from rich.text import Text

    for label, values in (("input", done.inputs), ("output", done.outputs)):
        for name, dims in values.items():
            show(Text(f"{label:<8}{name} [{', '.join(map(str, dims))}]"))
    show(Text(f"{'checked':<8}equal to the module within {done.difference:.1e} of the output's scale"))
    say("\nwrote ", ", ".join(f"{path} ({path.stat().st_size / 1e6:,.1f} MB)" for path in done.files))
    say("next: ", (f"prunegraph explain {output}", "bold"))
