"""What CAHP found, in words and as JSON."""

from __future__ import annotations

from typing import Any

from prunegraph.passes.score.complement import SHARE, Chosen
from prunegraph.passes.score.differentiate import Differentiated
from prunegraph.passes.score.signature import Signatures


def lines_of(chosen: Chosen, signatures: Signatures, how: Differentiated, degree: int) -> tuple[str, ...]:
    """A few lines for people."""
    total, kept = len(chosen.keep), int(chosen.keep.sum())
    if chosen.asked is not None:
        why = f"{chosen.asked} were asked for"
    elif chosen.curve is None:
        why = f"too few for a curve, so {SHARE:.0%}"
    else:
        knee = (
            "the knee of the silhouette" if chosen.curve.found else "no knee, but the highest point over the diagonal"
        )
        why = f"{knee} at {chosen.curve.knee} clusters, polynomial of degree {degree}"
    if chosen.returned:
        why += f"; {chosen.returned} returned so that no layer is left without one"
    classes = ", ".join(f"{label}: {n}" for label, n in sorted(zip(signatures.labels, signatures.counts, strict=True)))
    both = int((chosen.keep & chosen.rival).sum())
    per_layer = " ".join(str(n) for n in by_group(chosen, "keep").values())
    rival = " ".join(str(n) for n in by_group(chosen, "rival").values())
    return (
        f"cahp: {kept} of {total} heads stay: {why}",
        f"examples by class ({signatures.labelled_by}): {classes}; {how.line}",
        f"heads kept by layer: {per_layer}; michel would keep {rival}, {both} of them the same",
    )


def by_group(chosen: Chosen, what: str) -> dict[str, int]:
    """By group id how many heads stay ("keep"), or would by `michel` ("rival")."""
    mask, owner = getattr(chosen, what), chosen.owner
    return {name: int(mask[owner == k].sum()) for k, name in enumerate(chosen.shapes)}


def facts_of(chosen: Chosen, signatures: Signatures) -> dict[str, Any]:
    """All facts of the report as JSON writes them."""
    names, owner = list(chosen.shapes), chosen.owner
    starts = [int((owner < k).sum()) for k in range(len(names))]
    heads = [
        {
            "group": names[owner[k]],
            "unit": k - starts[owner[k]],
            "cluster": int(chosen.clusters.labels[k]),
            "point": chosen.points[k].tolist(),
            "salience": float(chosen.salience[k]),
            "kept": bool(chosen.keep[k]),
            "kept_by_michel": bool(chosen.rival[k]),
        }
        for k in range(len(chosen.keep))
    ]
    curve = chosen.curve
    return {
        "kept": int(chosen.keep.sum()),
        "asked": chosen.asked,
        "knee": curve.knee if curve is not None else None,
        "knee_found": curve.found if curve is not None else False,
        "returned": chosen.returned,
        "classes_from": signatures.labelled_by,
        "classes": {str(label): count for label, count in zip(signatures.labels, signatures.counts, strict=True)},
        "kept_by_group": by_group(chosen, "keep"),
        "michel_by_group": by_group(chosen, "rival"),
        "heads": heads,
        "curve": {"k": curve.k.tolist(), "silhouette": curve.silhouette.tolist(), "fit": curve.fit.tolist()}
        if curve is not None
        else None,
    }
