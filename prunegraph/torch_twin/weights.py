"""Weights of a module under the names of a model's initializers, and back into a model.

A parameter's path is the initializer's name: `encoder.layer.0.weight` lies in a submodule `encoder`, and so on.  Where
torch does not allow that (an empty part, a name of `nn.Module`'s own, a word or sign that generated code cannot hold, a
weight and a submodule of the same name) dots become `%2E`, `%` becomes `%25` and so on, and a number follows if that is
taken too; `module.meta["onnx_weights"]` has the initializers of every path.
"""

from __future__ import annotations

import keyword
from collections import defaultdict
from collections.abc import Iterator, Mapping
from itertools import chain, count

import numpy as np
import onnx_ir as ir
from torch import Tensor, fx, nn

from prunegraph.errors import UsageError
from prunegraph.torch_twin.dtypes import tensor_of
from prunegraph.torch_twin.hosts import constant_of
from prunegraph.torch_twin.ties import Tie
from prunegraph.torch_twin.trained import trained

INPUTS, OUTPUTS, WEIGHTS = "onnx_inputs", "onnx_outputs", "onnx_weights"


class Store:
    """Where a module keeps its tensors and submodules.

    Args:
        model: Whose constants are kept.
        ties: Weights that others stand for.

    Attributes:
        root: Holds them.
        trained: The constants that are parameters.
        turned: Weights that are another one transposed, and which.
        weights: By path of a tensor of `root`, which initializers it is, and which of them transposed.
    """

    def __init__(self, model: ir.Model, ties: Mapping[str, Tie]) -> None:
        self.root = nn.Module()
        self.trained = trained(model)
        self.weights: dict[str, tuple[Tie, ...]] = {}
        initializers = model.graph.initializers
        self.turned = {initializers[name]: initializers[kept] for name, (kept, turned) in ties.items() if turned}
        self._tied: dict[str, list[Tie]] = defaultdict(list)
        for name, (kept, turned) in ties.items():
            self._tied[kept].append((name, turned))
        self._paths: dict[ir.Value, str] = {}

    def add(self, name: str, module: nn.Module) -> str:
        """Keep a submodule; its path."""
        return self._put(f"{name}()", module)

    def hold(self, value: ir.Value) -> str:
        """Keep a constant as parameter or buffer; its path."""
        if value not in self._paths:
            tensor = constant_of(value)
            assert tensor is not None
            stored = tensor_of(tensor)
            kept = nn.Parameter(stored) if value in self.trained else stored
            path = self._put(value.name or "constant", kept)
            self._paths[value] = path
            if value.is_initializer():
                self.weights[path] = tuple(self._names(value.name or "", value in self.trained))
        return self._paths[value]

    def _names(self, name: str, trained: bool) -> Iterator[Tie]:
        """What is kept with a weight: itself, its twins, and those turned, if it is trained, with twins of theirs."""
        yield name, False
        for other, turned in self._tied.get(name, ()):
            if not turned:
                yield other, False
            elif trained:
                yield from ((twin, True) for twin, _ in self._names(other, False))

    def _put(self, name: str, what: Tensor | nn.Module) -> str:
        safe = "".join(c if c not in _CODE + ".%" and c.isprintable() else f"%{ord(c):02X}" for c in name)
        spare = (f"{safe}%{k}" for k in count(1))
        path = next(path for path in chain((name, safe), spare) if _fits(self.root, path))
        *parts, last = path.split(".")
        owner = self.root
        for part in parts:
            if part not in owner._modules:
                owner.add_module(part, nn.Module())
            owner = owner.get_submodule(part)
        if isinstance(what, nn.Module):
            owner.add_module(last, what)
        elif isinstance(what, nn.Parameter):
            owner.register_parameter(last, what)
        else:
            owner.register_buffer(last, what)
        return path


_CODE = "\"'\\{}"
"""Signs that end or change a string in code: names are written into that of a module, and strangers choose them."""

_TAKEN = frozenset(dir(fx.GraphModule(nn.Module(), fx.Graph())))


def _fits(root: nn.Module, path: str) -> bool:
    """Whether torch lets something lie there."""
    *parts, last = path.split(".")
    if not all(part and part not in _TAKEN and _is_plain(part) for part in (*parts, last)):
        return False
    owner = root
    for part in parts:
        if part in owner._parameters or part in owner._buffers:
            return False
        if part not in owner._modules:
            return True
        owner = owner.get_submodule(part)
        if type(owner) is not nn.Module:
            return False
    return last not in owner._parameters and last not in owner._buffers and last not in owner._modules


def _is_plain(part: str) -> bool:
    return part.isprintable() and not keyword.iskeyword(part) and not set(part) & set(_CODE)


def by_initializer(module: fx.GraphModule) -> dict[str, Tensor]:
    """Parameters by initializer; see `prunegraph.torch_twin.initializers`."""
    tensors = dict(module.named_parameters()) | dict(module.named_buffers())
    return {
        name: tensors[path].t() if turned else tensors[path]
        for path, ties in module.meta[WEIGHTS].items()
        for name, turned in ties
    }


def write(model: ir.Model, module: fx.GraphModule) -> ir.Model:
    """Write trained weights into the model; see `prunegraph.torch_twin.write_back`."""
    result = model.clone()
    values = {name: value for graph in result.graphs() for name, value in graph.initializers.items()}
    for path, parameter in module.named_parameters():
        for name, turned in module.meta[WEIGHTS].get(path, ()):
            value, weight = values.get(name), parameter.detach()
            weight = weight.t() if turned else weight
            if value is None or value.const_value is None or tuple(value.const_value.shape.numpy()) != weight.shape:
                raise UsageError(
                    f"the module has a weight {name!r} {list(weight.shape)} that the model lacks",
                    hint="give the model that to_torch made the module of",
                )
            _set(value, weight)
    return result


def _set(value: ir.Value, weight: Tensor) -> None:
    """Give an initializer new values in its old dtype; equal ones keep the tensor that they have."""
    old = value.const_value
    assert old is not None
    array = np.ascontiguousarray(weight.cpu().numpy()).reshape(weight.shape).astype(old.dtype.numpy())
    if not np.array_equal(array, old.numpy(), equal_nan=True):
        value.const_value = ir.tensor(array, dtype=old.dtype, name=value.name)
