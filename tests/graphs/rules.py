"""What the tests of axis rules share: groups as a line of text, the law on every group alone and on all at once."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable
from types import ModuleType

import numpy as np
import onnx
import onnx_ir as ir

from prunegraph.analysis.analyze import Analysis, analyze_graph
from prunegraph.analysis.lengths import Lengths
from prunegraph.analysis.selection import Selection
from prunegraph.passes.normalize import Normalized, normalize
from prunegraph.passes.prove.verify import Verification, verify
from prunegraph.passes.rewrite.cleanup import cleanup
from prunegraph.passes.rewrite.shrink import shrink
from tests.graphs.selections import parts

ROUNDING = 2e-5
MOVED = 1e-3

Found = tuple[ir.Model, Normalized, Analysis]


def makers(module: ModuleType) -> dict[str, Callable[[], onnx.ModelProto]]:
    """Every function of a module that makes a model, by name."""
    functions = inspect.getmembers(module, inspect.isfunction)
    return {
        name: make
        for name, make in functions
        if make.__module__ == module.__name__ and not name.startswith("_") and not inspect.signature(make).parameters
    }


@functools.cache
def normal_form(make: Callable[[], onnx.ModelProto], allow_io: tuple[str, ...] = ()) -> Found:
    """A model, its normal form and its groups."""
    model = ir.from_proto(make())
    normal = normalize(model)
    return model, normal, analyze_graph(normal.model.graph, normal.facts, allow_io)


def in_words(analysis: Analysis) -> str:
    """Kind and units of every group in order, `/rows` where it is ragged, `~` where it is inexact."""
    return ", ".join(
        f"{group.kind} {group.units}{''.join(f'/{n}' for n in group.rows)}{'' if group.exact else '~'}"
        for group in analysis.groups
    )


def check_parts(model: ir.Model, normal: Normalized, analysis: Analysis) -> None:
    """`check` for a part of each group alone and of all of them."""
    for selection in parts(analysis.groups, np.random.default_rng(0)):
        check(model, normal, analysis, selection)


def check(model: ir.Model, normal: Normalized, analysis: Analysis, selection: Selection) -> Verification:
    """Shrink and verify, and assert that it is proved."""
    keeps = selection.keeps(analysis.groups)
    small = shrink(normal.model, analysis.solution, keeps).model
    slim = cleanup(small, analysis.solution, Lengths(analysis.solution, keeps))
    onnx.checker.check_model(ir.to_proto(slim))
    result = verify(model, normal.model, slim, analysis, keeps)
    assert result.ok and result.max_rel_error < ROUNDING and result.normalize_error < ROUNDING, (selection.keep, result)
    assert result.moved > MOVED, (list(selection.keep), result)
    return result
