"""Flatten: the nodes of branches and of bodies stand in the graph; `rewrite.nest` puts them back."""

from __future__ import annotations

import onnx_ir as ir

from prunegraph.analysis.bodies import is_end
from prunegraph.passes.normalize.flatten_bodies import flatten_bodies
from prunegraph.passes.normalize.flatten_branches import flatten_branches

FLATTENINGS = (flatten_branches, flatten_bodies)
"""One after the other; each puts nodes into the graph in place, and says whether there were any."""


def flatten_as(slim: ir.Model, normalized: ir.Model) -> bool:
    """Flatten a slim model in place as the model was that it comes from.

    Bodies stay in their Loops where they stayed there, as where a Loop may never end: flat, it has no limit of time.

    Args:
        slim: Nested, as callers get it.
        normalized: What it comes from, as `normalize` left it.

    Returns:
        Whether there was anything to flatten.
    """
    branches = flatten_branches(slim)
    return (any(map(is_end, normalized.graph)) and flatten_bodies(slim)) or branches
