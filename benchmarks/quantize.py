"""Prune half of the heads and neurons of a real MiniLM, then store it in fewer bits: sizes, errors, speed.

    python -m benchmarks.quantize                              # sizes and errors, nothing is timed
    python -m benchmarks.quantize --time --markdown docs/edge.md  # do the savings multiply? a quiet machine

The model is that of `make demo`.  Outputs are compared with the slim float model's on random inputs.  `--time` times
dense and slim, in floats and in 8 bits, side by side: what pruning saves, what bits save, and what both do.
"""

from __future__ import annotations

from collections.abc import Sequence

import onnx

import prunegraph as pg
from benchmarks.demo import RATIO, find_model
from benchmarks.harness import Section, describe, publish, study_parser, with_interval
from prunegraph.bench import Comparison, compare
from prunegraph.bench.shapes import parse_shapes

METHODS = {
    "`dynamic`": pg.Quantize("dynamic"),
    "`matmul4`": pg.Quantize("matmul4"),
    "`--fp16`": pg.Quantize(fp16=True),
}
SHAPES = "input_ids=1x32,1x128,8x128"
ARMS = ("dense", "dense int8", "slim", "slim int8")


def main(arguments: Sequence[str] | None = None) -> None:
    """Print one row a method; with `--time` one a size, too."""
    parser = study_parser("benchmarks.quantize", __doc__, page=True)
    parser.add_argument("--time", action="store_true", help="time dense and slim, in floats and in 8 bits")
    parser.add_argument("--rounds", type=int, default=100)
    parser.add_argument("--shape", default=SHAPES)
    chosen = parser.parse_args(arguments)
    slim = pg.prune_graph(find_model(), RATIO)
    if chosen.time:
        models = [*both(str(find_model())), *both(slim.model)]
        timed = compare(models, names=ARMS, shapes=parse_shapes([chosen.shape]), rounds=chosen.rounds)
        publish("quantized", [times(timed)], chosen.markdown)
        return
    rows = []
    for name, options in METHODS.items():
        report = slim.quantize(options=options).quantized
        assert report is not None
        before, after = (f"{size / 2**20:.1f}" for size in report.bytes)
        rows.append((name, after, f"{report.worst:.2%}"))
    publish(
        "bits", [Section("", ("", "weights, MiB", "error"), [("slim, float32", before, ""), *rows])], chosen.markdown
    )


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
        savings = (with_interval(each.ratio) for each in (slim, dense_int8, slim_int8))
        tokens = " x ".join(map(str, dense.inputs["input_ids"]))
        rows.append(
            (tokens, f"{dense.median_ms:.2f}", *savings, f"{product:.2f}", f"{slim_int8.ratio.median / product:.2f}")
        )
    header = ("tokens", "dense, ms", "slim", "int8", "both", "product", "both / product")
    note = (
        f"Times faster than dense in floats, with 95 % intervals. {describe('onnxruntime')}; {comparison.threads} "
        f"thread used, {len(comparison.results[0].samples_ms)} rounds in {comparison.protocol}."
    )
    return Section("", header, rows, note)


if __name__ == "__main__":
    main()
