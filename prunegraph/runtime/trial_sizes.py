"""Sizes for the dynamic dims of a model, when nobody gives any.

Exporters give one extent several names, so dims at the same place are taken to be the same; an expression such as
`past + sequence` is computed from its parts.  What fits is found by trying, the most usual plan first.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

import onnx_ir as ir

from prunegraph.runtime.feeds import InputSpec

Plan = tuple[dict[str, int], ...]
"""For every run a size for every dynamic dim."""

IMAGES = ((224, 256), (64, 96), (32, 48), (384, 512))
"""Sides of images, for the first run and for later ones."""

ROW_SCALES = (1, 0.3, 4, 200)
"""Sequences may fit few positions, or have to be long (a table of windows, or the samples of a second of sound)."""


def size_plans(specs: Sequence[InputSpec], runs: Sequence[Mapping[str, int]]) -> Iterator[Plan]:
    """Ways to give every dynamic dim a size in each run.

    Args:
        specs: The inputs.
        runs: For each run a size for `batch` and for `row`, the positions of a sequence.
    """
    roles = {_role(spec, axis) for spec in specs for axis, dim in enumerate(spec.dims) if isinstance(dim, str)}
    for images in IMAGES if "image" in roles else IMAGES[:1]:
        for scale in ROW_SCALES if "row" in roles else ROW_SCALES[:1]:
            for mask_covers_past in (True, False) if "past" in roles else (False,):
                yield tuple(
                    _assign(specs, _sizes(run, images[min(k, 1)], scale, mask_covers_past))
                    for k, run in enumerate(runs)
                )


def _sizes(run: Mapping[str, int], image: int, scale: float, mask_covers_past: bool) -> dict[str, int]:
    row, past = int(run["row"] * scale), run["row"] + 2
    return {"batch": run["batch"], "row": row, "image": image, "past": past, "mask": row + past * mask_covers_past}


def _role(spec: InputSpec, axis: int) -> str:
    """What the size of a dim depends on, told from its place."""
    rank = len(spec.dims)
    if axis == 0:
        return "batch"
    if rank == 4 and axis >= 2:
        return "image" if isinstance(spec.dims[2], str) and isinstance(spec.dims[3], str) else "past"
    if rank == 2 and spec.dtype.kind in "iub" and spec.bound is None:
        return "mask"
    return "row"


def _assign(specs: Sequence[InputSpec], sizes: Mapping[str, int]) -> dict[str, int]:
    assigned: dict[str, int] = {}
    computed: list[tuple[str, str]] = []
    # Token ids name the sequence before a mask of the same name can claim it.
    for spec in sorted(specs, key=lambda spec: any(_role(spec, axis) == "mask" for axis in range(len(spec.dims)))):
        for axis, dim in enumerate(spec.dims):
            if isinstance(dim, str) and dim not in assigned:
                if any(sign in dim for sign in "+*-/ "):
                    computed.append((dim, _role(spec, axis)))
                else:
                    assigned[dim] = sizes[_role(spec, axis)]
    for dim, role in computed:
        try:
            value = ir.SymbolicDim(dim).evaluate(assigned)
        except (ValueError, TypeError, KeyError):
            value = None
        assigned[dim] = value if isinstance(value, int) else sizes[role]
    return assigned
