"""Prune half of the heads and neurons of a real MiniLM, then store it in fewer bits: sizes, and how far outputs move.

    python -m benchmarks.quantize            # prints the table of docs/edge.md

The model is that of `make demo`.  Outputs are compared with the slim float model's on random inputs; nothing is timed.
"""

from __future__ import annotations

import prunegraph as pg
from benchmarks.demo import RATIO, find_model

METHODS = {
    "`dynamic`": pg.Quantize("dynamic"),
    "`matmul4`": pg.Quantize("matmul4"),
    "`--fp16`": pg.Quantize(fp16=True),
}


def main() -> None:
    """Print one row a method."""
    slim = pg.prune_graph(find_model(), RATIO)
    rows = []
    for name, options in METHODS.items():
        report = slim.quantize(options=options).quantized
        assert report is not None
        rows.append((name, report.bytes[1], report.worst))
        before = report.bytes[0]
    print("| | weights, MiB | error |\n|---|---:|---:|")
    print(f"| slim, float32 | {before / 2**20:.1f} | |")
    for name, size, error in rows:
        print(f"| {name} | {size / 2**20:.1f} | {error:.2%} |")


if __name__ == "__main__":
    main()
