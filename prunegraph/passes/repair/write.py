"""Write repaired weights and biases into a slim model."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx_ir as ir

from prunegraph.analysis.analyze import Analysis
from prunegraph.analysis.sizes import Keeps, compress, kept_positions
from prunegraph.passes.constants import add_constant, unused
from prunegraph.passes.repair.fit import Change
from prunegraph.passes.repair.sites import Site

Floats = npt.NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Written:
    """Initializers of the slim model that a repair has changed, and those that it has added as biases."""

    changed: tuple[str, ...] = ()
    added: tuple[str, ...] = ()


def write(
    slim: ir.Model, analysis: Analysis, keeps: Keeps, changes: Sequence[tuple[Sequence[Site], Change]]
) -> Written:
    """Change weights and biases of a model that Shrink has made, in place, before it is cleaned up.

    Args:
        slim: What Shrink made.
        analysis: The analysis of the model that it was made from.
        keeps: What stays.
        changes: For some weights all their uses, and what to add, at full size.
    """
    changed: list[str] = []
    added: list[str] = []
    makers = {node.outputs[0].name: node for node in slim.graph if node.outputs}
    for sites, change in changes:
        solution = analysis.solution
        masks = kept_positions(solution.resolve(sites[0].weight), keeps, solution.dim_size)
        if change.weight is not None:
            shape = tuple(size[0] for size in solution.facts.shapes[sites[0].weight])
            more = compress(sites[0].weight_of(change.weight, shape), masks)
            _add_to(slim.graph.initializers[sites[0].weight], more)
            changed.append(sites[0].weight)
        makes = masks[0 if sites[0].turned else 1]
        bias = change.bias if makes is None else change.bias[makes]
        nodes = [makers[site.y] for site in sites]
        held = [_bias(node, len(bias)) for node in nodes]
        uses = Counter(value.name for value in held if value is not None)
        done: set[str] = set()
        for node, value in zip(nodes, held, strict=True):
            if value is None or len(list(value.uses())) != uses[value.name]:  # somebody else's too
                added.append(_insert(slim.graph, node, bias, slim.graph.initializers[sites[0].weight]))
            elif value.name and value.name not in done:
                _add_to(value, bias)
                done.add(value.name)
        changed += sorted(done)
    return Written(tuple(changed), tuple(added))


def restored(slim: ir.Model, unrepaired: ir.Model, written: Written) -> ir.Model:
    """A copy of a repaired slim model with the weights that it had before.

    Raises:
        KeyError: the slim model lacks one of them, or has it in another shape.
    """
    twin = slim.clone()
    for name in (*written.changed, *written.added):
        value = twin.graph.initializers[name]
        tensor = value.const_value
        if tensor is None:
            raise KeyError(name)
        array = np.zeros_like(tensor.numpy())
        if name in written.changed:
            before = unrepaired.graph.initializers[name].const_value
            if before is None or before.shape != tensor.shape:
                raise KeyError(name)
            array = before.numpy()
        value.const_value = ir.Tensor(array, dtype=tensor.dtype, name=name)
    return twin


def _add_to(value: ir.Value, more: npt.NDArray[Any]) -> None:
    assert value.const_value is not None
    old = value.const_value.numpy()
    new = (old.astype(np.float64) + more.reshape(old.shape)).astype(old.dtype)
    value.const_value = ir.Tensor(new, dtype=value.const_value.dtype, name=value.name)


def _bias(node: ir.Node, length: int) -> ir.Value | None:
    """The initializer that is added to what a node makes, if that is all that happens to it."""
    found: list[ir.Value | None] = list(node.inputs[2:3])
    if node.op_type == "MatMul":
        users = list(node.outputs[0].uses())
        if len(users) == 1 and users[0][0].op_type == "Add" and not node.outputs[0].is_graph_output():
            found = [users[0][0].inputs[1 - users[0][1]]]
    value = found[0] if found else None
    if value is None or not value.is_initializer() or value.const_value is None or value.is_graph_output():
        return None
    shape = value.const_value.shape.numpy()
    return value if shape and shape[-1] == length == int(np.prod(shape)) else None


def _insert(graph: ir.Graph, node: ir.Node, bias: Floats, like: ir.Value) -> str:
    """Let a node have a bias; an op that takes one is given it, behind others stands an Add."""
    assert like.const_value is not None
    dtype = like.const_value.numpy().dtype
    free = node.op_type in ("Gemm", "Conv") and (len(node.inputs) < 3 or node.inputs[2] is None)
    rank = 1 if node.op_type != "Conv" or free else len(like.const_value.shape)
    shape = (-1,) if rank == 1 else (-1, *[1] * (rank - 2))
    constant = add_constant(graph, f"{node.name or node.outputs[0].name}/bias", bias.astype(dtype).reshape(shape))
    if free:
        node.resize_inputs(3)
        node.replace_input_with(2, constant)
        return constant.name or ""
    output = node.outputs[0]
    users = list(output.uses())
    add = ir.node("Add", [output, constant], num_outputs=1)
    add.name = unused(graph, f"{constant.name}/Add")
    new = add.outputs[0]
    new.type, new.shape = output.type, output.shape
    graph.insert_after(node, add)
    for user, index in users:
        user.replace_input_with(index, new)
    if output.is_graph_output():
        graph.outputs[:] = [new if value is output else value for value in graph.outputs]
    # Whoever knows the value by its name means the sum with its bias.
    output.name, new.name = unused(graph, f"{output.name}/unbiased"), output.name
    return constant.name or ""
