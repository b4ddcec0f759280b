"""How fast SAP observes a model, and whether its memory grows with the number of sentences.

    python -m benchmarks.observe model.onnx tokenizer-folder

Every number of sentences is seen by a process of its own, whose peak is what the operating system reports.
"""

from __future__ import annotations

import resource
import sys
import time
from pathlib import Path

from benchmarks.datasets import reviews
from benchmarks.harness import Record, Section, in_child, study_parser
from prunegraph.analyzed import load_and_analyze
from prunegraph.observe.stream import Data, observe
from prunegraph.passes.score import Context, Sap

SENTENCES = (250, 500, 1000, 2000)


HEADER = ("sentences", "pairs", "seconds", "sentences / s", "peak MB before", "peak MB after")


def main() -> None:
    """Measure and print one table."""
    parser = study_parser("benchmarks.observe", __doc__)
    parser.add_argument("model", type=Path)
    parser.add_argument("tokenizer", type=Path)
    parser.add_argument("--sentences", type=int, nargs="+", default=SENTENCES)
    parser.add_argument("--timeout", type=float, default=3600, help="seconds for one of them (default 3600)")
    arguments = parser.parse_args()
    rows = []
    for count in arguments.sentences:
        record = in_child(arguments.timeout, measure, arguments.model, arguments.tokenizer, count)
        if "failure" in record:
            sys.exit(f"{count} sentences: {record['failure']}")
        numbers = (record["pairs"], record["seconds"], count / record["seconds"], record["before"], record["after"])
        rows.append((f"{count:,}", *(f"{number:,.0f}" for number in numbers)))
    Section(f"SAP observes {arguments.model.name}", HEADER, rows, texts=0).show()


def measure(model: Path, tokenizer: Path, count: int) -> Record:
    """Observe once, nothing cached: parsing, running, aligning and counting."""
    texts = [{"text": review.text} for review in reviews()[:count]]
    analyzed = load_and_analyze(model)
    inputs = Data(texts, tokenizer).inputs(analyzed.original)
    groups = [group for group in analyzed.analysis.groups if group.kind in ("head", "kv_group", "query_head")]
    (relations,) = Sap().observes(groups, Context(analyzed.normalized.model, analyzed.analysis), inputs).values()
    before, start = _peak(), time.perf_counter()
    observe(analyzed.normalized.model, inputs, [relations])
    state = relations.state()
    seconds = time.perf_counter() - start
    return {"seconds": seconds, "pairs": int(state["counts"].sum()), "before": before, "after": _peak()}


def _peak() -> float:
    """Megabytes that this process has held at most (Linux counts in kilobytes)."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


if __name__ == "__main__":
    main()
