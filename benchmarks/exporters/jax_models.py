"""Models of Flax NNX, Equinox and plain JAX, small, by jax2onnx."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

CLASSES = 5
Inputs = Sequence[tuple[Any, ...]]


def _mlp(nnx: Any, rngs: Any) -> tuple[Any, Inputs]:
    norm = nnx.BatchNorm(48, use_running_average=True, rngs=rngs)
    layers = (nnx.Linear(24, 48, rngs=rngs), norm, nnx.relu, nnx.Linear(48, 32, rngs=rngs), nnx.gelu)
    return nnx.Sequential(*layers, nnx.Linear(32, CLASSES, rngs=rngs)), [("B", 24)]


def _cnn(nnx: Any, rngs: Any) -> tuple[Any, Inputs]:
    layers = (
        nnx.Conv(3, 16, (3, 3), rngs=rngs), nnx.BatchNorm(16, use_running_average=True, rngs=rngs), nnx.relu,
        lambda x: nnx.max_pool(x, window_shape=(2, 2), strides=(2, 2)), nnx.Conv(16, 24, (3, 3), rngs=rngs), nnx.relu,
        nnx.Conv(24, 24, (3, 3), feature_group_count=24, rngs=rngs), nnx.gelu,
        lambda x: x.mean((1, 2)), nnx.Linear(24, CLASSES, rngs=rngs),
    )  # fmt: skip
    return nnx.Sequential(*layers), [("B", 32, 32, 3)]


def _residual(nnx: Any, rngs: Any) -> tuple[Any, Inputs]:
    stem, one, two = (nnx.Conv(i, 16, (3, 3), rngs=rngs) for i in (3, 16, 16))
    norm, last = nnx.GroupNorm(16, num_groups=4, rngs=rngs), nnx.Linear(16, CLASSES, rngs=rngs)

    def call(x: Any) -> Any:
        x = stem(x)
        return last(nnx.relu(x + two(nnx.silu(norm(one(x))))).mean((1, 2)))

    return call, [("B", 16, 16, 3)]


def _transformer(nnx: Any, rngs: Any, *, length: Any = 12) -> tuple[Any, Inputs]:
    width = 32
    embed, last = nnx.Embed(80, width, rngs=rngs), nnx.Linear(width, CLASSES, rngs=rngs)
    blocks = [
        (
            nnx.LayerNorm(width, rngs=rngs), nnx.MultiHeadAttention(4, width, decode=False, rngs=rngs),
            nnx.LayerNorm(width, rngs=rngs), nnx.Linear(width, 56, rngs=rngs), nnx.Linear(56, width, rngs=rngs),
        )
        for _ in range(2)
    ]  # fmt: skip

    def call(x: Any) -> Any:
        for norm, attention, second, up, down in blocks:
            x = x + attention(norm(x))
            x = x + down(nnx.gelu(up(second(x))))
        return last(x.mean(1))

    del embed
    return call, [("B", length, width)]


def _grouped(nnx: Any, rngs: Any) -> tuple[Any, Inputs]:
    import jax
    import jax.numpy as jnp

    width, groups, queries, size = 32, 2, 3, 8
    keys = jax.random.split(jax.random.key(0), 4)
    wq = jax.random.normal(keys[0], (width, groups, queries, size)) * width**-0.5
    wk, wv = (jax.random.normal(k, (width, groups, size)) * width**-0.5 for k in keys[1:3])
    wo = jax.random.normal(keys[3], (groups, queries, size, width)) * (groups * queries * size) ** -0.5
    up, gate, down = (nnx.Linear(i, o, use_bias=False, rngs=rngs) for i, o in ((width, 56), (width, 56), (56, width)))
    norm = nnx.RMSNorm(width, rngs=rngs)

    def call(x: Any) -> Any:
        y = norm(x)
        q, k, v = (
            jnp.einsum("btd,dgjs->btgjs", y, wq),
            jnp.einsum("btd,dgs->btgs", y, wk),
            jnp.einsum("btd,dgs->btgs", y, wv),
        )
        weights = jax.nn.softmax(jnp.einsum("btgjs,bugs->bgjtu", q, k) * size**-0.5)
        x = x + jnp.einsum("btgjs,gjsd->btd", jnp.einsum("bgjtu,bugs->btgjs", weights, v), wo)
        return x + down(nnx.silu(gate(x)) * up(x))

    return call, [("B", 10, width)]


def _mixer(nnx: Any, rngs: Any) -> tuple[Any, Inputs]:
    tokens = nnx.Linear(16, 24, rngs=rngs), nnx.Linear(24, 16, rngs=rngs)
    channels = nnx.Linear(20, 36, rngs=rngs), nnx.Linear(36, 20, rngs=rngs)
    norm, second = nnx.LayerNorm(20, rngs=rngs), nnx.LayerNorm(20, rngs=rngs)

    def call(x: Any) -> Any:
        x = x + tokens[1](nnx.gelu(tokens[0](norm(x).swapaxes(1, 2)))).swapaxes(1, 2)
        return x + channels[1](nnx.gelu(channels[0](second(x))))

    return call, [("B", 16, 20)]


def _lstm(nnx: Any, rngs: Any) -> tuple[Any, Inputs]:
    rnn, last = nnx.RNN(nnx.OptimizedLSTMCell(12, 20, rngs=rngs)), nnx.Linear(20, CLASSES, rngs=rngs)
    return lambda x: last(rnn(x)[:, -1]), [(2, 9, 12)]


def _equinox(nnx: Any, rngs: Any) -> tuple[Any, Inputs]:
    import equinox
    import jax

    return jax.vmap(equinox.nn.MLP(24, CLASSES, 40, 2, key=jax.random.key(0))), [("B", 24)]


BUILDERS: dict[str, Callable[[Any, Any], tuple[Any, Inputs]]] = {
    "mlp": _mlp,
    "cnn": _cnn,
    "residual": _residual,
    "transformer": _transformer,
    "transformer_any_length": lambda nnx, rngs: _transformer(nnx, rngs, length="T"),
    "grouped_queries": _grouped,
    "mixer": _mixer,
    "lstm": _lstm,
    "equinox_mlp": _equinox,
}


def _maker(name: str) -> Callable[[Path], None]:
    def make(folder: Path) -> None:
        from flax import nnx
        from jax2onnx import to_onnx

        call, inputs = BUILDERS[name](nnx, nnx.Rngs(0))
        to_onnx(call, inputs, return_mode="file", output_path=str(folder / "model.onnx"))

    return make


MODELS = {"jax2onnx": {name: _maker(name) for name in BUILDERS}}
