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
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnx
import onnxruntime as ort
import torch

from benchmarks.harness import Section, describe, study_parser, write_page
from benchmarks.zoo.model import EXPORTERS, export
from benchmarks.zoo.native import CASES, Case
from prunegraph import prune_graph
from prunegraph.bench import Comparison, PairedRatio, compare
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


@dataclass(frozen=True, slots=True)
class Outcome:
    """What was seen of one case and exporter.

    Attributes:
        case: Name of the case.
        exporter: Name of the exporter.
        native: Nodes by op of the native file, optimized.
        slim: The same of the slim file.
        ratio: Time of the slim file over that of the native one.
        milliseconds: Median of the native file and of the slim one.
    """

    case: str
    exporter: str
    native: Counter[str]
    slim: Counter[str]
    ratio: PairedRatio
    milliseconds: tuple[float, float]

    @property
    def same_work(self) -> bool:
        """Whether the slim file has no computing node that the native one lacks, and as many fused ones."""
        native, slim = unfused(self.native), unfused(self.slim)
        more = [op for op in slim if op not in MOVES and slim[op] > native[op]]
        return not more and all(self.slim[op] >= self.native[op] for op in FUSED)

    def differences(self, *, computing: bool) -> str:
        """Ops of which the slim file has more or fewer nodes."""
        ops = [op for op in sorted(self.native | self.slim) if (op in MOVES) is not computing]
        changes = [(op, self.slim[op] - self.native[op]) for op in ops]
        return ", ".join(f"{op} {count:+d}" for op, count in changes if count) or "none"


def main() -> int:
    """Measure, print, and exit with 1 where a slim file costs more than a native one."""
    parser = study_parser("benchmarks.native", __doc__)
    parser.add_argument("--only", nargs="+", choices=CASES, default=list(CASES), help="these cases (default: all)")
    parser.add_argument("--exporters", nargs="+", choices=EXPORTERS, default=list(EXPORTERS))
    parser.add_argument("--sessions", type=int, default=5, help="pairs of sessions that are timed (default 5)")
    parser.add_argument("--rounds", type=int, default=60, help="of each pair (default 60)")
    parser.add_argument("--folder", type=Path, help="keep the models here, and take those that are here already")
    parser.add_argument("--markdown", type=Path, metavar="FILE", help="also write the table as Markdown")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    outcomes = []
    with tempfile.TemporaryDirectory(prefix="prunegraph-") as temporary:
        folder = arguments.folder or Path(temporary)
        folder.mkdir(parents=True, exist_ok=True)
        for name in arguments.only:
            for exporter in arguments.exporters:
                outcome, timed = measure(name, exporter, folder, arguments.sessions, arguments.rounds)
                outcomes.append(outcome)
                print(*row(outcome), sep="  |  ", file=sys.stderr, flush=True)
    machine = f"{describe(timed.environment, 'onnxruntime')}, torch {torch.__version__}; one thread"
    table = Section("Slim beside native", HEADER, [row(outcome) for outcome in outcomes], machine, texts=len(HEADER))
    table.show()
    if arguments.markdown:
        write_page(arguments.markdown, page(table, outcomes))
    return 0 if all(holds(outcome) for outcome in outcomes) else 1


def measure(name: str, exporter: str, folder: Path, sessions: int, rounds: int) -> tuple[Outcome, Comparison]:
    """Build, export, prune, count and time one case."""
    case = CASES[name]
    dense, native = (written(case, name, exporter, which, folder) for which in ("dense", "native"))
    result = prune_graph(dense, case.ratio)
    slim = folder / f"{name}.{exporter}.slim.onnx"
    result.save(slim)
    timed = [
        compare([native, slim], batch=1, sequence=case.sequence, threads=1, rounds=rounds, seed=seed)
        for seed in range(sessions)
    ]
    first, second = (np.concatenate([pair.results[k].samples_ms for pair in timed]) for k in (0, 1))
    outcome = Outcome(
        case=name,
        exporter=exporter,
        native=optimized(native),
        slim=optimized(slim),
        ratio=paired_ratio(second, first),
        milliseconds=(float(np.median(first)), float(np.median(second))),
    )
    return outcome, timed[0]


def written(case: Case, name: str, exporter: str, which: str, folder: Path) -> Path:
    """The exported file of the dense or the native model."""
    path = folder / f"{name}.{exporter}.{which}.onnx"
    if not path.exists():
        export(case.dense() if which == "dense" else case.native(), exporter, path)
    return path


def optimized(path: Path) -> Counter[str]:
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
    plain: Counter[str] = Counter()
    for op, count in counts.items():
        for part in FUSED.get(op, (op,)):
            plain[part] += count
    return plain


def holds(outcome: Outcome) -> bool:
    """Whether nothing is left over: no more computing nodes, and no more time, as far as the interval tells."""
    return outcome.same_work and outcome.ratio.low <= LIMIT


HEADER = ("case", "exporter", "ms, native", "ms, slim", "slim / native", "computing nodes", "moving nodes")


def row(outcome: Outcome) -> tuple[str, ...]:
    """As it is printed."""
    ratio = outcome.ratio
    return (
        outcome.case,
        outcome.exporter,
        *(f"{value:.2f}" for value in outcome.milliseconds),
        f"{ratio.median:.3f} [{ratio.low:.3f}, {ratio.high:.3f}]",
        outcome.differences(computing=True),
        outcome.differences(computing=False),
    )


def page(table: Section, outcomes: Sequence[Outcome]) -> list[str]:
    """For the documentation: the table, and all nodes by op."""
    counted = [
        (outcome.case, outcome.exporter, which, ", ".join(f"{op} {count}" for op, count in sorted(counts.items())))
        for outcome in outcomes
        for which, counts in (("native", outcome.native), ("slim", outcome.slim))
    ]
    return [
        "# What pruning leaves over",
        "",
        "Made by `python -m benchmarks.native --markdown docs/native.md`.",
        "",
        f"{table.note}.",
        "",
        *table.table(),
        "",
        "Nodes are those of the slim file less those of the native one, after the extended optimisation. All:",
        "",
        *Section("", ("case", "exporter", "file", "nodes"), counted, texts=4).table(),
        "",
    ]


if __name__ == "__main__":
    sys.exit(main())
