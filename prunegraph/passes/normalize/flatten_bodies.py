"""Flatten Loops and Scans: the nodes of a body stand in the graph, so that its axes are axes of the graph.

The weights that a body reads are then weights of the graph, read in every trip; so are those that a Loop carries as
states and that no trip changes.  `runtime.nest_bodies` writes the Loops again for whoever runs the model.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator

import onnx_ir as ir

from prunegraph.analysis.bodies import CARRIED, DOMAIN, GIVEN, INDEX, LOOP, OP, REPEAT, SCANNED, TRIP, WHILE
from prunegraph.analysis.ops import traits_of
from prunegraph.passes.normalize.flatten_branches import hoist, names_of
from prunegraph.runtime.edit import Editor, Insertion

_OPSET_OF_SCAN = 9
"""Before that, a Scan ran along a batch, too."""


def flatten_bodies(model: ir.Model) -> bool:
    """Put the nodes of bodies that can be followed before their Loop or Scan, in place.

    A body that holds a body itself, deals in sequences or draws numbers stays what it is.

    Args:
        model: Every value of its main graph is named; functions are inlined.

    Returns:
        Whether there was such a body.
    """
    loops = [node for node in model.graph if _is_loop(node) and _can_be_flattened(node, model.graph)]
    for node in loops:
        _flatten(model, node)
    return bool(loops)


def _is_loop(node: ir.Node) -> bool:
    return node.op_type in ("Loop", "Scan") and node.domain in ("", "ai.onnx")


def _can_be_flattened(node: ir.Node, graph: ir.Graph) -> bool:
    body = node.attributes["body"].as_graph()
    if node.op_type == "Scan" and graph.opset_imports.get("", 0) < _OPSET_OF_SCAN:
        return False
    first = 2 if node.op_type == "Loop" else 0
    if len(body.inputs) != len(node.inputs) or any(value is None for value in node.inputs[first:]):
        return False
    if len(body.outputs) != len(node.outputs) + (1 if node.op_type == "Loop" else 0):
        return False
    if any(isinstance(value.type, ir.SequenceType | ir.OptionalType) for value in _values(node, body)):
        return False
    return any(map(_is_float, _values(node, body))) and not any(map(_is_closed, body))


def _is_closed(node: ir.Node) -> bool:
    """Whether a node of a body keeps it from being flattened."""
    traits, bodies = traits_of(node), (ir.AttributeType.GRAPH, ir.AttributeType.GRAPHS)
    return traits.random or traits.sequences or any(a.type in bodies for a in node.attributes.values())


def _values(node: ir.Node, body: ir.Graph) -> Iterator[ir.Value]:
    """All values that have to do with a body."""
    yield from (value for value in (*node.inputs, *node.outputs, *body.inputs, *body.outputs) if value is not None)
    for each in body:
        yield from (value for value in (*each.inputs, *each.outputs) if value is not None)


def _is_float(value: ir.Value) -> bool:
    """Whether a value is known to hold floats along some axis."""
    dtype = value.dtype
    return dtype is not None and dtype.is_floating_point() and (value.shape is None or len(value.shape) > 0)


def _flatten(model: ir.Model, node: ir.Node) -> None:
    graph, body = model.graph, node.attributes["body"].as_graph()
    doors, settled = list(body.inputs), _settled(node, body)
    first, made = hoist(graph, node, body, Counter(names_of(model)))
    node.attributes.pop("body")
    body.inputs.clear()
    editor = Editor(graph)
    here = editor.at(first[0] if first else node).before()
    entries: dict[ir.Value, ir.Value] = {}
    for k, door in enumerate(doors):
        if k not in settled:
            entries[door] = _entry(editor, here, node, k, len(entries), door)
    read_instead = entries | {doors[k]: value for k in settled if (value := node.inputs[k]) is not None}
    for door, value in read_instead.items():
        door.replace_all_uses_with(value)
    ahead = 1 if node.op_type == "Loop" else 0  # a Loop is given the number of trips, too, and gives no condition
    made = [read_instead.get(value, value) for k, value in enumerate(made) if k + ahead not in settled]
    given = [node.inputs[k] if _is_trip(node, k) else entries[door] for k, door in enumerate(doors) if door in entries]
    states = [old for k, old in enumerate(node.outputs) if k + 2 * ahead not in settled]
    for k in settled:
        node.outputs[k - 2 * ahead].replace_all_uses_with(read_instead[doors[k]])
    outputs = [ir.Value(type=value.type, shape=value.shape) for value in states]
    label = node.name or ""
    facts = [ir.AttrString(OP, node.op_type), ir.AttrString(LOOP, label), ir.AttrInt64(GIVEN, len(given))]
    end = ir.Node(
        DOMAIN,
        _end_of(node, made, entries),
        [*given, *made],
        [*node.attributes.values(), *facts],
        outputs=outputs,
        name=label,
    )
    end.metadata_props.update(node.metadata_props)
    graph.insert_before(node, end)
    for old, new in zip(states, outputs, strict=True):
        editor.replace(old, new)
    graph.remove(node, safe=True)


def _settled(node: ir.Node, body: ir.Graph) -> frozenset[int]:
    """The inputs of a Loop or Scan that its body hands on as they are: what they hold before the first trip is all."""
    ahead = 1 if node.op_type == "Loop" else 0
    states = range(2 * ahead, len(node.inputs) - node.attributes.get_int("num_scan_inputs", 0))
    return frozenset(
        k
        for k in states
        if _behind_identities(body.outputs[k - ahead]) is body.inputs[k]
        and not node.outputs[k - 2 * ahead].is_graph_output()
    )


def _behind_identities(value: ir.Value) -> ir.Value:
    while (maker := value.producer()) is not None and maker.op_type == "Identity" and maker.inputs[0] is not None:
        value = maker.inputs[0]
    return value


def _is_trip(node: ir.Node, index: int) -> bool:
    """Whether an input of a body is the number of the trip, or the condition."""
    return node.op_type == "Loop" and index < 2


def _entry(editor: Editor, here: Insertion, node: ir.Node, index: int, number: int, door: ir.Value) -> ir.Value:
    """What stands for an input of the body; the number that it has among those that stay."""
    given = node.inputs[index]
    op, copied = CARRIED, [ir.AttrString(LOOP, node.name or ""), ir.AttrInt64(INDEX, number)]
    if _is_trip(node, index):
        op, given = TRIP, None
    elif node.op_type == "Scan":
        scans = node.attributes.get_int("num_scan_inputs", 0)
        if (k := index - len(node.inputs) + scans) >= 0:
            axes = node.attributes.get_ints("scan_input_axes", [0] * scans)
            op = SCANNED
            copied.append(ir.AttrInt64("axis", axes[k]))
    value = ir.Value(name=editor.unused(door.name or f"{node.name}/input{index}"), type=door.type)
    if op == TRIP:
        value.shape = door.shape if door.shape is not None else ir.Shape([])
    operands = [] if given is None else [given]
    here.node(op, *operands, name=f"{node.name}/{value.name}", domain=DOMAIN, outputs=[value], copied=copied)
    return value


def _end_of(node: ir.Node, made: list[ir.Value], entries: dict[ir.Value, ir.Value]) -> str:
    """Whether a body goes on as often as it was told, or as long as what it computes says."""
    if node.op_type == "Scan":
        return REPEAT
    condition = _behind_identities(made[0])
    told = list(entries.values())[1]
    return REPEAT if condition is told or condition.is_initializer() else WHILE
