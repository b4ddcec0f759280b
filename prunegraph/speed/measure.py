"""Measure a latency table on this machine, or take it from the cache."""

from __future__ import annotations

import hashlib
import json
import logging
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import onnxruntime as ort

from prunegraph.analysis.groups import Group
from prunegraph.analyzed import Analyzed
from prunegraph.atomic_write import write_text
from prunegraph.bench.device_table import Cut, LatencyTable
from prunegraph.bench.environment import environment
from prunegraph.bench.results import Comparison
from prunegraph.errors import PruneGraphError, UsageError
from prunegraph.observe.cache import default_cache
from prunegraph.observe.fingerprint import fingerprint
from prunegraph.speed.blocks import TimedBlock, alike, units_of
from prunegraph.speed.cuts import cut_model, cuts_between, table_cuts
from prunegraph.speed.timer import TABLE_ROUNDS, Timer

logger = logging.getLogger(__name__)

OFF_LINE = 0.05
"""Where the half of a block saves another share of what a unit saves, by more than this, more points are measured."""

CUT_SECONDS = 20.0
"""For one version, at most: with large models fewer rounds are timed."""

TableProgress = Callable[[int], None]


def measure_table(
    analyzed: Analyzed,
    blocks: Sequence[TimedBlock],
    timer: Timer,
    *,
    align: int | None = None,
    forms: tuple[str, ...] = (),
    widths: Sequence[Group] = (),
    cache: Path | None = None,
    progress: TableProgress | None = None,
) -> LatencyTable:
    """The latency table of a model here: every version beside the whole model, one pair at a time.

    Args:
        analyzed: The model.
        blocks: What may get smaller, see `blocks_of`.
        timer: How it is timed.
        align: To which multiples widths are rounded.
        forms: Equal forms that the versions are written in.
        widths: Residual widths that are narrowed, see `width_groups`.
        cache: A folder of tables that were measured before.
        progress: Called with how many versions are timed.
    """
    model = fingerprint(analyzed.original)
    cuts = list(table_cuts(blocks, align, widths))
    path = None if cache is None else cache / f"{_key(model, cuts, timer, forms)}.json"
    if path is not None and (known := _cached(path)) is not None:
        return known
    comparisons: list[Comparison] = []

    def time(cut: Cut) -> None:
        slim = cut_model(analyzed, cut, forms)
        timing = {"rounds": TABLE_ROUNDS, "max_seconds": CUT_SECONDS}
        comparisons.append(timer.pair(analyzed.original, slim, name=cut.name, **timing))
        if progress is not None:
            progress(len(comparisons))

    for cut in cuts:
        time(cut)
    more = [
        cut
        for members in alike(blocks)
        if _off_line(members, cuts, comparisons)
        for cut in cuts_between(members, align)
    ]
    for cut in more:
        time(cut)
    timed, groups = [*cuts, *more], units_of(blocks, widths)
    table = LatencyTable.of(comparisons, timed, model=model, groups=groups, provider=timer.ep, forms=forms)
    if path is not None:
        _store(path, table)
    return table


def table_cache() -> Path:
    """The folder of tables, beside that of observations."""
    return default_cache().parent / "latency"


def _off_line(members: Sequence[TimedBlock], cuts: Sequence[Cut], comparisons: Sequence[Comparison]) -> bool:
    """Whether the time of alike blocks does not run along a line from all units to one."""
    main = members[0].main
    ids = {block.main.id for block in members}
    saved = {main.units: 0.0}
    for cut, comparison in zip(cuts, comparisons, strict=False):
        ratio = comparison.results[1].ratio
        if set(cut.kept) == ids and cut.kept[main.id] > 0 and ratio is not None:
            saved[cut.kept[main.id]] = 1 - 1 / ratio.median
    counts = sorted(saved)
    if len(counts) < 3 or saved[counts[0]] <= 0:
        return False
    line = np.interp(counts[1], [counts[0], counts[-1]], [saved[counts[0]], 0.0])
    return abs(saved[counts[1]] - float(line)) > OFF_LINE * saved[counts[0]]


def _key(model: str, cuts: Sequence[Cut], timer: Timer, forms: tuple[str, ...]) -> str:
    """Everything that the times depend on."""
    facts = {
        "model": model,
        "cuts": [[cut.name, dict(cut.kept)] for cut in cuts],
        "provider": timer.ep,
        "onnxruntime": str(ort.__version__),
        "settings": {name: repr(value) for name, value in sorted(timer.settings.items())},
        "protocol": timer.protocol,
        "forms": forms,
        "machine": {name: value for name, value in environment().items() if name in ("cpu", "cores", "system")},
    }
    return hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()[:32]


def _cached(path: Path) -> LatencyTable | None:
    try:
        return LatencyTable.load(path)
    except UsageError as error:
        if path.exists():
            logger.info("a cached latency table cannot be read and is measured again: %s", error)
        return None


def _store(path: Path, table: LatencyTable) -> None:
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        write_text(path, json.dumps(table.to_dict()))
    except (OSError, PruneGraphError) as error:
        logger.warning("the latency table is not cached: %s", error)
