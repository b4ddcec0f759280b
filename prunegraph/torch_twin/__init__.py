"""Any ONNX model as a trainable `torch.fx.GraphModule`, and back.

`to_torch` builds the module, `call` runs it by the names that the model has, `write_back` puts trained weights into
the ONNX file.

How to add an op: write one pure function in the file of its family and register it.

    @torch_op("Softmax")
    def softmax(x: Tensor, *, axis: int = -1) -> Tensor:

- Positional parameters are the operands in ONNX's order; one that is left out is None, so optional ones default to it.
- Keyword parameters are attributes under ONNX's names, with ONNX's defaults.  Lists come as lists, tensors as tensors,
  types as ONNX's numbers (`torch_type` translates them).  An attribute that became an operand in a later opset is a
  positional parameter (`axes` of Squeeze): it comes as a list from an attribute, and as what the operand is otherwise.
- Attributes that several ops share are a TypedDict: `**attributes: Unpack[ConvAttributes]`.
- An operand annotated `StatedLengths` states lengths, axes or positions.  It comes as a list of integers where it is
  constant, else as a tensor on the CPU; `integers` reads both.
- A function that has a keyword parameter `version` (the opset), `outputs` (how many the node has), `op` (the op type)
  or `training` (whether the module trains) is told it.
- Several outputs are returned as a tuple; the annotation says so.  More than the node has is fine.
- A block (the body of a Loop, a branch of an If) comes as a function from tensors to a tuple of tensors; what it takes
  from outside is bound already.
- No operand is ever changed in place, and what passes through is a new view (`x.view_as(x)`), so that the gradient of
  every value can be asked for.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, TypeVar

import onnx
import onnx_ir as ir

from prunegraph.extras import needs_extra

if TYPE_CHECKING:
    from collections.abc import Mapping

    import torch

M = TypeVar("M", ir.Model, onnx.ModelProto)

__all__ = ["call", "initializers", "to_torch", "write_back"]


def to_torch(model: ir.Model | onnx.ModelProto, *, tie: bool = True) -> torch.fx.GraphModule:
    """A trainable twin of a model.

    Weights are parameters under the names of their initializers, dots included; constants, masks, tables of cosines
    and running statistics are buffers.  float16 and bfloat16 become float32.  `forward` takes the inputs in order and
    returns a tuple of all outputs; lengths that the model leaves open stay open.  The module comes in evaluation mode.

    Args:
        model: The model; it is not changed.
        tie: Whether weights that the file holds twice, byte for byte, are one parameter.

    Raises:
        ModelError: The model has an op or attribute that there is no torch function for.
        MissingExtra: torch is not installed.
    """
    _require()
    from prunegraph.torch_twin.build import build

    return build(_as_ir(model), tie=tie)


def call(module: torch.fx.GraphModule, feeds: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """Run a module of `to_torch` by the names of the model's inputs, and get its outputs by theirs.

    Narrow floats are widened, as the module is.
    """
    from prunegraph.torch_twin.build import call_by_name

    return call_by_name(module, feeds)


def initializers(module: torch.fx.GraphModule) -> dict[str, torch.Tensor]:
    """Parameters and buffers of a module of `to_torch` by the names of the model's initializers.

    What the module holds only as lengths of its graph is not among them.
    """
    from prunegraph.torch_twin.weights import by_initializer

    return by_initializer(module)


def write_back(model: M, module: torch.fx.GraphModule) -> M:
    """A copy of a model with the weights that a module of it has now.

    Graph, names and metadata stay; every weight keeps its dtype and shape, and what one tensor served still does.

    Args:
        model: The model that the module was made of; it is not changed.
        module: What `to_torch` made of it, trained.

    Returns:
        A model of the kind that was given.

    Raises:
        UsageError: The module was made of another model.
        MissingExtra: torch is not installed.
    """
    _require()
    from prunegraph.torch_twin.weights import write

    written = write(_as_ir(model), module)
    return ir.to_proto(written) if isinstance(model, onnx.ModelProto) else written


def _as_ir(model: ir.Model | onnx.ModelProto) -> ir.Model:
    return ir.from_proto(model) if isinstance(model, onnx.ModelProto) else model


def _require() -> None:
    with needs_extra("torch"):
        import torch.fx  # noqa: F401
