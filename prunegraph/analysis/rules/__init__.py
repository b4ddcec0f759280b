"""One small pure function an op, a file a family; importing this package fills the registry."""

from prunegraph.analysis.rules import (
    attention,
    contract,
    conv,
    elementwise,
    fused,
    norm,
    reduce,
    rotary,
    select,
    shape,
    sizes,
)

__all__ = [
    "attention",
    "contract",
    "conv",
    "elementwise",
    "fused",
    "norm",
    "reduce",
    "rotary",
    "select",
    "shape",
    "sizes",
]
