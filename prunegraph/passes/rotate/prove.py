"""Proof that a turned model computes what it did before."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import onnx_ir as ir

from prunegraph.analysis.analyze import Analysis
from prunegraph.passes.prove.verify import TOLERANCE, verify
from prunegraph.runtime.feeds import Feeds

ROUNDINGS = 16
"""How many roundings of a weight's format an output may be off by, where weights are stored in 16 bits."""


_EPSILON = {ir.DataType.FLOAT16: 2.0**-10, ir.DataType.BFLOAT16: 2.0**-7}


def rotation_error(
    original: ir.Model,
    turned: ir.Model,
    analysis: Analysis,
    feeds: Iterable[Feeds] | None = None,
    sizes: Mapping[str, int] | None = None,
) -> float:
    """Largest difference of any output, relative to that output's scale, between a model and what was turned.

    Args:
        original: The model, as it was given or normalized.
        turned: The normalized model, turned.
        analysis: Its analysis.
        feeds: Inputs to compare on; random ones if None.
        sizes: Sizes of dynamic dims by name, for random inputs.

    Raises:
        PruneGraphError: ONNX Runtime cannot run the original.
        VerificationFailed: it cannot run the other.
    """
    return verify(original, turned, turned, analysis, {}, feeds, sizes).normalize_error


def tolerance(original: ir.Model, turned: ir.Model) -> float:
    """How large that difference may be: more where turned weights are stored in fewer bits."""
    allowed = TOLERANCE
    for name, value in turned.graph.initializers.items():
        before = original.graph.initializers.get(name)
        if before is None or before.const_value is value.const_value or value.dtype is None:
            continue
        allowed = max(allowed, ROUNDINGS * _EPSILON.get(value.dtype, 0.0))
    return allowed
