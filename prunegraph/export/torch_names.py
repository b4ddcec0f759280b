"""Put a module's own names of parameters and outputs on the model that was exported from it."""

from __future__ import annotations

import ast
import logging
import math
import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import onnx_ir as ir

logger = logging.getLogger(__name__)

_ORIGINAL = "pkg.torch.onnx.original_node_name"
_FOLDED = "pkg.onnxscript.optimizer.folded_from"


def name_parameters(model: ir.Model, parameters: Mapping[str, str], sizes: Mapping[str, int]) -> None:
    """Name every initializer as the one parameter it was made of, in place; exporters transpose many and lose the name.

    Args:
        model: As the exporter made it.
        parameters: The names of parameters and buffers, by the placeholder that stands for each in the traced graph.
        sizes: How many numbers each parameter and buffer has.
    """
    taken = {
        value.name for graph in model.graphs() for node in graph for value in (*node.inputs, *node.outputs) if value
    }
    for value in list(model.graph.initializers.values()):
        name = _parameter_of(value, parameters, sizes)
        if name and name not in taken:
            taken.add(name)
            value.name = name


def name_outputs(model: ir.Model, names: list[str]) -> None:
    """Give the graph's outputs these names, in place, where that leaves every value its own."""
    outputs = model.graph.outputs
    if len(names) != len(outputs) or len(set(outputs)) != len(outputs):
        return
    others = {value.name for node in model.graph for value in node.outputs if value not in outputs}
    others |= {value.name for value in (*model.graph.inputs, *model.graph.initializers.values())}
    if any(value.is_graph_input() or value.is_initializer() for value in outputs) or others & set(names):
        return
    for value in outputs:  # two steps, since one may be called what another is to be called
        value.name = f"{value.name}/renamed"
    for value, name in zip(outputs, names, strict=True):
        value.name = name


def name_axes(model: ir.Model, axes: Sequence[Mapping[int, str]]) -> None:
    """Give the dynamic dims of the graph's inputs these names, and with them every dim that is one of these, in place.

    Args:
        model: As the exporter made it.
        axes: The names of the axes of each input.
    """
    if len(axes) != len(model.graph.inputs):
        return
    names: dict[str, str] = {}
    for value, its in zip(model.graph.inputs, axes, strict=True):
        for axis, name in its.items():
            dim = value.shape[axis] if value.shape is not None else None
            if isinstance(dim, ir.SymbolicDim) and dim.value and dim.value.isidentifier():
                names.setdefault(dim.value, name)
    for graph in model.graphs():
        for value in {*graph.inputs, *(value for node in graph for value in node.outputs)}:
            if value.shape is not None:
                value.shape = ir.Shape([_renamed(dim, names) for dim in value.shape])


def _renamed(dim: int | ir.SymbolicDim, names: Mapping[str, str]) -> int | str | None:
    if isinstance(dim, int) or dim.value is None:
        return dim if isinstance(dim, int) else None
    return re.sub(r"[A-Za-z_]\w*", lambda word: names.get(word[0], word[0]), dim.value)


def output_names(spec: Any) -> list[str]:
    """What to call the leaves of a result: by the keys of dicts and the fields of dataclasses, else by number.

    Args:
        spec: The `TreeSpec` of what `forward` returns.
    """
    return [name or "output" for name in _paths(spec, "")]


def _paths(spec: Any, path: str) -> Iterator[str]:
    if spec.is_leaf():
        yield path
        return
    children = spec.children() if callable(getattr(spec, "children", None)) else spec.children_specs
    keys = spec.context if isinstance(spec.context, list) else None  # of dicts and of what transformers registers
    if keys is None or len(keys) != len(children) or not all(isinstance(key, str) for key in keys):
        keys = [str(index) for index in range(len(children))]
        path = path or "output"
    for key, child in zip(keys, children, strict=True):
        yield from _paths(child, f"{path}_{key}" if path else key)


def _parameter_of(value: ir.Value, parameters: Mapping[str, str], sizes: Mapping[str, int]) -> str:
    """The parameter that an initializer is, as it was or transposed; "" if it is something else."""
    placeholder = value.metadata_props.get(_ORIGINAL, "")
    if placeholder in parameters:
        return parameters[placeholder]
    try:
        sources = ast.literal_eval(value.metadata_props.get(_FOLDED, "[]"))
    except (ValueError, SyntaxError):
        return ""
    if len(sources) != 1 or sources[0] not in sizes or value.shape is None:
        return ""
    numbers = math.prod(dim if isinstance(dim, int) else 0 for dim in value.shape)
    return str(sources[0]) if numbers == sizes[sources[0]] else ""
