"""One module of the zoo with what an exporter needs to know about it, and the two exporters."""

from __future__ import annotations

import os
from dataclasses import dataclass, field
from pathlib import Path

import torch
from torch import Tensor, nn

EXPORTERS = ("dynamo", "legacy")
LEGACY_OPSET = 17


@dataclass(frozen=True, slots=True)
class ZooModel:
    """A module, one call of it, and which axes of its inputs vary.

    Attributes:
        module: The network, in eval mode.
        inputs: Example arguments by the name that `forward` gives them, in order.
        dynamic: For each input the axes that vary, with their names (`{"x": {0: "batch"}}`).
        outputs: Names for the outputs; without them the exporter makes up its own.
    """

    module: nn.Module
    inputs: dict[str, Tensor]
    dynamic: dict[str, dict[int, str]]
    outputs: tuple[str, ...] = field(default=())


class FirstOutput(nn.Module):
    """Calls a module by keyword and returns its first tensor, since tracers cannot return dataclasses.

    Args:
        model: The wrapped module.
        names: Keyword names of the positional arguments, in order.
        fixed: Keyword arguments that are the same in every call (`use_cache=False`).
    """

    def __init__(self, model: nn.Module, names: tuple[str, ...], **fixed: object) -> None:
        """Wrap `model`; see the class."""
        super().__init__()
        self.model = model
        self.names = names
        self.fixed = fixed

    def forward(self, *args: Tensor) -> Tensor:
        """Return the first output of the wrapped module."""
        result = self.model(**dict(zip(self.names, args, strict=True)), **self.fixed)
        first: Tensor = result if isinstance(result, Tensor) else result[0]
        return first


def randomize(module: nn.Module, seed: int = 0) -> nn.Module:
    """Give every parameter values that matter, in place.

    Fresh modules have heads of zeros, norm weights of ones, layer scales of 1e-6 and matrices so small that attention
    changes next to nothing. Outputs then hardly depend on what is pruned, and wrong results look right.

    Args:
        module: Changed in place.
        seed: Seeds the generator.

    Returns:
        The module.
    """
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, tensor in (*module.named_parameters(), *module.named_buffers()):
            if not tensor.is_floating_point() or tensor.numel() < 2:
                continue
            leaf = name.rsplit(".", 1)[-1]
            is_matrix = tensor.numel() > max(tensor.shape)
            if bool((tensor == tensor.flatten()[0]).all()):
                tensor.copy_(_fresh(leaf, tensor, generator, is_matrix=is_matrix))
            elif is_matrix and isinstance(tensor, nn.Parameter):
                deviation = tensor[0].numel() ** -0.5
                if float(tensor.std()) < 0.5 * deviation:
                    tensor.mul_(deviation / tensor.std())
    return module


def _fresh(leaf: str, tensor: Tensor, generator: torch.Generator, *, is_matrix: bool) -> Tensor:
    noise = torch.randn(tensor.shape, generator=generator)
    if leaf == "running_var":
        return 0.5 + torch.rand(tensor.shape, generator=generator)
    if is_matrix:
        return noise * tensor[0].numel() ** -0.5
    is_scale = leaf == "weight" or "gamma" in leaf or "scale" in leaf or bool(tensor.flatten()[0] != 0)
    return 1 + 0.1 * noise if is_scale else 0.1 * noise


def file_name(name: str, exporter: str) -> str:
    """Return the name of the file that an exporter writes for a model."""
    return f"{name}.onnx" if exporter == "dynamo" else f"{name}_{exporter}.onnx"


def export(model: ZooModel, exporter: str, path: Path) -> None:
    """Write a model as one ONNX file, weights inside, with its dynamic axes.

    Args:
        model: What to export.
        exporter: `dynamo` (`torch.export`, the exporter's own opset) or `legacy` (TorchScript, opset 17).
        path: The file, replaced only when the export succeeded.

    Raises:
        ValueError: The exporter is unknown.
    """
    if exporter not in EXPORTERS:
        raise ValueError(f"unknown exporter {exporter!r}; take one of {', '.join(EXPORTERS)}")
    partial, names = path.with_suffix(f".{os.getpid()}.part"), list(model.inputs)
    if exporter == "dynamo":
        shapes: tuple[object, ...] = tuple(model.dynamic.get(name, {}) for name in names)
        if isinstance(model.module, FirstOutput):
            shapes = (shapes,)  # one entry per parameter of forward, and *args is one parameter
        options = {"external_data": False, "verbose": False, "optimize": True, "dynamic_shapes": shapes}
    else:
        options = {"opset_version": LEGACY_OPSET, "dynamic_axes": {k: v for k, v in model.dynamic.items() if v}}
    outputs = list(model.outputs) or (None if exporter == "dynamo" else ["output"])
    try:
        with torch.no_grad():
            torch.onnx.export(
                model.module, tuple(model.inputs.values()), partial, dynamo=exporter == "dynamo", input_names=names,
                output_names=outputs, **options,
            )  # fmt: skip
        partial.replace(path)
    finally:
        partial.unlink(missing_ok=True)
