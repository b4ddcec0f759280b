"""Graph files without weights: real exports, small enough to commit.

A skeleton is an ONNX file whose large float tensors have lost their payload. `fill` puts seeded random values in, so
that tests run the true graphs of real exporters without torch and without downloads.
"""

from __future__ import annotations

import gzip
import hashlib
import math
from collections import defaultdict
from collections.abc import Iterable, Iterator
from functools import cache
from pathlib import Path

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import AttributeProto, GraphProto, ModelProto, NodeProto, TensorProto, helper, numpy_helper

from prunegraph.analyzed import Analyzed, load_and_analyze

GRAPHS = Path(__file__).parent / "skeletons"
SUFFIX = ".onnx.gz"
FLOATS = frozenset({TensorProto.FLOAT, TensorProto.FLOAT16, TensorProto.BFLOAT16, TensorProto.DOUBLE})
KEEP_ELEMENTS = 64  # a float tensor of at most so many elements keeps its values
KEEP_LEVELS = 4  # so does one with at most so many different values: a mask or a table of zeros and ones
FRESH_ELEMENTS = 8  # a uniform vector longer than this is a parameter as its module was born: norm weight, bias
NODE_KEYS = frozenset({"namespace", "pkg.torch.onnx.name_scopes"})
TENSOR_KEYS = frozenset({"pkg.torch.onnx.original_node_name"})
LONG_TEXT = 256
MARK = "random "
NORMS = frozenset(
    {"BatchNormalization", "GroupNormalization", "InstanceNormalization", "LayerNormalization", "RMSNormalization",
     "SimplifiedLayerNormalization"}
)  # fmt: skip

Use = tuple[NodeProto, int]


def strip(model: ModelProto) -> ModelProto:
    """Return a copy without the values of large float tensors and without bulky text.

    Names, dims and types stay, and so do the values of integers, booleans, small, non-finite and uniform tensors. A
    tensor that lost its values says so in its `doc_string`, with a digest: equal tensors are filled equally.

    Args:
        model: With its weights loaded; it is not changed.
    """
    slim = ModelProto()
    slim.CopyFrom(model)
    for _, tensor in _tensors(slim):
        tensor.doc_string = ""
        if _is_payload(tensor):
            digest = hashlib.sha256(numpy_helper.to_array(tensor).tobytes()).hexdigest()[:16]
            for payload in ("raw_data", "float_data", "int32_data", "double_data", "external_data", "data_location"):
                tensor.ClearField(payload)
            tensor.doc_string = MARK + digest
        _keep_metadata(tensor, TENSOR_KEYS)
    slim.doc_string = ""
    _keep_metadata(slim, frozenset(entry.key for entry in slim.metadata_props if len(entry.value) <= LONG_TEXT))
    for function in slim.functions:
        function.doc_string = ""
    for graph in _graphs(slim.graph):
        graph.doc_string = ""
        _keep_metadata(graph, frozenset())
        for value in (*graph.value_info, *graph.input, *graph.output):
            value.doc_string = ""
            _keep_metadata(value, frozenset())
    for node in _nodes(slim):
        node.doc_string = ""
        _keep_metadata(node, NODE_KEYS)
    return slim


def fill(model: ModelProto, seed: int = 0) -> ModelProto:
    """Return a copy with seeded random values for the tensors that `strip` emptied.

    Matrices are normal with standard deviation 1/sqrt(fan in); scales are 1 + 0.1 normal, running variances uniform
    in 0.5..1.5, every other vector 0.1 normal. Long uniform vectors (a norm weight of ones, a bias of zeros, a layer
    scale of 1e-6) get values too, because with them a wrong result can look right.

    Args:
        model: A stripped model; it is not changed.
        seed: Other seeds give other values.
    """
    full = ModelProto()
    full.CopyFrom(model)
    uses = _uses(full)
    for name, tensor in _tensors(full):
        if tensor.doc_string.startswith(MARK):
            key = tensor.doc_string
        elif _is_fresh(tensor):
            key = name
        else:
            continue
        bits = hashlib.sha256(f"{seed} {key}".encode()).digest()[:8]
        values = _random(tuple(tensor.dims), uses[name], np.random.default_rng(int.from_bytes(bits)))
        dtype = helper.tensor_dtype_to_np_dtype(tensor.data_type)
        tensor.ClearField("float_data")
        tensor.raw_data = values.astype(dtype).tobytes()
        tensor.doc_string = ""
    return full


def save_skeleton(model: ModelProto, path: Path) -> int:
    """Strip a model and write it compressed; equal models give equal files.

    Returns:
        The size of the file in bytes.
    """
    data = gzip.compress(strip(model).SerializeToString(deterministic=True), compresslevel=9, mtime=0)
    partial = path.with_name(path.name + ".part")
    partial.write_bytes(data)
    partial.replace(path)
    return len(data)


def skeleton_names() -> list[str]:
    """Return the names of the committed graphs."""
    return sorted(path.name.removesuffix(SUFFIX) for path in GRAPHS.glob("*" + SUFFIX))


def read_skeleton(name: str) -> ModelProto:
    """Read a committed graph as it is, without values.

    Args:
        name: One of `skeleton_names()`.

    Raises:
        FileNotFoundError: There is no such graph.
    """
    return onnx.load_model_from_string(gzip.decompress((GRAPHS / (name + SUFFIX)).read_bytes()))


def load_skeleton(name: str, seed: int = 0) -> ModelProto:
    """Read a committed graph and fill it; see `read_skeleton` and `fill`."""
    return fill(read_skeleton(name), seed)


@cache
def analyzed_skeleton(name: str) -> Analyzed:
    """A filled graph and its analysis, once for all tests that only read it."""
    return load_and_analyze(load_skeleton(name))


def _is_payload(tensor: TensorProto) -> bool:
    if tensor.data_type not in FLOATS or math.prod(tensor.dims) <= KEEP_ELEMENTS:
        return False
    values = numpy_helper.to_array(tensor).astype(np.float64).ravel()
    if not np.isfinite(values).all():
        return False
    return len(np.unique(values[:1000])) > KEEP_LEVELS or len(np.unique(values)) > KEEP_LEVELS


def _is_fresh(tensor: TensorProto) -> bool:
    if tensor.data_type not in FLOATS or _is_matrix(tuple(tensor.dims)) or math.prod(tensor.dims) <= FRESH_ELEMENTS:
        return False
    values = numpy_helper.to_array(tensor).astype(np.float64)
    first = values.flat[0]
    return bool(abs(first) <= 1 and (values == first).all())  # a mask of -inf or -1e9 is no parameter


def _is_matrix(shape: tuple[int, ...]) -> bool:
    """Tell a matrix from a vector that was only shaped for broadcasting, such as [1, channels, 1, 1]."""
    return math.prod(shape) > max(shape, default=1)


def _random(shape: tuple[int, ...], uses: Iterable[Use], rng: np.random.Generator) -> NDArray[np.floating]:
    uses = list(uses)
    if any(node.op_type == "BatchNormalization" and index == 4 for node, index in uses):
        return rng.uniform(0.5, 1.5, shape)
    noise = rng.standard_normal(shape, dtype=np.float32)
    if _is_matrix(shape):
        noise *= np.float32(_fan_in(shape, uses) ** -0.5)
        return noise
    return 1 + 0.1 * noise if any(_is_scale(node, index) for node, index in uses) else 0.1 * noise


def _is_scale(node: NodeProto, index: int) -> bool:
    return node.op_type in {"Mul", "Div"} or (node.op_type in NORMS and index == 1)


def _fan_in(shape: tuple[int, ...], uses: Iterable[Use]) -> int:
    """Count the terms of the sum that the matrix is used in, by its first use that sums."""
    for node, index in uses:
        if node.op_type == "MatMul":
            return shape[-2 if index else -1]
        if node.op_type == "Gemm":
            transposed = any(a.name == ("transB" if index else "transA") and a.i for a in node.attribute)
            return shape[1 if transposed == bool(index) else 0]
    return max(1, math.prod(shape[1:]))


def _uses(model: ModelProto) -> dict[str, list[Use]]:
    uses: dict[str, list[Use]] = defaultdict(list)
    for node in _nodes(model):
        for index, name in enumerate(node.input):
            uses[name].append((node, index))
    return uses


def _tensors(model: ModelProto) -> Iterator[tuple[str, TensorProto]]:
    """Yield initializers and constants under the value name that their consumers read."""
    for graph in _graphs(model.graph):
        for tensor in graph.initializer:
            yield tensor.name, tensor
    for node in _nodes(model):
        if node.op_type == "Constant":
            for attribute in node.attribute:
                if attribute.type == AttributeProto.TENSOR:
                    yield node.output[0], attribute.t


def _graphs(graph: GraphProto) -> Iterator[GraphProto]:
    yield graph
    yield from _bodies(graph.node)


def _bodies(nodes: Iterable[NodeProto]) -> Iterator[GraphProto]:
    for node in nodes:
        for attribute in node.attribute:
            if attribute.type == AttributeProto.GRAPH:
                yield from _graphs(attribute.g)
            for body in attribute.graphs:
                yield from _graphs(body)


def _nodes(model: ModelProto) -> Iterator[NodeProto]:
    for graph in _graphs(model.graph):
        yield from graph.node
    for function in model.functions:
        yield from function.node
        for graph in _bodies(function.node):
            yield from graph.node


def _keep_metadata(owner: object, keys: frozenset[str]) -> None:
    props = owner.metadata_props  # type: ignore[attr-defined]
    kept = [(entry.key, entry.value) for entry in props if entry.key in keys]
    del props[:]
    for key, value in kept:
        props.add(key=key, value=value)
