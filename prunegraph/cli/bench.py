"""`prunegraph bench`: time models against each other."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from prunegraph.cli.arguments import ORIGINAL, Json, Protocol, Size, onnx_file, onnx_files
from prunegraph.cli.console import rounds as bar
from prunegraph.cli.console import show, show_json
from prunegraph.cli.named import read_json
from prunegraph.cli.parse import parse_sizes
from prunegraph.errors import UsageError

if TYPE_CHECKING:
    from prunegraph.bench.results import Comparison
    from prunegraph.runtime.providers import Provider


def bench(
    model: Annotated[
        Path | None,
        typer.Argument(metavar="MODEL", help=ORIGINAL, callback=onnx_file),
    ] = None,
    slim: Annotated[
        list[Path] | None,
        typer.Argument(metavar="SLIM", help="Slim versions of it, to be timed beside it.", callback=onnx_files),
    ] = None,
    ep: Annotated[
        str,
        typer.Option(
            metavar="NAME,...",
            help="Execution providers, each in a process of its own where there are several: cpu, cuda, tensorrt, "
            "tensorrt-fp16, openvino, coreml, dml, qnn, migraphx, cann, xnnpack.",
        ),
    ] = "cpu",
    python: Annotated[
        list[str] | None,
        typer.Option(
            metavar="[EP=]PATH",
            help="The python of an environment that has a provider which this one lacks; with EP= for that provider "
            "alone. Repeatable.",
        ),
    ] = None,
    ep_option: Annotated[
        list[str] | None,
        typer.Option("--ep-option", metavar="EP.KEY=VALUE", help="An option of a provider, as it is. Repeatable."),
    ] = None,
    batch: Annotated[int, typer.Option(metavar="N", help="Size of a dynamic batch.")] = 1,
    sequence: Annotated[int, typer.Option(metavar="N", help="Length of a dynamic sequence.")] = 128,
    size: Size = None,
    shape: Annotated[
        list[str] | None,
        typer.Option(
            metavar="INPUT=SHAPE,...",
            help="Shapes of an input, each timed: input_ids=1x128,8x128; inputs that share dims follow. Repeatable.",
        ),
    ] = None,
    threads: Annotated[int, typer.Option(metavar="N", help="Threads inside an operator.")] = 1,
    rounds: Annotated[int, typer.Option(metavar="N", help="Rounds timed; each runs every model once.")] = 100,
    max_seconds: Annotated[float, typer.Option(metavar="S", help="Time spent on one provider, at most.")] = 60.0,
    protocol: Protocol = "turns",
    seed: Annotated[int, typer.Option(metavar="N", help="Of inputs and orders.")] = 0,
    results: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="Time nothing: show results.json that the script of a bundle wrote."),
    ] = None,
    energy: Annotated[
        float,
        typer.Option(
            metavar="S",
            help="Joules of a run as well, from S seconds of each model by itself, where the machine tells power or "
            "energy.",
        ),
    ] = 0.0,
    samples: Annotated[bool, typer.Option("--samples", help="Every timed run in the JSON, too.")] = False,
    alone: Annotated[
        bool,
        typer.Option("--alone", help="Load each model in a fresh process, too: peak memory, time to load and compile."),
    ] = False,
    optimized: Annotated[
        bool,
        typer.Option("--optimized", help="Every model also as onnxruntime.transformers.optimizer leaves it."),
    ] = False,
    json: Json = False,
) -> None:
    """Time a model and its slim versions side by side.

    All models of one provider are alive at once and run in turns, in a new random order each round and on the same
    random inputs, so that whatever else the machine does hits all alike. "Times faster" is the median of the ratios
    within rounds, with its 95 % bootstrap interval. A provider that falls back to another, or
    whose outputs are not those of the CPU, is an error, not a figure.

    \b
    Examples
      prunegraph bench model.onnx slim.onnx
      prunegraph bench model.onnx slim.onnx --batch 8 --sequence 256 --threads 4
      prunegraph bench model.onnx slim.onnx --shape input_ids=1x128,8x128 --alone
      prunegraph bench model.onnx slim.onnx --ep cpu,openvino --python openvino=venv/bin/python
      prunegraph bench --results results.json
      prunegraph bench detector.onnx slim.onnx --ep cpu,openvino --size height=640 --size width=640
    """  # noqa: D301 - \b keeps the lines that follow as they are
    if (results is None) == (model is None):
        raise UsageError("give either models to time, or --results", hint="prunegraph bench model.onnx slim.onnx")
    if results is not None:
        _print(read_results(results), json, samples)
        return
    sizes = parse_sizes(size or ())
    with bar() as report:
        report("load", 0, 1)
        from prunegraph.bench import compare, compare_apart
        from prunegraph.bench.shapes import parse_shapes

        providers = [_with_options(name, ep_option or ()) for name in ep.split(",")]
        settings: dict[str, Any] = {
            "batch": batch,
            "sequence": sequence,
            "sizes": sizes,
            "shapes": parse_shapes(shape or ()),
            "threads": threads,
            "rounds": rounds,
            "max_seconds": max_seconds,
            "protocol": protocol,
            "energy_seconds": energy,
            "seed": seed,
        }
        models = [each for each in (model, *(slim or ())) if each is not None]
        if len(providers) > 1 or python or alone or optimized:
            comparison = compare_apart(
                models,
                providers=providers,
                pythons=_pythons(python or ()),
                alone=alone,
                optimized=optimized,
                progress=report,
                **settings,
            )
        else:
            comparison = compare(models, providers=providers, progress=report, **settings)
    _print(comparison, json, samples)


def _with_options(name: str, given: Iterable[str]) -> Provider:
    """The provider of this name, with the options that are given for it.

    Raises:
        UsageError: there is no such provider, or an option is no EP.KEY=VALUE.
    """
    from prunegraph.runtime.providers import find_provider

    provider = find_provider(name)
    options = dict(provider.options)
    for text in given:
        key, equals, value = text.partition("=")
        of, dot, option = key.partition(".")
        if not (equals and dot and option):
            hint = "for example --ep-option tensorrt.trt_builder_optimization_level=5"
            raise UsageError(f"--ep-option: {text!r} is no EP.KEY=VALUE", hint=hint)
        if of.strip().lower() == provider.name:
            options[option] = value
    return dataclasses.replace(provider, options=options)


def _pythons(given: Iterable[str]) -> dict[str, str]:
    """The Python by provider, "" for all that this environment lacks.

    >>> _pythons(["openvino=ov/bin/python", "gpu/bin/python"])
    {'openvino': 'ov/bin/python', '': 'gpu/bin/python'}
    """
    split = (text.partition("=") if "=" in text else ("", "", text) for text in given)
    return {name.strip().lower(): path for name, _, path in split}


def read_results(path: Path) -> Comparison:
    """The results in a file.

    Raises:
        UsageError: it cannot be read, is no such file, or nothing in it was timed; then why.
    """
    from prunegraph.bench.results import Comparison

    hint = "give results.json that run.py of a bundle wrote"
    data = read_json(path, hint)
    if not isinstance(data, dict):
        raise UsageError(f"{path} holds no results", hint=hint)
    comparison = Comparison.from_dict(data)
    if not comparison.results:
        reasons = "; ".join(f"{name}: {reason}" for name, reason in dict(data.get("refused") or {}).items())
        raise UsageError(f"nothing was timed in {path}" + (f": {reasons}" if reasons else ""), hint=hint)
    return comparison


def _print(comparison: Comparison, json: bool, samples: bool) -> None:
    if json:
        show_json(comparison.to_dict(samples=samples))
    else:
        from prunegraph.cli.latency_table import latency_table

        show(latency_table(comparison))
