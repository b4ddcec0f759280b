"""Trial sizes for the dynamic dims of a model, when nobody gives any.

Exporters give one extent several names, so dims at the same place are taken to be the same; an expression such as
`past + sequence` is computed from its parts.  What fits is found by trying, the most usual plan first.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import islice, product

import onnx_ir as ir

from prunegraph.runtime.dim_expressions import is_expression, value_of
from prunegraph.runtime.inputs import InputSpec
from prunegraph.runtime.roles import role_of

Plan = tuple[dict[str, int], ...]
"""For every run a size for every dynamic dim."""

IMAGES = ((224, 256), (64, 96), (32, 48), (384, 512))
"""Sides of images, for the first run and for later ones."""

ROW_SCALES = (1, 0.3, 4, 200)
"""Sequences may fit few positions, or have to be long (a table of windows, or the samples of a second of sound)."""

SIDES = (224, 32, 64, 28, 96, 112, 128, 160, 192, 256, 299, 320, 336, 384, 416, 448, 480, 512, 640)
"""Images that fit one size alone: a table of positions, or a Gemm behind a Flatten."""

BATCHES = ((1, 2), (1, 1))
"""Batches of two runs; some models run for one example only."""

SHORT = ({"batch": 1, "row": 11}, {"batch": 2, "row": 23})
"""Two runs of short sequences."""

HALVINGS = 6
"""An image is made half as large less often than so many times before a Flatten."""

WINDOW = 16
"""A kernel so long is a window of a signal: images have no such kernels, but for patches that do not overlap."""

MANY = 48
"""So many sizes are tried for a model that runs at none of the usual ones."""


def size_plans(
    specs: Sequence[InputSpec], runs: Sequence[Mapping[str, int]], fixed: Mapping[str, int] | None = None
) -> Iterator[Plan]:
    """Ways to give every dynamic dim a size in each run.

    Args:
        specs: The inputs.
        runs: For each run a size for `batch` and for `row`, the positions of a sequence.
        fixed: Sizes of dims that are known.
    """
    roles = _roles(specs, fixed or {})
    for images in IMAGES if "image" in roles else IMAGES[:1]:
        for scale in ROW_SCALES if "row" in roles else ROW_SCALES[:1]:
            for mask_covers_past in (True, False) if "past" in roles else (False,):
                yield tuple(
                    _assign(specs, _sizes(run, images[min(k, 1)], scale, mask_covers_past), fixed or {})
                    for k, run in enumerate(runs)
                )


def narrow_plans(
    specs: Sequence[InputSpec],
    rows: Sequence[int],
    fixed: Mapping[str, int] | None = None,
    batches: Sequence[int] = (),
    sides: Sequence[int] = (),
) -> Iterator[Plan]:
    """Plans of two runs for a model that runs at few sizes: a batch of one, a length or a side that is baked in.

    Args:
        specs: The inputs.
        rows: Lengths that constants of the graph name.
        fixed: Sizes of dims that are known.
        batches: Batches that constants of the graph name.
        sides: Sides of images that tables of the graph fit.
    """
    roles = _roles(specs, fixed or {})
    lengths = [(11, 23), *((n, n) for n in rows)] if roles & {"row", "mask"} else [(11, 23)]
    images = [*IMAGES[:1], *((n, n) for n in dict.fromkeys((*sides, *SIDES)))] if "image" in roles else IMAGES[:1]
    many = [*BATCHES, *((n, n) for n in batches if n > 1)] if "batch" in roles else BATCHES[:1]
    choices = sorted(product(range(len(many)), range(len(lengths)), range(len(images))), key=sum)
    names = _sequences(specs, fixed or {})
    for b, r, i in choices[:MANY]:
        runs = ({"batch": batch, "row": row} for batch, row in zip(many[b], lengths[r], strict=True))
        yield tuple(
            _assign(specs, _sizes(run, images[i][k], 1, mask_covers_past=True), fixed or {})
            for k, run in enumerate(runs)
        )
    for sizes in islice(product(rows, repeat=len(names)), MANY if len(names) > 1 else 0):
        if len(set(sizes)) > 1:  # one length for all has been tried
            yield from size_plans(specs, SHORT, {**dict(zip(names, sizes, strict=True)), **(fixed or {})})


def empty_pasts(specs: Sequence[InputSpec], fixed: Mapping[str, int] | None = None) -> dict[str, int]:
    """No length for dims of what was read before, by name: branches with and without it want masks of other lengths."""
    fixed = fixed or {}
    dims = ((dim, role_of(spec, axis)) for spec in specs for axis, dim in enumerate(spec.dims) if isinstance(dim, str))
    return {dim: 0 for dim, role in dims if role == "past" and dim not in fixed and not is_expression(dim)}


def _sequences(specs: Sequence[InputSpec], fixed: Mapping[str, int]) -> list[str]:
    """Dims of sequences, each of which may have a length of its own."""
    names = {
        dim: None
        for spec in specs
        for axis, dim in enumerate(spec.dims)
        if isinstance(dim, str) and dim not in fixed and role_of(spec, axis) in ("row", "mask")
    }
    return [name for name in names if not is_expression(name)]


def _roles(specs: Sequence[InputSpec], fixed: Mapping[str, int]) -> set[str]:
    return {
        role_of(spec, axis)
        for spec in specs
        for axis, dim in enumerate(spec.dims)
        if isinstance(dim, str) and dim not in fixed
    }


def _sizes(run: Mapping[str, int], image: int, scale: float, mask_covers_past: bool) -> dict[str, int]:
    row, past = int(run["row"] * scale), run["row"] + 2
    return {"batch": run["batch"], "row": row, "image": image, "past": past, "mask": row + past * mask_covers_past}


def _assign(specs: Sequence[InputSpec], sizes: Mapping[str, int], fixed: Mapping[str, int]) -> dict[str, int]:
    assigned: dict[str, int] = dict(fixed)
    computed: list[tuple[str, str]] = []
    # Token ids name the sequence before a mask of the same name can claim it.
    for spec in sorted(specs, key=lambda spec: any(role_of(spec, axis) == "mask" for axis in range(len(spec.dims)))):
        for axis, dim in enumerate(spec.dims):
            if isinstance(dim, str) and dim not in assigned:
                if is_expression(dim):
                    computed.append((dim, role_of(spec, axis)))
                else:
                    assigned[dim] = sizes[role_of(spec, axis)]
    for dim, role in computed:
        value = value_of(dim, assigned)
        assigned[dim] = sizes[role] if value is None else value
    return assigned


def baked_sizes(graph: ir.Graph) -> tuple[list[int], list[int], list[int]]:
    """Lengths, batches and sides of images that constants of a graph may have been made for, small ones first.

    A Reshape states lengths, a table of positions has as many rows as there are, and a table of the positions of an
    image as many as there are patches.  A weight behind a Flatten reads every position of every channel.  A signal is
    a few times as long as the window that is moved along it.
    """
    rows, batches, strides = set[int](), set[int](), set[int]()
    nodes = list(graph.all_nodes())
    channels = {_shape(node.inputs[1])[0] for node in nodes if node.op_type == "Conv" and _shape(node.inputs[1])}
    flat = set[int]()
    for node in nodes:
        if node.op_type in ("Reshape", "Expand") and len(node.inputs) > 1:
            entries = _entries(node.inputs[1])
            rows.update(entries[1:])
            batches.update(entries[:1])
        elif node.op_type in ("Add", "Concat", "Gather", "Where"):
            rows.update(n for value in node.inputs for n in _shape(value)[:-1])
        elif node.op_type == "Conv":
            strides.update(node.attributes.get_ints("strides", ()))
            longest = max(node.attributes.get_ints("kernel_shape", _shape(node.inputs[1])[2:]), default=0)
            rows.update(times * longest for times in (1, 2, 4) if longest >= WINDOW)
        elif node.op_type in ("Gemm", "MatMul") and _reads_all(node.inputs[0]):
            flat.update(n // c for n in _shape(node.inputs[1]) for c in channels if n % c == 0)
    images = [side << halvings for n in flat for side in _square(n, (0,)) for halvings in range(HALVINGS)]
    sides = [stride * side for stride in sorted(strides) for n in sorted(rows) for side in _square(n)]
    return _small_first(rows), _small_first(batches), _small_first([*(n for n in sides if n >= 16), *images])


def _small_first(lengths: Iterable[int]) -> list[int]:
    return sorted({n for n in lengths if 1 < n <= 4096})


def _reads_all(value: ir.Value | None) -> bool:
    """Whether a value is something flattened."""
    node = value.producer() if value is not None else None
    return node is not None and node.op_type in ("Flatten", "Reshape")


def _square(positions: int, extras: Sequence[int] = (0, 1, 2)) -> Iterator[int]:
    """The side of a square of so many patches, with or without one or two tokens before them."""
    for extra in extras:
        side = math.isqrt(max(positions - extra, 0))
        if side > 1 and side * side == positions - extra:
            yield side


def _entries(value: ir.Value | None) -> list[int]:
    tensor = value.const_value if value is not None else None
    return [int(n) for n in tensor.numpy().reshape(-1)] if tensor is not None and tensor.size <= 8 else []


def _shape(value: ir.Value | None) -> tuple[int, ...]:
    tensor = value.const_value if value is not None else None
    return tuple(int(n) for n in tensor.shape.numpy()) if tensor is not None else ()
