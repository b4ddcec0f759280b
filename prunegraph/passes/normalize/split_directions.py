"""Split recurrent layers of two directions where something reads one direction alone, such as its last state.

Both directions are then layers of their own, so that each keeps the units that are worth most to it.  Where all that
is read is the two side by side, one layer does as well: the analysis chooses units direction by direction there.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import onnx_ir as ir

from prunegraph.analysis.axes import Size
from prunegraph.analysis.facts import Facts
from prunegraph.analysis.read_weight import late, lies_in_file, read_weight
from prunegraph.analysis.rules.recurrent import GATES
from prunegraph.arrays import Array
from prunegraph.passes.normalize.slots_read import slots_read
from prunegraph.passes.rewrite.provenance import mark_part, mark_slots
from prunegraph.runtime.edit import Editor, Insertion

DIRECTIONS = 2
"""Forward and backward; every axis of so many slots that is looked at here enumerates them."""

_WORDS = ("forward", "reverse")
_PER_GATE = ("activation_alpha", "activation_beta")
"""Attributes that may leave out gates, so that it is not said which direction a number belongs to."""

_BATCHES = (0, 4)
"""Inputs that both directions share: the sequence, and its lengths."""

Shapes = dict[str, tuple[Size, ...]]


def split_directions(graph: ir.Graph, facts: Facts) -> Facts:
    """Compute both directions apart where one is read alone, in place; also returns what probes would see then."""
    shapes = dict(facts.shapes)
    editor = Editor(graph)
    for node in list(graph):
        if _can_be_split(node, facts) and _is_read_apart(node, facts):
            _Split(editor, node, shapes).write()
    return replace(facts, shapes=shapes)


def _can_be_split(node: ir.Node, facts: Facts) -> bool:
    """Whether a node is a recurrent layer of two directions whose weights are constants."""
    if node.op_type not in GATES or node.attributes.get_string("direction", "forward") != "bidirectional":
        return False
    if node.attributes.get_int("layout", 0) or any(name in node.attributes for name in _PER_GATE):
        return False
    operands = [value for k, value in enumerate(node.inputs) if k not in _BATCHES and value is not None]
    if any(value.is_graph_input() for value in operands):
        return False
    known = (value.name in facts.shapes for value in (*operands, *node.outputs) if value.name)
    return all(known) and all(value is not None and value.const_value is not None for value in node.inputs[1:3])


def _is_read_apart(node: ir.Node, facts: Facts) -> bool:
    """Whether something reads one direction of a layer."""
    for k, value in enumerate(node.outputs):
        lengths = [size[0] for size in facts.shapes.get(value.name or "", ())]
        for reader, index in value.uses():
            if index == 0 and any(read.axis == _axis(k) for read in slots_read(reader, lengths, facts)):
                return True
    return False


def _axis(output: int) -> int:
    """Where the directions are: behind the time of a whole sequence, before all else of a state."""
    return 0 if output else 1


@dataclass
class _Split:
    """One layer that becomes two."""

    editor: Editor
    node: ir.Node
    shapes: Shapes

    def write(self) -> None:
        here = self.editor.at(self.node).before()
        halves = [self._half(here, slot) for slot in range(DIRECTIONS)]
        for k, old in enumerate(self.node.outputs):
            if old.name and (old.uses() or old.is_graph_output()):
                parts = [half.outputs[k] for half in halves]
                name = f"{self.node.name}/directions{k or ''}"
                here.replace(old, here.add("Concat", *parts, name=name, like=old, axis=_axis(k)))
        self.editor.graph.remove(self.node, safe=True)

    def _half(self, here: Insertion, slot: int) -> ir.Node:
        """The layer of one direction."""
        node, word = self.node, _WORDS[slot]
        inputs = [
            value if value is None or k in _BATCHES else self._operand(here, value, slot)
            for k, value in enumerate(node.inputs)
        ]
        attributes = {name: each for name, each in node.attributes.items() if name not in ("direction", "activations")}
        if "activations" in node.attributes:
            names = node.attributes["activations"].as_strings()
            size = len(names) // DIRECTIONS
            attributes["activations"] = ir.AttrStrings("activations", names[slot * size : (slot + 1) * size])
        attributes["direction"] = ir.AttrString("direction", word)
        half = ir.Node(node.domain, node.op_type, inputs, attributes.values(), num_outputs=len(node.outputs))
        half.name, half.version = self.editor.unused(f"{node.name}/{word}"), node.version
        half.metadata_props.update(node.metadata_props)
        mark_part(half, node.name or "", slot)
        for k, (old, new) in enumerate(zip(node.outputs, half.outputs, strict=True)):
            if old.name:
                new.name, new.type = self.editor.unused(f"{old.name}/{word}"), old.type
                self.shapes[new.name] = _one_at(self.shapes[old.name], _axis(k))
                mark_part(new, old.name, slot)
            else:
                new.name = ""
        return here.insert(half)

    def _operand(self, here: Insertion, value: ir.Value, slot: int) -> ir.Value:
        """What one direction is given; directions are the first axis of every operand."""
        name = value.name or ""
        shape, tensor = self.shapes[name], value.const_value
        if tensor is None:
            index = here.constant(np.array([slot]), f"{name}/{_WORDS[slot]}/slot")
            part = here.add("Gather", value, index, name=f"{name}/{_WORDS[slot]}", axis=0)
            part.type = value.type
        else:
            part = self.editor.constant(_slot_of(tensor, slot), f"{name}/{_WORDS[slot]}", like=value)
            mark_part(part, name, slot)
            mark_slots(part, (np.arange(DIRECTIONS) == slot, *(None,) * (len(shape) - 1)))
        self.shapes[part.name or ""] = _one_at(shape, 0)
        return part


def _slot_of(tensor: ir.TensorProtocol, slot: int) -> ir.TensorProtocol:
    """One slot of the first axis of a weight."""

    def array() -> Array:
        return read_weight(tensor)[slot : slot + 1]

    if not lies_in_file(tensor):
        return ir.tensor(array(), dtype=tensor.dtype)
    return late(array, tensor.dtype, (1, *tensor.shape.numpy()[1:]), None)


def _one_at(shape: tuple[Size, ...], axis: int) -> tuple[Size, ...]:
    """A shape that is one long along an axis."""
    return tuple((1,) * len(size) if k == axis else size for k, size in enumerate(shape))
