"""How long large models take and how much memory they need: Llama-like decoders of one width and several depths.

    python -m benchmarks.scale [--size 1.1B] [--layers 3,8] [--weights float16] [--command explain proof …]
                               [--samples 64] [--folder FOLDER] [--results build/scale.jsonl] [--markdown docs/scale.md]

Weights are random and lie in a data file that is written layer by layer.  Every command runs in a process of its own,
one after the other; its peak is what the operating system reports, pages of mapped files included, and beside it stands
the most that it had besides these pages.  Put the folder where there is room: a model needs it twice, once for the
weights and once for what is left of them.  What was measured is kept in the results, and stands on the page too; what
is there already is not measured again.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from statistics import linear_regression

import numpy as np
from rich.console import Console

from benchmarks.harness import Record, Records, Section, describe, fill_page, in_child, publish, study_parser
from benchmarks.zoo.decoder import DecoderShape, write_decoder

SIZES = {
    "narrow": DecoderShape(layers=200, hidden=256, heads=8, kv_heads=2, head_dim=32, ffn=704, vocabulary=2048),
    "0.1B": DecoderShape(layers=12, hidden=768, heads=12, kv_heads=4, head_dim=64, ffn=2048, vocabulary=8000),
    "1.1B": DecoderShape(layers=22, hidden=2048, heads=32, kv_heads=4, head_dim=64, ffn=5632, vocabulary=32000),
    "3B": DecoderShape(layers=28, hidden=3072, heads=24, kv_heads=8, head_dim=128, ffn=8192, vocabulary=32000),
    "7B": DecoderShape(layers=32, hidden=4096, heads=32, kv_heads=8, head_dim=128, ffn=14336, vocabulary=32000),
}
"""The widths of decoders that people use, with grouped queries, and how deep they are; one is deep and narrow."""

WEIGHTS = ("float16", "float32", "4 bits")
RATIO = "0.3"
TOKENS = 128
EXPLAIN, BARE, PROOF, VERIFY, SCORE = COMMANDS = ("explain", "prune", "proof", "verify", "score")
TITLES = {EXPLAIN: EXPLAIN, BARE: "prune --no-verify", PROOF: "prune, with the proof", VERIFY: VERIFY}
GB, SECONDS, CPU = "GB", "seconds", "seconds of processors"
GOALS = (
    (EXPLAIN, GB, 0.6),
    (EXPLAIN, SECONDS, 60),
    (BARE, GB, 2),
    (PROOF, GB, 4),
    (PROOF, CPU, 3600),
)
"""What 7 B parameters may take; 3,600 seconds of processors are half an hour of two cores."""
HEADER = (
    *("model", "weights, GB", "command", "CPU seconds", "seconds", "load"),
    *("peak, GB", "of it no file, GB", "peak / weights"),
)
HOURS = 3600.0 * 12
UNIT = 1 if sys.platform == "darwin" else 1024
"""Bytes in which the operating system states a peak."""
LOOK = 0.05
"""Seconds between two looks at what a process has."""
RESULTS = Path("build/scale.jsonl")


@dataclass(frozen=True, slots=True)
class Measured:
    """One command on one model.

    Attributes:
        size: Whose widths the model has.
        layers: How deep it is.
        stored: How its weights are stored.
        weights: Bytes of its weights.
        command: What ran.
        seconds: How long, by the clock on the wall.
        cpu: How many seconds all processors together were at it.
        peak: The most bytes that it held in memory; None where it failed.
        anonymous: The most bytes besides pages of mapped files; None where the system does not tell.
        load: The load average when it ended.
    """

    size: str
    layers: int
    stored: str
    weights: int
    command: str
    seconds: float
    cpu: float
    peak: int | None
    anonymous: int | None
    load: float

    @property
    def kind(self) -> tuple[str, str, str]:
        """What is the same at all depths."""
        return self.size, self.stored, self.command

    @property
    def case(self) -> str:
        """What is recorded under."""
        return f"{self.size}, {self.layers} layers, {self.stored}: {self.command}"

    def row(self) -> tuple[str, ...]:
        """The cells of the table."""
        model = f"{self.size} wide, {self.layers} layers, {self.stored}"
        start = (model, f"{self.weights / 1e9:.2f}", self.command)
        if self.peak is None:
            return (*start, "failed", "", f"{self.load:.0f}", "", "", "")
        anonymous = "" if self.anonymous is None else f"{self.anonymous / 1e9:.2f}"
        times = (f"{self.cpu:.0f}", f"{self.seconds:.0f}", f"{self.load:.0f}")
        return (*start, *times, f"{self.peak / 1e9:.2f}", anonymous, f"{self.peak / self.weights:.2f}")


def main() -> int:
    """Measure and print; exits with 1 if a command failed."""
    parser = study_parser("benchmarks.scale", __doc__, page=True)
    parser.add_argument("--size", choices=SIZES, default="1.1B", help="whose widths (default 1.1B)")
    parser.add_argument("--layers", type=_depths, metavar="N,N", help="depths (default: the size's own)")
    parser.add_argument("--weights", choices=WEIGHTS, default="float16", help="how they are stored (default float16)")
    help = "what runs (default: all; nothing after it: only the page is written)"
    parser.add_argument("--command", nargs="*", choices=COMMANDS, default=COMMANDS, help=help)
    parser.add_argument("--samples", type=int, default=64, metavar="N", help="sequences to score with (default 64)")
    parser.add_argument("--folder", type=Path, help="where the models are written, and removed in the end")
    parser.add_argument("--results", type=Path, default=RESULTS, help=f"what was measured (default {RESULTS})")
    arguments = parser.parse_args()
    before = describe("python", "numpy", "onnx", "onnx-ir", "onnxruntime")
    records = Records(arguments.results)
    with tempfile.TemporaryDirectory(prefix="prunegraph-scale-", dir=arguments.folder) as folder:
        for each in measure(arguments, Path(folder), records):
            records.keep(each.case, asdict(each))
            if arguments.markdown:  # a study of hours that is interrupted has its page
                lines = [line for section in sections(recalled(records), before) for line in section.lines()]
                fill_page(arguments.markdown, "scale", lines)
    publish("scale", sections(recalled(records), before), arguments.markdown)
    return 0 if all(each.peak is not None for each in recalled(records)) else 1


def recalled(records: Records) -> list[Measured]:
    """Everything that was measured, now and before."""
    return [Measured(**record) for record in records.every()]


def _depths(text: str) -> list[int]:
    return [int(each) for each in text.split(",")]


def measure(arguments: argparse.Namespace, folder: Path, records: Records) -> Iterator[Measured]:
    """Every command on every depth that is not recorded yet."""
    log, whole = Console(stderr=True), SIZES[arguments.size]
    for layers in arguments.layers or [whole.layers]:
        path, slim = folder / "decoder.onnx", folder / "slim.onnx"
        blank = Measured(arguments.size, layers, arguments.weights, 0, "", 0.0, 0.0, None, None, 0.0)
        cases = {each: replace(blank, command=title(each, arguments.samples)) for each in arguments.command}
        cases = {each: case for each, case in cases.items() if records.recall(case.case) is None}
        if not cases:
            continue
        shape = replace(whole, layers=layers)
        log.print(f"writing {layers} layers, {shape.parameters / 1e6:,.0f} M parameters")
        failure = in_child(HOURS, write_model, shape, path, arguments.weights).get("failure")
        if failure:
            raise SystemExit(f"the model could not be written: {failure}")
        weights = path.with_name(f"{path.name}.data").stat().st_size
        ids = np.random.default_rng(0).integers(0, shape.vocabulary, (arguments.samples, TOKENS))
        np.savez(folder / "ids.npz", input_ids=ids)
        for name, case in cases.items():
            if name in (BARE, PROOF):
                remove(folder)
            elif name == VERIFY and not slim.is_file():
                run(_arguments(BARE, path, slim))
            seconds, cpu, peak, anonymous = run(_arguments(name, path, slim))
            load = os.getloadavg()[0]
            measured = replace(
                case, weights=weights, seconds=seconds, cpu=cpu, peak=peak, anonymous=anonymous, load=load
            )
            log.print(f"  {', '.join(measured.row()[2:])}")
            yield measured
        remove(folder)


def remove(folder: Path) -> None:
    """Make room: what is left of a model is as large as that, about."""
    for each in folder.glob("slim*"):
        each.unlink()


def title(command: str, samples: int) -> str:
    """What the tables call a command."""
    return TITLES.get(command) or f"score, activation, {samples} x {TOKENS} tokens"


def _arguments(command: str, path: Path, slim: Path) -> list[str | Path]:
    prune = ["prune", path, "-o", slim, "--ratio", RATIO]
    return {
        EXPLAIN: ["explain", path],
        BARE: [*prune, "--no-verify"],
        PROOF: prune,
        VERIFY: ["verify", path, slim],
        SCORE: ["score", path, "--scorer", "activation", "--data", path.with_name("ids.npz")],
    }[command]


def write_model(shape: DecoderShape, path: Path, weights: str) -> Record:
    """Write a decoder, in a process of its own: what that needs is no part of what a command needs."""
    write_decoder(shape, path, half=weights != "float32", four_bits=weights == "4 bits")
    return {}


def run(command: Sequence[str | Path]) -> tuple[float, float, int | None, int | None]:
    """Seconds, seconds of processors, peak and peak besides files of a command in a process; no peaks if it failed."""
    start = time.perf_counter()
    highest = [0]
    with tempfile.TemporaryDirectory(prefix="prunegraph-scale-") as cache:  # nothing is remembered of earlier runs
        process = subprocess.Popen(
            [sys.executable, "-m", "prunegraph", *map(str, command)],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            env={**os.environ, "PRUNEGRAPH_CACHE": cache},
        )
        threading.Thread(target=_watch, args=(process.pid, highest), daemon=True).start()
        _, status, usage = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    seconds, cpu = time.perf_counter() - start, usage.ru_utime + usage.ru_stime
    if process.returncode:
        return seconds, cpu, None, None
    return seconds, cpu, usage.ru_maxrss * UNIT, highest[0] or None


def _watch(pid: int, highest: list[int]) -> None:
    """Keep the most anonymous memory that a process was seen to have, until it is gone."""
    status = Path(f"/proc/{pid}/status")
    while status.is_file():
        try:
            lines = status.read_text(encoding="utf-8").splitlines()
        except OSError:
            return
        amounts = [int(line.split()[1]) * 1024 for line in lines if line.startswith("RssAnon")]
        highest[0] = max([highest[0], *amounts])
        time.sleep(LOOK)


def sections(measured: Sequence[Measured], machine: str) -> Iterator[Section]:
    """What every command took, and how peaks and times grow with the layers, where there are two depths."""
    note = (
        f"`prune` removes {float(RATIO):.0%} of every exact group. Every command ran once, beside other jobs: the load "
        "is the average of a minute when it ended, and where that is above the cores, seconds are inflated. Seconds "
        "of processors are inflated little by that, and memory is not. "
        f"The last run: {machine}."
    )
    ordered = sorted(measured, key=lambda m: (list(SIZES).index(m.size), WEIGHTS.index(m.stored), m.layers))
    yield Section("Commands", HEADER, [each.row() for each in ordered], note, texts=3)
    alike = dict.fromkeys((each.size, each.stored, each.command) for each in ordered)
    lines = [line for each in alike if (line := Line.through([m for m in ordered if m.kind == each]))]
    if lines:
        header = (
            *("model", "command", "layers", "peak without layers, GB", "of a layer, MB", "peak foretold, GB"),
            *("CPU seconds without layers", "of a layer", "CPU seconds foretold"),
        )
        note = "Lines through the figures above; foretold is what the model takes with as many layers as it has."
        yield Section("Growth with the layers", header, [line.row() for line in lines], note, texts=3)
    rows = [row for goal in GOALS if (row := _judged(goal, ordered, lines))]
    if rows:
        note = (
            "Of a model that was not measured as deep as it is, the line above is taken. A line through few layers "
            "does not see the values that the proof compares: up to three times 256 MB of them may come on top."
        )
        header = ("command", "goal", "it takes", "from", "met")
        yield Section("Goals for 7 B parameters, float16", header, rows, note, texts=5)


def _judged(
    goal: tuple[str, str, float], measured: Sequence[Measured], lines: Sequence[Line]
) -> tuple[str, ...] | None:
    """Whether a goal is met; None where nothing tells."""
    command, what, most = goal
    kind = ("7B", "float16", TITLES[command])
    whole = next((m for m in measured if m.kind == kind and m.layers == SIZES["7B"].layers and m.peak), None)
    line = next((line for line in lines if line.kind == kind), None)
    if whole is not None:
        value = {GB: (whole.peak or 0) / 1e9, SECONDS: whole.seconds, CPU: whole.cpu}[what]
    elif line is not None and what != SECONDS:
        value = {GB: line.peak, CPU: line.seconds}[what]
    else:
        return None
    source = "measured" if whole is not None else f"{line.layers} layers" if line is not None else ""
    shown = f"{value:.2f}" if what == GB else f"{value:.0f}"
    return TITLES[command], f"at most {most:g} {what}", f"{shown} {what}", source, "yes" if value <= most else "no"


@dataclass(frozen=True, slots=True)
class Line:
    """How peak and time of a command grow with the layers of models that are alike besides.

    Attributes:
        kind: See `Measured.kind`.
        layers: The depths that were measured.
        peaks: GB without layers, and of a layer.
        times: Seconds of processors without layers, and of a layer.
    """

    kind: tuple[str, str, str]
    layers: str
    peaks: tuple[float, float]
    times: tuple[float, float]

    @classmethod
    def through(cls, runs: Sequence[Measured]) -> Line | None:
        """The line through some runs; None where there is only one depth."""
        runs = [each for each in runs if each.peak is not None]
        layers = [each.layers for each in runs]
        if len(set(layers)) < 2:
            return None
        peaks = linear_regression(layers, [(each.peak or 0) / 1e9 for each in runs])
        times = linear_regression(layers, [each.cpu for each in runs])
        depths = ", ".join(map(str, layers))
        return cls(runs[0].kind, depths, (peaks.intercept, peaks.slope), (times.intercept, times.slope))

    @property
    def peak(self) -> float:
        """GB with as many layers as the model has."""
        return self.peaks[0] + self.peaks[1] * SIZES[self.kind[0]].layers

    @property
    def seconds(self) -> float:
        """Seconds of processors with as many layers as the model has."""
        return self.times[0] + self.times[1] * SIZES[self.kind[0]].layers

    def row(self) -> tuple[str, ...]:
        """The cells of the table."""
        size, stored, command = self.kind
        peaks = (f"{self.peaks[0]:.2f}", f"{self.peaks[1] * 1e3:.1f}", f"{self.peak:.2f}")
        times = (f"{self.times[0]:.0f}", f"{self.times[1]:.1f}", f"{self.seconds:.0f}")
        return (f"{size} wide of {SIZES[size].layers} layers, {stored}", command, self.layers, *peaks, *times)


if __name__ == "__main__":
    sys.exit(main())
