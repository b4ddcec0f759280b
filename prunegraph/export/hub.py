"""Export models by address to ONNX: a local folder of transformers, `hf:DIR`, or a model of timm, `timm:NAME`."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import onnx_ir as ir

from prunegraph.atomic_write import check_target
from prunegraph.errors import ModelError
from prunegraph.export.hub_build import build
from prunegraph.export.hub_inputs import Example, ExampleSizes
from prunegraph.export.onnx_file import save
from prunegraph.export.torch_dynamic_shapes import ExampleCall
from prunegraph.export.torch_module import trace
from prunegraph.runtime.limits import CannotRun
from prunegraph.runtime.session import open_session, run

if TYPE_CHECKING:
    import torch

TOLERANCE = 1e-2
"""The largest difference between torch and ONNX Runtime that passes for rounding, as a part of the output's scale."""

_HINT = "the exporter is at fault: a newer torch and onnxscript or another --opset may help"


@dataclass(frozen=True, slots=True)
class Exported:
    """What an export wrote.

    Attributes:
        files: The model, and its data file if it has one.
        inputs: The graph's inputs with their dims.
        outputs: Its outputs with theirs.
        difference: The largest difference from torch, as a part of the output's scale.
    """

    files: tuple[Path, ...]
    inputs: dict[str, list[int | str]]
    outputs: dict[str, list[int | str]]
    difference: float


def export_model(
    address: str,
    output: str | os.PathLike[str],
    *,
    task: str | None = None,
    pretrained: bool = True,
    opset: int | None = None,
    sizes: ExampleSizes | None = None,
    progress: Callable[[str], None] = lambda step: None,
) -> Exported:
    """Export the model at an address with batch and sequence dynamic, compare it with torch, and write it.

    Args:
        address: `hf:DIR`, a folder with a `config.json` and weights, or `timm:NAME`.
        output: The ONNX file to write.
        task: What the model is for, as `transformers.pipeline` calls it, such as `feature-extraction`; without it the
            class that the folder names, or a classifier for timm.
        pretrained: With its trained weights; otherwise random ones, the same each time.
        opset: The ONNX opset; the exporter's own default without it.
        sizes: Of the example that the model is traced with.
        progress: Called with the name of each step.

    Raises:
        UsageError: The address, the task or a size is wrong.
        MissingExtra: torch, onnxscript, timm or transformers is not installed.
        ModelError: The model cannot be built or exported, or what was exported does not compute what the module does.
        OutputError: The file cannot be written.
    """
    check_target(output)
    progress("load")
    with _seeded(0):
        module, example = build(address, task, pretrained=pretrained, sizes=sizes or ExampleSizes())
    progress("export")
    model = trace(module, ExampleCall((), dict(example.inputs)), example.axes, opset=opset)
    progress("compare")
    difference = compare(module, model, example)
    progress("save")
    return Exported(save(model, output), _dims(model.graph.inputs), _dims(model.graph.outputs), difference)


def compare(module: torch.nn.Module, model: ir.Model, example: Example) -> float:
    """The largest difference between a module and its export, at the example's sizes and at larger ones.

    Returns:
        The difference as a part of the output's scale.

    Raises:
        ModelError: ONNX Runtime cannot run the model, or the difference is no rounding.
    """
    dims = _dims(model.graph.inputs)
    dynamic = {name: [axis for axis, dim in enumerate(each) if isinstance(dim, str)] for name, each in dims.items()}
    worst = 0.0
    try:
        with open_session(model) as session:
            for inputs in (example.inputs, example.grown(dynamic)):
                outputs = run(session, {name: tensor.numpy() for name, tensor in inputs.items()})
                worst = max(worst, _difference(_outputs(module, inputs), outputs))
    except CannotRun as error:
        raise ModelError(f"the exported model does not run as the module does: {error}", hint=_HINT) from error
    return worst


def _difference(expected: list[Any], actual_outputs: list[Any]) -> float:
    shapes = [array.shape for array in expected], [array.shape for array in actual_outputs]
    if shapes[0] != shapes[1]:
        raise CannotRun(f"its outputs have the shapes {shapes[1]} instead of {shapes[0]}")
    worst = 0.0
    for reference, actual in zip(expected, actual_outputs, strict=True):
        if not reference.size:
            continue
        reference, actual = reference.astype(np.float64), actual.astype(np.float64)
        difference = float(np.abs(reference - actual).max() / max(np.abs(reference).max(), 1e-9))
        if not difference < TOLERANCE:  # also where it is no number
            raise ModelError(f"the exported model differs from the module by {difference:.1e}", hint=_HINT)
        worst = max(worst, difference)
    return worst


def _outputs(module: torch.nn.Module, inputs: dict[str, torch.Tensor]) -> list[Any]:
    import torch
    from torch.utils import _pytree

    with torch.no_grad():
        leaves = _pytree.tree_leaves(module(**inputs))
    return [leaf.numpy() for leaf in leaves if isinstance(leaf, torch.Tensor)]


@contextlib.contextmanager
def _seeded(seed: int) -> Iterator[None]:
    """Random weights that are the same each time; the caller's own random numbers go on as if nothing had been."""
    try:
        import torch
    except ImportError:  # `build` tells what is missing, once it knows that the rest makes sense
        yield
        return
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        yield


def _dims(values: Any) -> dict[str, list[int | str]]:
    return {value.name: [dim if isinstance(dim, int) else str(dim) for dim in value.shape or ()] for value in values}
