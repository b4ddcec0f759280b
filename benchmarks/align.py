"""Which widths a runtime likes: layers of every width from 33 to 64, timed side by side.

    python -m benchmarks.align [--ep cpu,openvino] [--python openvino=ov/bin/python] [--markdown docs/align.md]

Eight layers of one width stand between an input and an output that are the same for all, so that all widths of one op
run in turns on the same numbers. A width that takes longer than the next multiple of 8 is not worth its cut: the
default of `align` follows from these tables. About a minute a provider on a quiet machine.
"""

from __future__ import annotations

import argparse
import tempfile
from collections.abc import Callable, Sequence
from itertools import pairwise
from pathlib import Path

import numpy as np
import numpy.typing as npt
import onnx
from onnx import TensorProto, helper, numpy_helper

from benchmarks.harness import Section, publish, study_parser
from prunegraph.bench import compare_apart

WIDTHS = range(33, 65)
NOTICED = 1.03
"""What is not more than this is noise."""
LAYERS = 8
DOORS, SIDE, ROWS = 16, 28, 128

Array = npt.NDArray[np.float32]


def main() -> None:
    """Time, print, and write the page."""
    parser = study_parser("benchmarks.align", __doc__, page=True)
    parser.add_argument("--ep", default="cpu", metavar="NAME,…", help="execution providers (default cpu)")
    parser.add_argument(
        "--python", action="append", default=[], metavar="EP=PATH", help="the environment of a provider"
    )
    parser.add_argument("--rounds", type=int, default=60, metavar="N", help="rounds of every width (default 60)")
    parser.add_argument("--threads", type=int, default=1, metavar="N", help="threads inside an operator (default 1)")
    arguments = parser.parse_args()
    publish("align", [_section(op, arguments) for op in LAYER], arguments.markdown)


def _section(op: str, arguments: argparse.Namespace) -> Section:
    """Times of all widths of one op by provider, that of the multiple of 8 above each beside it."""
    with tempfile.TemporaryDirectory() as folder:
        paths = [Path(folder) / f"{width}.onnx" for width in WIDTHS]
        for path, width in zip(paths, WIDTHS, strict=True):
            onnx.save(model(op, width), path)
        timed = compare_apart(
            paths,
            names=[str(width) for width in WIDTHS],
            providers=arguments.ep.split(","),
            pythons=dict(text.split("=", 1) for text in arguments.python),
            rounds=arguments.rounds,
            threads=arguments.threads,
            max_seconds=180,
        )
    providers = list(timed.environments)
    times = {(each.provider, int(each.model)): each.median_ms for each in timed.results}
    slower, rows = dict.fromkeys(providers, 0), []
    for width in WIDTHS:
        above, cells = -(-width // 8) * 8, []
        for provider in providers:
            ratio = times[provider, width] / times[provider, above]
            slower[provider] += ratio > NOTICED
            cells += [f"{times[provider, width] * 1e3:.0f}", f"**{ratio:.2f}**" if ratio > NOTICED else f"{ratio:.2f}"]
        rows.append((str(width), str(above), *cells))
    header = ("width", "multiple of 8", *(name for each in providers for name in (f"{each}, µs", "beside it")))
    counts = ", ".join(f"{count} of {len(rows)} on {provider}" for provider, count in slower.items())
    machine = timed.environment
    versions = ", ".join(f"{name} in onnxruntime {each['onnxruntime']}" for name, each in timed.environments.items())
    note = f"More than 3 % slower than the multiple of 8 above them: {counts}. "
    note += f"{machine['cpu']}, {machine['cores']} cores, {arguments.threads} thread used; {versions}"
    return Section(op, header, rows, note, 0)


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
    main()
