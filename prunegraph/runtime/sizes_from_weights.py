"""Sizes of symbolic input dims that follow from the weights: a convolution says how many channels an image has.

What the axis rules of the ops say is equal is unified, for single axes alone; a class that holds an axis of a weight
(or of anything else of known length) is as long as that one.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import zip_longest

import onnx
import onnx_ir as ir

from prunegraph.analysis.axes import Expr, Ref, Size, Sum, expr_size
from prunegraph.analysis.ops import traits_of
from prunegraph.analysis.registry import rule_for
from prunegraph.analysis.relations import CannotAnalyze, IntArray, NodeView
from prunegraph.runtime.inputs import InputSpec
from prunegraph.runtime.limits import CannotRun
from prunegraph.runtime.session import session_of

STANDING_IN = ((1009, 2003), (1511, 2503))
"""What an axis of unknown length is taken for: all alike, so that rules relate them. What follows hangs on neither."""

_SMALL = 4096
Dims = tuple[int | None, ...]
Place = tuple[str, int]
"""A value and one of its axes."""


@dataclass(frozen=True, slots=True)
class SizesFromWeights:
    """Lengths of dynamic dims of inputs, by the name of the dim.

    Attributes:
        certain: Where weights leave no choice.
        likely: Where a weight broadcasts along it, so that it could be one as well.
    """

    certain: Mapping[str, int] = field(default_factory=dict)
    likely: Mapping[str, int] = field(default_factory=dict)


def sizes_from_weights(graph: ir.Graph, blank: onnx.ModelProto, specs: Sequence[InputSpec]) -> SizesFromWeights:
    """What weights say of dynamic dims of inputs.

    Args:
        graph: Flat, its constants initializers.
        blank: The same as a message, its weights blank.
        specs: The inputs.
    """
    dims = _dims(graph, blank, specs)
    one, other = (_unified(graph, dims, unknown) for unknown in STANDING_IN)
    certain = _agreed(specs, one.length, other.length, one, other)
    likely = _agreed(specs, one.broadcast, other.broadcast, one, other)
    return SizesFromWeights(certain, {dim: n for dim, n in likely.items() if dim not in certain})


def _agreed(
    specs: Sequence[InputSpec], a: Mapping[Place, int], b: Mapping[Place, int], one: _Classes, other: _Classes
) -> dict[str, int]:
    """Lengths that hang on neither length that stands in for an unknown one."""
    first, second = dict(_lengths(specs, a, one)), dict(_lengths(specs, b, other))
    return {dim: length for dim, length in first.items() if second.get(dim) == length}


def _unified(graph: ir.Graph, dims: Mapping[str, Dims], unknown: Size) -> _Classes:
    """What the rules of all nodes say of axes of unknown length."""
    classes, sums = _Classes(unknown), list[tuple[ir.Node, Expr, Sum]]()
    integers = _integers(graph)
    weights = set(graph.initializers)
    for node in graph:
        rule = rule_for(node.domain, node.op_type)
        if rule is None:
            continue
        view = _view(graph, node, dims, integers, weights, unknown)
        try:
            said = rule(view)
        except (CannotAnalyze, ValueError, LookupError, TypeError, AttributeError, ArithmeticError):
            continue  # at sizes that are made up a rule may not follow
        if traits_of(node).reshapes and said.pins:
            continue  # lengths that do not multiply up were matched by chance
        for a, b in said.equal:
            _relate(classes, node, a, b)
            sums += [(node, ref, whole) for ref, whole in ((a, b), (b, a)) if isinstance(whole, Sum)]
        if traits_of(node).broadcasts:
            _broadcast(classes, node, view)
    for node, ref, whole in sums:
        _complete(classes, node, ref, whole)
    return classes


def _broadcast(classes: _Classes, node: ir.Node, view: NodeView) -> None:
    """An operand of unknown length beside one of known length has that one, or length one."""
    for column in zip_longest(*(reversed(operand) for operand in view.inputs if operand)):
        known = {ref.size[0] for ref in column if ref is not None and ref.size != classes.unknown and not view.one(ref)}
        for ref in column if len(known) == 1 else ():
            place = _place(node, ref) if ref is not None and ref.size == classes.unknown else None
            if place is not None:
                classes.broadcast.setdefault(classes.find(place), min(known))


def _complete(classes: _Classes, node: ir.Node, ref: Expr, whole: Sum) -> None:
    """Of a sum and its parts all lengths but one tell that one."""
    lengths = [_length(classes, node, each) for each in (ref, *whole.terms)]
    if lengths.count(None) == 1 and lengths[0] is not None:
        k = lengths.index(None)
        part, length = whole.terms[k - 1], lengths[0] - sum(n for n in lengths[1:] if n is not None)
        if isinstance(part, Ref) and part.size == classes.unknown and length > 1:
            classes.state(_place(node, part), length)


def _length(classes: _Classes, node: ir.Node, expr: Expr) -> int | None:
    """How long something is, None where that is not known."""
    sizes = expr_size(expr, 2)
    if isinstance(expr, Ref) and sizes == classes.unknown:
        return classes.length.get(classes.find(_place(node, expr)))
    return sizes[0] if len(set(sizes)) == 1 else None


def _dims(graph: ir.Graph, blank: onnx.ModelProto, specs: Sequence[InputSpec]) -> dict[str, Dims]:
    """What inference says of every value of known rank, None where a length is unknown."""
    dims: dict[str, Dims] = {
        name: tuple(int(n) for n in value.const_value.shape.numpy())
        for name, value in graph.initializers.items()
        if value.const_value is not None
    }
    try:
        inferred = onnx.shape_inference.infer_shapes(blank, data_prop=True)
    except onnx.shape_inference.InferenceError:  # types that do not fit: the weights still tell
        inferred = onnx.ModelProto()
    for value in (*inferred.graph.value_info, *inferred.graph.output):
        if value.type.tensor_type.HasField("shape"):
            shape = value.type.tensor_type.shape.dim
            dims[value.name] = tuple(
                d.dim_value if d.HasField("dim_value") and d.dim_value >= 0 else None for d in shape
            )
    dims |= {spec.name: tuple(d if isinstance(d, int) else None for d in spec.dims) for spec in specs}
    missing = [v.name for node in graph for v in node.outputs if v.name and v.name not in dims]
    return dims | _dims_by_runtime(blank, missing) if missing else dims


def _dims_by_runtime(blank: onnx.ModelProto, names: Sequence[str]) -> dict[str, Dims]:
    """What ONNX Runtime infers where ONNX does not know the ops; nothing where it does not load the model."""
    twin = onnx.ModelProto()
    twin.CopyFrom(blank)
    del twin.graph.output[:]
    twin.graph.output.extend(onnx.ValueInfoProto(name=name) for name in names)
    try:
        outputs = session_of(twin).get_outputs()
    except CannotRun:
        return {}
    return {
        output.name: tuple(n if isinstance(n, int) and n >= 0 else None for n in output.shape)
        for output in outputs
        if output.shape
    }


def _integers(graph: ir.Graph) -> dict[str, tuple[IntArray, ...]]:
    tensors = ((name, value.const_value) for name, value in graph.initializers.items())
    return {
        name: (tensor.numpy(),) * 2
        for name, tensor in tensors
        if tensor is not None and tensor.dtype.is_integer() and tensor.size <= _SMALL
    }


def _view(
    graph: ir.Graph,
    node: ir.Node,
    dims: Mapping[str, Dims],
    integers: Mapping[str, tuple[IntArray, ...]],
    weights: set[str],
    unknown: Size,
) -> NodeView:
    def refs(side: str, index: int, value: ir.Value | None) -> tuple[Ref, ...] | None:
        known = dims.get(value.name or "") if value is not None else None
        if known is None:
            return None
        sizes = (unknown if n is None else (n, n) for n in known)
        return tuple(Ref(side, index, axis, size) for axis, size in enumerate(sizes))

    return NodeView(
        op=node.op_type,
        domain=node.domain,
        version=node.version or graph.opset_imports.get(node.domain, 0),
        inputs=tuple(refs("x", k, value) for k, value in enumerate(node.inputs)),
        outputs=tuple(refs("y", k, value) for k, value in enumerate(node.outputs)),
        attributes={name: attribute.value for name, attribute in node.attributes.items()},
        constants=[integers.get(value.name or "") if value is not None else None for value in node.inputs],
        probes=2,
        weights=tuple(value is None or value.name in weights for value in node.inputs),
    )


@dataclass(slots=True)
class _Classes:
    """Axes that are equally long, and how long they are."""

    unknown: Size
    parent: dict[Place, Place] = field(default_factory=dict)
    length: dict[Place, int] = field(default_factory=dict)
    broadcast: dict[Place, int] = field(default_factory=dict)

    def find(self, place: Place) -> Place:
        root = place
        while (above := self.parent.get(root, root)) != root:
            root = above
        while (above := self.parent.get(place, place)) != root:
            self.parent[place], place = root, above
        return root

    def join(self, a: Place, b: Place) -> None:
        a, b = self.find(a), self.find(b)
        if a != b:
            self.parent[b] = a
            for store in (self.length, self.broadcast):
                if b in store:
                    store.setdefault(a, store[b])

    def state(self, place: Place, length: int) -> None:
        self.length.setdefault(self.find(place), length)


def _relate(classes: _Classes, node: ir.Node, a: Expr, b: Expr) -> None:
    places = [
        _place(node, expr) if expr_size(expr, 2) == classes.unknown and isinstance(expr, Ref) else None
        for expr in (a, b)
    ]
    match places:
        case [None, None]:
            return
        case [None, place]:
            _state(classes, place, a)
        case [place, None]:
            _state(classes, place, b)
        case [left, right]:
            assert left is not None and right is not None
            classes.join(left, right)


def _state(classes: _Classes, place: Place | None, expr: Expr) -> None:
    sizes = expr_size(expr, 2)
    if place is not None and len(set(sizes)) == 1 and sizes[0] > 1:  # one may broadcast
        classes.state(place, sizes[0])


def _place(node: ir.Node, ref: Ref) -> Place:
    value = (node.inputs if ref.side == "x" else node.outputs)[ref.index]
    assert value is not None
    return value.name or "", ref.axis


def _lengths(specs: Sequence[InputSpec], lengths: Mapping[Place, int], classes: _Classes) -> Iterator[tuple[str, int]]:
    for spec in specs:
        for axis, dim in enumerate(spec.dims):
            length = lengths.get(classes.find((spec.name, axis)))
            if isinstance(dim, str) and length is not None:
                yield dim, length
