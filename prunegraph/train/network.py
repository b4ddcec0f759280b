"""Run and train a torch module made of an ONNX model, by the feeds of a batch."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
import onnx_ir as ir

from prunegraph.analysis.names import matches
from prunegraph.errors import UsageError
from prunegraph.extras import needs_extra
from prunegraph.runtime.widen import widened_feeds

if TYPE_CHECKING:
    import torch
    from torch import Tensor


class Network:
    """A module on a device.

    Attributes:
        module: What `to_torch` made.
        device: Where it is.
        outputs: The outputs that are wanted.
    """

    def __init__(self, model: ir.Model, outputs: Sequence[str], device: str) -> None:
        """Translate a model.

        Raises:
            MissingExtra: torch is not installed.
            UsageError: there is no such device.
            ModelError: an op has no translation.
        """
        self.device = _device(device)
        from prunegraph.torch_twin import to_torch

        self.module: torch.fx.GraphModule = to_torch(model).to(self.device)
        self.outputs = list(outputs)

    def __call__(self, feeds: Mapping[str, npt.NDArray[Any]]) -> list[Tensor]:
        """The wanted outputs, in order."""
        import torch

        from prunegraph.torch_twin import call

        wide = widened_feeds(feeds)  # as the module is: float16 is trained in float32
        given = {name: torch.from_numpy(np.ascontiguousarray(array)).to(self.device) for name, array in wide.items()}
        outputs = call(self.module, given)
        return [outputs[name] for name in self.outputs]

    def trained(self, freeze: Sequence[str]) -> list[tuple[str, torch.nn.Parameter]]:
        """Parameters by name, but for those that match a pattern; these ask for no gradient.

        Raises:
            UsageError: a pattern matches none, or all are frozen.
        """
        every = list(self.module.named_parameters())
        for pattern in freeze:
            if not matches((name for name, _ in every), [pattern]):
                some = ", ".join(name for name, _ in every[:3])
                raise UsageError(f"no weight matches {pattern!r}", hint=f"weights are called {some}, ...")
        kept = []
        for name, weight in every:
            weight.requires_grad_(not matches([name], freeze))
            if weight.requires_grad:
                kept.append((name, weight))
        if not kept:
            raise UsageError("there is no weight to train", hint="freeze fewer of them")
        return kept


def _device(name: str) -> torch.device:
    with needs_extra("torch", "torch"):
        import torch
    if name.startswith("cuda") and not torch.cuda.is_available():
        raise UsageError("torch sees no CUDA device", hint="--device cpu, or install a build of torch for CUDA")
    return torch.device(name)
