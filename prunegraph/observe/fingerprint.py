"""The fingerprint of a model: a hash of all that it stores, the same whenever and from wherever it is loaded."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Sequence

import numpy as np
import onnx_ir as ir

from prunegraph.analysis.read_weight import read_weight

_NESTED = (ir.AttributeType.SPARSE_TENSOR, ir.AttributeType.SPARSE_TENSORS)
_TYPES = (ir.AttributeType.TYPE_PROTO, ir.AttributeType.TYPE_PROTOS)


def fingerprint(model: ir.Model) -> str:
    """A hash of everything that decides what a model computes: its graphs, attributes and every stored number.

    Tensors are hashed where they lie, without a copy. Names of nodes are left out, which loading makes up where the
    file has none; names of values are in, since that is how observations are filed.
    """
    digest = _Digest()
    digest.write("opsets", sorted(model.opset_imports.items()))
    for key, function in sorted(model.functions.items(), key=lambda item: tuple(map(str, item[0]))):
        digest.write("function", tuple(map(str, key)), sorted(function.opset_imports.items()))
        digest.attributes(function.attributes.values())
        digest.graph(function.graph)
    digest.graph(model.graph)
    return digest.text()


class _Digest:
    """Takes in parts of a model; every part says of what kind and how long it is, so that no two rows of parts mix."""

    def __init__(self) -> None:
        self._hash = hashlib.blake2b(digest_size=32)
        self._unnamed: dict[ir.Value, int] = {}

    def text(self) -> str:
        """The hash of what was taken in."""
        return self._hash.hexdigest()

    def write(self, *parts: object) -> None:
        """Take in plain values, whose `repr` says all of them."""
        self._hash.update(repr(parts).encode("utf-8", "backslashreplace"))

    def graph(self, graph: ir.Graph) -> None:
        """Take in a graph with all that is in it."""
        self.write("inputs", [(self._name(value), str(value.type), str(value.shape)) for value in graph.inputs])
        for name, value in graph.initializers.items():
            if value.const_value is not None:
                self.write("initializer", name)
                self.tensor(value.const_value)
        for node in graph:
            self.write("node", node.domain, node.op_type, node.overload, self._names(node.inputs))
            self.write("makes", self._names(node.outputs))
            self.attributes(node.attributes.values())
        self.write("outputs", self._names(graph.outputs))

    def attributes(self, attributes: Iterable[ir.Attr]) -> None:
        """Take in attributes, whatever order they are in."""
        for attribute in sorted(attributes, key=lambda each: each.name):
            self.write("attribute", attribute.name, attribute.type.name, attribute.ref_attr_name)
            if not attribute.is_ref() and attribute.value is not None:
                self._value(attribute)

    def tensor(self, tensor: ir.TensorProtocol) -> None:
        """Take in the type, the shape and every number."""
        self.write("tensor", tensor.dtype.name, tuple(map(str, tensor.shape)))
        array = read_weight(tensor)
        if array.dtype == object:
            self.write([bytes(text) if isinstance(text, bytes) else str(text) for text in array.reshape(-1)])
        elif array.size:
            self._hash.update(np.ascontiguousarray(array).reshape(-1).view(np.uint8).data)

    def _value(self, attribute: ir.Attr) -> None:
        match attribute.type:
            case ir.AttributeType.TENSOR:
                self.tensor(attribute.as_tensor())
            case ir.AttributeType.TENSORS:
                for tensor in attribute.as_tensors():
                    self.tensor(tensor)
            case ir.AttributeType.GRAPH:
                self.graph(attribute.as_graph())
            case ir.AttributeType.GRAPHS:
                for graph in attribute.as_graphs():
                    self.graph(graph)
            case kind if kind in _NESTED or kind in _TYPES:
                self.write(ir.serde.serialize_attribute(attribute).SerializeToString(deterministic=True))
            case _:
                self.write(attribute.value)

    def _names(self, values: Sequence[ir.Value | None]) -> list[str | int | None]:
        return [None if value is None else self._name(value) for value in values]

    def _name(self, value: ir.Value) -> str | int:
        """The name of a value; of one without a name its number."""
        return value.name if value.name is not None else self._unnamed.setdefault(value, len(self._unnamed))
