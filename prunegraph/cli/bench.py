"""`prunegraph bench`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from prunegraph.cli.arguments import Json, Model, Size, parse_sizes
from prunegraph.cli.console import rounds as bar
from prunegraph.cli.console import show, show_json

_INPUTS, _TIMING = "Inputs", "Timing"


def bench(
    model: Model,
    slim: Annotated[
        list[Path] | None, typer.Argument(metavar="SLIM", help="Slim versions of it, to be timed beside it.")
    ] = None,
    ep: Annotated[
        str,
        typer.Option(
            metavar="NAME,...",
            help="Execution providers: cpu, cuda, tensorrt, openvino, coreml, dml, qnn, migraphx, cann, xnnpack.",
        ),
    ] = "cpu",
    batch: Annotated[int, typer.Option(metavar="N", help="Size of a dynamic batch.")] = 1,
    sequence: Annotated[int, typer.Option(metavar="N", help="Length of a dynamic sequence.")] = 128,
    size: Size = None,
    threads: Annotated[int, typer.Option(metavar="N", help="Threads inside an operator.")] = 1,
    rounds: Annotated[int, typer.Option(metavar="N", help="Rounds timed; each runs every model once.")] = 100,
    max_seconds: Annotated[float, typer.Option(metavar="S", help="Time spent on one provider, at most.")] = 60.0,
    seed: Annotated[int, typer.Option(metavar="N", help="Of inputs and orders.")] = 0,
    json: Json = False,
) -> None:
    """Time a model and its slim versions side by side.

    All models of one provider are alive at once and run in turns, in a new random order each round and on the same
    random inputs, so that whatever else the machine does hits all alike. "Times faster" is the median of the ratios
    within rounds, with its 95 % bootstrap interval. A provider that falls back to another is an error, not a figure.

    \b
    Examples
      prunegraph bench model.onnx slim.onnx
      prunegraph bench model.onnx slim.onnx --batch 8 --sequence 256 --threads 4
      prunegraph bench detector.onnx slim.onnx --ep cpu,openvino --size height=640 --size width=640
    """  # noqa: D301 - \b keeps the lines that follow as they are
    sizes = parse_sizes(size or ())
    with bar() as report:
        report("load", 0, 1)
        from prunegraph.bench import compare

        found = compare(
            [model, *(slim or ())],
            providers=ep.split(","),
            batch=batch,
            sequence=sequence,
            sizes=sizes,
            threads=threads,
            rounds=rounds,
            max_seconds=max_seconds,
            seed=seed,
            progress=report,
        )
    if json:
        show_json(found.to_dict())
    else:
        from prunegraph.cli.latency_table import latency_table

        show(latency_table(found))
