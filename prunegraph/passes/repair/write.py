"""Write re-fitted weights and biases into a model: changes before it shrinks, new biases after."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx_ir as ir

from prunegraph.analysis.analyze import Analysis
from prunegraph.analysis.slots import Keeps, kept_positions
from prunegraph.arrays import Array, Floats
from prunegraph.errors import UsageError
from prunegraph.passes.repair.fit import Change
from prunegraph.passes.repair.sites import RepairSite
from prunegraph.runtime.edit import Editor

Changes = Sequence[tuple[Sequence[RepairSite], Change]]


@dataclass(frozen=True, slots=True)
class Written:
    """Initializers of the slim model that a repair has changed, and those that it has added as biases."""

    changed: tuple[str, ...] = ()
    added: tuple[str, ...] = ()

    def __bool__(self) -> bool:
        return bool(self.changed or self.added)

    def to_plan(self) -> dict[str, list[str]]:
        """What a plan file says of it, under "repair"."""
        return {"changed": list(self.changed), "added": list(self.added)}

    @staticmethod
    def from_plan(plan: Mapping[str, Any]) -> Written:
        """What the JSON of a plan file says was repaired; nothing if it says nothing.

        Raises:
            UsageError: it cannot be understood.
        """
        stated = plan.get("repair", {})
        lists = [stated.get(key, []) if isinstance(stated, dict) else None for key in ("changed", "added")]
        if not all(isinstance(names, list) and all(isinstance(name, str) for name in names) for names in lists):
            raise UsageError("the plan does not say what was repaired: no lists of names", hint="prune again")
        return Written(*(tuple(names or ()) for names in lists))


def amend(model: ir.Model, changes: Changes) -> list[tuple[RepairSite, Floats]]:
    """Add changes to the weights and biases of a model, in place and at full size.

    Returns:
        For uses of a weight that have no bias of their own, the one that they need.
    """
    makers = {node.outputs[0].name: node for node in model.graph if node.outputs}
    missing: list[tuple[RepairSite, Floats]] = []
    for sites, change in changes:
        weight = model.graph.initializers[sites[0].weight]
        if change.weight is not None:
            assert weight.const_value is not None
            _add_to(weight, sites[0].weight_of(change.weight, tuple(weight.const_value.shape.numpy())))
        biases = [own_bias(makers[site.y], len(change.bias)) for site in sites]
        uses = Counter(value.name for value in biases if value is not None)
        done: set[str | None] = set()
        for site, value in zip(sites, biases, strict=True):
            if value is None or len(list(value.uses())) != uses[value.name]:  # somebody else's too
                missing.append((site, change.bias))
            elif value.name not in done:
                _add_to(value, change.bias)
                done.add(value.name)
    return missing


def insert(
    slim: ir.Model, analysis: Analysis, keeps: Keeps, missing: Sequence[tuple[RepairSite, Floats]]
) -> tuple[str, ...]:
    """Give biases to nodes of a model that Shrink has made, in place; the names of these biases.

    An op that takes a bias is given it, behind others stands an Add.
    """
    makers = {node.outputs[0].name: node for node in slim.graph if node.outputs}
    editor, added = Editor(slim.graph), []
    for site, bias in missing:
        masks = kept_positions(analysis.solution.resolve(site.weight), keeps, analysis.solution.dim_size)
        makes = masks[0 if site.turned else 1]
        if site.y in makers:
            cut = bias if makes is None else bias[makes]
            added.append(_insert(editor, makers[site.y], cut, slim.graph.initializers[site.weight]))
    return tuple(added)


def differing(a: ir.Graph, b: ir.Graph) -> tuple[str, ...]:
    """Names of initializers that both have, with different numbers."""
    names = []
    for name, value in a.initializers.items():
        left, right = value.const_value, b.initializers[name].const_value if name in b.initializers else None
        if left is None or right is None or left is right or left.dtype == ir.DataType.STRING:
            continue
        if left.shape != right.shape or not np.array_equal(left.numpy(), right.numpy()):
            names.append(name)
    return tuple(names)


def restored(slim: ir.Model, bare: Mapping[str, ir.Value], written: Written) -> ir.Model:
    """A copy of a repaired slim model with the weights that it had before.

    Args:
        slim: The repaired model.
        bare: The initializers that Shrink makes without repair.
        written: What was repaired.

    Raises:
        KeyError: the slim model lacks one of these weights, or has it in another shape.
    """
    twin = slim.clone()
    for name in (*written.changed, *written.added):
        value = twin.graph.initializers[name]
        tensor = value.const_value
        if tensor is None:
            raise KeyError(name)
        array = np.zeros_like(tensor.numpy())
        if name in written.changed:
            before = bare[name].const_value
            if before is None or before.shape != tensor.shape:
                raise KeyError(name)
            array = before.numpy()
        value.const_value = ir.Tensor(array, dtype=tensor.dtype, name=name)
    return twin


def put(model: ir.Model, arrays: Mapping[str, Array]) -> None:
    """Give initializers of a model other numbers, in place, in the format that each has."""
    for name, array in arrays.items():
        value = model.graph.initializers[name]
        assert value.const_value is not None
        dtype = value.const_value.dtype
        value.const_value = ir.Tensor(array.astype(dtype.numpy()), dtype=dtype, name=name)


def _add_to(value: ir.Value, more: npt.NDArray[Any]) -> None:
    assert value.const_value is not None
    old = value.const_value.numpy()
    new = (old.astype(np.float64) + more.reshape(old.shape)).astype(old.dtype)
    value.const_value = ir.Tensor(new, dtype=value.const_value.dtype, name=value.name)


def own_bias(node: ir.Node, length: int) -> ir.Value | None:
    """The initializer that is added to what a node makes, if that is all that happens to it."""
    candidates: list[ir.Value | None] = list(node.inputs[2:3])
    if node.op_type == "MatMul":
        users = list(node.outputs[0].uses())
        if len(users) == 1 and users[0][0].op_type == "Add" and not node.outputs[0].is_graph_output():
            candidates = [users[0][0].inputs[1 - users[0][1]]]
    value = candidates[0] if candidates else None
    if value is None or not value.is_initializer() or value.const_value is None or value.is_graph_output():
        return None
    shape = value.const_value.shape.numpy()
    return value if shape and shape[-1] == length == int(np.prod(shape)) else None


def _insert(editor: Editor, node: ir.Node, bias: Floats, like: ir.Value) -> str:
    assert like.const_value is not None
    tensor = like.const_value
    free = node.op_type in ("Gemm", "Conv") and (len(node.inputs) < 3 or node.inputs[2] is None)
    beside = (-1, *[1] * (len(tensor.shape) - 2)) if node.op_type == "Conv" and not free else (-1,)
    array = bias.astype(tensor.numpy().dtype).reshape(beside)
    constant = editor.constant(array, f"{node.name or node.outputs[0].name}/bias")
    if free:
        node.resize_inputs(3)
        node.replace_input_with(2, constant)
        return constant.name or ""
    output = node.outputs[0]
    here = editor.at(node).after()
    # Whoever knows the value by its name means the sum with its bias.
    here.replace(output, here.add("Add", output, constant, name=f"{constant.name}/Add", like=output))
    return constant.name or ""
