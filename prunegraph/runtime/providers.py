"""Execution providers that the data are run on, by ONNX Runtime's names or their short forms."""

from __future__ import annotations

from collections.abc import Sequence

import onnxruntime as ort

from prunegraph.errors import UsageError

CPU = ("CPUExecutionProvider",)
_ENDING = "ExecutionProvider"


def execution_providers(names: Sequence[str]) -> tuple[str, ...]:
    """ONNX Runtime's names of providers, the CPU last for the nodes that no other takes.

    >>> execution_providers(["cpu"]), execution_providers([])
    (('CPUExecutionProvider',), ('CPUExecutionProvider',))

    Args:
        names: `cuda` or `CUDAExecutionProvider`, the first choice first; empty for the CPU.

    Raises:
        UsageError: ONNX Runtime knows no such provider, or this one was built without it.
    """
    known = {_short(name): name for name in ort.get_all_providers()}
    available = ort.get_available_providers()
    found = []
    for name in names:
        full = known.get(_short(name.strip()))
        if full is None:
            hint = f"known are {', '.join(known)}"
            raise UsageError(f"unknown execution provider {name!r}", hint=hint)
        if full not in available:
            there = ", ".join(map(_short, available))
            hint = f"it has {there}; others come with other packages, such as onnxruntime-gpu in place of onnxruntime"
            raise UsageError(f"this onnxruntime {ort.__version__} has no provider {_short(full)}", hint=hint)
        found.append(full)
    return tuple(dict.fromkeys([*found, *CPU]))


def _short(name: str) -> str:
    return name.lower().removesuffix(_ENDING.lower())
