"""What CAHP found, in words and as JSON."""

from __future__ import annotations

from typing import Any

from prunegraph.passes.score.complement import SHARE, Chosen
from prunegraph.passes.score.differentiate import Differentiated
from prunegraph.passes.score.signature import Signatures


def lines_of(found: Chosen, seen: Signatures, how: Differentiated, degree: int) -> tuple[str, ...]:
    """A few lines for people."""
    total, kept = len(found.keep), int(found.keep.sum())
    if found.asked is not None:
        why = f"{found.asked} were asked for"
    elif found.curve is None:
        why = f"too few for a curve, so {SHARE:.0%}"
    else:
        knee = "the knee of the silhouette" if found.curve.found else "no knee, but the highest point over the diagonal"
        why = f"{knee} at {found.curve.knee} clusters, polynomial of degree {degree}"
    if found.returned:
        why += f"; {found.returned} returned so that no layer is left without one"
    classes = ", ".join(f"{label}: {n}" for label, n in sorted(zip(seen.labels, seen.counts, strict=True)))
    both = int((found.keep & found.rival).sum())
    per_layer = " ".join(str(n) for n in by_group(found, "keep").values())
    rival = " ".join(str(n) for n in by_group(found, "rival").values())
    return (
        f"cahp: {kept} of {total} heads stay: {why}",
        f"examples by class ({seen.told}): {classes}; {how.line}",
        f"heads kept by layer: {per_layer}; michel would keep {rival}, {both} of them the same",
    )


def by_group(found: Chosen, what: str) -> dict[str, int]:
    """By group id how many heads stay ("keep"), or would by `michel` ("rival")."""
    mask, owner = getattr(found, what), found.owner
    return {name: int(mask[owner == k].sum()) for k, name in enumerate(found.shapes)}


def facts_of(found: Chosen, seen: Signatures) -> dict[str, Any]:
    """Everything, for JSON."""
    names, owner = list(found.shapes), found.owner
    starts = [int((owner < k).sum()) for k in range(len(names))]
    heads = [
        {
            "group": names[owner[k]],
            "unit": k - starts[owner[k]],
            "cluster": int(found.clusters.labels[k]),
            "point": found.points[k].tolist(),
            "salience": float(found.salience[k]),
            "kept": bool(found.keep[k]),
            "kept_by_michel": bool(found.rival[k]),
        }
        for k in range(len(found.keep))
    ]
    curve = found.curve
    return {
        "kept": int(found.keep.sum()),
        "asked": found.asked,
        "knee": curve.knee if curve is not None else None,
        "knee_found": curve.found if curve is not None else False,
        "returned": found.returned,
        "classes_from": seen.told,
        "classes": {str(label): count for label, count in zip(seen.labels, seen.counts, strict=True)},
        "kept_by_group": by_group(found, "keep"),
        "michel_by_group": by_group(found, "rival"),
        "heads": heads,
        "curve": {"k": curve.k.tolist(), "silhouette": curve.silhouette.tolist(), "fit": curve.fit.tolist()}
        if curve is not None
        else None,
    }
