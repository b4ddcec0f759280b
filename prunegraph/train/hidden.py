"""Find hidden states that a pruned model and its teacher have in common, for distillation."""

from __future__ import annotations

from collections.abc import Sequence

import onnx_ir as ir

from prunegraph.analysis.ops import traits_of
from prunegraph.observe.attention_sites import ObservedValue
from prunegraph.observe.with_outputs import with_outputs


def shared_states(student: ir.Model, teacher: ir.Model) -> tuple[str, ...]:
    """Names of the sums of two learnt activations, which end the blocks of a residual network, that both have.

    Nothing is said about shapes: a width that was pruned differs.

    Args:
        student: The pruned model.
        teacher: The model that it was made from.
    """
    there = set(_sums(teacher))
    return tuple(name for name in _sums(student) if name in there)


def with_states(model: ir.Model, names: Sequence[str]) -> ir.Model:
    """A copy that puts these values out too, after its own outputs."""
    return with_outputs(model, [ObservedValue(name) for name in names])


def _sums(model: ir.Model) -> list[str]:
    """Sums of which two operands come out of weights: a bias or a mask does not make one."""
    learnt: set[ir.Value] = set()
    sums = []
    for node in model.graph:
        operands = [value for value in node.inputs if value is not None]
        learnt_operands = [value for value in operands if value in learnt]
        if traits_of(node).adds and len(set(learnt_operands)) > 1 and node.outputs[0].name:
            sums.append(node.outputs[0].name)
        if learnt_operands or any(_is_weight(value) for value in operands):
            learnt.update(node.outputs)
    return sums


def _is_weight(value: ir.Value) -> bool:
    tensor = value.const_value
    return value.is_initializer() and tensor is not None and tensor.dtype.is_floating_point() and len(tensor.shape) > 1
