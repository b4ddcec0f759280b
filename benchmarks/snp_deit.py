"""SNP's published sizes, through the real pipeline: parameters and MACs of the slim files, and what they save in time.

    python -m benchmarks.snp_deit [--only deit-tiny …] [--rounds 60] [--seconds 30] [--markdown docs/snp.md]

Exports DeiT-Tiny, Small and Base and EfficientFormer-L1 of timm with random weights, prunes them by the published
numbers of every layer (arXiv 2404.11630), checks that the files have the published MACs and parameters, and times dense
and slim, interleaved on one thread of the CPU.  EfficientFormer's ratios are not published: there one ratio for all
meets the published MACs.  Needs `pip install "prunegraph[zoo]"`.
"""

from __future__ import annotations

import math
import sys
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, shape_inference
from onnx.tools.update_model_dims import update_inputs_outputs_dims
from rich.console import Console

from benchmarks.harness import Record, Section, describe, publish, study_parser, with_interval
from benchmarks.zoo.full_size import exported
from prunegraph import Amount, prune_graph
from prunegraph.bench import compare

KINDS = ("channel", "hidden", "qk_dim", "v_dim", "ffn")
DEVICES = ("Pi 4B", "Xeon 4210R", "RTX 3090")
ALIGN = 8
HEADER = (
    "model", "GMACs", "parameters (M)", "MACs fewer by", "ms, dense", "ms, slim", "times faster",
    f"the same, multiples of {ALIGN}", *(f"paper: {device}" for device in DEVICES),
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class Case:
    """A published model.

    Attributes:
        name: What it is called here.
        network: The dense model, one of `zoo.full_size.FULL`.
        gmacs: Its published cost, as text with the digits that are published.
        params: Its published parameters in millions; empty where they are not.
        faster: How many times faster the paper measured it, by device.
        preset: The published numbers; without one, a budget meets `gmacs`.
    """

    name: str
    network: str
    gmacs: str
    params: str
    faster: tuple[float, float, float]
    preset: str = ""


CASES = (
    Case("deit-tiny", "deit_tiny", "0.64", "3.01", (1.70, 1.38, 1.05), "snp-deit-tiny"),
    Case("deit-small 2.0G", "deit_small", "2.04", "10.06", (2.01, 1.38, 1.40), "snp-deit-small-2.0g"),
    Case("deit-small 1.3G", "deit_small", "1.27", "6.47", (2.94, 1.60, 1.71), "snp-deit-small-1.3g"),
    Case("deit-base", "deit_base", "6.32", "31.59", (2.44, 1.89, 2.07), "snp-deit-base"),
    Case("efficientformer-l1 0.6G", "efficientformer_l1", "0.6", "", (1.78, 1.14, 1.52)),
    Case("efficientformer-l1 0.5G", "efficientformer_l1", "0.5", "", (2.05, 1.24, 1.64)),
)


def main() -> int:
    """Measure; exit status 1 if a file does not cost what was published."""
    parser = study_parser("benchmarks.snp_deit", __doc__, page=True)
    names = [case.name for case in CASES]
    parser.add_argument("--only", nargs="+", metavar="NAME", choices=names, default=names, help=", ".join(names))
    parser.add_argument("--rounds", type=int, default=60, help="timed rounds (default 60)")
    parser.add_argument("--seconds", type=float, default=30, help="longest timing of one case (default 30)")
    parser.add_argument("--folder", type=Path, default=Path("build/snp"), help="for models")
    arguments = parser.parse_args()
    rows, wrong = [], []
    for case in CASES:
        if case.name in arguments.only:
            Console(stderr=True).print(f"{case.name} …", style="dim")
            record = measure(case, arguments.folder, arguments.rounds, arguments.seconds)
            rows.append(row(case, record))
            wrong += [] if as_published(case, record) else [case.name]
    note = f"{describe('onnxruntime')}; one thread, one image of 224 x 224."
    publish("snp_deit", [Section("", HEADER, rows, note)], arguments.markdown)
    if wrong:
        Console().print(f"not as published: {', '.join(wrong)}", style="bold red")
    return 1 if wrong else 0


def measure(case: Case, folder: Path, rounds: int, seconds: float) -> Record:
    """Export, prune twice (as published, and rounded up to a multiple of `ALIGN`), count and time."""
    dense = exported(case.network, folder)
    images = folder / "images.npz"
    np.savez(images, x=np.random.default_rng(0).normal(size=(4, 3, 224, 224)).astype(np.float32))
    before = cost(dense)
    macs = None if case.preset else float(case.gmacs) * 1e9 / before[0]
    files = {align: folder / f"{case.name.replace(' ', '_')}.slim{align}.onnx" for align in (1, ALIGN)}
    for align, file in files.items():
        amount = Amount(case.preset or None, macs=macs, kinds=KINDS, align=align)
        prune_graph(dense, amount, scorer="snp", data=images, after=(), verify=align == 1).save(file)
    models, names = [dense, *files.values()], ["dense", "slim", f"slim, {ALIGN}"]
    timed = compare(models, names=names, rounds=rounds, max_seconds=seconds, warmup=5)
    pairs = zip(before, cost(files[1]), strict=True)
    return dict(zip(("macs", "params"), pairs, strict=True)) | {"timed": timed.results}


def as_published(case: Case, record: Record) -> bool:
    """Whether the slim file costs what was published, to the published digits."""
    costs = ((record["macs"][1] / 1e9, case.gmacs), (record["params"][1] / 1e6, case.params))
    return all(not known or f"{value:.{len(known.partition('.')[2])}f}" == known for value, known in costs)


def cost(path: Path) -> tuple[int, int]:
    """MACs of an image and parameters, counted from the file alone: products and convolutions, and float numbers."""
    model = onnx.load(path)
    inputs = {value.name: [1, 3, 224, 224] for value in model.graph.input}
    outputs = {value.name: [1, *_dims(value)[1:]] for value in model.graph.output}
    graph = shape_inference.infer_shapes(update_inputs_outputs_dims(model, inputs, outputs), data_prop=True).graph
    shapes = {value.name: _dims(value) for value in (*graph.value_info, *graph.input, *graph.output)}
    shapes |= {tensor.name: list(tensor.dims) for tensor in graph.initializer}
    macs = 0
    for node in graph.node:
        if node.op_type in ("MatMul", "Gemm", "Conv"):
            second = shapes[node.input[1]]
            across = next((a.i for a in node.attribute if a.name == "transB"), 0)
            summed = math.prod(second[1:]) if node.op_type == "Conv" else second[-1] if across else second[-2]
            macs += math.prod(shapes[node.output[0]]) * summed
    floats = (tensor for tensor in graph.initializer if tensor.data_type == TensorProto.FLOAT)
    return macs, sum(math.prod(tensor.dims) for tensor in floats)


def _dims(value: onnx.ValueInfoProto) -> list[int]:
    return [dim.dim_value for dim in value.type.tensor_type.shape.dim]


def row(case: Case, record: Record) -> tuple[str, ...]:
    """As it is printed."""
    (macs, slim_macs), params, (dense, slim, aligned) = record["macs"], record["params"], record["timed"]
    return (
        case.name + ("" if as_published(case, record) else " (not as published)"),
        f"{macs / 1e9:.2f} → {slim_macs / 1e9:.2f}",
        " → ".join(f"{count / 1e6:.2f}" for count in params),
        f"{macs / slim_macs:.2f}",
        f"{dense.median_ms:.1f}",
        f"{slim.median_ms:.1f}",
        with_interval(slim.ratio),
        with_interval(aligned.ratio),
        *(f"{times:.2f}" for times in case.faster),
    )


if __name__ == "__main__":
    sys.exit(main())
