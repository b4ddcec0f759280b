"""`prunegraph table`: how fast versions of a model are, for plans by speed."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from prunegraph.cli.arguments import Align, BatchSize, Json, KeepForm, Model, Protocol, SequenceLength, Size, Threads
from prunegraph.cli.console import progress, say, show, show_json
from prunegraph.cli.named import timing_of

if TYPE_CHECKING:
    from rich.table import Table

    from prunegraph.bench.device_table import LatencyTable


def table(
    model: Model,
    output: Annotated[
        Path | None,
        typer.Option("--output", "-o", metavar="OUT", help="Write it there, for --table.", show_default=False),
    ] = None,
    plot: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="Draw it: a .png, .svg or .pdf file.", show_default=False),
    ] = None,
    ep: Annotated[str, typer.Option(metavar="NAME", help="The execution provider, see `prunegraph bench`.")] = "cpu",
    kind: Annotated[
        list[str] | None,
        typer.Option(
            metavar="KIND",
            help="What plans may cut; without it what one ratio is for, and dims of heads that can be turned. "
            "Repeatable.",
        ),
    ] = None,
    align: Align = None,
    estimate: Annotated[
        str,
        typer.Option(
            metavar="DEVICE",
            help="Time nothing: estimate by peak rate and bandwidth of jetson-nano, orin-nano, agx-orin, "
            "raspberry-pi-4, raspberry-pi-5, rtx-3090, h100 or x86-core.",
            show_default=False,
        ),
    ] = "",
    whole_ms: Annotated[
        float | None,
        typer.Option(metavar="MS", help="With --estimate: what MODEL takes on that device.", show_default=False),
    ] = None,
    again: Annotated[bool, typer.Option("--again", help="Measure it even if it is cached.")] = False,
    batch: BatchSize = 1,
    sequence: SequenceLength = 128,
    size: Size = None,
    threads: Threads = 1,
    protocol: Protocol = "turns",
    keep_form: KeepForm = False,
    json: Json = False,
) -> None:
    """Measure how fast versions of a model are beside it, each cut in one known way.

    `prune --speedup 2 --table OUT` plans by such a table without timing anything, also on another machine. Blocks that
    are alike are cut together; few versions suffice, since between them time runs along straight lines.

    An estimate is no measurement: it takes peaks of data sheets, so that its milliseconds are too small, and its ratios
    nearer to the truth.

    Needs for --plot: pip install "prunegraph[report]"

    \b
    Examples
      prunegraph table model.onnx -o table.json
      prunegraph table model.onnx --ep openvino --sequence 32 --threads 4 --plot table.png
      prunegraph table model.onnx --estimate orin-nano --whole-ms 9.5 -o orin.json
    """  # noqa: D301 - \b keeps the lines that follow as they are
    with progress() as step:
        step("load")
        from prunegraph.api import analyze
        from prunegraph.atomic_write import check_target
        from prunegraph.extras import require_extras
        from prunegraph.passes.choose.request import Amount
        from prunegraph.speed import find_device, latency_table

        for target in (output, plot):
            if target is not None:
                check_target(target, [model])
        if plot is not None:
            require_extras([("report", "matplotlib")])
        device = find_device(estimate) if estimate else None
        timing = timing_of(batch, sequence, size, threads, protocol)
        amount = Amount(kinds=kind or (), align=align, ep=ep, timing=timing, keep_form=keep_form)
        graph = analyze(model, progress=step)
        result = latency_table(graph, amount, estimate=device, whole_ms=whole_ms, cached=not again)
        if output is not None:
            result.save(output)
        if plot is not None:
            draw(result, plot)
    if json:
        show_json(result.to_dict())
    else:
        show(as_table(result))
    for target in (output, plot):
        if target is not None:
            say("wrote ", str(target))


def as_table(result: LatencyTable) -> Table:
    """A row a version: how fast it is, and how much of the time it saves.

    Args:
        result: What was measured.
    """
    from rich.markup import escape
    from rich.table import Table

    title = "Estimated, not measured" if result.protocol == "estimate" else "Latency of versions"
    drawn = Table(title=title, caption=escape(_caption(result)), caption_justify="left")
    for heading in ("version", "times faster", "time saved"):
        drawn.add_column(heading, justify="left" if heading == "version" else "right")
    for cut in result.cuts:
        ratio = cut.ratio
        interval = "" if ratio.low == ratio.high else f" [{ratio.low:.2f}, {ratio.high:.2f}]"
        drawn.add_row(escape(cut.name), f"{ratio.median:.2f}{escape(interval)}", f"{1 - 1 / ratio.median:.1%}")
    return drawn


def draw(result: LatencyTable, path: Path) -> None:
    """Draw what every kind of cut leaves of the time, over what stays of it.

    Args:
        result: What was measured.
        path: Where to write the picture.
    """
    from matplotlib.figure import Figure

    from prunegraph.atomic_write import stage

    lines: dict[str, list[tuple[float, float]]] = {}
    for cut in result.cuts:
        counts = set(cut.kept.values())
        if len(counts) == 1 and len(cut.kept) < len(result.groups):
            first = next(iter(cut.kept))
            share = next(iter(counts)) / result.groups[first]
            lines.setdefault(cut.name.partition(":")[0], [(1.0, 1.0)]).append((share, 1 / cut.ratio.median))
    figure = Figure(figsize=(7, 4), layout="constrained")
    axes = figure.subplots()
    for name, points in lines.items():
        axes.plot(*zip(*sorted(points), strict=True), marker="o", label=name)
    least = min((1 / cut.ratio.median for cut in result.cuts), default=1.0)
    axes.axhline(least, color="gray", linestyle=":", label="everything at its smallest")
    axes.set(xlabel="share of the units that stays", ylabel="share of the time that is left", ylim=(0, None))
    axes.set_title(_caption(result).splitlines()[0], fontsize="small")
    axes.legend(fontsize="small")
    with stage(path) as folder:
        figure.savefig(folder / path.name, dpi=150)


def _caption(result: LatencyTable) -> str:
    sizes = ", ".join(f"{name} {size}" for name, size in result.sizes.items())
    if result.protocol == "estimate":
        return f"{result.environment.get('device', '')}; {sizes}; the whole model {result.whole_ms:.3g} ms"
    where = f"{result.environment.get('cpu', '')}, onnxruntime {result.environment.get('onnxruntime', '')}"
    forms = f"\nforms: {', '.join(result.forms)}" if result.forms else ""
    how = f"{sizes}; threads: {result.threads}; in {result.protocol}; the whole model {result.whole_ms:.3g} ms"
    return f"{result.provider}, {where}\n{how}{forms}"
