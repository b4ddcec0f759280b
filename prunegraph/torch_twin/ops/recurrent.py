"""Recurrent layers, step by step, so that every layout, direction, length and activation of the specification holds."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TypedDict, Unpack

import torch
from torch import Tensor
from torch.nn import functional

from prunegraph.torch_twin.ops.quant import dynamic_quantize_linear
from prunegraph.torch_twin.registry import MICROSOFT, torch_op

Activation = Callable[[Tensor], Tensor]
State = tuple[Tensor, ...]
Cell = Callable[[Tensor, State], State]
"""What one step makes of the inputs' share of the gates `[batch, gates·units]` and the last state."""

_ACTIVATIONS: dict[str, tuple[Callable[..., Tensor], tuple[float, ...]]] = {
    "relu": (torch.relu, ()),
    "tanh": (torch.tanh, ()),
    "sigmoid": (torch.sigmoid, ()),
    "softsign": (functional.softsign, ()),
    "softplus": (functional.softplus, ()),
    "affine": (lambda x, a, b: a * x + b, (1.0, 0.0)),
    "leakyrelu": (functional.leaky_relu, (0.01,)),
    "thresholdedrelu": (lambda x, a: torch.where(x > a, x, 0.0), (1.0,)),
    "scaledtanh": (lambda x, a, b: a * torch.tanh(b * x), (1.0, 1.0)),
    "hardsigmoid": (lambda x, a, b: (a * x + b).clamp(0, 1), (0.2, 0.5)),
    "elu": (functional.elu, (1.0,)),
}
"""Activation functions with the defaults of `activation_alpha` and `activation_beta`."""


def _activations(
    names: Sequence[str], alphas: Sequence[float], betas: Sequence[float], clip: float | None
) -> list[Activation]:
    """Numbers go in order to the functions that take some."""
    given = (iter(alphas), iter(betas))

    def one(name: str) -> Activation:
        function, defaults = _ACTIVATIONS[name.lower()]
        numbers = [next(numbers, default) for numbers, default in zip(given, defaults, strict=False)]
        if clip is None:
            return lambda x: function(x, *numbers)
        return lambda x: function(x.clamp(-clip, clip), *numbers)

    return [one(name) for name in names]


def _reversed(x: Tensor, lengths: Tensor | None) -> Tensor:
    """`[time, batch, …]` backwards, every sequence within its own length."""
    if lengths is None:
        return x.flip(0)
    time = torch.arange(x.shape[0], device=x.device)[:, None]
    at = torch.where(time < lengths, lengths - 1 - time, time)
    return torch.gather(x, 0, at[..., None].expand_as(x))


def _steps(gates: Tensor, state: State, cell: Cell, lengths: Tensor | None) -> tuple[Tensor, State]:
    """Run along time; after a sequence has ended its state stands still and its output is zero."""
    outputs = []
    for t, x in enumerate(gates):
        new = cell(x, state)
        if lengths is None:
            outputs.append(new[0])
        else:
            running = (t < lengths)[:, None]
            new = tuple(torch.where(running, a, b) for a, b in zip(new, state, strict=True))
            outputs.append(torch.where(running, new[0], 0.0))
        state = new
    return torch.stack(outputs), state


def _run(
    x: Tensor,
    weights: tuple[Tensor, Tensor, Tensor | None],
    lengths: Tensor | None,
    states: Sequence[Tensor | None],
    cells: Callable[[int], Callable[[Tensor, Tensor | None], Cell]],
    *,
    direction: str,
    layout: int,
    separate: bool = False,
) -> tuple[Tensor, ...]:
    """All directions: `y [time, directions, batch, units]` and the last states `[directions, batch, units]`.

    With `separate` the recurrent bias is left to the cell, otherwise it is added to the inputs' share at once.
    """
    w, r, b = weights
    if layout:
        x, states = x.transpose(0, 1), [None if s is None else s.transpose(0, 1) for s in states]
    lengths = None if lengths is None else lengths.long()
    outputs, lasts = [], []
    for d in range(w.shape[0]):
        back = direction == "reverse" or d == 1
        of_input, of_state = (None, None) if b is None else b[d].chunk(2)
        if of_input is not None and of_state is not None and not separate:
            of_input, of_state = of_input + of_state, None
        gates = functional.linear(_reversed(x, lengths) if back else x, w[d], of_input)
        zero = x.new_zeros(x.shape[1], r.shape[-1])
        state = tuple(zero if s is None else s[d] for s in states)
        y, last = _steps(gates, state, cells(d)(r[d], of_state), lengths)
        outputs.append(_reversed(y, lengths) if back else y)
        lasts.append(last)
    y = torch.stack(outputs, 1)
    final = [torch.stack(parts) for parts in zip(*lasts, strict=True)]
    if layout:
        return y.permute(2, 0, 1, 3), *(s.transpose(0, 1) for s in final)
    return y, *final


@torch_op("RNN")
def rnn(
    x: Tensor,
    w: Tensor,
    r: Tensor,
    b: Tensor | None = None,
    sequence_lens: Tensor | None = None,
    initial_h: Tensor | None = None,
    *,
    activation_alpha: Sequence[float] = (),
    activation_beta: Sequence[float] = (),
    activations: Sequence[str] = ("Tanh", "Tanh"),
    clip: float | None = None,
    direction: str = "forward",
    hidden_size: int = 0,
    layout: int = 0,
) -> tuple[Tensor, ...]:
    """`h = f(W·x + R·h + b)`."""
    functions = _activations(activations, activation_alpha, activation_beta, clip)

    def cells(d: int) -> Callable[[Tensor, Tensor | None], Cell]:
        def cell(r: Tensor, _: Tensor | None) -> Cell:
            return lambda x, state: (functions[d](x + state[0] @ r.T),)

        return cell

    return _run(x, (w, r, b), sequence_lens, [initial_h], cells, direction=direction, layout=layout)


@torch_op("GRU")
def gru(
    x: Tensor,
    w: Tensor,
    r: Tensor,
    b: Tensor | None = None,
    sequence_lens: Tensor | None = None,
    initial_h: Tensor | None = None,
    *,
    activation_alpha: Sequence[float] = (),
    activation_beta: Sequence[float] = (),
    activations: Sequence[str] = ("Sigmoid", "Tanh") * 2,
    clip: float | None = None,
    direction: str = "forward",
    hidden_size: int = 0,
    layout: int = 0,
    linear_before_reset: int = 0,
) -> tuple[Tensor, ...]:
    """Gates update, reset, hidden; the reset comes before the product with the state, or after it."""
    functions = _activations(activations, activation_alpha, activation_beta, clip)

    def cells(d: int) -> Callable[[Tensor, Tensor | None], Cell]:
        f, g = functions[2 * d : 2 * d + 2]

        def cell_of(r: Tensor, b: Tensor | None) -> Cell:
            units = r.shape[1]
            bias = r.new_zeros(3 * units) if b is None else b

            def cell(x: Tensor, state: State) -> State:
                (h,) = state
                first = f(x[:, : 2 * units] + functional.linear(h, r[: 2 * units], bias[: 2 * units]))
                update, reset = first.chunk(2, 1)
                if linear_before_reset:
                    share = reset * functional.linear(h, r[2 * units :], bias[2 * units :])
                else:
                    share = functional.linear(reset * h, r[2 * units :], bias[2 * units :])
                return ((1 - update) * g(x[:, 2 * units :] + share) + update * h,)

            return cell

        return cell_of

    return _run(x, (w, r, b), sequence_lens, [initial_h], cells, direction=direction, layout=layout, separate=True)


class LstmAttributes(TypedDict, total=False):
    """Attributes of LSTM and of its quantized twin; the defaults are those of `_lstm`."""

    activation_alpha: Sequence[float]
    activation_beta: Sequence[float]
    activations: Sequence[str]
    clip: float | None
    direction: str
    hidden_size: int
    input_forget: int
    layout: int


@torch_op("LSTM")
def lstm(
    x: Tensor,
    w: Tensor,
    r: Tensor,
    b: Tensor | None = None,
    sequence_lens: Tensor | None = None,
    initial_h: Tensor | None = None,
    initial_c: Tensor | None = None,
    peepholes: Tensor | None = None,
    **attributes: Unpack[LstmAttributes],
) -> tuple[Tensor, ...]:
    """Gates input, output, forget, cell, with peepholes of the cell into the first three."""
    return _lstm(x, (w, r, b), sequence_lens, (initial_h, initial_c), peepholes, **attributes)


def _lstm(
    x: Tensor,
    weights: tuple[Tensor, Tensor, Tensor | None],
    sequence_lens: Tensor | None,
    states: Sequence[Tensor | None],
    peepholes: Tensor | None,
    rounded: Callable[[Tensor], Tensor] = lambda values: values,
    *,
    activation_alpha: Sequence[float] = (),
    activation_beta: Sequence[float] = (),
    activations: Sequence[str] = ("Sigmoid", "Tanh", "Tanh") * 2,
    clip: float | None = None,
    direction: str = "forward",
    hidden_size: int = 0,
    input_forget: int = 0,
    layout: int = 0,
) -> tuple[Tensor, ...]:
    """An LSTM whose state is rounded before it meets the recurrent weights."""
    functions = _activations(activations, activation_alpha, activation_beta, clip)
    unclipped = _activations(activations, activation_alpha, activation_beta, None)

    def cells(d: int) -> Callable[[Tensor, Tensor | None], Cell]:
        f, g = functions[3 * d : 3 * d + 2]
        h = unclipped[3 * d + 2]  # ONNX Runtime clips what goes into gates, not the cell
        peep_i, peep_o, peep_f = (0.0, 0.0, 0.0) if peepholes is None else peepholes[d].chunk(3)

        def cell_of(r: Tensor, _: Tensor | None) -> Cell:
            def cell(x: Tensor, state: State) -> State:
                i, o, forget, c = (x + rounded(state[0]) @ r.T).chunk(4, 1)
                i = f(i + peep_i * state[1])
                forget = 1 - i if input_forget else f(forget + peep_f * state[1])
                new = forget * state[1] + i * g(c)
                return f(o + peep_o * new) * h(new), new

            return cell

        return cell_of

    return _run(x, weights, sequence_lens, states, cells, direction=direction, layout=layout)


@torch_op("DynamicQuantizeLSTM", domain=MICROSOFT)
def dynamic_quantize_lstm(
    x: Tensor,
    w: Tensor,
    r: Tensor,
    b: Tensor | None = None,
    sequence_lens: Tensor | None = None,
    initial_h: Tensor | None = None,
    initial_c: Tensor | None = None,
    peepholes: Tensor | None = None,
    w_scale: Tensor | None = None,
    w_point: Tensor | None = None,
    r_scale: Tensor | None = None,
    r_point: Tensor | None = None,
    **attributes: Unpack[LstmAttributes],
) -> tuple[Tensor, ...]:
    """An LSTM of integer weights `[directions, inputs, gates·units]`; inputs and states are quantized on the spot."""
    assert w_scale is not None and r_scale is not None
    weights = (_dequantized(w, w_scale, w_point), _dequantized(r, r_scale, r_point), b)
    states = (initial_h, initial_c)
    return _lstm(_rounded(x), weights, sequence_lens, states, peepholes, _rounded, **attributes)


def _dequantized(weight: Tensor, scale: Tensor, point: Tensor | None) -> Tensor:
    """Integers `[directions, inputs, rows]`, a scale a direction or a row, as floats `[directions, rows, inputs]`."""
    whole = weight.float() if point is None else weight.float() - _per_row(point.float())
    return (whole * _per_row(scale)).transpose(1, 2)


def _per_row(parameter: Tensor) -> Tensor:
    return parameter.reshape(parameter.shape[0], 1, -1)


def _rounded(values: Tensor) -> Tensor:
    """Floats in the eight bits of their own range."""
    quantized, scale, point = dynamic_quantize_linear(values)
    return (quantized - point) * scale
