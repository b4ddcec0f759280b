"""What no kernel of ONNX Runtime's CPU provider can be asked: ops that are others written in one, and blocks."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import onnx_ir as ir
import pytest
from onnx import parser

from prunegraph.runtime.session import open_session, run

torch = pytest.importorskip("torch")

from torch.nn import functional  # noqa: E402

from prunegraph.torch_twin import call, to_torch  # noqa: E402
from prunegraph.torch_twin import ops as _ops  # noqa: E402, F401  (fills the registry)
from prunegraph.torch_twin.registry import MICROSOFT, torch_op_for  # noqa: E402

Make = Callable[[], Any]


def op(name: str, *operands: Any, domain: str = "", **attributes: Any) -> Any:
    """Call the function of an op; of a tuple the first output."""
    torch_op = torch_op_for(domain, name)
    assert torch_op is not None
    outputs = torch_op.function(*operands, **attributes)
    return outputs[0] if isinstance(outputs, tuple) else outputs


def microsoft(name: str, *operands: Any, **attributes: Any) -> Any:
    return op(name, *operands, domain=MICROSOFT, **attributes)


def random(*shape: int) -> Any:
    """The same numbers for the same shape."""
    return torch.from_numpy(np.random.default_rng(sum(shape)).normal(size=shape).astype(np.float32))


def last(x: Any) -> Any:
    """Channels last."""
    return x.movedim(1, -1)


X, IMAGE, TEXT = random(3, 5, 4), random(2, 6, 8, 9), random(2, 5, 12)
W, B = random(10, 3, 3, 2), random(10)
SEEN = torch.tensor([[1, 1, 1, 0, 0], [0, 1, 1, 1, 1]])
PACKED = random(2, 5, 3, 3, 4)
KV = random(2, 7, 3, 2, 4)
SPACE = {"group": 2, "strides": [2, 1], "pads": [1, 0, 2, 1]}

SAME: dict[str, tuple[Make, Make]] = {
    "packed Q, K, V": (
        lambda: microsoft("MultiHeadAttention", PACKED, num_heads=3),
        lambda: microsoft("MultiHeadAttention", *(PACKED[:, :, :, k].flatten(2) for k in range(3)), num_heads=3),
    ),
    "packed K, V": (
        lambda: microsoft("MultiHeadAttention", TEXT, KV, num_heads=3),
        lambda: microsoft("MultiHeadAttention", TEXT, *(KV[:, :, :, k].flatten(2) for k in range(2)), num_heads=3),
    ),
    "a mask of whole texts": (
        lambda: microsoft("Attention", TEXT, random(12, 36), None, SEEN[:, None, None].expand(2, 1, 5, 5), num_heads=3),
        lambda: microsoft("Attention", TEXT, random(12, 36), None, SEEN, num_heads=3),
    ),
    "NhwcConv": (
        lambda: microsoft("NhwcConv", last(IMAGE), W, B, **SPACE),
        lambda: last(op("Conv", IMAGE, W, B, **SPACE)),
    ),
    "NhwcFusedConv": (
        lambda: microsoft("NhwcFusedConv", last(IMAGE), W, B, None, activation="Relu", **SPACE),
        lambda: last(op("Conv", IMAGE, W, B, **SPACE).relu()),
    ),
    "NhwcMaxPool": (
        lambda: microsoft("NhwcMaxPool", last(IMAGE), kernel_shape=[2, 3]),
        lambda: last(op("MaxPool", IMAGE, kernel_shape=[2, 3])),
    ),
    "GroupNorm": (
        lambda: microsoft("GroupNorm", last(IMAGE), B[:6], W[:6, 0, 0, 0], groups=3, activation=1),
        lambda: last(functional.silu(op("GroupNormalization", IMAGE, B[:6], W[:6, 0, 0, 0], num_groups=3))),
    ),
    "SkipGroupNorm": (
        lambda: microsoft("SkipGroupNorm", last(IMAGE), B[:6], B[:6], random(2, 6), B[4:], groups=3),
        lambda: microsoft("GroupNorm", last(IMAGE) + random(2, 6)[:, None, None] + B[4:], B[:6], B[:6], groups=3),
    ),
    "BiasSplitGelu": (
        lambda: microsoft("BiasSplitGelu", X, X[0, 0]),
        lambda: (X + X[0, 0])[..., :2] * op("Gelu", (X + X[0, 0])[..., 2:]),
    ),
    "BiasAdd": (lambda: microsoft("BiasAdd", X, X[0, 0], X * X), lambda: X + X[0, 0] + X * X),
    "BiasSoftmax": (
        lambda: microsoft("BiasSoftmax", X, X[:1], axis=2),
        lambda: op("Softmax", X + X[:1], axis=2, version=13),
    ),
    "GemmFastGelu": (
        lambda: microsoft("GemmFastGelu", X, random(4, 7), random(7)),
        lambda: op("Gelu", X @ random(4, 7) + random(7), approximate="tanh"),
    ),
    "SwiGLU": (lambda: op("SwiGLU", X, X + 1, alpha=0.7), lambda: X * torch.sigmoid(0.7 * X) * (X + 1)),
    "CumProd": (
        lambda: op("CumProd", X, [1], exclusive=1, reverse=1),
        lambda: torch.stack([X[:, k + 1 :].prod(1) for k in range(5)], 1),
    ),
    **{
        f"{name} with the batch first": (
            lambda name=name, gates=gates: op(
                name, X.transpose(0, 1), random(2, gates * 6, 4), random(2, gates * 6, 6), layout=1, direction=BOTH
            ),
            lambda name=name, gates=gates: op(
                name, X, random(2, gates * 6, 4), random(2, gates * 6, 6), direction=BOTH
            ).permute(2, 0, 1, 3),
        )
        for name, gates in (("RNN", 1), ("GRU", 3), ("LSTM", 4))
    },
}
BOTH = "bidirectional"


@pytest.mark.parametrize("name", SAME)
def test_fused_is_plain(name: str) -> None:
    first_model, plain = (make() for make in SAME[name])
    assert first_model.shape == plain.shape
    torch.testing.assert_close(first_model, plain, rtol=1e-5, atol=1e-5)


def test_sequences_of_their_own_lengths() -> None:
    """Two cached sequences are what each is alone; what lies behind them in a cache is nobody's."""
    heads = {"num_heads": 4, "kv_num_heads": 2, "do_rotary": 1, "local_window_size": 3}
    q, k, v, past = random(2, 1, 64), random(2, 1, 32), random(2, 1, 32) + 1, random(2, 2, 6, 16)
    tables = (random(16, 8), random(16, 8))
    lengths = torch.tensor([3, 6], dtype=torch.int32)
    outputs = microsoft("GroupQueryAttention", q, k, v, past, -past, lengths, [7], *tables, **heads)
    for b, n in enumerate(lengths.tolist()):
        one = slice(b, b + 1)
        own = (q[one], k[one], v[one], past[one, :, :n], -past[one, :, :n], lengths[one], [n + 1])
        torch.testing.assert_close(outputs[one], microsoft("GroupQueryAttention", *own, *tables, **heads))


def test_multinomial_draws_by_the_odds() -> None:
    drawn = op("Multinomial", torch.tensor([[0.0, 50.0], [50.0, 0.0]]), sample_size=7, dtype=7)
    assert drawn.tolist() == [[1] * 7, [0] * 7] and drawn.dtype == torch.int64


def test_gradient_goes_straight_through_rounding() -> None:
    x = torch.tensor([-3.0, -0.2, 0.26, 0.74, 5.0], requires_grad=True)
    scale, point = torch.tensor(0.5), torch.tensor(2, dtype=torch.uint8)
    op("DequantizeLinear", op("QuantizeLinear", x, scale, point), scale, point).sum().backward()
    assert x.grad is not None and x.grad.tolist() == [0, 1, 1, 1, 1]


BLOCKS = {
    "If": """
        both (float[3,4] x, bool c, float[4] w) => (float[3,n] y) {
            y = If (c) <
                then_branch = yes () => (float[3,4] a) { a = Mul(x, w) },
                else_branch = no () => (float[3,1] b) { b = ReduceSum(x, one) }
            >
        }
    """,
    "Loop": """
        looped (float[3,4] x, bool c, float[4] w) => (float[3,4] y, float[n,3,4] all) {
            y, all = Loop (five, c, x) <
                body = step (int64 i, bool go, float[3,4] s) => (bool on, float[3,4] t, float[3,4] out) {
                    t = Mul(s, w)
                    on = Less(i, two)
                    f = Cast<to=1>(i)
                    out = Add(t, f)
                }
            >
        }
    """,
    "Scan": """
        scanned (float[3,4] x, bool c, float[3] w) => (float[3] y, float[3,4] all) {
            y, all = Scan (w, x) <
                body = step (float[3] s, float[3] column) => (float[3] t, float[3] out) {
                    t = Add(s, column)
                    out = Mul(t, w)
                },
                num_scan_inputs = 1, scan_input_axes = [1], scan_input_directions = [1],
                scan_output_axes = [1], scan_output_directions = [1]
            >
        }
    """,
}


@pytest.mark.parametrize("name", BLOCKS)
@pytest.mark.parametrize("chosen", [True, False])
def test_blocks(name: str, chosen: bool) -> None:
    """Blocks read values from outside, which get their gradients."""
    head = '<ir_version: 10, opset_import: ["" : 21]>'
    text = BLOCKS[name].strip().replace(") {\n", ") <int64[1] one = {1}, int64 two = {2}, int64 five = {5}> {\n", 1)
    model = ir.from_proto(parser.parse_model(head + text))
    width = 3 if name == "Scan" else 4
    given = {"x": random(3, 4).numpy(), "c": np.array(chosen), "w": random(width).numpy()}
    with open_session(model, optimize=False) as session:
        expected = run(session, given)
    tensors = {key: torch.tensor(array, requires_grad=array.dtype.kind == "f") for key, array in given.items()}
    outputs = call(to_torch(model), tensors)
    for actual, array in zip(outputs.values(), expected, strict=True):
        np.testing.assert_allclose(actual.detach().numpy().reshape(array.shape), array, rtol=1e-5)
    outputs["y"].sum().backward()
    assert tensors["x"].grad is not None
    assert (tensors["w"].grad is not None) == (name == "Scan" or chosen)
