"""What a child process of the second zoo does: have one model written, or prune one file."""

from __future__ import annotations

import json
import os
import resource
import subprocess
from collections.abc import Sequence
from pathlib import Path

from benchmarks.coverage_case import run_case
from benchmarks.exporters.environments import EXPORTERS, python_of
from benchmarks.harness import Record

ROOT = Path(__file__).resolve().parents[2]
MEMORY = 10 << 30
"""Bytes of address space for one file: a run that wants more fails alone."""
ANSWER = '{"model": '
Cases = dict[tuple[str, str], Record]
"""By exporter, and model or file."""


def make_files(environments: Path, folder: Path, exporter: str, models: Sequence[str], timeout: float) -> Cases:
    """Let a process of the exporter's environment write models; one that it dies of is left out in the next."""
    todo, records = list(models), Cases()
    variables = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1"}
    start = [str(python_of(environments, EXPORTERS[exporter][1])), "-m", "benchmarks.exporters.make"]
    while todo:
        command = [*start, exporter, str((folder / exporter).absolute()), *todo]
        limit = timeout * len(todo)
        try:
            result = subprocess.run(command, env=variables, capture_output=True, text=True, timeout=limit, check=False)
            output, why = result.stdout, f"exit {result.returncode}: {(result.stderr.splitlines() or [''])[-1][:200]}"
        except subprocess.TimeoutExpired as error:
            output, why = (error.stdout or b"").decode(errors="replace"), f"took longer than {limit:.0f} s"
        for line in output.splitlines():
            if line.startswith(ANSWER):
                answer = json.loads(line)
                records[exporter, answer["model"]] = answer["record"]
                todo.remove(answer["model"])
        if todo:
            records[exporter, todo.pop(0)] = {"failure": why}
    return records


def prune_file(file: Path) -> Record:
    """What the coverage study makes of one file; one that ONNX Runtime does not load is no fault of the pruner."""
    import onnxruntime as ort

    resource.setrlimit(resource.RLIMIT_AS, (MEMORY, MEMORY))
    options = ort.SessionOptions()
    options.log_severity_level = 4
    try:
        ort.InferenceSession(file, options, providers=["CPUExecutionProvider"])
    except Exception as error:
        line = str(error).splitlines()[0]
        return {"failure": f"not made: {(line.partition(', Error ')[2] or line)[:160]}"}
    return run_case(file, "as exported")
