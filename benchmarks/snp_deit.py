"""SNP's published sizes, through the real pipeline: parameters and MACs of the slim files, and what they save in time.

    python -m benchmarks.snp_deit [--only deit-tiny …] [--rounds 60] [--seconds 30] [--markdown docs/snp.md]

Exports DeiT-Tiny, Small and Base and EfficientFormer-L1 of timm with random weights (`prunegraph export timm:…`),
prunes them by the published numbers of every layer (arXiv 2404.11630), checks that the files have the published MACs
and parameters, and times dense and slim, interleaved on one thread of the CPU.  EfficientFormer's ratios are not
published: there one ratio for all meets the published MACs.  Needs `pip install "prunegraph[zoo]"`.
"""

from __future__ import annotations

import math
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnx
import torch
from onnx import TensorProto, shape_inference
from onnx.tools.update_model_dims import update_inputs_outputs_dims
from rich.console import Console

from benchmarks.harness import Section, describe, fill_page, study_parser
from prunegraph import Amount, prune_graph
from prunegraph.bench import Comparison, compare
from prunegraph.export.hub_build import build
from prunegraph.export.hub_inputs import ExampleSizes
from prunegraph.export.onnx_file import save
from prunegraph.export.torch_dynamic_shapes import ExampleCall
from prunegraph.export.torch_module import trace

KINDS = ("channel", "hidden", "qk_dim", "v_dim", "ffn")
DEVICES = ("Pi 4B", "Xeon 4210R", "RTX 3090")
MARKS = ("<!-- snp_deit -->", "<!-- /snp_deit -->")
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
        timm: The dense model.
        gmacs: Its published cost, as text with the digits that are published.
        params: Its published parameters in millions; empty where they are not.
        faster: How many times faster the paper measured it, by device.
        preset: The published numbers; without one, a budget meets `gmacs`.
    """

    name: str
    timm: str
    gmacs: str
    params: str
    faster: tuple[float, float, float]
    preset: str = ""


CASES = (
    Case("deit-tiny", "deit_tiny_patch16_224", "0.64", "3.01", (1.70, 1.38, 1.05), "snp-deit-tiny"),
    Case("deit-small 2.0G", "deit_small_patch16_224", "2.04", "10.06", (2.01, 1.38, 1.40), "snp-deit-small-2.0g"),
    Case("deit-small 1.3G", "deit_small_patch16_224", "1.27", "6.47", (2.94, 1.60, 1.71), "snp-deit-small-1.3g"),
    Case("deit-base", "deit_base_patch16_224", "6.32", "31.59", (2.44, 1.89, 2.07), "snp-deit-base"),
    Case("efficientformer-l1 0.6G", "efficientformer_l1", "0.6", "", (1.78, 1.14, 1.52)),
    Case("efficientformer-l1 0.5G", "efficientformer_l1", "0.5", "", (2.05, 1.24, 1.64)),
)


@dataclass(frozen=True, slots=True)
class Outcome:
    """What was seen of one case: MACs and parameters before and after, and times."""

    case: Case
    macs: tuple[int, int]
    params: tuple[int, int]
    timed: Comparison

    @property
    def published(self) -> bool:
        """Whether the slim file costs what was published, to the published digits."""
        right = _digits(self.macs[1] / 1e9, self.case.gmacs)
        return right and (not self.case.params or _digits(self.params[1] / 1e6, self.case.params))


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line; exit status 1 if a file does not cost what was published."""
    parser = study_parser("benchmarks.snp_deit", __doc__)
    parser.add_argument("--only", nargs="*", metavar="NAME", help=f"some of {', '.join(c.name for c in CASES)}")
    parser.add_argument("--rounds", type=int, default=60, help="timed rounds (default 60)")
    parser.add_argument("--seconds", type=float, default=30, help="longest timing of one case (default 30)")
    parser.add_argument("--folder", type=Path, default=Path("build/snp"), help="for models")
    parser.add_argument("--markdown", type=Path, metavar="FILE", help=f"put the table between {' and '.join(MARKS)}")
    arguments = parser.parse_args(argv)
    arguments.folder.mkdir(parents=True, exist_ok=True)
    console = Console(width=160)
    outcomes = []
    for case in CASES:
        if not arguments.only or case.name in arguments.only:
            console.print(f"{case.name} …", style="dim")
            outcomes.append(measure(case, arguments.folder, arguments.rounds, arguments.seconds))
    if outcomes:
        section(outcomes).show(console)
    if arguments.markdown and outcomes:
        table = section(outcomes)
        fill_page(arguments.markdown, MARKS, ["", *table.table(), "", table.note, ""])
    wrong = [outcome.case.name for outcome in outcomes if not outcome.published]
    if wrong:
        console.print(f"not as published: {', '.join(wrong)}", style="bold red")
    return 1 if wrong else 0


def measure(case: Case, folder: Path, rounds: int, seconds: float) -> Outcome:
    """Export, prune twice (as published, and rounded up to a multiple of `ALIGN`), count and time."""
    dense = folder / f"{case.timm}.onnx"
    if not dense.exists():
        export(f"timm:{case.timm}", dense)
    images = folder / "images.npz"
    np.savez(images, x=np.random.default_rng(0).normal(size=(4, 3, 224, 224)).astype(np.float32))
    before = cost(dense)
    stem = case.name.replace(" ", "_")
    files = {1: folder / f"{stem}.slim.onnx", ALIGN: folder / f"{stem}.slim{ALIGN}.onnx"}
    for align, file in files.items():
        macs = None if case.preset else float(case.gmacs) * 1e9 / before[0]
        amount = Amount(case.preset or None, macs=macs, kinds=KINDS, align=align)
        result = prune_graph(dense, amount, scorer="snp", data=images, after=(), verify=align == 1)
        result.save(file)
    after = cost(files[1])
    timed = compare(
        [dense, *files.values()],
        names=["dense", "slim", f"slim, {ALIGN}"],
        rounds=rounds,
        max_seconds=seconds,
        warmup=5,
    )
    return Outcome(case, (before[0], after[0]), (before[1], after[1]), timed)


def export(address: str, path: Path) -> None:
    """As `prunegraph export ADDRESS` does it, but no two parameters are alike.

    Exporters store equal zeros and ones once and leave out a bias of zeros, which no trained model has: there would be
    too few parameters.
    """
    torch.manual_seed(0)
    module, example = build(address, None, pretrained=False, sizes=ExampleSizes())
    with torch.no_grad():
        for parameter in module.parameters():
            if parameter.ndim == 1:
                parameter.add_(0.02 * torch.randn_like(parameter))
    save(trace(module, ExampleCall((), dict(example.inputs)), example.axes), path)


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


def _digits(value: float, published: str) -> bool:
    return f"{value:.{len(published.partition('.')[2])}f}" == published


def row(outcome: Outcome) -> tuple[str, ...]:
    """As it is printed."""
    dense, slim, aligned = outcome.timed.results
    faster = [latency.ratio for latency in (slim, aligned)]
    return (
        outcome.case.name + ("" if outcome.published else " (not as published)"),
        " → ".join(f"{macs / 1e9:.2f}" for macs in outcome.macs),
        " → ".join(f"{params / 1e6:.2f}" for params in outcome.params),
        f"{outcome.macs[0] / outcome.macs[1]:.2f}",
        f"{dense.median_ms:.1f}",
        f"{slim.median_ms:.1f}",
        *(f"{r.median:.2f} [{r.low:.2f}, {r.high:.2f}]" for r in faster if r is not None),
        *(f"{times:.2f}" for times in outcome.case.faster),
    )


def section(outcomes: Sequence[Outcome]) -> Section:
    """The table."""
    machine = describe(outcomes[0].timed.environment, "onnxruntime")
    return Section(
        "SNP's published sizes", HEADER, [row(each) for each in outcomes], f"{machine}; one thread, one image."
    )


if __name__ == "__main__":
    sys.exit(main())
