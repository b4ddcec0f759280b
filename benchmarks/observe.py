"""How fast SAP observes a model, and whether its memory grows with the number of sentences.

    python -m benchmarks.observe model.onnx tokenizer-folder

Every number of sentences is seen by a process of its own, whose peak is what the operating system reports.
"""

from __future__ import annotations

import argparse
import json
import resource
import subprocess
import sys
import time
from pathlib import Path

from rich.console import Console
from rich.table import Table

from benchmarks.reviews import reviews
from prunegraph.observe.stream import Data, observe
from prunegraph.passes.score import Context, Sap
from prunegraph.pipeline import load_and_analyze

SENTENCES = (250, 500, 1000, 2000)


def main() -> None:
    """Measure and print one table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", type=Path)
    parser.add_argument("tokenizer", type=Path)
    parser.add_argument("--sentences", type=int, nargs="+", default=SENTENCES)
    parser.add_argument("--one", action="store_true", help="measure in this process, print JSON")
    arguments = parser.parse_args()
    if arguments.one:
        print(json.dumps(measure(arguments.model, arguments.tokenizer, arguments.sentences[0])))
        return
    table = Table(title=f"SAP observes {arguments.model.name}", title_justify="left")
    for heading in ("sentences", "pairs", "seconds", "sentences / s", "peak MB before", "peak MB after"):
        table.add_column(heading, justify="right")
    for count in arguments.sentences:
        command = [sys.executable, "-m", "benchmarks.observe", arguments.model, arguments.tokenizer]
        ran = subprocess.run([*map(str, command), "--one", "--sentences", str(count)], check=True, capture_output=True)
        seen = json.loads(ran.stdout)
        numbers = (seen["pairs"], seen["seconds"], count / seen["seconds"], seen["before"], seen["after"])
        table.add_row(f"{count:,}", *(f"{number:,.0f}" for number in numbers))
    Console().print(table)


def measure(model: Path, tokenizer: Path, count: int) -> dict[str, float]:
    """Observe once, nothing cached: parsing, running, aligning and counting."""
    texts = [{"text": review.text} for review in reviews()[:count]]
    found = load_and_analyze(model)
    inputs = Data(texts, tokenizer).inputs(found.original)
    groups = [group for group in found.analysis.groups if group.kind in ("head", "kv_group", "query_slot")]
    (relations,) = Sap().observes(groups, Context(found.normalized.model, found.analysis), inputs).values()
    before, start = _peak(), time.perf_counter()
    observe(found.normalized.model, inputs, [relations])
    state = relations.state()
    seconds = time.perf_counter() - start
    return {"seconds": seconds, "pairs": int(state["counts"].sum()), "before": before, "after": _peak()}


def _peak() -> float:
    """Megabytes that this process has held at most (Linux counts in kilobytes)."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


if __name__ == "__main__":
    main()
