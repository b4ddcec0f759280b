"""Nest: bodies stand in their Loops and Scans again, branches in their Ifs, as callers get a model."""

from __future__ import annotations

import onnx_ir as ir

from prunegraph.passes.rewrite.nest_branches import nest_branches
from prunegraph.runtime.nest_bodies import nest_bodies


def nest(model: ir.Model) -> ir.Model:
    """The same model, whatever `normalize.flatten` put among the nodes of its graph back where it was, in place."""
    return nest_branches(nest_bodies(model))
