"""What the software of common devices can read."""

from __future__ import annotations

from dataclasses import dataclass

from prunegraph.errors import UsageError


@dataclass(frozen=True, slots=True)
class Stack:
    """A device's software, as it is installed.

    Attributes:
        name: What it is called on the command line.
        opset: The newest opset that its ONNX Runtime is sure to read.
        ir_version: The newest version of the file format that it reads.
        python: The version of Python.
        source: Where an ONNX Runtime for it comes from.
        contrib: Whether its ONNX Runtime knows the 4-bit products of `prunegraph quantize` (1.17 and newer).
    """

    name: str
    opset: int
    ir_version: int
    python: str
    source: str
    contrib: bool = True


_ZOO = "the wheel of NVIDIA's Jetson Zoo page for this JetPack and Python"
_LAB = "onnxruntime-gpu from the Jetson AI Lab index ({}); the wheel on PyPI has no code for this GPU"

STACKS = {
    stack.name: stack
    for stack in (
        Stack("jetpack4.6", 15, 8, "3.6", _ZOO, contrib=False),
        Stack("jetpack5.1", 17, 8, "3.8", _ZOO, contrib=False),
        Stack("jetpack6.2", 20, 9, "3.10", _LAB.format("jp6/cu126")),
        Stack("jetpack7", 22, 10, "3.12", _LAB.format("sbsa/cu130")),
        Stack("raspberrypi", 22, 10, "3.11", "pip install onnxruntime numpy (64-bit Raspberry Pi OS)"),
    )
}


def find_stack(name: str) -> Stack:
    """The stack of this name.

    Raises:
        UsageError: there is none.
    """
    stack = STACKS.get(name.strip().lower())
    if stack is None:
        raise UsageError(f"there is no stack {name!r}", hint=f"known are: {', '.join(STACKS)}")
    return stack
