"""How long large models take and how much memory they need: Llama-like decoders of one width and several depths.

    python -m benchmarks.scale [--size 1.1B] [--layers 3,8] [--weights float16] [--proof-up-to GB] [--samples 64]
                               [--folder FOLDER] [--results build/scale.jsonl] [--markdown docs/scale.md]

Weights are random and lie in a data file that is written layer by layer.  Every command runs in a process of its own,
one after the other; its peak is what the operating system reports, pages of mapped files included, and beside it stands
the most that it had besides these pages.  Put the folder where there is room: a model needs it twice, once for the
weights and once for what is left of them.  What was measured is kept in the results, and stands on the page too.
"""

from __future__ import annotations

import argparse
import math
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
    "0.1B": DecoderShape(layers=12, hidden=768, heads=12, kv_heads=4, head_dim=64, ffn=2048, vocabulary=8000),
    "1.1B": DecoderShape(layers=22, hidden=2048, heads=32, kv_heads=4, head_dim=64, ffn=5632, vocabulary=32000),
    "3B": DecoderShape(layers=28, hidden=3072, heads=24, kv_heads=8, head_dim=128, ffn=8192, vocabulary=32000),
    "7B": DecoderShape(layers=32, hidden=4096, heads=32, kv_heads=8, head_dim=128, ffn=14336, vocabulary=32000),
}
"""The widths of decoders that people use, with grouped queries, and how deep they are."""

WEIGHTS = ("float16", "float32", "4 bits")
RATIO = "0.3"
TOKENS = 128
HEADER = ("model", "weights, GB", "command", "seconds", "load", "peak, GB", "of it no file, GB", "peak / weights")
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
        model: What the model is.
        weights: Bytes of its weights.
        command: What ran.
        seconds: How long, by the clock on the wall.
        peak: The most bytes that it held in memory; None where it failed.
        anonymous: The most bytes besides pages of mapped files; None where the system does not tell.
        load: The load average when it ended.
    """

    model: str
    weights: int
    command: str
    seconds: float
    peak: int | None
    anonymous: int | None
    load: float

    def row(self) -> tuple[str, ...]:
        """The cells of the table."""
        start = (self.model, f"{self.weights / 1e9:.2f}", self.command)
        if self.peak is None:
            return (*start, "failed", f"{self.load:.0f}", "", "", "")
        anonymous = "" if self.anonymous is None else f"{self.anonymous / 1e9:.2f}"
        peak = (f"{self.peak / 1e9:.2f}", anonymous, f"{self.peak / self.weights:.2f}")
        return (*start, f"{self.seconds:.0f}", f"{self.load:.0f}", *peak)


def main() -> int:
    """Measure and print; exits with 1 if a command failed."""
    parser = study_parser("benchmarks.scale", __doc__, page=True)
    parser.add_argument("--size", choices=SIZES, default="1.1B", help="whose widths (default 1.1B)")
    parser.add_argument("--layers", type=_depths, metavar="N,N", help="depths (default: the size's own)")
    parser.add_argument("--weights", choices=WEIGHTS, default="float16", help="how they are stored (default float16)")
    help = "GB of weights up to which the proof runs, too (default: all)"
    parser.add_argument("--proof-up-to", type=float, default=math.inf, metavar="GB", help=help)
    parser.add_argument("--samples", type=int, default=64, metavar="N", help="sequences to score with (default 64)")
    parser.add_argument("--folder", type=Path, help="where the models are written, and removed in the end")
    parser.add_argument("--results", type=Path, default=RESULTS, help=f"what was measured (default {RESULTS})")
    arguments = parser.parse_args()
    before = describe("python", "numpy", "onnx", "onnx-ir", "onnxruntime")
    records = Records(arguments.results)
    with tempfile.TemporaryDirectory(prefix="prunegraph-scale-", dir=arguments.folder) as folder:
        for each in measure(arguments, Path(folder)):
            records.keep(f"{each.model}: {each.command}", asdict(each))
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


def measure(arguments: argparse.Namespace, folder: Path) -> Iterator[Measured]:
    """Every command on every depth."""
    log, whole = Console(stderr=True), SIZES[arguments.size]
    for layers in arguments.layers or [whole.layers]:
        shape = replace(whole, layers=layers)
        path, slim = folder / "decoder.onnx", folder / "slim.onnx"
        log.print(f"writing {layers} layers, {shape.parameters / 1e6:,.0f} M parameters")
        failure = in_child(HOURS, write_model, shape, path, arguments.weights).get("failure")
        if failure:
            raise SystemExit(f"the model could not be written: {failure}")
        weights = path.with_name(f"{path.name}.data").stat().st_size
        ids = np.random.default_rng(0).integers(0, shape.vocabulary, (arguments.samples, TOKENS))
        np.savez(folder / "ids.npz", input_ids=ids)
        prune = ("prune", path, "-o", slim, "--ratio", RATIO)
        commands = {"explain": ("explain", path), "prune --no-verify": (*prune, "--no-verify")}
        if weights <= arguments.proof_up_to * 1e9:
            commands |= {"prune, with the proof": prune, "verify": ("verify", path, slim)}
        scorer = ("--scorer", "activation", "--data", folder / "ids.npz")
        if arguments.samples:
            commands[f"score, activation, {arguments.samples} x {TOKENS} tokens"] = ("score", path, *scorer)
        for name, command in commands.items():
            model = f"{arguments.size} wide, {layers} layers, {arguments.weights}"
            measured = Measured(model, weights, name, *run(command), os.getloadavg()[0])
            log.print(f"  {', '.join(measured.row()[2:])}")
            yield measured


def write_model(shape: DecoderShape, path: Path, weights: str) -> Record:
    """Write a decoder, in a process of its own: what that needs is no part of what a command needs."""
    write_decoder(shape, path, half=weights != "float32", four_bits=weights == "4 bits")
    return {}


def run(command: Sequence[str | Path]) -> tuple[float, int | None, int | None]:
    """Seconds, peak and peak besides files of one command in a process of its own; no peaks if it failed."""
    start = time.perf_counter()
    process = subprocess.Popen(
        [sys.executable, "-m", "prunegraph", *map(str, command)], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    highest = [0]
    threading.Thread(target=_watch, args=(process.pid, highest), daemon=True).start()
    _, status, usage = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    seconds = time.perf_counter() - start
    if process.returncode:
        return seconds, None, None
    return seconds, usage.ru_maxrss * UNIT, highest[0] or None


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
    """What every command took, and how peaks and times grow with the weights, where there are two depths."""
    note = (
        f"`prune` removes {float(RATIO):.0%} of every exact group. Seconds are of one run beside other jobs: the load "
        "is the average of a minute when the command ended; where it is above the cores, they are inflated. Memory is "
        f"not. The last run: {machine}."
    )
    yield Section("Commands", HEADER, [each.row() for each in measured], note, texts=3)
    rows = [row for kind in WEIGHTS for row in _growth(kind, [m for m in measured if m.model.endswith(kind)])]
    if rows:
        per_gb = ("peak without weights, GB", "of a further GB, GB", "seconds without weights", "of a further GB")
        header = ("weights", "command", "models", *per_gb)
        yield Section("Growth with the weights", header, rows, "Lines through the figures above.", texts=2)


def _growth(kind: str, measured: Sequence[Measured]) -> Iterator[tuple[str, ...]]:
    """How peaks and times of every command grow with weights of one kind, where there are several models."""
    for command in dict.fromkeys(each.command for each in measured):
        runs = [each for each in measured if each.command == command and each.peak is not None]
        if len({each.weights for each in runs}) > 1:
            weights = [each.weights / 1e9 for each in runs]
            peak = linear_regression(weights, [(each.peak or 0) / 1e9 for each in runs])
            seconds = linear_regression(weights, [each.seconds for each in runs])
            lines = (f"{peak.intercept:.2f}", f"{peak.slope:.2f}", f"{seconds.intercept:.0f}", f"{seconds.slope:.0f}")
            yield kind, command, str(len(runs)), *lines


if __name__ == "__main__":
    sys.exit(main())
