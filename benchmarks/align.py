"""Which widths a runtime likes: layers of every width from 33 to 64, timed side by side.

    python -m benchmarks.align [--ep cpu,openvino] [--rounds 60] [--markdown docs/align.md]

Eight layers of one width stand between an input and an output that are the same for all, so that all widths of one op
run in turns on the same numbers. A width that takes longer than the next multiple of 8 is not worth its cut: the
default of `align` follows from these tables. About 3 minutes an op and a provider on a quiet machine.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from itertools import pairwise
from pathlib import Path

import numpy as np
import numpy.typing as npt
import onnx
from onnx import TensorProto, helper, numpy_helper

from benchmarks.harness import Section, describe, study_parser, write_page
from prunegraph.bench.compare import compare
from prunegraph.bench.environment import environment

WIDTHS = range(33, 65)
LAYERS = 8
DOORS, SIDE, ROWS = 16, 28, 128

Array = npt.NDArray[np.float32]


def main() -> int:
    """Time, print, and write the page."""
    parser = study_parser("benchmarks.align", __doc__)
    parser.add_argument("--ep", default="cpu", metavar="NAME,…", help="execution providers (default cpu)")
    parser.add_argument("--rounds", type=int, default=60, metavar="N", help="rounds of every width (default 60)")
    parser.add_argument("--threads", type=int, default=1, metavar="N", help="threads inside an operator (default 1)")
    parser.add_argument("--markdown", type=Path, metavar="FILE", help="write the page there")
    arguments = parser.parse_args()
    sections = [_section(op, ep, arguments.rounds, arguments.threads) for ep in arguments.ep.split(",") for op in LAYER]
    for section in sections:
        section.show()
    if arguments.markdown:
        head = ["# Widths that runtimes like", "", *(__doc__ or "").splitlines(), ""]
        write_page(arguments.markdown, [*head, *(line for section in sections for line in section.lines())])
    return 0


def _section(op: str, ep: str, rounds: int, threads: int) -> Section:
    """Times of all widths of one op on one provider, those of the multiple of 8 above each beside it."""
    models = [model(op, width).SerializeToString() for width in WIDTHS]
    names = [str(width) for width in WIDTHS]
    timed = compare(models, providers=[ep], names=names, rounds=rounds, threads=threads, max_seconds=180)
    times = {int(each.model): each.median_ms for each in timed.results}
    rows = []
    for width in WIDTHS:
        above = -(-width // 8) * 8
        ratio = times[width] / times[above]
        rows.append(
            (str(width), f"{times[width] * 1e3:.3f}", str(above), f"{ratio:.2f}", "slower" if ratio > 1 else "")
        )
    slower = sum(bool(row[-1]) for row in rows)
    note = f"{slower} of {len(rows)} widths take longer than the multiple of 8 above them. "
    header = ("width", "ms", "multiple of 8", "time beside it", "")
    return Section(f"{op}, {ep}", header, rows, note + describe(environment(), "onnxruntime"), 0)


# ---- layers ----------------------------------------------------------------------------------------------------------


def _conv(kernel: int, depthwise: bool = False) -> Callable[[int, int], tuple[Array, dict[str, object]]]:
    def layer(inputs: int, outputs: int) -> tuple[Array, dict[str, object]]:
        apart = depthwise and inputs == outputs
        weight = _random(outputs, 1 if apart else inputs, kernel, kernel)
        return weight, {"pads": [kernel // 2] * 4, "group": inputs if apart else 1}

    return layer


def _product(inputs: int, outputs: int) -> tuple[Array, dict[str, object]]:
    return _random(inputs, outputs), {}


LAYER: dict[str, Callable[[int, int], tuple[Array, dict[str, object]]]] = {
    "convolution 3 x 3": _conv(3),
    "convolution 1 x 1": _conv(1),
    "depthwise convolution 3 x 3": _conv(3, depthwise=True),
    "matrix product": _product,
}


def model(op: str, width: int) -> onnx.ModelProto:
    """Layers of one width between doors that are the same for all."""
    product = op == "matrix product"
    shape = (1, ROWS, DOORS) if product else (1, DOORS, SIDE, SIDE)
    widths: Sequence[int] = (DOORS, *[width] * (LAYERS + 1), DOORS)
    nodes, tensors, value = [], [], "x"
    for k, (inputs, outputs) in enumerate(pairwise(widths)):
        weight, attributes = LAYER[op](inputs, outputs)
        tensors.append(numpy_helper.from_array(weight, f"w{k}"))
        output = "y" if k == len(widths) - 2 else f"h{k}"
        nodes.append(helper.make_node("MatMul" if product else "Conv", [value, f"w{k}"], [f"{output}_"], **attributes))
        nodes.append(helper.make_node("Relu", [f"{output}_"], [output]))
        value = output
    doors = [helper.make_tensor_value_info(name, TensorProto.FLOAT, shape) for name in ("x", "y")]
    graph = helper.make_graph(nodes, "widths", doors[:1], doors[1:], tensors)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)


def _random(*shape: int) -> Array:
    rng = np.random.default_rng(0)
    return (rng.normal(size=shape) / np.sqrt(max(np.prod(shape[1:]), 1))).astype(np.float32)


if __name__ == "__main__":
    sys.exit(main())
