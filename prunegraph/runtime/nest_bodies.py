"""Write the Loops and Scans again whose bodies stand among the nodes of a graph, see `analysis.bodies`.

What is read of a body outside of it, and what is asked for, is what the last trip made.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field

import numpy as np
import onnx_ir as ir
from onnx_ir.passes.common import TopologicalSortPass

from prunegraph.analysis.bodies import GIVEN, LOOP, OP, behind, entries, is_end
from prunegraph.analysis.ops import traits_of
from prunegraph.runtime.edit import Editor

_OURS = (OP, LOOP, GIVEN)


def nested(model: ir.Model, outputs: Collection[str] = ()) -> ir.Model:
    """A copy of a model in which bodies stand in their Loops; the model itself where there are none.

    Args:
        model: The model.
        outputs: Names of further values that will be asked for.
    """
    return nest_bodies(model.clone(), outputs) if any(map(is_end, model.graph)) else model


def nest_bodies(model: ir.Model, outputs: Collection[str] = ()) -> ir.Model:
    """The same model, its bodies in their Loops in place; see `nested`."""
    ends = [node for node in model.graph if is_end(node)]
    if ends:
        editor = Editor(model.graph)
        by_loop = entries(model.graph)
        for end in ends:
            _Nest(editor, end, by_loop.get(end.attributes[LOOP].as_string(), {}), set(outputs)).write()
        TopologicalSortPass()(model)
    return model


@dataclass
class _Nest:
    """One Loop that is written again."""

    editor: Editor
    end: ir.Node
    entries: Mapping[int, ir.Node]
    asked: Collection[str]
    nodes: list[ir.Node] = field(default_factory=list)
    handed: list[ir.Value] = field(default_factory=list)

    def write(self) -> None:
        graph, end = self.editor.graph, self.end
        inside = self._inside()
        self.nodes = [node for node in graph if node in inside]
        given = end.attributes[GIVEN].as_int()
        before = [self._before(k) for k in range(given)]
        made = list(end.inputs[given:])
        own = {*inside, *self.entries.values(), end}
        within = [value for node in (*self.entries.values(), *self.nodes) for value in node.outputs]
        read_outside = [value for value in within if self._is_read_outside(value, own)]
        for k in range(len(end.inputs)):
            end.replace_input_with(k, None)
        last = [self._last_of(value, own) for value in read_outside]
        doors = [self._door(k) for k in range(given)]
        stand_ins = {node.outputs[0]: doors[k] for k, node in self.entries.items()}
        for entry, door in stand_ins.items():
            entry.replace_all_uses_with(door)
        graph.remove(self.nodes)
        graph.remove(list(self.entries.values()), safe=True)
        for value in (*made, *read_outside):
            assert value is not None
            self._hand_out(stand_ins.get(value, value), inside)
        self._write_loop(before, doors, last)

    def _before(self, index: int) -> ir.Value | None:
        """What the Loop is given itself: what its body is given comes of that."""
        entry = self.entries.get(index)
        return entry.inputs[0] if entry is not None and entry.inputs else self.end.inputs[index]

    def _inside(self) -> set[ir.Node]:
        """Nodes that hang on what the body is given and make what it hands out, or state lengths of these."""
        hang = behind(self.entries.values(), lambda node: node is self.end)
        needed: set[ir.Node] = set()
        waiting = [value.producer() for value in self.end.inputs[self.end.attributes[GIVEN].as_int() :] if value]
        while waiting:
            node = waiting.pop()
            if node is not None and node in hang and node not in needed:
                needed.add(node)
                waiting += [value.producer() for value in node.inputs if value is not None]
        values = {value for node in (*needed, *self.entries.values()) for value in node.outputs}
        return needed | {node for node in hang if traits_of(node).states_lengths and node.inputs[0] in values}

    def _is_read_outside(self, value: ir.Value, own: Collection[ir.Node]) -> bool:
        if value.is_graph_output() or (value.name in self.asked and value.name):
            return True
        return any(node not in own for node in value.consumers())

    def _last_of(self, value: ir.Value, own: Collection[ir.Node]) -> ir.Value:
        """What stands outside for what the last trip made; it has the name."""
        name = value.name or ""
        value.name = self.editor.unused(f"{name}/trip")
        last = ir.Value(name=name, type=value.type, shape=value.shape)
        for node, index in list(value.uses()):
            if node not in own:
                node.replace_input_with(index, last)
        outputs = self.editor.graph.outputs
        for k, output in enumerate(list(outputs)):
            if output is value:
                outputs[k] = last
        return last

    def _door(self, index: int) -> ir.Value:
        """An input of the body."""
        if index in self.entries:
            value = self.entries[index].outputs[0]
            door = ir.Value(name=value.name, type=value.type, shape=value.shape)
            value.name = None
            return door
        unread = ir.Value(name=self.editor.unused(f"{self.end.name}/input{index}"))
        if self.end.attributes[OP].as_string() == "Loop" and index < 2:
            unread.type = ir.TensorType(ir.DataType.BOOL if index else ir.DataType.INT64)
            unread.shape = ir.Shape([])
        return unread

    def _hand_out(self, value: ir.Value, inside: Collection[ir.Node]) -> None:
        """One more output of the body: it must be made there, and stand among them once."""
        if value.producer() not in inside or value in self.handed:
            identity = self.editor.handed(value, f"{self.end.name}/handed")
            self.nodes.append(identity)
            value = identity.outputs[0]
        self.handed.append(value)

    def _write_loop(self, before: list[ir.Value | None], doors: list[ir.Value], last: list[ir.Value]) -> None:
        graph, end, editor = self.editor.graph, self.end, self.editor
        name = f"{end.name}/body"
        body = ir.Graph(doors, self.handed, nodes=self.nodes, opset_imports=graph.opset_imports, name=name)
        attributes = {name: each for name, each in end.attributes.items() if name not in _OURS}
        for name in ("scan_output_axes", "scan_output_directions"):
            if name in attributes:
                attributes[name] = ir.AttrInt64s(name, [*attributes[name].as_ints(), *[0] * len(last)])
        attributes["body"] = ir.AttrGraph("body", body)
        outputs = [ir.Value(type=value.type, shape=value.shape) for value in end.outputs]
        stacks = [ir.Value(name=editor.unused(f"{value.name}/trips")) for value in last]
        node = ir.Node(
            "", end.attributes[OP].as_string(), before, attributes.values(), outputs=[*outputs, *stacks], name=end.name
        )
        node.metadata_props.update(end.metadata_props)
        graph.insert_before(end, node)
        for stack, value in zip(stacks, last, strict=True):
            newest = editor.constant(np.array(-1, dtype=np.int64), f"{value.name}/last")
            name = editor.unused(f"{value.name}/last_trip")
            graph.insert_before(end, ir.node("Gather", [stack, newest], {"axis": 0}, outputs=[value], name=name))
        for old, new in zip(end.outputs, outputs, strict=True):
            editor.replace(old, new)
        graph.remove(end, safe=True)
