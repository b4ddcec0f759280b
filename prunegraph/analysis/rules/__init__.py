"""One small pure function an op, a file a family; importing this package fills the registry."""

from prunegraph.analysis.rules import (
    attention,
    blocks,
    contract,
    conv,
    data,
    elementwise,
    fused,
    lengths,
    norm,
    quant,
    recurrent,
    reduce,
    rotary,
    select,
    shape,
    spatial,
)

__all__ = [
    "attention",
    "blocks",
    "contract",
    "conv",
    "data",
    "elementwise",
    "fused",
    "lengths",
    "norm",
    "quant",
    "recurrent",
    "reduce",
    "rotary",
    "select",
    "shape",
    "spatial",
]
