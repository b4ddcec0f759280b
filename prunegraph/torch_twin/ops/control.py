"""If, Loop and Scan, whose blocks come as functions."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from prunegraph.analysis.bodies import CHOOSE, DOMAIN
from prunegraph.torch_twin.registry import StatedLengths, integers, torch_op

BlockFunction = Callable[..., tuple[Tensor, ...]]


@torch_op("If")
def if_(condition: Tensor, *, then_branch: BlockFunction, else_branch: BlockFunction) -> tuple[Tensor, ...]:
    """One branch or the other."""
    return then_branch() if bool(condition) else else_branch()


@torch_op(CHOOSE, domain=DOMAIN)
def choose(condition: Tensor, then: Tensor, otherwise: Tensor) -> Tensor:
    """One result or the other of a flattened If, whose branches may differ in length."""
    return then if bool(condition) else otherwise


@torch_op("Loop")
def loop(
    trips: StatedLengths | None, condition: Tensor | None, *carried: Tensor, body: BlockFunction, outputs: int = 1
) -> tuple[Tensor, ...]:
    """The body until its condition fails or all trips are done; what it carries, then what it scans, stacked."""
    state, scanned, trip = carried, list[tuple[Tensor, ...]](), 0
    running = True if condition is None else bool(condition)
    device = carried[0].device if carried else None
    most = None if trips is None else integers(trips)[0]
    while running and (most is None or trip < most):
        again, *results = body(torch.tensor(trip, device=device), torch.tensor(True, device=device), *state)
        state = tuple(results[: len(state)])
        scanned.append(tuple(results[len(state) :]))
        running, trip = bool(again), trip + 1
    if not scanned:
        return *state, *(torch.empty(0, device=device) for _ in range(outputs - len(state)))
    return *state, *(torch.stack(column) for column in zip(*scanned, strict=True))


@torch_op("Scan")
def scan(
    *operands: Tensor,
    body: BlockFunction,
    num_scan_inputs: int,
    scan_input_axes: Sequence[int] | None = None,
    scan_input_directions: Sequence[int] | None = None,
    scan_output_axes: Sequence[int] | None = None,
    scan_output_directions: Sequence[int] | None = None,
) -> tuple[Tensor, ...]:
    """The body along one axis of every scanned input; what it carries, then what it makes, stacked."""
    count = len(operands) - num_scan_inputs
    state, inputs = operands[:count], operands[count:]
    axes = scan_input_axes or [0] * num_scan_inputs
    slices = [x.unbind(k) for x, k in zip(inputs, axes, strict=True)]
    back = scan_input_directions or [0] * num_scan_inputs
    ordered = [tuple(reversed(x)) if b else x for x, b in zip(slices, back, strict=True)]
    scanned = []
    for step in zip(*ordered, strict=True):
        results = body(*state, *step)
        state = tuple(results[:count])
        scanned.append(results[count:])
    columns = list(zip(*scanned, strict=True))
    axes = scan_output_axes or [0] * len(columns)
    back = scan_output_directions or [0] * len(columns)
    turned = (tuple(reversed(x)) if b else x for x, b in zip(columns, back, strict=True))
    return *state, *(torch.stack(x, k) for x, k in zip(turned, axes, strict=True))
