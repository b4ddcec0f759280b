"""What `config.json` has to say of key-value caches: Optimum makes them from it before it runs a decoder.

It takes one number of heads for all layers, and for the size of a head the residual width divided by the number of
attention heads.  That number is written so that the quotient is right, whether or not so many heads are left.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import replace
from typing import Any

from prunegraph.errors import PruneGraphError
from prunegraph.export.folder import CONFIG_KEYS, Cut, SlimConfig

CACHED = ("head", "kv_group", "qk_dim", "v_dim")
"""Kinds that caches hold."""

_WHOLE = "leave heads and their dims whole, or give the ONNX file alone"


def with_caches(config: Mapping[str, Any], slim: SlimConfig, cuts: Iterable[Cut]) -> SlimConfig:
    """The configuration of a slim decoder whose inputs are caches.

    Args:
        config: The original one; it is not changed.
        slim: What `slim_config` made of it.
        cuts: Every group of the model, whole ones too; layers without any attention have no cache.

    Raises:
        PruneGraphError: the caches of layers differ, or the configuration cannot say how large they are.
    """
    cached = [cut for cut in cuts if cut.kind in CACHED and cut.after]
    left = {kind: sorted({cut.after for cut in cached if cut.kind == kind}) for kind in CACHED}
    for kind, numbers in left.items():
        if len(numbers) > 1:
            raise PruneGraphError(
                f"caches are made from one number, and the layers keep {numbers[0]} to {numbers[-1]} of {kind}",
                hint="--uniform lets all layers keep equally many; give the ONNX file alone to leave them uneven",
            )
    heads, shared, width = (_key(config, kind) for kind in ("head", "kv_group", "hidden"))
    if heads is None or width is None or all(cut.after == cut.before for cut in cached):
        return slim
    shares = {cut.after / cut.before for cut in cached if cut.kind in ("qk_dim", "v_dim")} or {1.0}
    size = (_number(config, "head_dim") or config[width] // config[heads]) * min(shares)
    if len(shares) > 1 or slim.config[width] % size:
        raise PruneGraphError("keys and values of caches would have sizes that config.json cannot say", hint=_WHOLE)
    quotient = int(slim.config[width] // size)
    if shared is None and slim.config[heads] != quotient:
        raise PruneGraphError(
            f"config.json has one number for the heads of a cache and for their size ({width} / {heads}), and "
            f"{slim.config[heads]} heads of {size:g} are left of {slim.config[width]}",
            hint=_WHOLE,
        )
    new = {**slim.config, heads: quotient}
    return replace(slim, config=new, changed=tuple(key for key in config if new[key] != config[key]))


def _key(config: Mapping[str, Any], kind: str) -> str | None:
    """The key under which a configuration states how many units of a kind there are."""
    return next((key for key in CONFIG_KEYS[kind] if _number(config, key)), None)


def _number(config: Mapping[str, Any], key: str) -> int | None:
    number = config.get(key)
    return number if isinstance(number, int) and number > 0 else None
