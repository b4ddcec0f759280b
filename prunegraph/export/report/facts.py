"""What a report says, as JSON: gathered once, rendered by whoever shows it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from prunegraph.analysis.analyze import Analysis
from prunegraph.analysis.groups import Group
from prunegraph.analysis.selection import Selection

HEAD_KINDS = ("head", "kv_group")
MOST_PINS = 12
"""Reasons that are listed, the most frequent first."""


def report_facts(
    name: str,
    analysis: Analysis,
    selection: Selection,
    summary: Mapping[str, Any],
    *,
    version: str,
    scorers: Mapping[str, str] | None = None,
    scores: Mapping[str, Any] | None = None,
    sizes: Mapping[str, tuple[int, int]] | None = None,
    latency: Mapping[str, Any] | None = None,
    evaluation: Mapping[str, Any] | None = None,
    sweep: Sequence[Mapping[str, Any]] = (),
    commands: Sequence[str] = (),
) -> dict[str, Any]:
    """Everything that a report says.

    Args:
        name: Of the model.
        analysis: Its groups and pins.
        selection: What stays.
        summary: What `prunegraph prune --json` prints.
        version: Of this package.
        scorers: By group id who scored it.
        scores: By group id, arrays of the groups' shapes, where they are at hand.
        sizes: Bytes of the file, before and after, by name of what is counted.
        latency: What `prunegraph bench --json` prints.
        evaluation: What `prunegraph evaluate --json` prints.
        sweep: Points of accuracy over latency: `name`, `latency_ms`, `metric`, `low`, `high`; those of the models that
            both `latency` and `evaluation` name if empty.
        commands: What reproduces it.
    """
    return {
        "name": name,
        "version": version,
        "scorer": ", ".join(dict.fromkeys((scorers or {}).values())),
        "params": list(summary["params"]),
        "macs": list(summary["macs"]),
        "macs_at": dict(summary.get("macs_at", {})),
        "sizes": {what: list(both) for what, both in (sizes or {}).items()},
        "kinds": _kinds(analysis, selection),
        "layers": [
            _layer(group, selection, (scores or {}).get(group.id), (scorers or {}).get(group.id, ""))
            for group in analysis.groups
        ],
        "pins": _pins(analysis),
        "proof": summary.get("verify"),
        "proof_rows": _proof_rows(summary["verify"]) if summary.get("verify") else [],
        "repair": summary.get("repair"),
        "seconds": dict(summary.get("seconds", {})),
        "latency": dict(latency) if latency else None,
        "evaluation": dict(evaluation) if evaluation else None,
        "sweep": [dict(point) for point in sweep or _sweep(latency, evaluation)],
        "commands": list(commands),
    }


def speed_rows(speed: Mapping[str, Any]) -> list[tuple[str, str, str]]:
    """What is told of speed in words: what was asked for, measured, and how.

    Args:
        speed: What `SpeedReport.to_dict` made.
    """
    protocol = speed["settings"].get("protocol", "turns")
    kinds = {f"timed in {protocol}": speed["measured"]}
    kinds |= {f"timed in {name}": ratio for name, ratio in speed["other"].items()}
    if speed["same_form"]:
        kinds["beside the original in the same form"] = speed["same_form"]
    if speed["predicted"]:
        kinds = {"as a latency table says": speed["measured"]}
    rows = [
        (name, f"{ratio['median']:.2f}", f"{ratio['low']:.2f} to {ratio['high']:.2f}") for name, ratio in kinds.items()
    ]
    return [("asked for", f"{speed['asked']:.2f}", ""), *rows]


def _sweep(latency: Mapping[str, Any] | None, evaluation: Mapping[str, Any] | None) -> list[dict[str, Any]]:
    """Accuracy over latency on the first provider, of models that were evaluated and timed under one name."""
    if not latency or not evaluation or not latency["results"]:
        return []
    provider = latency["results"][0]["provider"]
    times = {arm["model"]: arm["median_ms"] for arm in latency["results"] if arm["provider"] == provider}
    points = [
        {"name": row["model"], "latency_ms": times[row["model"]], "metric": row["value"]}
        | {end: row["value"] if row[end] is None else row[end] for end in ("low", "high")}
        for row in evaluation["models"]
        if row["model"] in times
    ]
    return points if len(points) > 1 else []


def _kinds(analysis: Analysis, selection: Selection) -> list[dict[str, Any]]:
    before: Counter[str] = Counter()
    after: Counter[str] = Counter()
    for group in analysis.groups:
        before[group.kind] += group.units
        after[group.kind] += selection.count(group)
    return [{"kind": kind, "before": units, "after": after[kind]} for kind, units in before.items()]


def _layer(group: Group, selection: Selection, scores: Any, scorer: str) -> dict[str, Any]:
    facts: dict[str, Any] = {
        "id": group.id,
        "kind": group.kind,
        "scope": group.scope,
        "before": group.units,
        "after": selection.count(group),
        "exact": group.exact,
        "scorer": scorer,
    }
    if group.kind in HEAD_KINDS and not group.rows:
        keep = selection.keep.get(group.id)
        facts["kept"] = [bool(stays) for stays in (np.ones(group.units, bool) if keep is None else np.asarray(keep))]
        if scores is not None:
            facts["scores"] = [float(f"{score:.6g}") for score in np.asarray(scores).reshape(-1)]
    return facts


def _proof_rows(proof: Mapping[str, Any]) -> list[list[str]]:
    """What the comparison saw, in words."""
    oracle = "the masked original" if proof.get("exact", True) else "the original under masked statistics"
    rows = [[f"equal to {oracle}", "yes" if proof.get("ok", True) else "no"]]
    errors = [proof[key] for key in ("max_rel_error", "normalize_error") if key in proof]
    if errors:
        rows.append(["largest error, of the output's scale", f"{max(errors):.1e}"])
    if "moved" in proof:
        rows.append(["what was removed moves the outputs by, of their scale", f"{proof['moved']:.1%}"])
    places = Counter(str(group["seen"]).split()[0] for group in proof.get("groups", ()) if group.get("seen"))
    rows += [[f"groups whose wrong weight would have been seen: {place}", str(n)] for place, n in places.items()]
    rows += [["note", str(note)] for note in proof.get("notes", ())]
    return rows + ([["reason", str(proof["reason"])]] if proof.get("reason") else [])


def _pins(analysis: Analysis) -> list[dict[str, Any]]:
    reasons: dict[str, list[str]] = {}
    for pinned in analysis.pinned:
        for pin in pinned.pins:
            reasons.setdefault(pin.why, []).append(str(pinned.place))
    often = sorted(reasons.items(), key=lambda item: -len(item[1]))[:MOST_PINS]
    return [{"why": why, "axes": len(places), "where": places[0]} for why, places in often]
