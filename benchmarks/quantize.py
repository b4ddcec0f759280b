"""Prune half of the heads and neurons of a real MiniLM, then store it in fewer bits: sizes, errors, speed.

    python -m benchmarks.quantize                              # sizes and errors, nothing is timed
    python -m benchmarks.quantize --time --write docs/edge.md  # and whether the two savings multiply; a quiet machine

The model is that of `make demo`.  Outputs are compared with the slim float model's on random inputs.  `--time` times
dense and slim, in floats and in 8 bits, side by side: what pruning saves, what bits save, and what both do.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import onnx

import prunegraph as pg
from benchmarks.demo import RATIO, find_model
from benchmarks.harness import Section, fill_page, study_parser
from prunegraph.bench import Comparison, compare
from prunegraph.bench.shapes import parse_shapes

METHODS = {
    "`dynamic`": pg.Quantize("dynamic"),
    "`matmul4`": pg.Quantize("matmul4"),
    "`--fp16`": pg.Quantize(fp16=True),
}
SHAPES = "input_ids=1x32,1x128,8x128"
ARMS = ("dense", "dense int8", "slim", "slim int8")
MARKS = ("<!-- quantized: begin -->\n", "<!-- quantized: end -->")


def main(arguments: Sequence[str] | None = None) -> None:
    """Print one row a method; with `--time` one a size, too."""
    parser = study_parser("benchmarks.quantize", __doc__)
    parser.add_argument("--time", action="store_true", help="time dense and slim, in floats and in 8 bits")
    parser.add_argument("--rounds", type=int, default=100)
    parser.add_argument("--shape", default=SHAPES)
    parser.add_argument("--write", type=Path, metavar="PAGE", help="put the table of times between the marks of a page")
    chosen = parser.parse_args(arguments)
    slim = pg.prune_graph(find_model(), RATIO)
    if chosen.time:
        models = [*both(str(find_model())), *both(slim.model)]
        table = times(compare(models, names=ARMS, shapes=parse_shapes([chosen.shape]), rounds=chosen.rounds))
        table.show()
        if chosen.write is not None:
            fill_page(chosen.write, MARKS, ["", *table.lines()])
        return
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


def both(model: str | onnx.ModelProto) -> tuple[str | onnx.ModelProto, onnx.ModelProto]:
    """The model, and what `dynamic` makes of it."""
    return model, pg.quantize(model, pg.Quantize("dynamic")).model


def times(comparison: Comparison) -> Section:
    """What each saving is worth alone and together, a row a size."""
    rows = []
    for first in range(0, len(comparison.results), len(ARMS)):
        dense, dense_int8, slim, slim_int8 = comparison.results[first : first + len(ARMS)]
        assert dense_int8.ratio and slim.ratio and slim_int8.ratio
        product = slim.ratio.median * dense_int8.ratio.median
        share = f"{slim_int8.ratio.median / product:.2f}"
        ratios = (f"{each.median:.2f} [{each.low:.2f}, {each.high:.2f}]" for each in (slim.ratio, dense_int8.ratio))
        together = f"{slim_int8.ratio.median:.2f} [{slim_int8.ratio.low:.2f}, {slim_int8.ratio.high:.2f}]"
        tokens = " x ".join(map(str, dense.inputs["input_ids"]))
        rows.append((tokens, f"{dense.median_ms:.2f}", *ratios, together, f"{product:.2f}", share))
    header = ("tokens", "dense, ms", "slim", "int8", "both", "product", "both / product")
    machine = comparison.environment
    note = (
        f"Times faster than dense in floats, with 95 % intervals. {machine['cpu']}, {machine['cores']} cores, "
        f"{comparison.threads} thread used, onnxruntime {machine['onnxruntime']}, "
        f"{len(comparison.results[0].samples_ms)} rounds in {comparison.protocol}."
    )
    return Section("", header, rows, note)


if __name__ == "__main__":
    main()
