"""Read the numbers of a weight, also where nodes compute it from initializers (a transposed or a dequantized one)."""

from __future__ import annotations

from collections.abc import Callable, Iterable

import numpy as np
import onnx_ir as ir
from onnx_ir.passes.common import RemoveUnusedNodesPass

from prunegraph.analysis.read_weight import read_weight
from prunegraph.arrays import Array
from prunegraph.errors import PruneGraphError
from prunegraph.runtime.limits import CannotRun
from prunegraph.runtime.session import open_session, run
from prunegraph.runtime.widen import widened


def weight_values(model: ir.Model, names: Iterable[str]) -> dict[str, Array]:
    """The numbers of weights by name, floats no narrower than float32; what depends on an input is left out.

    Args:
        model: A normalized model; it is not changed.
        names: Initializers, or values computed from them.

    Raises:
        CannotRun: ONNX Runtime does not compute one.
    """
    arrays: dict[str, Array] = {}
    computed = []
    produced = {value.name: value for node in model.graph for value in node.outputs}
    for name in dict.fromkeys(names):
        array = _stored(model, name)
        if array is not None:
            arrays[name] = array
        elif name in produced and _constant(produced[name]):
            computed.append(name)
    return arrays | (_computed(model, computed) if computed else {})


def weight_reader(model: ir.Model, names: Iterable[str]) -> Callable[[str], Array | None]:
    """What reads weights by name as `weight_values` gives them, None where there is none.

    Initializers are read when they are asked for: all weights of a residual stream at once are the whole model.

    Args:
        model: A normalized model; it is not changed.
        names: What will be asked for; values computed from initializers are computed now.

    Raises:
        PruneGraphError: ONNX Runtime does not compute one.
    """
    stored = model.graph.initializers
    computed = weight_values(model, (name for name in names if name not in stored))

    def read(name: str) -> Array | None:
        return computed[name] if name in computed else _stored(model, name)

    return read


def _stored(model: ir.Model, name: str) -> Array | None:
    """The numbers of an initializer; None where there is none of that name."""
    value = model.graph.initializers.get(name)
    if value is None or value.const_value is None:
        return None
    array = read_weight(value.const_value)
    return array if array.dtype.kind in "fiu" and array.dtype.itemsize > 2 else array.astype(np.float32)


def _constant(value: ir.Value) -> bool:
    """Whether no graph input has a part in a value."""
    waiting, reached = [value], set[ir.Value]()
    while waiting:
        current = waiting.pop()
        node = current.producer()
        if node is None and current.const_value is None:
            return False
        for operand in node.inputs if node is not None else ():
            if operand is not None and operand not in reached:
                reached.add(operand)
                waiting.append(operand)
    return True


def _computed(model: ir.Model, names: list[str]) -> dict[str, Array]:
    """The values of weights that nodes make of constants.

    Raises:
        PruneGraphError: ONNX Runtime does not run these nodes.
    """
    part = model.clone()
    produced = {value.name: value for node in part.graph for value in node.outputs}
    part.graph.outputs[:] = [produced[name] for name in names]
    RemoveUnusedNodesPass()(part)
    part.graph.inputs.clear()
    try:
        with open_session(widened(part)) as session:
            return dict(zip(names, run(session, {}, names), strict=True))
    except CannotRun as error:
        problem = f"ONNX Runtime does not run what makes the weight {names[0]!r}: {error}"
        raise PruneGraphError(problem, hint="the model does not run either; export it again") from error
