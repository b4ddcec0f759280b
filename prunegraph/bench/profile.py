"""Profile a model by op type or node by node: where ONNX Runtime spends its time on one provider."""

from __future__ import annotations

import json
import tempfile
from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any

import onnx
import onnxruntime as ort

from prunegraph.errors import ModelError, first_line
from prunegraph.runtime.feeds import ID_BOUNDS, random_feeds
from prunegraph.runtime.inputs import session_inputs
from prunegraph.runtime.providers import find_provider
from prunegraph.runtime.sizes_by_role import resolve_sizes

RUNS, WARMUP = 10, 3
_KERNEL = "_kernel_time"


def profile(
    model: bytes | str,
    provider: str = "cpu",
    *,
    batch: int = 1,
    sequence: int = 128,
    sizes: Mapping[str, int] | None = None,
    threads: int = 1,
    **timing: Any,
) -> dict[str, float]:
    """Milliseconds of one run by op type, the most expensive first, after the runtime has fused what it fuses.

    Args:
        model: A serialized model, or the path of a file.
        provider: Short name of the execution provider.
        batch: See `bench.compare`, as what follows.
        sequence: See there.
        sizes: See there.
        threads: See there.
        timing: What else `compare` takes; it does not change the profile.

    Raises:
        ModelError: ONNX Runtime cannot run the model.
    """
    return by_op_type(_events(model, provider, batch, sequence, sizes or {}, threads)[0])


@dataclass(frozen=True, slots=True)
class NodeTime:
    """What one node of the graph takes that ONNX Runtime makes of a model.

    Attributes:
        op_type: Its op.
        ms: Milliseconds of one run.
        inputs: The names of what it reads.
        outputs: The names of what it makes, which fused nodes have from the last one of those that they stand for.
    """

    op_type: str
    ms: float
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]


def node_times(
    model: bytes,
    provider: str = "cpu",
    *,
    batch: int = 1,
    sequence: int = 128,
    sizes: Mapping[str, int] | None = None,
    threads: int = 1,
) -> tuple[NodeTime, ...]:
    """What every node takes after the runtime has fused what it fuses, in the order of the graph.

    Args:
        model: A serialized model.
        provider: Short name of the execution provider.
        batch: See `bench.compare`, as what follows.
        sequence: See there.
        sizes: See there.
        threads: See there.

    Raises:
        ModelError: ONNX Runtime cannot run the model.
    """
    events, optimized = _events(model, provider, batch, sequence, sizes or {}, threads)
    times: dict[str, float] = defaultdict(float)
    for (name, _), milliseconds in _by_node(events).items():
        times[name.removesuffix(_KERNEL)] += milliseconds
    return tuple(
        NodeTime(node.op_type, times[node.name], tuple(node.input), tuple(node.output))
        for node in optimized.graph.node
        if node.name in times
    )


def _events(
    model: bytes | str, provider: str, batch: int, sequence: int, lengths: Mapping[str, int], threads: int
) -> tuple[list[Mapping[str, Any]], onnx.ModelProto]:
    """The events of some runs, and the graph that was run."""
    options = ort.SessionOptions()
    options.intra_op_num_threads, options.inter_op_num_threads = threads, 1
    options.log_severity_level = 4
    options.enable_profiling = True
    with tempfile.TemporaryDirectory() as folder:
        optimized = Path(folder) / "optimized.onnx"
        options.profile_file_prefix = str(Path(folder) / "profile")
        options.optimized_model_filepath = str(optimized)
        try:
            session = ort.InferenceSession(model, options, providers=find_provider(provider).requested(threads))
            specs = session_inputs(session)
            known = resolve_sizes(specs, batch=batch, sequence=sequence, sizes=lengths)
            feeds = random_feeds(specs, known, 0, id_bound=ID_BOUNDS[-1], whole_masks=True)
            for _ in range(WARMUP + RUNS):
                session.run(None, feeds)
            events = json.loads(Path(session.end_profiling()).read_text(encoding="utf-8"))
            return events, onnx.load(optimized, load_external_data=False)
        except Exception as error:  # onnxruntime's error classes have no base of their own
            hint = "time it with `prunegraph bench`, which says more"
            raise ModelError(f"ONNX Runtime cannot profile the model: {first_line(error)}", hint=hint) from error


def by_op_type(events: list[Mapping[str, Any]]) -> dict[str, float]:
    """Milliseconds of one run by op type, from the events of a profile; the first runs are left out.

    >>> kernel = {"cat": "Node", "name": "a_kernel_time", "dur": 2000, "args": {"op_name": "MatMul"}}
    >>> by_op_type([kernel] * (WARMUP + RUNS))
    {'MatMul': 2.0}
    """
    total: dict[str, float] = defaultdict(float)
    for (_, op_type), milliseconds in _by_node(events).items():
        total[op_type] += milliseconds
    return dict(sorted(total.items(), key=lambda item: -item[1]))


def _by_node(events: list[Mapping[str, Any]]) -> dict[tuple[str, str], float]:
    """Milliseconds of one run, the median, by name of the event and op type; the first runs are left out."""
    by_node: dict[tuple[str, str], list[float]] = defaultdict(list)
    for event in events:
        if event.get("cat") == "Node" and str(event.get("name", "")).endswith(_KERNEL):
            by_node[str(event["name"]), str(event["args"]["op_name"])].append(float(event["dur"]) / 1000)
    medians = {}
    for key, times in by_node.items():
        each = len(times) // (WARMUP + RUNS) or 1  # in a loop a node runs several times
        runs = [sum(times[start : start + each]) for start in range(WARMUP * each, len(times), each)]
        medians[key] = median(runs) if runs else 0.0
    return medians
