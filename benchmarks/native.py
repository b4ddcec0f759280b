"""What pruning leaves over: a slim file beside a model that was built with the same widths and exported itself.

    python -m benchmarks.native [--only deit_half …] [--sessions 5] [--rounds 60] [--markdown docs/native.md]

Each case builds a dense model and a native one, exports both through the same exporter, prunes the dense one down to
the widths of the native one, counts the nodes that ONNX Runtime's extended optimisation leaves of either, and times
both, interleaved on one thread, in several pairs of sessions: where in memory a session has its buffers moves a time
by a per cent or two.  Needs `pip install "prunegraph[zoo]"`.
"""

from __future__ import annotations

import sys
import tempfile
from collections import Counter
from itertools import product
from pathlib import Path

import numpy as np
import onnx
import onnxruntime as ort
import torch

from benchmarks.harness import Record, Section, describe, publish, study_parser
from benchmarks.zoo.model import EXPORTERS, export
from benchmarks.zoo.native import CASES
from prunegraph import prune_graph
from prunegraph.bench import compare
from prunegraph.bench.stats import paired_ratio

LIMIT = 1.02
"""Most time that a slim file may take of what the native one takes."""

MOVES = {
    "Cast", "Concat", "Constant", "ConstantOfShape", "Expand", "Flatten", "Gather", "Identity", "Reshape", "Shape",
    "Slice", "Split", "Squeeze", "Transpose", "Unsqueeze",
}  # fmt: skip
"""Ops that move numbers and compute none."""

FUSED = {
    "BiasGelu": ("Add", "Gelu"),
    "FusedGemm": ("Gemm",),
    "FusedMatMul": ("MatMul",),
    "SkipLayerNormalization": ("Add", "LayerNormalization"),
    "SkipSimplifiedLayerNormalization": ("Add", "SimplifiedLayerNormalization"),
}
"""What ONNX Runtime makes of several ops: a node of these is as good as those, or better."""

HEADER = ("case", "exporter", "ms, native", "ms, slim", "slim / native", "computing nodes", "moving nodes")


def main() -> int:
    """Measure, print, and exit with 1 where a slim file costs more than a native one."""
    parser = study_parser("benchmarks.native", __doc__, page=True)
    parser.add_argument("--only", nargs="+", choices=CASES, default=list(CASES), help="these cases (default: all)")
    parser.add_argument("--exporters", nargs="+", choices=EXPORTERS, default=list(EXPORTERS))
    parser.add_argument("--sessions", type=int, default=5, help="pairs of sessions that are timed (default 5)")
    parser.add_argument("--rounds", type=int, default=60, help="of each pair (default 60)")
    parser.add_argument("--folder", type=Path, help="keep the models here, and take those that are here already")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    records = []
    with tempfile.TemporaryDirectory(prefix="prunegraph-") as temporary:
        folder = arguments.folder or Path(temporary)
        folder.mkdir(parents=True, exist_ok=True)
        for name, exporter in product(arguments.only, arguments.exporters):
            records.append(measure(name, exporter, folder, arguments.sessions, arguments.rounds))
            print(*row(records[-1]), sep="  |  ", file=sys.stderr, flush=True)
    note = (
        f"{describe('onnxruntime', 'torch')}; one thread. Nodes are those of the slim file less those of the native "
        "one, after the extended optimisation. All:"
    )
    nodes = [
        (record["case"], record["exporter"], which, ", ".join(f"{op} {n}" for op, n in sorted(record[which].items())))
        for record in records
        for which in ("native", "slim")
    ]
    differences = Section("", HEADER, [row(record) for record in records], note, texts=len(HEADER))
    publish(
        "native", [differences, Section("", ("case", "exporter", "file", "nodes"), nodes, texts=4)], arguments.markdown
    )
    return 0 if all(leaves_nothing_over(record) for record in records) else 1


def measure(name: str, exporter: str, folder: Path, sessions: int, rounds: int) -> Record:
    """Build, export, prune, count and time one case."""
    case = CASES[name]
    files = {which: folder / f"{name}.{exporter}.{which}.onnx" for which in ("dense", "native", "slim")}
    for which, build in (("dense", case.dense), ("native", case.native)):
        if not files[which].exists():
            export(build(), exporter, files[which])
    prune_graph(files["dense"], case.ratio).save(files["slim"])
    timed = [
        compare([files["native"], files["slim"]], batch=1, sequence=case.sequence, threads=1, rounds=rounds, seed=seed)
        for seed in range(sessions)
    ]
    native, slim = (np.concatenate([pair.results[k].samples_ms for pair in timed]) for k in (0, 1))
    return {
        "case": name,
        "exporter": exporter,
        "ratio": paired_ratio(slim, native),
        "milliseconds": [float(np.median(samples)) for samples in (native, slim)],
        **{which: optimized_nodes(files[which]) for which in ("native", "slim")},
    }


def optimized_nodes(path: Path) -> Counter[str]:
    """Nodes by op after ONNX Runtime's extended optimisation."""
    with tempfile.TemporaryDirectory() as folder:
        options = ort.SessionOptions()
        options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_ENABLE_EXTENDED
        options.optimized_model_filepath = str(Path(folder) / "optimized.onnx")
        options.log_severity_level = 4
        ort.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
        return Counter(node.op_type for node in onnx.load(options.optimized_model_filepath).graph.node)


def unfused(counts: Counter[str]) -> Counter[str]:
    """Fused nodes counted as what they were made of."""
    return Counter(part for op, count in counts.items() for part in FUSED.get(op, (op,)) * count)


def leaves_nothing_over(record: Record) -> bool:
    """No computing node that the native file lacks, as many fused ones, no more time as far as the interval tells."""
    native, slim = unfused(record["native"]), unfused(record["slim"])
    more = [op for op in slim if op not in MOVES and slim[op] > native[op]]
    fused = all(record["slim"][op] >= record["native"][op] for op in FUSED)
    return not more and fused and record["ratio"].low <= LIMIT


def row(record: Record) -> tuple[str, ...]:
    """As it is printed: times, and of which ops the slim file has more or fewer nodes."""
    ratio, native, slim = record["ratio"], record["native"], record["slim"]
    nodes = []
    for moving in (False, True):
        changes = [(op, slim[op] - native[op]) for op in sorted(native | slim) if (op in MOVES) is moving]
        nodes.append(", ".join(f"{op} {count:+d}" for op, count in changes if count) or "none")
    times = (f"{value:.2f}" for value in record["milliseconds"])
    return record["case"], record["exporter"], *times, f"{ratio.median:.3f} [{ratio.low:.3f}, {ratio.high:.3f}]", *nodes


if __name__ == "__main__":
    sys.exit(main())
