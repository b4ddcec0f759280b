"""`prunegraph bundle`: models, inputs and a script for a device, in one archive."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from prunegraph.cli.arguments import Json, Model, Size, onnx_files
from prunegraph.cli.console import progress, show, show_json
from prunegraph.cli.parse import parse_sizes


def bundle(
    model: Model,
    output: Annotated[Path, typer.Option("--output", "-o", metavar="OUT", help="Where to write the zip.")],
    slim: Annotated[
        list[Path] | None,
        typer.Argument(metavar="SLIM", help="Slim versions of it, to be timed beside it.", callback=onnx_files),
    ] = None,
    stack: Annotated[
        str | None,
        typer.Option(
            metavar="NAME",
            help="Lower opset and file format to what the device reads: jetpack4.6, jetpack5.1, jetpack6.2, jetpack7, "
            "raspberrypi.",
        ),
    ] = None,
    static: Annotated[
        str,
        typer.Option(
            metavar="NAME=N,...",
            help="Make all shapes static, at these sizes: batch=1,sequence=128.",
            show_default=False,
        ),
    ] = "",
    batch: Annotated[int, typer.Option(metavar="N", help="Size of a dynamic batch.")] = 1,
    sequence: Annotated[int, typer.Option(metavar="N", help="Length of a dynamic sequence.")] = 128,
    size: Size = None,
    seed: Annotated[int, typer.Option(metavar="N", help="Of the inputs.")] = 0,
    table: Annotated[
        bool,
        typer.Option(
            "--table",
            help="Pack smaller versions of MODEL, too, for run.py --table: what prune --speedup N --table results.json "
            "plans by.",
        ),
    ] = False,
    json: Json = False,
) -> None:
    """Pack models for a device: one zip that needs nothing there but Python, numpy and onnxruntime.

    The zip holds the models, fixed inputs, the outputs that they have here, and run.py, which checks the outputs on
    every execution provider of the device, times the models in turns and writes results.json for `bench --results`.

    \b
    Examples
      prunegraph bundle model.onnx slim.onnx -o bundle.zip
      prunegraph bundle model.onnx slim.onnx -o bundle.zip --stack jetpack6.2 --static batch=1,sequence=128
      prunegraph bundle model.onnx -o bundle.zip --table
    """  # noqa: D301 - \b keeps the lines that follow as they are
    with progress() as step:
        step("load")
        from prunegraph.export.bundle.build import bundle as write

        versions = None
        if table:
            from prunegraph.api import analyze
            from prunegraph.speed.device import versions_of

            versions = versions_of(analyze(model, progress=step))
        result = write(
            [model, *(slim or ())],
            output,
            stack=stack,
            static=parse_sizes(part for part in static.split(",")) if static else None,
            batch=batch,
            sequence=sequence,
            sizes=parse_sizes(size or ()),
            seed=seed,
            versions=versions,
            progress=step,
        )
    if json:
        show_json(result.to_dict())
    else:
        shapes = ", ".join(f"{name} {'x'.join(map(str, shape))}" for name, shape in result.shapes.items())
        opsets = ", ".join(f"{name} (opset {opset})" for name, opset in result.opsets.items())
        show(f"wrote {output}: {opsets}; inputs {shapes}", "next, on the device: unzip it and run python3 run.py")
