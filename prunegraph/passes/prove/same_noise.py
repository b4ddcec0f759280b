"""The same noise in every copy of a model: what draws random numbers gives fixed ones, whatever the lengths are."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir

from prunegraph.passes.rewrite.constants import add_constant, unused

_NORMAL = {"RandomNormal", "RandomNormalLike"}
_UNIFORM = {"RandomUniform", "RandomUniformLike"}
_LIKE = {"RandomNormalLike", "RandomUniformLike"}
_DRAWS = {*_NORMAL, *_UNIFORM, "Bernoulli", "Multinomial", "Dropout"}


def with_same_noise(model: ir.Model) -> ir.Model:
    """A copy in which nothing is drawn anew; the model itself if nothing is.

    A draw at a stated shape becomes a constant, one at the shape of a value becomes the number that is half a deviation
    off its mean, Bernoulli hands on its probabilities, Multinomial gets a seed, and Dropout drops nothing.
    """
    if not any(node.op_type in _DRAWS for node in model.graph.all_nodes()):
        return model
    twin = model.clone()
    for graph in twin.graphs():
        for node in [each for each in graph if each.op_type in _DRAWS and each.domain in ("", "ai.onnx")]:
            _fix(twin.graph, node)
    return twin


def _fix(graph: ir.Graph, node: ir.Node) -> None:
    if node.op_type == "Dropout":
        if len(node.inputs) > 2:
            node.resize_inputs(1)
    elif node.op_type == "Multinomial":
        node.attributes["seed"] = ir.AttrFloat32("seed", 1.0)
    elif node.op_type == "Bernoulli":
        _stand_in(node, "CastLike" if "dtype" not in node.attributes else "Cast", _operands(node))
    elif node.op_type in _LIKE:
        source = node.inputs[0]
        assert source is not None and isinstance(node.graph, ir.Graph)
        shape = ir.node("Shape", [source], num_outputs=1)
        shape.name = unused(graph, f"{node.name}/shape")
        shape.outputs[0].name = unused(graph, f"{node.name}/shape/out")
        node.graph.insert_before(node, shape)
        number = add_constant(graph, f"{node.name}/noise", np.asarray(_middle(node), _dtype(node).numpy()))
        _stand_in(node, "Expand", [number, shape.outputs[0]])
    else:
        lengths = node.attributes["shape"].as_ints()
        drawn = np.random.default_rng(len(lengths) + sum(lengths))
        numbers = drawn.standard_normal(lengths) if node.op_type in _NORMAL else drawn.uniform(-1.5, 1.5, lengths)
        spread = _middle(node, 1.0) - _middle(node, 0.0)
        array = (_middle(node, 0.0) + spread * numbers).astype(_dtype(node).numpy())
        _stand_in(node, "Identity", [add_constant(graph, f"{node.name}/noise", array)])


def _operands(node: ir.Node) -> list[ir.Value | None]:
    return [node.inputs[0]] if "dtype" in node.attributes else [node.inputs[0], node.inputs[0]]


def _middle(node: ir.Node, deviations: float = 0.5) -> float:
    """A number so many deviations off the mean of what is drawn."""
    get = node.attributes.get_float
    if node.op_type in _NORMAL:
        return get("mean", 0.0) + deviations * get("scale", 1.0)
    low, high = get("low", 0.0), get("high", 1.0)
    return (low + high) / 2 + deviations * (high - low) / 4


def _dtype(node: ir.Node) -> ir.DataType:
    source = node.inputs[0] if node.inputs else None
    stated = node.attributes.get_int("dtype", 0)
    dtype = ir.DataType(stated) if stated else (source.dtype if source is not None else None)
    return dtype if dtype is not None and dtype.is_floating_point() else ir.DataType.FLOAT


def _stand_in(node: ir.Node, op: str, operands: list[ir.Value | None]) -> None:
    """Let another op make what a node made, under the same name."""
    assert isinstance(node.graph, ir.Graph)
    attributes = [ir.AttrInt64("to", node.attributes.get_int("dtype", 1))] if op == "Cast" else []
    old = node.outputs[0]
    new = ir.Node("", op, operands, attributes, num_outputs=1, name=f"{node.name}/fixed")
    new.outputs[0].type, new.outputs[0].shape = old.type, old.shape
    node.graph.insert_before(node, new)
    name = old.name
    old.replace_all_uses_with(new.outputs[0], replace_graph_outputs=True)
    node.graph.remove(node, safe=True)
    new.outputs[0].name = name
