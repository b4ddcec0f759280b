"""The same noise in every copy of a model: what draws random numbers gives fixed ones, whatever the lengths are."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir

from prunegraph.analysis.ops import traits_of
from prunegraph.runtime.edit import Editor

_NORMAL = {"RandomNormal", "RandomNormalLike"}
_UNIFORM = {"RandomUniform", "RandomUniformLike"}
_LIKE = {"RandomNormalLike", "RandomUniformLike"}


def with_same_noise(model: ir.Model) -> ir.Model:
    """A copy in which nothing is drawn anew; the model itself if nothing is.

    A draw at a stated shape becomes a constant, one at the shape of a value becomes the number that is half a deviation
    off its mean, Bernoulli hands on its probabilities, Multinomial gets a seed, and Dropout drops nothing.
    """
    if not any(traits_of(node).random for node in model.graph.all_nodes()):
        return model
    twin = model.clone()
    for graph in twin.graphs():
        draws = [node for node in graph if traits_of(node).random]
        editor = Editor(graph) if draws else None
        for node in draws:
            assert editor is not None
            _fix(editor, node)
    return twin


def _fix(editor: Editor, node: ir.Node) -> None:
    here = editor.at(node).before()
    if node.op_type == "Dropout":
        if len(node.inputs) > 2:
            node.resize_inputs(1)
        return
    if node.op_type == "Multinomial":
        node.attributes["seed"] = ir.AttrFloat32("seed", 1.0)
        return
    if node.op_type == "Bernoulli":
        source = node.inputs[0]
        stated = node.attributes.get_int("dtype", 0)
        fixed = here.add("Cast", source, to=stated) if stated else here.add("Identity", source)
    elif node.op_type in _LIKE:
        number = here.constant(np.asarray(_middle(node), _dtype(node).numpy()))
        fixed = here.add("Expand", number, here.add("Shape", node.inputs[0]))
    elif node.op_type not in _NORMAL | _UNIFORM:
        return
    else:
        lengths = node.attributes["shape"].as_ints()
        drawn = np.random.default_rng(len(lengths) + sum(lengths))
        numbers = drawn.standard_normal(lengths) if node.op_type in _NORMAL else drawn.uniform(-1.5, 1.5, lengths)
        spread = _middle(node, 1.0) - _middle(node, 0.0)
        array = (_middle(node, 0.0) + spread * numbers).astype(_dtype(node).numpy())
        fixed = here.add("Identity", here.constant(array))
    fixed.type, fixed.shape = node.outputs[0].type, node.outputs[0].shape
    here.replace(node.outputs[0], fixed)


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
