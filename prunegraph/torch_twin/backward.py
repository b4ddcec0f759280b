"""Gradients of a loss with respect to activations and weights of an ONNX model, by its torch twin."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
import onnx_ir as ir

from prunegraph.errors import PruneGraphError, first_line
from prunegraph.observe.gradients import GradientStatistic, Objective
from prunegraph.observe.stream import Array, Inputs, SampleProgress
from prunegraph.observe.text import Batch
from prunegraph.runtime.widen import widened_feeds
from prunegraph.torch_twin import call, initializers, to_torch

if TYPE_CHECKING:
    import torch


def backward(
    model: ir.Model,
    inputs: Inputs,
    statistics: Sequence[GradientStatistic],
    loss: Objective,
    progress: SampleProgress | None = None,
) -> None:
    """Run data through a model and back once, and let every statistic see the gradients that it asks for.

    The model runs in evaluation mode.  What no gradient reaches (integers, what the loss does not depend on) has a
    gradient of zeros; float16 and bfloat16 are computed in float32.

    Args:
        model: A model, usually a normalized one; it is not changed.
        inputs: What to run it on.
        statistics: What to gather; they are updated in place.
        loss: Which loss.
        progress: Called after every batch.

    Raises:
        ModelError: The model has an op that there is no torch function for, or no such value.
        PruneGraphError: It does not run on the data, or no weight has a gradient.
        MissingExtra: torch is not installed.
    """
    import torch

    with torch.inference_mode(False), torch.enable_grad():  # whatever the caller has switched off around this
        _backward(model, inputs, statistics, loss, progress)


def _backward(
    model: ir.Model,
    inputs: Inputs,
    statistics: Sequence[GradientStatistic],
    loss: Objective,
    progress: SampleProgress | None,
) -> None:
    activations = list(dict.fromkeys(name for statistic in statistics for name in statistic.activations()))
    weights = list(dict.fromkeys(name for statistic in statistics for name in statistic.weights()))
    module = to_torch(_with_outputs(model, [*activations, loss.output]), tie=False)
    leaves = {name: tensor for name, tensor in initializers(module).items() if name in set(weights)}
    for tensor in leaves.values():
        tensor.requires_grad_(tensor.is_floating_point())
    constants = model.graph.initializers
    count = 0
    for batch in inputs.batches():
        values, total = _forward(module, batch, activations, loss)
        tensors = {name: values[name] for name in activations} | leaves
        values_and_gradients = _gradients(total, tensors)
        values_and_gradients |= {name: _constant(constants[name]) for name in weights if name not in leaves}
        for statistic in statistics:
            statistic.update(
                batch, {name: values_and_gradients[name] for name in (*statistic.activations(), *statistic.weights())}
            )
        del values, total, tensors, values_and_gradients
        count += len(batch.samples)
        if progress is not None:
            progress(count)


def _with_outputs(model: ir.Model, names: Sequence[str]) -> ir.Model:
    """A copy of a model that puts out more of its values."""
    twin = model.clone()
    known = {value.name: value for value in (*twin.graph.inputs, *(v for node in twin.graph for v in node.outputs))}
    there = {value.name for value in twin.graph.outputs}
    for name in dict.fromkeys(names):
        if name not in there:
            if name not in known:
                raise PruneGraphError(f"the model has no value {name!r}", hint="name an output of one of its nodes")
            twin.graph.outputs.append(known[name])
    return twin


def _forward(
    module: torch.fx.GraphModule, batch: Batch, activations: Sequence[str], loss: Objective
) -> tuple[dict[str, torch.Tensor], torch.Tensor]:
    """All outputs by name, and the summed loss of a batch."""
    import torch

    feeds = {name: torch.tensor(array) for name, array in widened_feeds(batch.feeds).items()}
    for name in set(activations) & feeds.keys():
        feeds[name].requires_grad_(feeds[name].is_floating_point())
    try:
        values = call(module, feeds)
    except (RuntimeError, IndexError) as error:
        hint = "check the data, shorten the texts (max_length) or give inputs that the model accepts"
        raise PruneGraphError(f"torch does not run the model on the data: {first_line(error)}", hint=hint) from error
    logits = values[loss.output]
    classes, weights = loss.targets(batch, logits.detach().numpy())
    each = torch.nn.functional.cross_entropy(
        logits.flatten(0, -2), torch.from_numpy(classes.reshape(-1)), reduction="none"
    )
    total = (each * torch.from_numpy(weights.reshape(-1))).sum()
    if not total.requires_grad:
        hint = "quantized models have no gradients; score the float model"
        raise PruneGraphError("no weight of the model has a gradient", hint=hint)
    return values | feeds, total


def _gradients(total: torch.Tensor, tensors: dict[str, torch.Tensor]) -> dict[str, tuple[Array, Array]]:
    """Value and gradient of every tensor."""
    import torch

    names = [name for name, tensor in tensors.items() if tensor.requires_grad]
    gradient_tensors: Sequence[torch.Tensor | None] = ()
    if names:
        gradient_tensors = torch.autograd.grad(total, [tensors[name] for name in names], allow_unused=True)
    gradients = dict(zip(names, gradient_tensors, strict=True))
    values_and_gradients = {}
    for name, tensor in tensors.items():
        value, gradient = tensor.detach().numpy(), gradients.get(name)
        values_and_gradients[name] = (
            value,
            np.zeros(value.shape, np.float32) if gradient is None else gradient.numpy(),
        )
    return values_and_gradients


def _constant(value: ir.Value) -> tuple[Array, Array]:
    """What the module holds as no tensor of its own: lengths, and what no output needs."""
    assert value.const_value is not None
    array = value.const_value.numpy()
    return array, np.zeros(array.shape, np.float32)
