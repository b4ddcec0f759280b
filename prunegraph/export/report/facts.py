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
    scorer: str = "",
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
        scorer: Who scored.
        scores: By group id, arrays of the groups' shapes, where they are at hand.
        sizes: Bytes of the file, before and after, by name of what is counted.
        latency: What `prunegraph bench --json` prints.
        evaluation: What `prunegraph evaluate --json` prints.
        sweep: Points of accuracy over latency: `name`, `latency_ms`, `metric`, `low`, `high`.
        commands: What reproduces it.
    """
    return {
        "name": name,
        "version": version,
        "scorer": scorer,
        "params": list(summary["params"]),
        "macs": list(summary["macs"]),
        "sizes": {what: list(both) for what, both in (sizes or {}).items()},
        "kinds": _kinds(analysis, selection),
        "layers": [_layer(group, selection, (scores or {}).get(group.id)) for group in analysis.groups],
        "pins": _pins(analysis),
        "proof": summary.get("verify"),
        "repair": summary.get("repair"),
        "seconds": dict(summary.get("seconds", {})),
        "latency": dict(latency) if latency else None,
        "evaluation": dict(evaluation) if evaluation else None,
        "sweep": [dict(point) for point in sweep],
        "commands": list(commands),
    }


def kept_units(group: Group, selection: Selection) -> int:
    """How many units of a group stay, in every row."""
    keep = selection.keep.get(group.id)
    return group.units if keep is None else int(np.asarray(keep).reshape(-1, group.units)[0].sum())


def _kinds(analysis: Analysis, selection: Selection) -> list[dict[str, Any]]:
    before: Counter[str] = Counter()
    after: Counter[str] = Counter()
    for group in analysis.groups:
        before[group.kind] += group.units
        after[group.kind] += kept_units(group, selection)
    return [{"kind": kind, "before": units, "after": after[kind]} for kind, units in before.items()]


def _layer(group: Group, selection: Selection, scores: Any) -> dict[str, Any]:
    facts: dict[str, Any] = {
        "id": group.id,
        "kind": group.kind,
        "scope": group.scope,
        "before": group.units,
        "after": kept_units(group, selection),
        "exact": group.exact,
    }
    if group.kind in HEAD_KINDS and not group.rows:
        keep = selection.keep.get(group.id)
        facts["kept"] = [bool(stays) for stays in (np.ones(group.units, bool) if keep is None else np.asarray(keep))]
        if scores is not None:
            facts["scores"] = [float(f"{score:.6g}") for score in np.asarray(scores).reshape(-1)]
    return facts


def _pins(analysis: Analysis) -> list[dict[str, Any]]:
    reasons: dict[str, list[str]] = {}
    for pinned in analysis.pinned:
        for pin in pinned.pins:
            reasons.setdefault(pin.why, []).append(str(pinned.place))
    often = sorted(reasons.items(), key=lambda item: -len(item[1]))[:MOST_PINS]
    return [{"why": why, "axes": len(places), "where": places[0]} for why, places in often]
