"""A rotation as text, beside a selection in a plan, and read again.

The slim file alone does not say how its model was turned before it was cut; with the matrices anyone can turn the
original and compare.
"""

from __future__ import annotations

import base64
import binascii
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from prunegraph.errors import UsageError
from prunegraph.passes.rotate.rotate import Rotation, Turned
from prunegraph.passes.rotate.sites import Stays, Turn
from prunegraph.passes.rotate.stream_sites import StreamTurn

CONDITION = 1e8
"""A matrix whose largest and smallest singular value differ by more counts as not invertible; see `basis.RIDGE`."""

_HINT = "use the plan written beside the slim model, and the model it was made from"


def to_plan(rotation: Rotation) -> dict[str, Any]:
    """What a plan file says of it, under "rotate": by group how it was chosen, and its matrices in float32."""
    return {
        name: {"by": "data" if turned.by_data else "weights", "matrices": [_encoded(m) for m in turned.matrices]}
        for name, turned in rotation.items()
    }


def from_plan(plan: Mapping[str, Any]) -> dict[str, Turned]:
    """What the JSON of a plan file says was turned; nothing if it says nothing.

    Raises:
        UsageError: it cannot be understood.
    """
    try:
        return {str(name): _turned(entry) for name, entry in (plan.get("rotate") or {}).items()}
    except (AttributeError, LookupError, TypeError, ValueError, ArithmeticError, binascii.Error) as error:
        raise UsageError(f"the plan does not say how the model was turned: {error}", hint=_HINT) from error


def turns_of_plan(every: Sequence[Turn | StreamTurn | Stays], rotation: Rotation) -> list[Turn | StreamTurn]:
    """The groups that a plan has turned.

    Raises:
        UsageError: the model has no such group, it may not be turned, or the matrices do not fit it.
    """
    by_id = {site.group.id: site for site in every}
    turns: list[Turn | StreamTurn] = []
    for name, turned in rotation.items():
        site = by_id.get(name)
        if site is None or isinstance(site, Stays):
            why = "there is no such group" if site is None else site.reason
            raise UsageError(f"the plan turns {name}, which cannot be: {why}", hint=_HINT)
        shape = (int(np.prod(site.group.rows)), site.group.units, site.group.units)
        orthogonal = [True] if isinstance(site, StreamTurn) else [part.orthogonal for part in site.parts]
        if [each.shape for each in turned.matrices] != [shape] * len(orthogonal):
            raise UsageError(f"the matrices of the plan do not fit {name}", hint=_HINT)
        if not all(_is_invertible(each) for each in turned.matrices):
            raise UsageError(f"a matrix of the plan for {name} is not invertible", hint=_HINT)
        if not all(_keeps_lengths(m) for m, only in zip(turned.matrices, orthogonal, strict=True) if only):
            raise UsageError(f"a matrix of the plan for {name} does not keep lengths", hint=_HINT)
        if isinstance(site, StreamTurn) and site.centred and not _keeps_means(turned.matrices[0]):
            raise UsageError(f"a matrix of the plan for {name} does not keep means", hint=_HINT)
        turns.append(site)
    return turns


def _is_invertible(matrices: npt.NDArray[np.float32]) -> bool:
    values = matrices.astype(np.float64)
    if not np.isfinite(values).all():
        return False
    scale = np.linalg.svd(values, compute_uv=False)
    return bool((scale[..., -1] * CONDITION > scale[..., 0]).all())


def _keeps_lengths(matrices: npt.NDArray[np.float32]) -> bool:
    values = matrices.astype(np.float64)
    return bool(np.allclose(values @ np.swapaxes(values, -1, -2), np.eye(values.shape[-1]), rtol=0, atol=1e-5))


def _keeps_means(matrices: npt.NDArray[np.float32]) -> bool:
    return bool(np.allclose(matrices.astype(np.float64).sum(axis=-1), 1, rtol=0, atol=1e-4))


def _encoded(matrices: npt.NDArray[np.float32]) -> dict[str, Any]:
    data = np.ascontiguousarray(matrices, dtype="<f4").tobytes()
    return {"shape": list(matrices.shape), "float32": base64.b64encode(data).decode("ascii")}


def _turned(entry: Mapping[str, Any]) -> Turned:
    matrices = tuple(_decoded(each) for each in entry["matrices"])
    return Turned(matrices, np.zeros(0), entry.get("by") == "data")


def _decoded(entry: Mapping[str, Any]) -> npt.NDArray[np.float32]:
    shape = tuple(int(n) for n in entry["shape"])
    data = base64.b64decode(entry["float32"], validate=True)
    return np.frombuffer(data, dtype="<f4").reshape(shape).astype(np.float32)
