"""How a model is quantized, and how far its outputs may move."""

from __future__ import annotations

import math
from dataclasses import dataclass

from prunegraph.errors import UsageError

METHODS = ("dynamic", "static", "matmul4")

LIMITS = {"float16": 0.02, "dynamic": 0.2, "static": 0.3, "matmul4": 0.3}
"""By method the largest error of an output, relative to its own size, that is not refused.

They catch what is broken (a scale of the wrong axis, an overflow, a dead layer), not what costs accuracy: measure that.
"""


@dataclass(frozen=True, slots=True)
class Quantize:
    """Store a model in fewer bits, as a step after the proof or by itself.

    >>> Quantize().chosen, Quantize(fp16=True).chosen, Quantize("matmul4", fp16=True).chosen
    (('dynamic',), ('float16',), ('float16', 'matmul4'))

    Attributes:
        method: "dynamic": int8 weights, activations by the range of each run; "static": int8 weights and activations,
            ranges from data, as QuantizeLinear and DequantizeLinear pairs; "matmul4": 4-bit weights of matrix products
            (MatMulNBits). None: dynamic, or with `fp16` nothing but that.
        fp16: Store floats in 16 bits; inputs and outputs keep their types.
        per_channel: One scale for each output channel of a weight, instead of one a weight.
        block_size: So many numbers along the summed axis share a scale of `matmul4`.
        max_error: The largest relative error of an output that is not refused; None: see `LIMITS`.
    """

    method: str | None = None
    fp16: bool = False
    per_channel: bool = True
    block_size: int = 32
    max_error: float | None = None

    def __post_init__(self) -> None:
        """Check that the options go together.

        Raises:
            UsageError: they do not.
        """
        if self.method is not None and self.method not in METHODS:
            hint = f"choose one of {', '.join(METHODS)}"
            raise UsageError(f"there is no way to quantize called {self.method!r}", hint=hint)
        if self.fp16 and self.method in ("dynamic", "static"):
            hint = "choose int8 or float16; matmul4 goes with float16"
            raise UsageError(f"{self.method} quantization works on float32 models", hint=hint)
        if self.block_size < 16 or self.block_size & (self.block_size - 1):
            raise UsageError(f"a block of {self.block_size} numbers", hint="give a power of two of at least 16, as 32")
        if self.max_error is not None and not 0 <= self.max_error < math.inf:
            raise UsageError(f"the largest error is {self.max_error}", hint="give a share of the output, such as 0.1")

    @property
    def chosen(self) -> tuple[str, ...]:
        """The methods that run, in order."""
        if self.fp16:
            return ("float16", *([self.method] if self.method else []))
        return (self.method or "dynamic",)

    @property
    def limit(self) -> float:
        """The largest relative error of an output that is not refused."""
        return max(LIMITS[name] for name in self.chosen) if self.max_error is None else self.max_error


def check_data(options: Quantize, data: object | None) -> None:
    """Refuse static quantization without data before any work.

    Raises:
        UsageError: there are none.
    """
    if data is None and "static" in options.chosen:
        hint = "give some (data=…, --data FILE), or take the method dynamic, which needs none"
        raise UsageError("static quantization takes the ranges of activations from data", hint=hint)
