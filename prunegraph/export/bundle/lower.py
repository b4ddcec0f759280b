"""A model in an older opset and file format, for a runtime that is older than the exporter."""

from __future__ import annotations

from collections.abc import Iterator, Sequence, Set

import onnx
from onnx import defs, helper, inliner, numpy_helper, version_converter

from prunegraph.errors import ModelError, one_line
from prunegraph.export.bundle.stacks import Stack

_STANDARD = ("", "ai.onnx")
AXES_ARE_AN_OPERAND = 18
REDUCTIONS = frozenset(f"Reduce{name}" for name in ("L1", "L2", "LogSum", "LogSumExp", "Max", "Mean", "Min", "Prod"))
REDUCTIONS |= {"ReduceSumSquare"}
"""Their axes were an attribute up to this opset."""

_NEW_CONTRIB = ("MatMulNBits", "GatherBlockQuantized")


def lowered(proto: onnx.ModelProto, name: str, stack: Stack) -> onnx.ModelProto:
    """The model as this stack can read it: at most its opset and version of the format; what is older stays.

    Ops that the older opset lacks are written out where ONNX defines them by others (LayerNormalization, Gelu). Whether
    the result computes the same is the caller's to check.

    Raises:
        ModelError: an op cannot be written in that opset.
    """
    hint = f"choose a newer stack than {stack.name}, or export the model with opset {stack.opset}"
    new = [node.op_type for node in _nodes(proto.graph) if node.op_type in _NEW_CONTRIB]
    if new and not stack.contrib:
        raise ModelError(f"{name}: the ONNX Runtime of {stack.name} has no {new[0]}", hint=hint)
    result = onnx.ModelProto()
    result.CopyFrom(proto)
    opset = _opset(proto)
    if opset > stack.opset:
        result = _convert(result, name, opset, stack, hint)
        del result.metadata_props[:]
        result.metadata_props.extend(proto.metadata_props)
    _without_needless_allowzero(result.graph)
    result.ir_version = min(proto.ir_version, stack.ir_version)
    try:
        onnx.checker.check_model(result, full_check=True)
    except (onnx.checker.ValidationError, onnx.shape_inference.InferenceError) as error:
        raise ModelError(f"{name} is not valid in opset {_opset(result)}: {one_line(error)}", hint=hint) from error
    return result


def _convert(proto: onnx.ModelProto, name: str, opset: int, stack: Stack, hint: str) -> onnx.ModelProto:
    missing = {
        node.op_type
        for node in _nodes(proto.graph)
        if node.domain in _STANDARD and not _is_known(node.op_type, stack.opset)
    }
    if missing:
        try:
            proto = _written_out(proto, sorted(missing))
        except RuntimeError as error:
            reason = f"{', '.join(sorted(missing))} cannot be written out: {one_line(error)}"
            raise ModelError(f"{name} cannot be written in opset {stack.opset}: {reason}", hint=hint) from error
    left = sorted({node.op_type for node in _nodes(proto.graph)} & missing)
    if left:
        message = f"{name}: opset {stack.opset} has no {left[0]}, which ONNX does not define by older ops"
        raise ModelError(message, hint=hint)
    try:
        converted = version_converter.convert_version(proto, stack.opset)
        if stack.opset < AXES_ARE_AN_OPERAND:
            for node in converted.graph.node:
                if node.op_type in REDUCTIONS:  # which the converter leaves there
                    _drop_attribute(node, "noop_with_empty_axes")
        return converted
    except Exception as error:  # RuntimeError and its own
        reason = _relabel(proto, opset, stack.opset)
        if reason:
            raise ModelError(f"{name} cannot be written in opset {stack.opset}: {reason}", hint=hint) from error
        return proto


def _written_out(proto: onnx.ModelProto, ops: Sequence[str]) -> onnx.ModelProto:
    """These ops as ONNX defines them by others; types of all values must be known for that."""
    proto = onnx.shape_inference.infer_shapes(proto)
    known = {value.name for value in proto.graph.value_info}
    for weight in proto.graph.initializer:
        if weight.name not in known:
            proto.graph.value_info.append(helper.make_tensor_value_info(weight.name, weight.data_type, weight.dims))
    functions = [(domain, op) for domain in _STANDARD for op in ops]
    original_outputs = {name for node in proto.graph.node for name in node.output}
    proto = inliner.inline_selected_functions(proto, functions, inline_schema_functions=True)
    _plain_ops(proto, original_outputs)
    del proto.graph.value_info[:]
    return proto


def _plain_ops(proto: onnx.ModelProto, original_outputs: Set[str]) -> None:
    """Definitions in words that converters of small runtimes know: casts to a stated type, and sums of two as Add."""
    graph = onnx.shape_inference.infer_shapes(proto).graph
    types = {value.name: value.type.tensor_type.elem_type for value in (*graph.input, *graph.value_info)}
    types |= {weight.name: weight.data_type for weight in graph.initializer}
    for node in proto.graph.node:
        if not original_outputs & set(node.output) and node.op_type == "Sum" and len(node.input) == 2:
            node.op_type = "Add"
        if node.op_type == "CastLike" and types.get(node.input[1]):
            to = helper.make_attribute("to", types[node.input[1]])
            node.op_type = "Cast"
            del node.input[1], node.attribute[:]
            node.attribute.append(to)


def _relabel(proto: onnx.ModelProto, opset: int, target: int) -> str:
    """State the older opset; why not, where a node needs the newer one.

    The converter gives up on ops that merely take more types since, such as Identity.
    """
    if target < AXES_ARE_AN_OPERAND <= opset:
        _axes_as_attributes(proto.graph)
    for node in _nodes(proto.graph):
        if node.domain not in _STANDARD:
            continue
        older = defs.get_schema(node.op_type, target, "")
        if older.since_version == defs.get_schema(node.op_type, opset, "").since_version:
            continue
        more = [each.name for each in node.attribute if each.name not in older.attributes]
        if more:
            return f"{node.op_type} has no attribute {more[0]!r} there"
        if not older.min_input <= len(node.input) <= older.max_input:
            return f"{node.op_type} takes its operands in another way there"
    for entry in proto.opset_import:
        if entry.domain in _STANDARD:
            entry.version = target
    return ""


def _axes_as_attributes(graph: onnx.GraphProto) -> None:
    """Write the constant axes of reductions as the attribute that they were once."""
    constants = _constants(graph)
    for node in graph.node:
        if node.op_type in REDUCTIONS and len(node.input) == 2 and node.input[1] in constants:
            axes = numpy_helper.to_array(constants[node.input[1]]).tolist()
            del node.input[1]
            _drop_attribute(node, "noop_with_empty_axes")
            node.attribute.append(helper.make_attribute("axes", axes))


def _without_needless_allowzero(graph: onnx.GraphProto) -> None:
    """Reshapes to a shape without zeros need no word on zeros; ONNX Runtime 1.10 takes it for an error beside a -1."""
    constants = _constants(graph)
    for node in graph.node:
        if node.op_type == "Reshape" and node.input[1] in constants:
            if numpy_helper.to_array(constants[node.input[1]]).all():
                _drop_attribute(node, "allowzero")


def _constants(graph: onnx.GraphProto) -> dict[str, onnx.TensorProto]:
    """Constant values of the outer graph, by name."""
    constants = {weight.name: weight for weight in graph.initializer}
    attributes = (
        (node, attribute) for node in graph.node if node.op_type == "Constant" for attribute in node.attribute
    )
    return constants | {node.output[0]: attribute.t for node, attribute in attributes if attribute.name == "value"}


def _drop_attribute(node: onnx.NodeProto, name: str) -> None:
    attributes = [each for each in node.attribute if each.name != name]
    del node.attribute[:]
    node.attribute.extend(attributes)


def _opset(proto: onnx.ModelProto) -> int:
    return max((entry.version for entry in proto.opset_import if entry.domain in _STANDARD), default=1)


def _nodes(graph: onnx.GraphProto) -> Iterator[onnx.NodeProto]:
    for node in graph.node:
        yield node
        for attribute in node.attribute:
            for inner in (*([attribute.g] if attribute.HasField("g") else []), *attribute.graphs):
                yield from _nodes(inner)


def _is_known(op: str, opset: int) -> bool:
    try:
        defs.get_schema(op, opset, "")
    except defs.SchemaError:
        return False
    return True
