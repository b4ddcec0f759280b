"""Where the parameters of a model lie, block by block, before and after."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from typing import Any

import onnx_ir as ir

OTHERS = "elsewhere"


def parameters_by_block(
    original: ir.Model, slim: ir.Model, names: Mapping[str, str], totals: tuple[int, int]
) -> list[dict[str, Any]]:
    """Parameters of every block: what a weight's name says up to its first number, such as `encoder.layer.3`.

    Args:
        original: The model as it was given.
        slim: What became of it.
        names: Every weight's name for people.
        totals: All parameters, before and after; what no block has lies elsewhere.
    """
    before, after = (_counted(model, names) for model in (original, slim))
    blocks = {block: (units, after[block]) for block, units in before.items() if units}
    had, left = (sum(both[end] for both in blocks.values()) for end in (0, 1))
    if (had, left) != totals:
        blocks[OTHERS] = (totals[0] - had, totals[1] - left)
    return [{"block": block, "before": both[0], "after": both[1]} for block, both in blocks.items()]


def _counted(model: ir.Model, names: Mapping[str, str]) -> Counter[str]:
    counted: Counter[str] = Counter()
    for name, value in model.graph.initializers.items():
        tensor = value.const_value
        if tensor is not None and tensor.dtype.is_floating_point():
            counted[block_of(names.get(name, name))] += tensor.size
    return counted


def block_of(name: str) -> str:
    """The block that a weight belongs to.

    >>> block_of("bert.encoder.layer.3.output.dense.weight"), block_of("pooler.dense.bias"), block_of("w")
    ('bert.encoder.layer.3', 'pooler', 'w')
    """
    parts = name.split(".")
    number = next((k for k, part in enumerate(parts) if part.isdigit()), None)
    if number is not None:
        return ".".join(parts[: number + 1])
    return ".".join(parts[:-2]) or parts[0]
