"""Profile a model by op type: where ONNX Runtime spends its time on one provider."""

from __future__ import annotations

import json
import tempfile
from collections import defaultdict
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import onnxruntime as ort

from prunegraph.errors import ModelError, first_line
from prunegraph.runtime.feeds import ID_BOUNDS, random_feeds
from prunegraph.runtime.inputs import session_inputs
from prunegraph.runtime.providers import find_provider
from prunegraph.runtime.sizes_by_role import resolve_sizes

RUNS, WARMUP = 10, 3


def profile(
    model: bytes,
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
        model: A serialized model.
        provider: Short name of the execution provider.
        batch: See `bench.compare`, as what follows.
        sequence: See there.
        sizes: See there.
        threads: See there.
        timing: What else `compare` takes; it does not change the profile.

    Raises:
        ModelError: ONNX Runtime cannot run the model.
    """
    with tempfile.TemporaryDirectory() as folder:
        options = ort.SessionOptions()
        options.intra_op_num_threads, options.inter_op_num_threads = threads, 1
        options.log_severity_level = 4
        options.enable_profiling = True
        options.profile_file_prefix = str(Path(folder) / "profile")
        try:
            session = ort.InferenceSession(model, options, providers=find_provider(provider).requested(threads))
            specs = session_inputs(session)
            lengths = resolve_sizes(specs, batch=batch, sequence=sequence, sizes=sizes)
            feeds = random_feeds(specs, lengths, 0, id_bound=ID_BOUNDS[-1], whole_masks=True)
            for _ in range(WARMUP + RUNS):
                session.run(None, feeds)
            events = json.loads(Path(session.end_profiling()).read_text(encoding="utf-8"))
        except Exception as error:  # onnxruntime's error classes have no base of their own
            hint = "time it with `prunegraph bench`, which says more"
            raise ModelError(f"ONNX Runtime cannot profile the model: {first_line(error)}", hint=hint) from error
    return by_op_type(events)


def by_op_type(events: list[Mapping[str, Any]]) -> dict[str, float]:
    """Milliseconds of one run by op type, from the events of a profile; the first runs are left out.

    >>> kernel = {"cat": "Node", "name": "a_kernel_time", "dur": 2000, "args": {"op_name": "MatMul"}}
    >>> by_op_type([kernel] * (WARMUP + RUNS))
    {'MatMul': 2.0}
    """
    by_node: dict[tuple[str, str], list[float]] = defaultdict(list)
    for event in events:
        if event.get("cat") == "Node" and str(event.get("name", "")).endswith("_kernel_time"):
            by_node[str(event["name"]), str(event["args"]["op_name"])].append(float(event["dur"]) / 1000)
    total: dict[str, float] = defaultdict(float)
    for (_, op_type), times in by_node.items():
        each = len(times) // (WARMUP + RUNS) or 1
        total[op_type] += sum(times[WARMUP * each :]) / RUNS
    return dict(sorted(total.items(), key=lambda item: -item[1]))
