"""One small pure function an op, a file a family; importing this package fills the registry."""

from prunegraph.analysis.rules import (
    attention,
    blocks,
    contract,
    conv,
    elementwise,
    fused,
    norm,
    quant,
    reduce,
    rotary,
    select,
    shape,
    sizes,
)

__all__ = [
    "attention",
    "blocks",
    "contract",
    "conv",
    "elementwise",
    "fused",
    "norm",
    "quant",
    "reduce",
    "rotary",
    "select",
    "shape",
    "sizes",
]
