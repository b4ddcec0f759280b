"""Odd spellings made plain, so that the rules need to know only one."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import onnx_ir as ir

from prunegraph.analysis.facts import Facts
from prunegraph.passes.normalize.probe import Blocks, Held
from prunegraph.passes.normalize.slice_assignment import Block, assignment, block_of
from prunegraph.passes.rewrite.constants import take_over

Indices = tuple[npt.NDArray[np.int64], ...]
"""What every probe saw."""

_LONGEST = 1 << 24


def make_plain(graph: ir.Graph, facts: Facts, held: Held, blocks: Blocks) -> tuple[Facts, Held]:
    """Rewrite odd spellings in place.

    A Gather of a flat tensor by `0, 1, 2, …` (`as_strided` of the dynamo exporter) is a Reshape to the shape of the
    indices.  A ScatterND of neighbouring slots (`x[:, a:b] = y`) is a Concat of what stays and what is new.

    Returns:
        Facts and stated values, those made here included.
    """
    added: Held = {}
    shapes = dict(facts.shapes)
    for node in list(graph):
        if node.domain not in ("", "ai.onnx") or node.op_type not in ("Gather", "ScatterND"):
            continue
        indices = _indices(node, facts, held)
        if node.op_type == "ScatterND":
            written = _written(node, indices, blocks)
            plain = assignment(graph, node, written, shapes) if len(written) == facts.probes else None
            if plain is not None:
                _stand_in(graph, node, plain)
        elif indices and _is_flat(node, facts) and all(a.ndim > 1 and _counts(a) for a in indices):
            added |= _reshape(graph, node, indices)
    shapes |= {name: ((len(arrays[0]),) * facts.probes,) for name, arrays in added.items()}
    return Facts(facts.probes, shapes, {**facts.integers, **added}), held | added


def _indices(node: ir.Node, facts: Facts, held: Held) -> Indices | None:
    """The second input, where it does not depend on data."""
    value = node.inputs[1]
    assert value is not None
    if value.const_value is not None and value.const_value.size <= _LONGEST:
        return (value.const_value.numpy(),) * facts.probes
    return held.get(value.name or "")


def _written(node: ir.Node, indices: Indices | None, blocks: Blocks) -> tuple[Block, ...]:
    """The block that a ScatterND writes in every probe, as far as it writes one."""
    value = node.inputs[1]
    assert value is not None
    known = blocks.get(value.name or "")
    return known if known is not None else tuple(filter(None, map(block_of, indices or ())))


def _is_flat(node: ir.Node, facts: Facts) -> bool:
    data = node.inputs[0]
    return data is not None and len(facts.shapes.get(data.name or "", ())) == 1


def _counts(array: npt.NDArray[np.int64]) -> bool:
    return np.array_equal(array.reshape(-1), np.arange(array.size))


def _reshape(graph: ir.Graph, node: ir.Node, indices: Indices) -> Held:
    lengths = ir.node("Shape", [node.inputs[1]], num_outputs=1)
    lengths.name = f"{node.name}/lengths"
    lengths.outputs[0].name = f"{lengths.name}/out"
    graph.insert_before(node, lengths)
    _stand_in(graph, node, ir.node("Reshape", [node.inputs[0], lengths.outputs[0]], num_outputs=1))
    return {lengths.outputs[0].name or "": tuple(np.array(a.shape, dtype=np.int64) for a in indices)}


def _stand_in(graph: ir.Graph, node: ir.Node, plain: ir.Node) -> None:
    """Put a node in the place of another, under the name of what that made."""
    plain.name = f"{node.name}/plain"
    plain.metadata_props.update(node.metadata_props)
    graph.insert_before(node, plain)
    old, out = node.outputs[0], plain.outputs[0]
    out.type, out.shape = old.type, old.shape
    take_over(old, out)
    graph.remove(node, safe=True)
