"""How long large models take and how much memory they need: Llama-like decoders of one width and several depths.

    python -m benchmarks.scale [--size 1.1B] [--layers 3,8] [--float32] [--proof-up-to GB] [--samples 64]
                               [--folder FOLDER] [--markdown docs/scale.md]

Weights are random, in float16, and lie in a data file that is written layer by layer.  Every command runs in a process
of its own, one after the other; its peak is what the operating system reports, pages of mapped files included.  Put the
folder where there is room: a model needs it twice, once for the weights and once for what is left of them.
"""

from __future__ import annotations

import argparse
import math
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from statistics import linear_regression

import numpy as np
from rich.console import Console

from benchmarks.harness import Record, Section, describe, fill_page, in_child, publish, study_parser
from benchmarks.zoo.decoder import DecoderShape, write_decoder

SIZES = {
    "0.1B": DecoderShape(layers=12, hidden=768, heads=12, kv_heads=4, head_dim=64, ffn=2048, vocabulary=8000),
    "1.1B": DecoderShape(layers=22, hidden=2048, heads=32, kv_heads=4, head_dim=64, ffn=5632, vocabulary=32000),
    "7B": DecoderShape(layers=32, hidden=4096, heads=32, kv_heads=8, head_dim=128, ffn=14336, vocabulary=32000),
}
"""The widths of decoders that people use, with grouped queries, and how deep they are."""

RATIO = "0.3"
TOKENS = 128
HEADER = ("model", "weights, GB", "command", "seconds", "peak, GB", "peak / weights")
HOURS = 3600.0 * 12
UNIT = 1 if sys.platform == "darwin" else 1024
"""Bytes in which the operating system states a peak."""


@dataclass(frozen=True, slots=True)
class Measured:
    """One command on one model.

    Attributes:
        model: What the model is.
        weights: Bytes of its weights.
        command: What ran.
        seconds: How long, by the clock on the wall.
        peak: The most bytes that it held in memory; None where it failed.
    """

    model: str
    weights: int
    command: str
    seconds: float
    peak: int | None

    def row(self) -> tuple[str, ...]:
        """The cells of the table."""
        start = (self.model, f"{self.weights / 1e9:.2f}", self.command)
        if self.peak is None:
            return (*start, "failed", "", "")
        return (*start, f"{self.seconds:.0f}", f"{self.peak / 1e9:.2f}", f"{self.peak / self.weights:.2f}")


def main() -> int:
    """Measure and print; exits with 1 if a command failed."""
    parser = study_parser("benchmarks.scale", __doc__, page=True)
    parser.add_argument("--size", choices=SIZES, default="1.1B", help="whose widths (default 1.1B)")
    parser.add_argument("--layers", type=_depths, metavar="N,N", help="depths (default: the size's own)")
    parser.add_argument("--float32", action="store_true", help="weights in float32")
    help = "GB of weights up to which the proof runs, too (default: all)"
    parser.add_argument("--proof-up-to", type=float, default=math.inf, metavar="GB", help=help)
    parser.add_argument("--samples", type=int, default=64, metavar="N", help="sequences to score with (default 64)")
    parser.add_argument("--folder", type=Path, help="where the models are written, and removed in the end")
    arguments = parser.parse_args()
    before = describe("python", "numpy", "onnx", "onnx-ir", "onnxruntime")
    measured: list[Measured] = []
    with tempfile.TemporaryDirectory(prefix="prunegraph-scale-", dir=arguments.folder) as folder:
        for each in measure(arguments, Path(folder)):
            measured.append(each)
            if arguments.markdown:  # a study of hours that is interrupted has its page
                fill_page(arguments.markdown, "scale", [line for s in sections(measured, before) for line in s.lines()])
    publish("scale", sections(measured, before), arguments.markdown)
    return 0 if all(each.peak is not None for each in measured) else 1


def _depths(text: str) -> list[int]:
    return [int(each) for each in text.split(",")]


def measure(arguments: argparse.Namespace, folder: Path) -> Iterator[Measured]:
    """Every command on every depth."""
    log, whole = Console(stderr=True), SIZES[arguments.size]
    for layers in arguments.layers or [whole.layers]:
        shape = replace(whole, layers=layers)
        path, slim = folder / "decoder.onnx", folder / "slim.onnx"
        log.print(f"writing {layers} layers, {shape.parameters / 1e6:,.0f} M parameters")
        failure = in_child(HOURS, write_model, shape, path, not arguments.float32).get("failure")
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
        commands[f"score, activation, {arguments.samples} x {TOKENS} tokens"] = ("score", path, *scorer)
        for name, command in commands.items():
            measured = Measured(f"{arguments.size} wide, {layers} layers", weights, name, *run(command))
            log.print(f"  {', '.join(measured.row()[2:])}")
            yield measured


def write_model(shape: DecoderShape, path: Path, half: bool) -> Record:
    """Write a decoder, in a process of its own: what that needs is no part of what a command needs."""
    write_decoder(shape, path, half=half)
    return {}


def run(command: Sequence[str | Path]) -> tuple[float, int | None]:
    """Seconds and peak of one command in a process of its own; no peak if it failed."""
    start = time.perf_counter()
    process = subprocess.Popen(
        [sys.executable, "-m", "prunegraph", *map(str, command)], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    _, status, usage = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    seconds = time.perf_counter() - start
    return seconds, usage.ru_maxrss * UNIT if process.returncode == 0 else None


def sections(measured: Sequence[Measured], machine: str) -> Iterator[Section]:
    """What every command took, and how peaks and times grow with the weights, where there are two depths."""
    note = (
        f"`prune` removes {float(RATIO):.0%} of every exact group. Seconds are of one run beside other jobs: where the "
        f"load average is above the cores, they are inflated. Memory is not. {machine}."
    )
    yield Section("Commands", HEADER, [each.row() for each in measured], note, texts=3)
    rows = []
    for command in dict.fromkeys(each.command for each in measured):
        runs = [each for each in measured if each.command == command and each.peak is not None]
        if len({each.weights for each in runs}) > 1:
            weights = [each.weights / 1e9 for each in runs]
            peak = linear_regression(weights, [(each.peak or 0) / 1e9 for each in runs])
            seconds = linear_regression(weights, [each.seconds for each in runs])
            lines = (f"{peak.intercept:.2f}", f"{peak.slope:.2f}", f"{seconds.intercept:.0f}", f"{seconds.slope:.0f}")
            rows.append((command, str(len(runs)), *lines))
    if rows:
        per_gb = ("peak without weights, GB", "of a further GB, GB", "seconds without weights", "of a further GB")
        yield Section("Growth with depth", ("command", "depths", *per_gb), rows, "Lines through the figures above.")


if __name__ == "__main__":
    sys.exit(main())
