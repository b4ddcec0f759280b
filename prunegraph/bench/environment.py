"""The environment of a benchmark: processor, GPU and versions; never a host or user name."""

from __future__ import annotations

import os
import platform
import re
from pathlib import Path

import numpy as np
import onnxruntime as ort

from prunegraph.installed import installed_version


def environment() -> dict[str, str | int]:
    """CPU model, number of logical cores, system, and versions."""
    return {
        "cpu": cpu_model(),
        "cores": os.cpu_count() or 0,
        "system": platform.system(),
        "machine": platform.machine(),
        "python": platform.python_version(),
        "onnxruntime": str(ort.__version__),  # not from the metadata: the wheel has another name for each provider
        "numpy": np.__version__,
        "prunegraph": installed_version(otherwise="unknown"),
    }


def peak_memory_mib(proc: Path = Path("/proc")) -> float | None:
    """The most memory that this process had so far; None where the system does not tell."""
    status = proc / "self" / "status"  # what getrusage says on Linux may be what the parent had
    if status.exists() and (match := re.search(r"^VmHWM:\s*(\d+) kB", status.read_text(), re.MULTILINE)):
        return int(match[1]) / 2**10
    try:
        import resource
    except ImportError:  # Windows
        return None
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak / (2**20 if platform.system() == "Darwin" else 2**10)


def cpu_model(proc: Path = Path("/proc")) -> str:
    """The processor's name, or the board's where the processor does not tell (ARM), or the architecture."""
    cpuinfo, board = proc / "cpuinfo", proc / "device-tree" / "model"
    if cpuinfo.exists() and (match := re.search(r"^model name\s*:\s*(.+)$", cpuinfo.read_text(), re.MULTILINE)):
        return match[1].strip()
    if board.exists():
        return board.read_text().strip("\0\n ")
    return platform.processor() or platform.machine()
