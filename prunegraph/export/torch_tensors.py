"""What a torch module calls its tensors, kept beside the model that was traced from it."""

from __future__ import annotations

import itertools
import re
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx_ir as ir

from prunegraph.runtime.edit import Editor

_META = "prunegraph.module"
_FX_NODE = "pkg.torch.onnx.fx_node"

Array = npt.NDArray[Any]


@dataclass(frozen=True, slots=True)
class ModuleTensors:
    """How the `state_dict` of a module relates to the initializers of the model traced from it.

    Attributes:
        orders: By name of an initializer that holds a tensor of the same name, the axes of that tensor in the order in
            which the initializer has them.
        parameters: Names of tensors that are parameters; the others are buffers.
        aliases: By name of a tensor the other name of the same memory.
        unread: Tensors that `forward` does not read, by name.
        folded: Names of tensors that the exporter computed something else of.
    """

    orders: Mapping[str, tuple[int, ...]]
    parameters: frozenset[str]
    aliases: Mapping[str, str]
    unread: Mapping[str, Array]
    folded: tuple[str, ...]


def module_tensors(model: ir.Model) -> ModuleTensors | None:
    """What is known of the module that a model was traced from; None for a model that came from elsewhere."""
    tensors: ModuleTensors | None = model.graph.meta.get(_META)
    return tensors


def remember_module(model: ir.Model, state: Mapping[str, Any], placeholders: Mapping[str, str], program: Any) -> None:
    """Keep with a model what its module calls its tensors, in place; it survives copies, not files.

    Args:
        model: The model, its initializers named as the tensors that they hold.
        state: The module's `state_dict`.
        placeholders: The names of tensors by the placeholder that stands for each in the traced graph.
        program: The traced `ExportedProgram`.
    """
    parameters = frozenset(program.graph_signature.parameters)
    aliases = _aliases(state)
    read_names = {placeholders[node.name] for node in program.graph.nodes if node.name in placeholders and node.users}
    orders: dict[str, tuple[int, ...]] = {}
    unread: dict[str, Array] = {}
    folded: list[str] = []
    families: dict[str, list[str]] = defaultdict(list)
    for name in state:
        families[aliases.get(name, name)].append(name)
    for name, tensor in state.items():
        value, first = model.graph.initializers.get(name), aliases.get(name, name)
        order = _order(value, _numbers(tensor)) if value is not None else None
        if order is not None:
            orders[name] = order
        elif not read_names & set(families[first]):
            unread[name] = _numbers(tensor).copy()
        elif value is not None or not any(other in model.graph.initializers for other in families[first]):
            folded.append(name)
    model.graph.meta[_META] = ModuleTensors(orders, parameters, aliases, unread, tuple(folded))


def own_initializers(model: ir.Model, state: Mapping[str, Any], placeholders: Mapping[str, str]) -> None:
    """Give every tensor of a module an initializer of its own again where exporters let equal ones be one, in place.

    Equal numbers at the beginning, such as biases of zeros, are different weights all the same.

    Args:
        model: The model as it was exported, its initializers named as the tensors that they hold.
        state: The module's `state_dict`.
        placeholders: See `remember_module`.
    """
    initializers, aliases = model.graph.initializers, _aliases(state)
    missing = {
        placeholder: name
        for placeholder, name in placeholders.items()
        if name in state and name not in initializers and name not in aliases
    }
    if not missing:
        return
    editor, equal = Editor(model.graph), _by_digest(initializers.values(), initializers.keys() & state.keys())
    mentions = {node: set(re.findall(r"%(\w+)", node.metadata_props.get(_FX_NODE, ""))) for node in model.graph}
    for placeholder, name in missing.items():
        for value in equal.get(_digest(_numbers(state[name])), ()):
            uses = [(node, index) for node, index in value.uses() if placeholder in mentions.get(node, ())]
            uses = [(node, index) for node, index in uses if list(node.inputs).count(value) == 1]
            if uses:
                copy = editor.copy_constant(value, name)
                for node, index in uses:
                    node.replace_input_with(index, copy)
                break
        else:
            _restore_zeros(
                editor, name, _numbers(state[name]), [n for n, names in mentions.items() if placeholder in names]
            )


def _restore_zeros(editor: Editor, name: str, array: Array, nodes: Sequence[ir.Node]) -> None:
    """Let the one node that a bias of zeros belonged to have it again: exporters leave such biases out."""
    lacking = [node for node in nodes if _lacks_bias(node, array.size)]
    if array.ndim == 1 and not array.any() and len(lacking) == 1:
        lacking[0].resize_inputs(3)
        lacking[0].replace_input_with(2, editor.constant(array, name))


def _lacks_bias(node: ir.Node, length: int) -> bool:
    """Whether a node has no bias, and would take one of this length."""
    if node.op_type not in ("Gemm", "Conv") or any(value is not None for value in node.inputs[2:]):
        return False
    weight = node.inputs[1].const_value if len(node.inputs) > 1 and node.inputs[1] is not None else None
    last = node.op_type == "Gemm" and not node.attributes.get_int("transB", 0)
    return weight is not None and int(weight.shape.numpy()[-1 if last else 0]) == length


def _by_digest(values: Iterable[ir.Value], names: Iterable[str]) -> dict[tuple[object, ...], list[ir.Value]]:
    chosen = set(names)
    equal: dict[tuple[object, ...], list[ir.Value]] = defaultdict(list)
    for value in values:
        if value.name in chosen and value.const_value is not None:
            equal[_digest(value.const_value.numpy())].append(value)
    return equal


def _digest(array: Array) -> tuple[object, ...]:
    return array.dtype.str, array.shape, hash(np.ascontiguousarray(array).tobytes())


def _aliases(state: Mapping[str, Any]) -> dict[str, str]:
    """Names of tensors that share all of their memory with one before them."""
    first: dict[tuple[Any, ...], str] = {}
    aliases: dict[str, str] = {}
    for name, tensor in state.items():
        if tensor.numel():
            key = (tensor.data_ptr(), tuple(tensor.shape), tensor.stride())
            if first.setdefault(key, name) != name:
                aliases[name] = first[key]
    return aliases


def _numbers(tensor: Any) -> Array:
    """A tensor as numpy has it: what it has no type for, in float32."""
    plain = tensor.detach().cpu()
    numbers: Array = (plain.float() if str(plain.dtype) == "torch.bfloat16" else plain).numpy()
    return numbers


def _order(value: ir.Value, array: Array) -> tuple[int, ...] | None:
    """The axes of an array in the order in which an initializer has them; None where it holds something else."""
    if value.const_value is None:
        return None
    stored = value.const_value.numpy()
    turned = "folded_from" in " ".join(value.metadata_props)
    orders = sorted(itertools.permutations(range(array.ndim)), reverse=turned) if array.ndim <= 4 else []
    for order in orders:
        if np.array_equal(stored, array.transpose(order), equal_nan=True):
            return order
    return None
