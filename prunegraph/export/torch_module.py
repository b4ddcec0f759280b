"""The torch door: an `nn.Module` or an `ExportedProgram` in, an ONNX model with the module's own names out.

`torch.export` traces the module to an fx graph, and torch's exporter translates that to ONNX, both in memory.
"""

from __future__ import annotations

import contextlib
import logging
import sys
import warnings
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any, TypeGuard

import onnx_ir as ir

from prunegraph.errors import ModelError, UsageError
from prunegraph.export.onnx_file import load
from prunegraph.export.torch_dynamic_shapes import ExampleCall, default_axes, fallbacks, tensor_axes, widened
from prunegraph.export.torch_names import name_axes, name_outputs, name_parameters, output_names
from prunegraph.export.torch_tensors import own_initializers, remember_module
from prunegraph.extras import needs_extra

if TYPE_CHECKING:
    import torch

logger = logging.getLogger(__name__)

_UNKNOWN_TYPE = "not a known type"


def is_torch(source: object) -> TypeGuard[torch.nn.Module | torch.export.ExportedProgram]:
    """Whether this is a module or an exported program; torch is never imported to find out, for they bring it along."""
    torch = sys.modules.get("torch")
    if torch is None:
        return False
    return isinstance(source, torch.nn.Module) or is_program(source)


def is_program(source: object) -> TypeGuard[torch.export.ExportedProgram]:
    """Whether this is an exported program."""
    export = sys.modules.get("torch.export")
    return export is not None and isinstance(source, export.ExportedProgram)


def read_torch(
    source: torch.nn.Module | torch.export.ExportedProgram,
    example_inputs: Any = None,
    dynamic_shapes: Any = None,
    *,
    opset: int | None = None,
) -> ir.Model:
    """Trace a module as it is in eval mode, and translate it to ONNX; the module itself is not changed.

    Weights are copied: training the module further changes nothing in the model. They are called as the module's
    parameters, also those that the exporter transposed; outputs are called by the keys or fields of what `forward`
    returns. A cache that a module of transformers returns without being given one is left out.

    Args:
        source: A module, or a program that `torch.export.export` made of one.
        example_inputs: Arguments of `forward`: a tuple by position, a dict by keyword. A program needs none.
        dynamic_shapes: Which axes vary, as `torch.onnx.export` takes it, such as ``{"x": {0: "batch"}}``. Without it
            the batch and, for token ids and masks, the sequence vary if the trace allows that; a warning says if not.
        opset: The ONNX opset; the exporter's own default without it.

    Raises:
        MissingExtra: torch or onnxscript is not installed.
        UsageError: There are no example inputs, they do not fit, or a program is given shapes, which it has already.
        ModelError: torch cannot trace the module, or cannot translate it.
    """
    _require()
    if is_program(source):
        if dynamic_shapes is not None:
            raise UsageError(
                "an exported program has its dynamic shapes already",
                hint="give them to torch.export.export, or give the module instead of the program",
            )
        return _finish(_exported("the program", lambda: _onnx_program(source, opset)), opset)
    if example_inputs is None:
        raise UsageError(
            f"a module ({type(source).__name__}) needs example inputs to be traced with",
            hint="example_inputs=(x,) by position, or example_inputs={'input_ids': ids} by keyword",
        )
    call = ExampleCall.of(example_inputs)
    named = call.named(source.forward)
    if dynamic_shapes is None:
        return trace(source, call, default_axes(named), opset=opset)
    if isinstance(dynamic_shapes, (dict, tuple, list)):
        call = widened(call, source.forward, dynamic_shapes)
    with evaluating(source):
        return _translate(source, call, dynamic_shapes, opset)


def trace(module: torch.nn.Module, call: ExampleCall, axes: dict[str, Any], *, opset: int | None = None) -> ir.Model:
    """Trace a module with as many of the wished axes varying as the trace allows.

    Args:
        module: It is not changed.
        call: Example arguments.
        axes: The axes to vary, by parameter, as `default_axes` gives them.
        opset: The ONNX opset.

    Raises:
        ModelError: torch cannot trace the module even with fixed shapes, or cannot translate it.
    """
    _require()
    failures: list[ModelError] = []
    named = call.named(module.forward)
    with evaluating(module):
        for shapes, fixed in fallbacks(axes):
            try:
                model = _translate(module, widened(call, module.forward, shapes), shapes, opset)
            except ModelError as error:
                failures.append(error)
                if len(failures) > 1 and failures[-1].message == failures[-2].message:
                    break  # whatever it is, it is not the axes
                continue
            if fixed:
                logger.warning(
                    "%s is fixed at the example's length, for the trace does not allow otherwise: %s",
                    fixed,
                    failures[0],
                )
            name_axes(model, list(tensor_axes(named, shapes)))  # the exporter gives up where an argument is None
            return model
    raise failures[-1]


@contextlib.contextmanager
def evaluating(module: torch.nn.Module) -> Iterator[None]:
    """Have a module in eval mode for a while; afterwards every part is in its own mode again."""
    modes = [(part, part.training) for part in module.modules()]
    module.eval()
    try:
        yield
    finally:
        for part, mode in modes:
            part.training = mode


def _require() -> None:
    with needs_extra("torch"):
        import onnxscript  # noqa: F401
        import torch.onnx  # noqa: F401


def _translate(module: torch.nn.Module, call: ExampleCall, shapes: Any, opset: int | None) -> ir.Model:
    name = type(module).__name__

    def export() -> Any:
        return _onnx_program(module, opset, args=call.args, kwargs=call.kwargs, dynamic_shapes=shapes)

    try:
        return _finish(_exported(name, export), opset)
    except ModelError as error:
        if _UNKNOWN_TYPE not in str(_root(error)) or not any(_caching(part) for part in module.modules()):
            raise
    with _uncached(module):
        model = _finish(_exported(name, export), opset)
    logger.warning("%s returns a cache, which is left out; use_cache=False says so beforehand", name)
    return model


def _onnx_program(source: Any, opset: int | None, **call: Any) -> Any:
    import torch

    with warnings.catch_warnings(), torch.no_grad(), contextlib.ExitStack() as stack:
        for muted in map(logging.getLogger, ("torch.onnx", "onnxscript")):  # tracebacks of what they then do without
            stack.callback(muted.setLevel, muted.level)
            muted.setLevel(logging.CRITICAL)
        warnings.simplefilter("ignore")  # the exporter warns of what it does about axis names and training mode
        return torch.onnx.export(source, **call, dynamo=True, verbose=False, opset_version=opset)


def _exported(name: str, export: Callable[[], Any]) -> Any:
    try:
        return export()
    except Exception as error:  # a module's forward may raise anything, and tracing it even more
        raise ModelError(
            f"{name} cannot be exported: {_reason(_root(error))}",
            hint="torch.onnx.export(module, inputs, dynamo=True) must work; its own message tells more",
        ) from error


def _reason(error: BaseException) -> str:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()] or [type(error).__name__]
    return " ".join(lines[: 2 if lines[0].endswith(":") else 1])[:300]


def _root(error: BaseException) -> BaseException:
    while error.__cause__ is not None:
        error = error.__cause__
    return error


def _finish(program: Any, opset: int | None) -> ir.Model:
    """The model of an `ONNXProgram`, with the module's names and weights of its own."""
    model, traced = program.model, program.exported_program
    actual = model.opset_imports.get("")
    if opset is not None and actual != opset:
        raise ModelError(
            f"the exporter makes opset {actual} of this module, not {opset}",
            hint="name no opset, or one nearer to that",
        )
    if traced is not None:
        signature = traced.graph_signature
        parameters = {**signature.inputs_to_parameters, **signature.inputs_to_buffers}
        sizes = {
            name: tensor.numel()
            for name, tensor in (*traced.state_dict.items(), *traced.constants.items())
            if hasattr(tensor, "numel")
        }
        name_parameters(model, parameters, sizes)
        own_initializers(model, traced.state_dict, parameters)
        remember_module(model, traced.state_dict, parameters, traced)
        name_outputs(model, output_names(traced.call_spec.out_spec))
    _own_weights(model)
    return load(model)


def _own_weights(model: ir.Model) -> None:
    """Copy what shares memory with a torch tensor, in place."""
    for graph in model.graphs():
        for value in graph.initializers.values():
            if value.const_value is not None:
                value.const_value = _copied(value.const_value)
        for node in graph:
            for name, attribute in list(node.attributes.items()):
                if attribute.type == ir.AttributeType.TENSOR and not attribute.is_ref():
                    node.attributes[name] = ir.AttrTensor(name, _copied(attribute.as_tensor()))


def _copied(tensor: ir.TensorProtocol) -> ir.TensorProtocol:
    import torch

    if not isinstance(tensor.raw, torch.Tensor):
        return tensor
    return ir.Tensor(tensor.numpy().copy(), dtype=tensor.dtype, name=tensor.name, doc_string=tensor.doc_string)


def _caching(part: torch.nn.Module) -> bool:
    return getattr(getattr(part, "config", None), "use_cache", False) is True


@contextlib.contextmanager
def _uncached(module: torch.nn.Module) -> Iterator[None]:
    """Have a module of transformers return no cache for a while."""
    configs: list[Any] = [part.config for part in module.modules() if _caching(part)]
    for config in configs:
        config.use_cache = False
    try:
        yield
    finally:
        for config in configs:
            config.use_cache = True
