"""The other side of `bench.apart`: one process that times models on one provider, or sees what one model takes.

It runs in any Python that has numpy, onnx, onnx-ir and the onnxruntime of the provider.
"""

from __future__ import annotations

import dataclasses
import json
import sys
import time
from pathlib import Path
from typing import Any

from prunegraph.bench.compare import compare, start_all
from prunegraph.bench.environment import peak_memory_mib
from prunegraph.bench.results import Alone
from prunegraph.errors import PruneGraphError
from prunegraph.runtime.on_provider import load
from prunegraph.runtime.plugin import Plugin
from prunegraph.runtime.providers import Provider, require_available


def main(request_path: str, answer_path: str) -> None:
    """Do what the request says, and write the answer: a result, or the error that the caller raises again."""
    request = json.loads(Path(request_path).read_text(encoding="utf-8"))
    answer: dict[str, Any]
    try:
        answer = {"result": _DO[request["do"]](request)}
    except PruneGraphError as error:
        answer = {"error": [type(error).__name__, error.message, error.hint]}
    Path(answer_path).write_text(json.dumps(answer), encoding="utf-8")


def _provider(request: dict[str, Any]) -> Provider:
    stated = dict(request["provider"])
    plugin = stated.pop("plugin")
    return Provider(**{**stated, "after": tuple(stated["after"])}, plugin=plugin and Plugin(**plugin))


def _probe(request: dict[str, Any]) -> dict[str, Any]:
    require_available(_provider(request))
    return {}


def _time(request: dict[str, Any]) -> dict[str, Any]:
    comparison = compare(
        request["models"],
        names=request["names"],
        providers=[_provider(request)],
        progress=_report,
        **request["settings"],
    )
    return comparison.to_dict(samples=True)


def _weigh(request: dict[str, Any]) -> dict[str, Any]:
    """A model alone, for the first time: what it takes to load, to compile and run once, and of memory."""
    before, settings = peak_memory_mib(), request["settings"]
    model = load(request["model"], request["name"], _provider(request), settings["threads"])
    ((_, first_run_ms),), _ = start_all([model], request["sizes"], settings["seed"])
    alone = Alone(model.load_seconds, first_run_ms, peak_memory_mib(), before)
    return dataclasses.asdict(alone)


def _report(what: str, done: int, total: int) -> None:
    """Tell the caller, and wait until it has shown it: nothing of that runs beside what is timed."""
    now = time.monotonic()
    if done not in (0, total) and now - _last[0] < 1:
        return
    _last[0] = now
    print(json.dumps({"progress": [what, done, total]}), flush=True)
    sys.stdin.readline()


_last = [0.0]
_DO = {"probe": _probe, "time": _time, "weigh": _weigh}
