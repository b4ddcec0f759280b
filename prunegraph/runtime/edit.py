"""Insert nodes and constants into a graph and put new values in the place of old ones.

It lies below `observe` and `passes`, since both edit what they give ONNX Runtime: head masks and outputs there, every
rewrite here.  An editor is made where a pass over a graph begins.

>>> import numpy as np
>>> x = ir.val("x", ir.DataType.FLOAT, [2])
>>> graph = ir.Graph([x], [], nodes=[ir.node("Relu", [x], name="relu")], opset_imports={"": 18})
>>> graph.outputs.append(graph[0].outputs[0])
>>> here = Editor(graph).at(graph[0]).after()
>>> doubled = here.add("Mul", graph[0].outputs[0], here.constant(np.float32(2), "relu/two"))
>>> here.replace(graph[0].outputs[0], doubled)
>>> [(node.name, [value.name for value in node.inputs]) for node in graph]
[('relu', ['x']), ('relu/Mul', ['val_0/before', 'relu/two'])]
>>> [value.name for value in graph.outputs]
['val_0']
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx_ir as ir

Attribute = int | float | str | Sequence[int] | Sequence[float] | ir.TensorProtocol | ir.Attr
"""What an attribute of a new node may hold."""


class Editor:
    """Edits one graph; no name that it gives stands anywhere in the graph or in the bodies of its nodes."""

    def __init__(self, graph: ir.Graph) -> None:
        """Read the names of a graph; whoever adds nodes beside an editor makes a new one afterwards."""
        self.graph = graph
        self._taken = {name for each in (graph, *graph.subgraphs()) for name in _names(each)}

    def unused(self, wish: str) -> str:
        """The name wished for; where it is taken, as in a model that was pruned before, a number stands behind it."""
        name, k = wish, 1
        while name in self._taken or name in self.graph.initializers:
            k += 1
            name = f"{wish}.{k}"
        self._taken.add(name)
        return name

    def constant(
        self, array: npt.ArrayLike | ir.TensorProtocol, wish: str, *, like: ir.Value | None = None
    ) -> ir.Value:
        """Register an initializer.

        Args:
            array: What it holds.
            wish: Its name, if that is free.
            like: A constant whose metadata it has too.
        """
        name = self.unused(wish)
        tensor = tensor_of(array, name)
        value = ir.Value(
            name=name, shape=ir.Shape(tensor.shape.numpy()), type=ir.TensorType(tensor.dtype), const_value=tensor
        )
        if like is not None:
            value.metadata_props.update(like.metadata_props)
        self.graph.register_initializer(value)
        return value

    def copy_constant(self, constant: ir.Value, wish: str) -> ir.Value:
        """Register an initializer that holds the same tensor, which costs nothing: tensors are immutable."""
        copy = ir.Value(
            name=self.unused(wish),
            shape=constant.shape,
            type=constant.type,
            const_value=constant.const_value,
            metadata_props=dict(constant.metadata_props),
        )
        self.graph.register_initializer(copy)
        return copy

    def at(self, node: ir.Node) -> Place:
        """A place beside a node."""
        return Place(self, node)

    def at_end(self) -> Insertion:
        """The place behind all nodes."""
        return Insertion(self, self.graph.append, "")

    def replace(
        self, old: ir.Value, new: ir.Value, *, rename: bool = True, readers_that_stay: Collection[ir.Node] = ()
    ) -> None:
        """Let a value be read in place of another, by nodes and as an output of the graph.

        Args:
            old: Nobody reads it afterwards.
            new: What is read instead.
            rename: Whether `new` takes over the name, by which others know what they read; not for a value that was
                there before and has a name of its own.
            readers_that_stay: Nodes that go on reading `old`.
        """
        staying = [(node, index) for node, index in old.uses() if node in readers_that_stay]
        if old.is_graph_output() and rename and old.shape is not None:
            new.shape = old.shape  # others know its dims by their names, too
        old.replace_all_uses_with(new, replace_graph_outputs=True)
        for node, index in staying:
            node.replace_input_with(index, old)
        if rename:
            name = old.name or ""
            old.name, new.name = self.unused(f"{name}/before"), name

    def handed(self, value: ir.Value, name: str) -> ir.Node:
        """An Identity, in no graph yet: an inner graph hands out by it what it does not make, or hands out twice.

        Args:
            value: What is handed out.
            name: What the node is called, or nearly so.
        """
        name = self.unused(name)
        output = ir.Value(name=self.unused(f"{name}/out"), type=value.type, shape=value.shape)
        return ir.node("Identity", [value], outputs=[output], name=name)


class Place:
    """Beside a node of a graph."""

    def __init__(self, editor: Editor, node: ir.Node) -> None:
        """Insert before or after one node; see `Editor.at`."""
        self._editor, self._node = editor, node

    def before(self) -> Insertion:
        """New nodes stand before the node, in the order in which they are added."""
        node, graph = self._node, self._editor.graph
        return Insertion(self._editor, lambda new: graph.insert_before(node, new), node.name or node.op_type)

    def after(self) -> Insertion:
        """New nodes stand behind the node, in the order in which they are added."""
        last, graph = self._node, self._editor.graph

        def insert(new: ir.Node) -> None:
            nonlocal last
            graph.insert_after(last, new)
            last = new

        return Insertion(self._editor, insert, self._node.name or self._node.op_type)


class Insertion:
    """Adds nodes at one place of a graph, and remembers which."""

    def __init__(self, editor: Editor, insert: Callable[[ir.Node], None], stem: str) -> None:
        """See `Place` and `Editor.at_end`."""
        self.editor, self._insert, self._stem = editor, insert, stem
        self._added: set[ir.Node] = set()

    def add(
        self,
        op: str,
        *inputs: ir.Value | None,
        name: str | None = None,
        domain: str = "",
        like: ir.Node | ir.Value | None = None,
        copied: Iterable[ir.Attr] = (),
        **attributes: Attribute,
    ) -> ir.Value:
        """The output of a new node, see `node`."""
        return self.node(
            op, *inputs, name=name, domain=domain, like=like, outputs=1, copied=copied, **attributes
        ).outputs[0]

    def node(
        self,
        op: str,
        *inputs: ir.Value | None,
        name: str | None = None,
        domain: str = "",
        like: ir.Node | ir.Value | None = None,
        outputs: int | Sequence[ir.Value] = 1,
        copied: Iterable[ir.Attr] = (),
        **attributes: Attribute,
    ) -> ir.Node:
        """Add a node.

        Args:
            op: What it does.
            inputs: Its operands, None for those that are left out.
            name: Its name, if that is free; else it is called after the node that it stands beside.
            domain: Where `op` is defined.
            like: A value whose type and shape the first output has; or a node, whose metadata the new one has too.
            outputs: How many there are, named after the node; or values that have their names.
            copied: Attributes of another node.
            attributes: More of them.
        """
        name = self.editor.unused(name or f"{self._stem}/{op}")
        if isinstance(outputs, int):
            outputs = [ir.Value(name=self.editor.unused(f"{name}/out{k or ''}")) for k in range(outputs)]
        attributes = {attribute.name: attribute for attribute in copied} | attributes
        node = ir.node(op, list(inputs), attributes, domain=domain, outputs=outputs, name=name)
        if isinstance(like, ir.Node):
            node.metadata_props.update(like.metadata_props)
            like = like.outputs[0]
        if like is not None:
            node.outputs[0].type, node.outputs[0].shape = like.type, like.shape
        return self.insert(node)

    def clone(self, node: ir.Node, inputs: Sequence[ir.Value | None], label: str) -> ir.Node:
        """Add a copy of a node that reads something else, the label behind its name and those of its outputs."""
        clone = ir.Node(
            node.domain, node.op_type, inputs, list(node.attributes.values()), num_outputs=len(node.outputs)
        )
        clone.name = self.editor.unused(f"{node.name}/{label}")
        clone.version = node.version
        clone.metadata_props.update(node.metadata_props)
        for old, new in zip(node.outputs, clone.outputs, strict=True):
            new.name, new.type, new.shape = self.editor.unused(f"{old.name}/{label}"), old.type, old.shape
        return self.insert(clone)

    def insert(self, node: ir.Node) -> ir.Node:
        """Add a node that is made already, and has a name."""
        self._insert(node)
        self._added.add(node)
        return node

    def constant(self, array: npt.ArrayLike, wish: str | None = None) -> ir.Value:
        """Register an initializer, called after the node beside this place unless a name is wished for."""
        return self.editor.constant(array, wish or f"{self._stem}/constant")

    def replace(self, old: ir.Value, new: ir.Value, *, rename: bool = True) -> None:
        """As `Editor.replace`; the nodes added here, of which `new` is made, go on reading `old`."""
        self.editor.replace(old, new, rename=rename, readers_that_stay=self._added)


def tensor_of(array: npt.ArrayLike | ir.TensorProtocol, name: str | None = None) -> ir.TensorProtocol:
    """A tensor that can be written to a file, of numbers or of texts.

    >>> tensor_of(np.array(["a", "b"])).string_data()
    [b'a', b'b']
    """
    if isinstance(array, np.ndarray) and array.dtype.kind in "SUO":
        texts = [text.encode() if isinstance(text, str) else bytes(text) for text in array.flat]
        return ir.StringTensor(texts, shape=ir.Shape(array.shape), name=name)
    return ir.tensor(array, name=name)


def numbers(value: ir.Value | None) -> npt.NDArray[Any] | None:
    """What an initializer holds; None for any other value."""
    tensor = value.const_value if value is not None and value.is_initializer() else None
    return None if tensor is None else tensor.numpy()


def _names(graph: ir.Graph) -> Iterable[str]:
    yield from (value.name or "" for value in (*graph.inputs, *graph.initializers.values()))
    for node in graph:
        yield node.name or ""
        yield from (value.name or "" for value in node.outputs)
