"""Fix the value of an input: what is computed from it becomes constant, and an If that hangs on it is inlined."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import onnx_ir as ir

from prunegraph.errors import UsageError
from prunegraph.runtime.edit import Editor


def fix_inputs(model: ir.Model, values: Mapping[str, float]) -> ir.Model:
    """A copy of a model in which some inputs have no say any more: they stay, and constants are read instead.

    Args:
        model: It is not changed.
        values: By the name of an input, the number that it holds everywhere.

    Raises:
        UsageError: there is no such input, its length varies, or it is of a type that does not hold the number.
    """
    if not values:
        return model
    fixed = model.clone()
    fixed.meta.update(model.meta)
    editor = Editor(fixed.graph)
    inputs = {value.name or "": value for value in fixed.graph.inputs}
    for name, number in values.items():
        if name not in inputs:
            raise UsageError(f"the model has no input {name!r}", hint=f"there are {', '.join(inputs)}")
        old = inputs[name]
        new = editor.constant(_array(old, number), f"{name}/fixed")
        old.replace_all_uses_with(new, replace_graph_outputs=False)
    return fixed


def _array(value: ir.Value, number: float) -> np.ndarray:
    shape = value.shape
    if value.dtype is None or shape is None or not all(isinstance(dim, int) for dim in shape):
        hint = "fix inputs of static shape; --size NAME=N fixes a length"
        raise UsageError(f"the input {value.name!r} cannot be fixed: how long it is varies", hint=hint)
    array = np.full([int(dim) for dim in shape if isinstance(dim, int)], number).astype(value.dtype.numpy())
    if array.size and not np.isclose(float(array.reshape(-1)[0]), number, rtol=1e-3):
        problem = f"{number} is no {value.dtype.name} as the input {value.name!r} holds"
        raise UsageError(problem, hint="give another number")
    return array
