"""Odd spellings made plain, so that the rules need to know only one."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir

from prunegraph.analysis.facts import Facts
from prunegraph.passes.normalize.probe import Held


def make_plain(graph: ir.Graph, facts: Facts, held: Held) -> tuple[Facts, Held]:
    """Rewrite odd spellings in place.

    A Gather of a flat tensor by `0, 1, 2, …` (`as_strided` of the dynamo exporter) is a Reshape to the shape of the
    indices.

    Returns:
        Facts and stated values, those made here included.
    """
    added: Held = {}
    for node in list(graph):
        if node.op_type == "Gather" and node.domain in ("", "ai.onnx"):
            indices = node.inputs[1]
            assert indices is not None
            seen = held.get(indices.name or "")
            if seen is None and indices.const_value is not None and indices.const_value.size <= 1 << 16:
                seen = (indices.const_value.numpy(),) * facts.probes
            if seen is not None and _is_flat(node, facts) and all(a.ndim > 1 and _counts(a) for a in seen):
                added |= _reshape(graph, node, indices, seen)
    if not added:
        return facts, held
    shapes = {**facts.shapes, **{name: ((len(arrays[0]),) * facts.probes,) for name, arrays in added.items()}}
    return Facts(facts.probes, shapes, {**facts.integers, **added}), held | added


def _is_flat(node: ir.Node, facts: Facts) -> bool:
    data = node.inputs[0]
    return data is not None and len(facts.shapes.get(data.name or "", ())) == 1


def _counts(array: np.ndarray[tuple[int, ...], np.dtype[np.int64]]) -> bool:
    return np.array_equal(array.reshape(-1), np.arange(array.size))


def _reshape(
    graph: ir.Graph, node: ir.Node, indices: ir.Value, seen: tuple[np.ndarray[tuple[int, ...], np.dtype[np.int64]], ...]
) -> Held:
    lengths = ir.node("Shape", [indices], num_outputs=1)
    lengths.name = f"{node.name}/lengths"
    lengths.outputs[0].name = f"{lengths.name}/out"
    plain = ir.node("Reshape", [node.inputs[0], lengths.outputs[0]], num_outputs=1)
    plain.name = f"{node.name}/plain"
    plain.metadata_props.update(node.metadata_props)
    for new in (lengths, plain):
        graph.insert_before(node, new)
    old, out = node.outputs[0], plain.outputs[0]
    out.type, out.shape, name = old.type, old.shape, old.name
    old.replace_all_uses_with(out)
    graph.remove(node, safe=True)
    out.name = name
    return {lengths.outputs[0].name or "": tuple(np.array(a.shape, dtype=np.int64) for a in seen)}
