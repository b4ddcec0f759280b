"""One small pure function an op, a file a family; importing this package fills the registry."""

from prunegraph.analysis.rules import (
    contract,
    conv,
    elementwise,
    norm,
    reduce,
    select,
    shape,
    sizes,
)

__all__ = ["contract", "conv", "elementwise", "norm", "reduce", "select", "shape", "sizes"]
