"""Canonicalize: rewrite a Gather by 0, 1, 2, … as a Reshape and a ScatterND of one block as a Concat.

The rules then need to know one spelling only.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import numpy.typing as npt
import onnx_ir as ir

from prunegraph.analysis.facts import Facts
from prunegraph.passes.normalize.probe import Blocks, Held
from prunegraph.passes.normalize.slice_assignment import IndexBlock, block_of, concat_of_blocks
from prunegraph.runtime.edit import Editor

Indices = tuple[npt.NDArray[np.int64], ...]
"""What every probe saw."""

_LONGEST = 1 << 24


def canonicalize(graph: ir.Graph, facts: Facts, stated: Held, blocks: Blocks) -> tuple[Facts, Held]:
    """Rewrite odd spellings, in place.

    A Gather of a flat tensor by `0, 1, 2, …` (`as_strided` of the dynamo exporter) is a Reshape to the shape of the
    indices.  A ScatterND of neighbouring slots (`x[:, a:b] = y`) is a Concat of what stays and what is new.

    Returns:
        Facts and stated values, those made here included.
    """
    added: Held = {}
    shapes = dict(facts.shapes)
    editor = Editor(graph)
    for node in list(graph):
        if node.domain not in ("", "ai.onnx") or node.op_type not in ("Gather", "ScatterND"):
            continue
        indices = _indices(node, facts, stated)
        if node.op_type == "ScatterND":
            written = _written(node, indices, blocks)
            joined = concat_of_blocks(editor, node, written, shapes) if len(written) == facts.probes else None
            if joined is not None:
                _stand_in(editor, node, joined)
        elif indices and _is_flat(node, facts) and all(a.ndim > 1 and _counts(a) for a in indices):
            added |= _reshape(editor, node, indices)
    shapes |= {name: ((len(arrays[0]),) * facts.probes,) for name, arrays in added.items()}
    return replace(facts, shapes=shapes, integers={**facts.integers, **added}), stated | added


def _indices(node: ir.Node, facts: Facts, stated: Held) -> Indices | None:
    """The second input, where it does not depend on data."""
    value = node.inputs[1]
    assert value is not None
    if value.const_value is not None and value.const_value.size <= _LONGEST:
        return (value.const_value.numpy(),) * facts.probes
    return stated.get(value.name or "")


def _written(node: ir.Node, indices: Indices | None, blocks: Blocks) -> tuple[IndexBlock, ...]:
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


def _reshape(editor: Editor, node: ir.Node, indices: Indices) -> Held:
    here = editor.at(node).before()
    lengths = here.add("Shape", node.inputs[1], name=f"{node.name}/lengths")
    _stand_in(editor, node, here.add("Reshape", node.inputs[0], lengths, name=f"{node.name}/plain"))
    return {lengths.name or "": tuple(np.array(a.shape, dtype=np.int64) for a in indices)}


def _stand_in(editor: Editor, node: ir.Node, new: ir.Value) -> None:
    """Put what another node makes in the place of what a node made, under its name."""
    producer, old = new.producer(), node.outputs[0]
    assert producer is not None
    producer.metadata_props.update(node.metadata_props)
    new.type, new.shape = old.type, old.shape
    editor.replace(old, new)
    editor.graph.remove(node, safe=True)
