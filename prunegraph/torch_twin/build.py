"""Translate an ONNX graph into a `torch.fx.Graph`: a call for every node, named after the value that it makes."""

from __future__ import annotations

import keyword
import re
from collections.abc import Mapping, Sequence
from itertools import chain, count
from typing import Any

import onnx_ir as ir
import torch
from onnx_ir.passes.common import InlinePass, RemoveUnusedNodesPass, TopologicalSortPass
from torch import Tensor, fx, nn

from prunegraph.errors import ModelError, UsageError
from prunegraph.runtime.nest_bodies import nest_bodies
from prunegraph.runtime.widen import widened
from prunegraph.torch_twin import ops as _ops  # noqa: F401  (fills the registry)
from prunegraph.torch_twin.calls import Constant, ModuleCall, beside, output_of
from prunegraph.torch_twin.dtypes import tensor_of
from prunegraph.torch_twin.hosts import Hosts, constant_of
from prunegraph.torch_twin.registry import TorchOp, torch_op_for
from prunegraph.torch_twin.ties import tie as find_ties
from prunegraph.torch_twin.weights import INPUTS, OUTPUTS, WEIGHTS, Store


def build(model: ir.Model, *, tie: bool = True) -> fx.GraphModule:
    """The module for a model; see `prunegraph.torch_twin.to_torch`."""
    model = flat(model)
    store = Store(model, find_ties(model.graph) if tie else {})
    builder = _Builder(model.graph, dict(model.opset_imports), store)
    graph = builder.build()
    module = fx.GraphModule(store.root, graph, class_name="TorchModel")
    module.meta[INPUTS] = tuple(value.name for value in builder.inputs)
    module.meta[OUTPUTS] = tuple(value.name for value in model.graph.outputs)
    module.meta[WEIGHTS] = store.weights
    return module.eval()


def flat(model: ir.Model) -> ir.Model:
    """A copy in float32 with functions inlined, in order, without what no output needs."""
    model = nest_bodies(model.clone())
    for step in (InlinePass(), RemoveUnusedNodesPass(), TopologicalSortPass()):
        step(model)
    return widened(model)


def call_by_name(module: fx.GraphModule, feeds: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """See `prunegraph.torch_twin.call`.

    Raises:
        UsageError: an input is missing.
    """
    missing = [name for name in module.meta[INPUTS] if name not in feeds]
    if missing:
        raise UsageError(f"no value for the input {missing[0]!r}", hint=f"it reads {', '.join(module.meta[INPUTS])}")
    given = (feeds[name] for name in module.meta[INPUTS])
    wide = (tensor.float() if tensor.dtype in (torch.float16, torch.bfloat16) else tensor for tensor in given)
    return dict(zip(module.meta[OUTPUTS], module(*wide), strict=True))


class _Builder:
    """Writes one graph: the main one, or a block, which takes what it needs from outside as further inputs."""

    def __init__(self, source: ir.Graph, opsets: Mapping[str, int], store: Store, *, block: bool = False) -> None:
        self.source = source
        self.opsets = opsets
        self.store = store
        self.block = block
        self.graph = fx.Graph()
        self.hosts = Hosts(source)
        self.nodes: dict[ir.Value, fx.Node] = {}
        self.constants: dict[tuple[ir.Value, bool], fx.Node] = {}
        self.outside: dict[ir.Value, fx.Node] = {}
        """What a block takes from outside, in order."""

        inputs = [value for value in source.inputs if value.name not in source.initializers]
        self.inputs = [value for value in inputs if value.name]

    def build(self) -> fx.Graph:
        """Write all of it."""
        for value in self.inputs:
            self.nodes[value] = self._input(value)
        for node in self.source:
            if constant_of(node.outputs[0]) is None:
                self._write(node)
        self.graph.output(tuple(self._value(value) for value in self.source.outputs))
        return self.graph

    def _input(self, value: ir.Value) -> fx.Node:
        """A parameter of `forward`, under the name of the value where Python allows it."""
        name = value.name or "x"
        if not _is_parameter(name):
            plain = "x_" + re.sub(r"\W", "_", name, flags=re.ASCII)
            others = {value.name for value in self.inputs} | {node.target for node in self.graph.nodes}
            name = next(each for each in chain((plain,), (f"{plain}_{k}" for k in count(1))) if each not in others)
        return self._add("placeholder", name, (), {}, name)

    def _write(self, node: ir.Node) -> None:
        op = function_for(node)
        args = self._operands(node, op)
        attributes, blocks = self._attributes(node, op)
        facts = {"op": node.op_type, "version": self.opsets.get(node.domain, 1), "outputs": len(node.outputs)}
        attributes |= {name: fact for name, fact in facts.items() if name in op.context}
        name = next((value.name for value in node.outputs if value.name), node.op_type) or node.op_type
        if blocks or "training" in op.context:
            path = self.store.add(name, ModuleCall(op.function, "training" in op.context, len(args), blocks))
            taken = [self._value(value) for block in blocks.values() for value in block.takes]
            call = self._add("call_module", path, (*args, *taken), attributes, name)
        else:
            call = self._add("call_function", op.function, tuple(args), attributes, name)
        if op.single:
            self.nodes[node.outputs[0]] = call
            return
        for k, value in enumerate(node.outputs):
            if value.name:
                self.nodes[value] = self._add("call_function", output_of, (call, k), {}, value.name)

    def _add(self, kind: str, target: Any, args: tuple[Any, ...], kwargs: dict[str, Any], name: str) -> fx.Node:
        name = f"{name}_" if name in _CALLED else name  # what generated code calls must not be a variable in it
        return self.graph.create_node(kind, target, args, kwargs, name=name)

    def _operands(self, node: ir.Node, op: TorchOp) -> list[Any]:
        """Operands as arguments: constant lengths as lists, what lies on the CPU moved beside what does not."""
        inputs = list(node.inputs)
        while inputs and inputs[-1] is None:
            inputs.pop()
        stated = {k for k in op.lengths if k < len(inputs)}
        on_host = self.hosts.is_host(node)
        args: list[Any] = []
        for k, value in enumerate(inputs):
            if value is None:
                args.append(None)
            elif k in stated and (tensor := constant_of(value)) is not None:
                args.append(tensor.numpy().reshape(-1).tolist())
            else:
                args.append(self._value(value, host=on_host or k in stated))
        if not on_host:
            self._move(inputs, args, stated)
        return args

    def _move(self, inputs: Sequence[ir.Value | None], args: list[Any], stated: set[int]) -> None:
        """Put operands that were computed on the CPU where the others are."""
        hosted = [k for k, value in enumerate(inputs) if value in self.hosts.values and k not in stated]
        others = [k for k, arg in enumerate(args) if isinstance(arg, fx.Node) and k not in {*hosted, *stated}]
        if others:
            for k in hosted:
                args[k] = self.graph.call_function(beside, (args[k], args[others[0]]))

    def _value(self, value: ir.Value, *, host: bool = False) -> fx.Node:
        """The node that makes a value, or holds a constant."""
        if value in self.nodes:
            return self.nodes[value]
        if not self.block and (tensor := constant_of(value)) is not None:
            if (value, host) not in self.constants:
                self.constants[value, host] = self._constant(value, tensor, host)
            return self.constants[value, host]
        if not self.block:
            raise ModelError(f"nothing makes the value {value.name!r}", hint="run onnx.checker on the model")
        if value not in self.outside:
            with self.graph.inserting_before(self._first()):
                self.outside[value] = self._input(value)
        return self.outside[value]

    def _first(self) -> fx.Node:
        """What comes after the inputs."""
        return next((node for node in self.graph.nodes if node.op != "placeholder"), self.graph._root)

    def _constant(self, value: ir.Value, tensor: ir.TensorProtocol, host: bool) -> fx.Node:
        name = value.name or "constant"
        if host and value not in self.store.trained:
            return self._add("call_module", self.store.add(name, Constant(tensor_of(tensor))), (), {}, name)
        first = self.store.turned.get(value)
        if first is None or first not in self.store.trained:
            return self._add("get_attr", self.store.hold(value), (), {}, name)
        return self.graph.call_function(torch.t, (self._value(first),))

    def _attributes(self, node: ir.Node, op: TorchOp) -> tuple[dict[str, Any], dict[str, BlockModule]]:
        attributes: dict[str, Any] = {}
        blocks: dict[str, BlockModule] = {}
        for name, attribute in node.attributes.items():
            if name not in op.names:
                raise ModelError(
                    f"the torch function of {label(node)} does not know its attribute {name!r}",
                    hint="add it to the function; `prunegraph.torch_twin` says how",
                )
            if attribute.type == ir.AttributeType.GRAPH:
                blocks[name] = BlockModule(attribute.as_graph(), self.opsets, self.store)
            elif attribute.type == ir.AttributeType.TENSOR:
                attributes[name] = self._tensor(f"{node.outputs[0].name}.{name}", attribute.as_tensor())
            elif attribute.type in _PLAIN:
                value = attribute.value
                attributes[name] = list(value) if isinstance(value, tuple) else value
            else:
                raise ModelError(f"{label(node)} has an attribute {name!r} of type {attribute.type.name}")
        return attributes, blocks

    def _tensor(self, name: str, tensor: ir.TensorProtocol) -> fx.Node:
        return self._add("call_module", self.store.add(name, Constant(tensor_of(tensor))), (), {}, name)


def _is_parameter(name: str) -> bool:
    """Whether generated code can have a parameter of this name beside all that it calls."""
    return name.isascii() and name.isidentifier() and not keyword.iskeyword(name) and name not in _CALLED


_CALLED = ("self", "getattr", "torch", "device", "inf", "nan")

_PLAIN = {
    *(ir.AttributeType.INT, ir.AttributeType.FLOAT, ir.AttributeType.STRING),
    *(ir.AttributeType.INTS, ir.AttributeType.FLOATS, ir.AttributeType.STRINGS),
}


class BlockModule(fx.GraphModule):  # type: ignore[misc]
    """A graph within a node: its own inputs first, then what it takes from outside."""

    def __init__(self, source: ir.Graph, opsets: Mapping[str, int], store: Store) -> None:
        builder = _Builder(source, opsets, store, block=True)
        super().__init__(nn.Module(), builder.build())
        self.takes = tuple(builder.outside)


def function_for(node: ir.Node) -> TorchOp:
    """The function of a node's op.

    Raises:
        ModelError: there is none.
    """
    op = torch_op_for(node.domain, node.op_type)
    if op is None:
        raise ModelError(
            f"there is no torch function for {label(node)}",
            hint="decompose the op (ONNX Runtime's basic optimizations, onnx.inliner), or write a function for it: "
            "prunegraph.torch_twin.registry.torch_op registers it",
        )
    return op


def label(node: ir.Node) -> str:
    """A node in words."""
    return f"{node.op_type} of domain {node.domain or 'ai.onnx'} (node {node.name or node.outputs[0].name!r})"
