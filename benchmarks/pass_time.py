"""How long the passes take and how much memory they need, beside Torch-Pruning and by the depth of a model.

    python -m benchmarks.pass_time [--repeats 5] [--folder FOLDER] [--markdown docs/pass-time.md]

Measures a ViT-Base exported by the dynamo exporter, a Llama-like decoder of 336 M parameters, and narrow decoders of 6
to 48 layers.  Every measurement runs in a process of its own, one thread each (ONNX Runtime, in verify, takes all
cores); what is compared is interleaved.  The ViT needs `pip install "prunegraph[zoo]" torch-pruning==1.6.1`.
"""

from __future__ import annotations

import importlib.util
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from statistics import linear_regression, median

from rich.console import Console
from rich.progress import Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

from benchmarks.harness import Record, Section, describe, study_parser, write_page

LAYERS = (6, 12, 24, 48)
SHOWN = ("load", "normalize", "analyze", "score", "shrink", "verify")
ONE_THREAD = {name: "1" for name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS")}
EXTRA = 'pip install "prunegraph[zoo]" torch-pruning==1.6.1'

Measure = Callable[..., Record]


@dataclass(frozen=True, slots=True)
class Target:
    """Something that shall hold, and what was seen."""

    what: str
    limit: float
    seen: float

    @property
    def met(self) -> bool:
        """Whether it holds."""
        return self.seen <= self.limit

    def row(self) -> tuple[str, ...]:
        """As it is printed."""
        return self.what, f"≤ {self.limit:g}", f"{self.seen:.2f}", "met" if self.met else "missed"


def main() -> int:
    """Measure, print, and exit with 1 if a target was missed."""
    parser = study_parser("benchmarks.pass_time", __doc__)
    help = "of every measurement; medians are shown (default 5)"
    parser.add_argument("--repeats", type=int, default=5, choices=range(1, 100), metavar="N", help=help)
    parser.add_argument("--folder", type=Path, help="keep the models here, and take those that are here already")
    parser.add_argument("--markdown", type=Path, metavar="FILE", help="also write the report as Markdown")
    arguments = parser.parse_args()
    console = Console()
    with tempfile.TemporaryDirectory(prefix="prunegraph-") as temporary, _progress(Console(stderr=True)) as measure:
        folder = arguments.folder or Path(temporary)
        folder.mkdir(parents=True, exist_ok=True)
        before = describe(measure("the machine", "machine"), "python", "numpy", "onnx", "onnx-ir", "onnxruntime")
        sections, targets = report(measure, folder, arguments.repeats)
    sections.append(Section("Targets", ("target", "limit", "seen", ""), [target.row() for target in targets]))
    for section in sections:
        if section.header:
            section.show(console)
        else:
            console.print(f"{section.title}: {section.note}", markup=False)
    console.print(before, highlight=False)
    if arguments.markdown:
        made = "Made by `python -m benchmarks.pass_time --markdown docs/pass-time.md`."
        lines = [line for section in sections for line in section.lines()]
        write_page(arguments.markdown, ["# How long the passes take", "", made, "", before, "", *lines])
    return 0 if all(target.met for target in targets) else 1


def report(measure: Measure, folder: Path, repeats: int) -> tuple[list[Section], list[Target]]:
    """All that is measured."""
    missing = [name for name in ("torch", "timm", "onnxscript", "torch_pruning") if not importlib.util.find_spec(name)]
    sections, targets = [], []
    if missing:
        note = f"skipped, for lack of {', '.join(missing)}; to install them: {EXTRA}"
        sections.append(Section("ViT-Base", (), [], note))
    else:
        section, found = beside_torch_pruning(measure, folder, repeats)
        sections.append(section)
        targets += found
    for part in (large_decoder, by_depth):
        section, found = part(measure, folder, repeats)
        sections.append(section)
        targets += found
    return sections, targets


def beside_torch_pruning(measure: Measure, folder: Path, repeats: int) -> tuple[Section, list[Target]]:
    """The ViT: ours and theirs, turn by turn."""
    file = folder / "vit_base_patch16_224.onnx"
    if not file.exists():
        measure("export ViT-Base", "vit", file)
    ours, theirs = [], []
    for turn in range(1, repeats + 1):
        theirs.append(measure(f"Torch-Pruning on ViT-Base, {turn} of {repeats}", "torch-pruning"))
        ours.append(measure(f"the passes on ViT-Base, {turn} of {repeats}", "passes", file))
    rows = step_rows(ours)
    seconds = [median(each["seconds"][clock] for each in theirs) for clock in (0, 1)]
    rows.append((f"Torch-Pruning: {theirs[0]['groups']} groups", *(f"{value:.2f}" for value in seconds), ""))
    targets = []
    for names, limit in ((("analyze",), 0.25), (("normalize", "analyze"), 1.0)):
        for clock, what in ((0, "seconds"), (1, "processor seconds")):
            ratios = [
                sum(mine["steps"][name]["seconds"][clock] for name in names) / their["seconds"][clock]
                for mine, their in zip(ours, theirs, strict=True)
            ]
            targets.append(Target(f"ViT-Base: {' + '.join(names)} / Torch-Pruning, {what}", limit, median(ratios)))
    versions = ", ".join(f"{name} {version}" for name, version in theirs[0]["versions"].items())
    note = (
        f"{size_of(ours[0])}. Torch-Pruning builds its dependency graph and lists its groups for the same module, "
        f"which has run once before; ours starts cold. Ratios are medians of {repeats} paired turns. {versions}."
    )
    return Section("ViT-Base, exported by the dynamo exporter", HEADER, rows, note), targets


def large_decoder(measure: Measure, folder: Path, repeats: int) -> tuple[Section, list[Target]]:
    """Seconds and memory of every pass on the decoder, its weights in a data file."""
    file = folder / "decoder.onnx"
    if not file.exists():
        measure("write the decoder", "decoder", file)
    seen = [measure(f"the passes on the decoder, {k} of {repeats}", "passes", file) for k in range(1, repeats + 1)]
    share = median(each["steps"]["shrink"]["peak"] / each["weights"] for each in seen)
    target = Target("decoder: peak memory of load, normalize, analyze, score and shrink / weights", 2.5, share)
    note = (
        f"{size_of(seen[0])}. Peak memory is the largest resident set up to the end of the pass, less what the "
        "imports took, over the bytes of the weights; pages of the mapped data file count. ONNX Runtime's own memory "
        "is part of verify's."
    )
    return Section("Llama-like decoder of 24 layers, weights in a data file", HEADER, step_rows(seen), note), [target]


def by_depth(measure: Measure, folder: Path, repeats: int) -> tuple[Section, list[Target]]:
    """Seconds by the number of layers, and a line through them."""
    files = [folder / f"narrow{layers}.onnx" for layers in LAYERS]
    for layers, file in zip(LAYERS, files, strict=True):
        if not file.exists():
            measure(f"write a decoder of {layers} layers", "decoder", file, layers)
    taken = measure("the passes by depth", "depths", repeats, *files)
    columns = [[median(each[clock] for each in rounds) for rounds in taken[name]] for name, clock in COLUMNS]
    rows = [
        (str(layers), *(f"{column[k] * 1e3:.0f}" for column in columns), f"{columns[-1][k] / layers * 1e3:.2f}")
        for k, layers in enumerate(LAYERS)
    ]
    line = linear_regression(LAYERS, columns[-1])
    worst = max(abs(y - line.intercept - line.slope * x) / y for x, y in zip(LAYERS, columns[-1], strict=True))
    note = (
        "Milliseconds, garbage collector off: on, as in the tables above, a full collection falls into some of the "
        f"longer measurements and adds to them. Analyze, by the processor, is {line.slope * 1e3:.2f} ms a layer "
        f"{line.intercept * 1e3:+.1f} ms; the line is off by at most {worst:.0%}."
    )
    growth = (columns[-1][-1] / LAYERS[-1]) / (columns[-1][0] / LAYERS[0])
    header = ("layers", *(f"{name}{', processor' * clock}" for name, clock in COLUMNS), "analyze, processor, a layer")
    target = Target("analyze: time a layer at 48 layers / at 6 layers (1 is linear)", 1.25, growth)
    return Section("By depth: decoders of width 64", header, rows, note), [target]


COLUMNS = (("normalize", 0), ("normalize", 1), ("analyze", 0), ("analyze", 1))
HEADER = ("pass", "seconds", "processor seconds", "peak memory / weights")


def step_rows(seen: Sequence[Record]) -> list[tuple[str, ...]]:
    """A row for every pass, medians of all turns."""
    rows = []
    for name in SHOWN:
        steps = [each["steps"][name] for each in seen]
        seconds = [f"{median(step['seconds'][clock] for step in steps):.2f}" for clock in (0, 1)]
        peak = median(step["peak"] / each["weights"] for step, each in zip(steps, seen, strict=True))
        rows.append((name, *seconds, f"{peak:.2f}"))
    return rows


def size_of(seen: Record) -> str:
    """What was pruned, and that it was proven."""
    before, after = seen["parameters"]
    return (
        f"{before / 1e6:.0f} M parameters, {seen['weights'] / 1e6:.0f} MB, {seen['nodes']} nodes, "
        f"{seen['groups']} groups; pruned to {after / 1e6:.0f} M, verified to {seen['error']:.0e}"
    )


@contextmanager
def _progress(console: Console) -> Iterator[Measure]:
    """Yield a function that runs one step of `benchmarks.pass_time_steps`, shown as a line of its own."""
    columns = SpinnerColumn(), TextColumn("{task.description}"), TimeElapsedColumn()
    with Progress(*columns, console=console, transient=True) as progress:
        task = progress.add_task("")

        def measure(what: str, step: str, *arguments: object) -> Record:
            progress.reset(task, description=what)
            command = [sys.executable, "-m", "benchmarks.pass_time_steps", step, *map(str, arguments)]
            done = subprocess.run(
                command, capture_output=True, text=True, check=False, env={**os.environ, **ONE_THREAD}
            )
            if done.returncode:
                sys.exit(f"{what} failed:\n{done.stderr.strip()}")
            said: Record = json.loads(done.stdout.splitlines()[-1])
            return said

        yield measure


if __name__ == "__main__":
    sys.exit(main())
