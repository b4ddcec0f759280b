"""The tables of the coverage study: counts for people, one row a file, and reasons for all that is not a number."""

from __future__ import annotations

import importlib.metadata
from collections import Counter
from collections.abc import Callable, Iterable, Sequence

from benchmarks.harness import Record, Section

Case = tuple[str, str]
"""A file's stem, and a variant, a peer or `export`."""
Results = dict[Case, Record]

TOLERANCE = 1e-4
WIDEST = 110
DULL = ("a spatial axis", "graph input")
"""Reasons that say nothing: an image has three colours, a kernel its size."""

OUR_HEADER = ("", "files", "pruned and equal", "failed", "not made by the other tool")
PEER_HEADER = ("", "models", "smaller, runs, same shapes", "nothing removed", "failed", "heads removed in")
USED = ("onnxruntime", "onnx", "torch", "transformers", "timm")
NOT_MADE = "The exporter or optimizer fails, or makes a file that ONNX Runtime does not run: there is nothing to prune."
PINS = (
    "Lengths that no group has, with the first reason; kernels and colours left out. A second file of a model has a "
    "row of its own where more of it stays whole."
)


def passed(record: Record) -> bool:
    """Pruned, proven, inputs and outputs as they were."""
    stages = [stage for stage in ("half", "hidden") if f"{stage} params" in record]
    return bool(stages) and all(record[f"{s} io"] and record[f"{s} error"] <= TOLERANCE for s in stages)


def absent(record: Record) -> bool:
    """Whether another tool failed before there was anything to prune."""
    return str(record.get("failure", "")).startswith(("RuntimeError: not made", "not made"))


def shares(record: Record) -> tuple[float, float]:
    """Shares of parameters removed: by exact kinds, and with the hidden width."""
    stages = [record.get(f"{stage} params") for stage in ("half", "hidden")]
    exact, either = (1 - params[1] / params[0] if params else 0.0 for params in stages)
    return exact, max(exact, either)


def counts(variants: Sequence[str], peers: Sequence[str], results: Results, whole: Record | None) -> list[Section]:
    """All variants and all peers; `whole` tells of a run that did all in one go."""
    tables = [summary(variants, results), _peers(peers, results, whole)]
    return [*tables, *([Section("", (), (), _took(whole))] if whole else []), _versions(peers, whole)]


def file_by_file(
    names: Iterable[str], variants: Sequence[str], peers: Sequence[str], results: Results, whole: Record | None
) -> list[Section]:
    """The long table, and the reasons for everything in it that is not a number."""
    reasons = [
        failures(variants, results),
        _reasons("Not made", results, lambda what, r: what == "export" or absent(r), NOT_MADE),
    ]
    if peers:
        reasons.append(_reasons("Failures of the peers", results, lambda what, r: what in peers and "failure" in r))
    pins = _pins(names, variants[0], results)
    return [_files(variants, peers, results), *reasons, pins, _versions(peers, whole)]


def failures(variants: Sequence[str], results: Results) -> Section:
    """What is not pruned, or not equal."""
    return _reasons("Failures", results, lambda what, r: what in variants and not passed(r) and not absent(r))


def _versions(peers: Sequence[str], whole: Record | None) -> Section:
    names = (*USED, *reversed(peers))
    return Section("", (), (), ", ".join(f"{name} {_version(name, whole)}" for name in names))


def _version(package: str, whole: Record | None) -> str:
    """The version that a whole run had, or the one that is installed."""
    known: str | None = (whole or {}).get("versions", {}).get(package)
    return known or importlib.metadata.version(package)


def _took(whole: Record) -> str:
    """How long everything took in one go."""
    where = f"{whole['cores']} cores of {whole['cpu']}, {whole['jobs']} cases at a time"
    return f"Exports and {whole['cases']} cases, by one command: {whole['minutes']:.0f} minutes on {where}."


def summary(variants: Sequence[str], results: Results) -> Section:
    """Counts for every variant."""
    files = {stem for stem, what in results if what != "export"}
    lost = {stem for stem, what in results if what == "export"} - files
    have, all_names = ({stem.removesuffix("_legacy") for stem in stems} for stems in (files, files | lost))
    without = f"no file at all of {', '.join(sorted(all_names - have))}" if have < all_names else "every one has a file"
    rows = []
    for what in variants:
        records = [record for (_, w), record in results.items() if w == what]
        missing, good = sum(map(absent, records)), sum(map(passed, records))
        rows.append((what, *map(str, (len(records), good, len(records) - missing - good, missing))))
    note = f"{len(all_names)} architectures, {len(files)} files. Exporters fail on {len(lost)} more; {without}."
    return Section("", OUR_HEADER, rows, note)


def _peers(peers: Sequence[str], results: Results, whole: Record | None) -> Section:
    """Counts for every peer."""
    rows = []
    for what in peers:
        records = [record for (_, w), record in results.items() if w == what]
        verdicts = Counter(_verdict(record) for record in records)
        heads = sum(_verdict(record) == "good" and record["heads"] > 0 for record in records)
        numbers = [len(records), *(verdicts[verdict] for verdict in ("good", "nothing", "failed")), heads]
        rows.append((f"{what} {_version(what, whole)}", *map(str, numbers)))
    return Section("", PEER_HEADER if peers else (), rows)


def _verdict(record: Record) -> str:
    if "failure" in record or not record["io"]:
        return "failed"
    before, after = record["params"]
    return "good" if after < before else "nothing"


def _files(variants: Sequence[str], peers: Sequence[str], results: Results) -> Section:
    rows = []
    for stem in sorted({stem for stem, _ in results}):
        records = {what: record for (s, what), record in results.items() if s == stem}
        first = records.get(variants[0], {})
        groups = ", ".join(f"{n} {kind}" for kind, n in first.get("groups", {}).items())
        without = "not made" if "export" in records else ""
        ours = [cell(records[v]) if v in records else without for v in variants]
        theirs = [_peer_cell(records[p]) if p in records else "" for p in peers]
        errors = [e for r in records.values() for s in ("half", "hidden") if (e := r.get(f"{s} error")) is not None]
        error = f"{max(errors):.0e}" if errors else ""
        rows.append((stem, groups, *ours, error, str(first.get("seconds", "")), *theirs))
    header = ["file", "groups", *variants, "error", "seconds", *peers]
    return Section("Files", header, rows, texts=2 + len(variants))


def cell(record: Record) -> str:
    """What went of one file, or why there is no number."""
    if absent(record):
        return "not made"
    if not passed(record):
        return "**failed**"
    shares = [_share(record[f"{s} params"]) for s in ("half", "hidden") if f"{s} params" in record]
    return " → ".join(shares) if "half params" in record else f"0 → {shares[0]}"


def _peer_cell(record: Record) -> str:
    if _verdict(record) == "failed":
        return "failed"
    return _share(record["params"]) + (f", {record['heads']} heads" if record["heads"] else "")


def _share(params: Sequence[int]) -> str:
    return f"{1 - params[1] / params[0]:.0%}"


def why(record: Record) -> str:
    """The reason of a failure in one short piece of a table row."""
    text = str(record.get("failure") or record.get("half refused") or "")
    if not text:
        errors = [f"{s} error {record[f'{s} error']:.0e}" for s in ("half", "hidden") if f"{s} error" in record]
        text = ", ".join(errors) if all(record.get(f"{s} io", True) for s in ("half", "hidden")) else "shapes changed"
    text = text.removeprefix("RuntimeError: ").removeprefix("not made: ").replace("|", "\\|").replace("\n", " ")
    return text if len(text) <= WIDEST else text[: WIDEST - 1] + "…"


def _reasons(title: str, results: Results, belongs: Callable[[str, Record], bool], note: str = "") -> Section:
    """A table of cases with their reasons."""
    rows = [(stem, what, why(record)) for (stem, what), record in sorted(results.items()) if belongs(what, record)]
    return Section(title, ("file", "case", "reason") if rows else (), rows, note if rows else "None.", texts=3)


def _pins(names: Iterable[str], variant: str, results: Results) -> Section:
    rows = []
    for name in names:
        before: set[str] = set()
        for stem in (name, f"{name}_legacy"):
            pins = results.get((stem, variant), {}).get("pins", {})
            reasons = {length: short(text) for length, text in pins.items() if not text.startswith(DULL)}
            if reasons.keys() - before:
                rows.append((stem, "; ".join(f"{k}: {text}" for k, text in reasons.items()).replace("|", "\\|")))
            before |= reasons.keys()
    return Section("What stays whole, and why", ("file", "length: reason (node)"), rows, PINS, texts=2)


def short(reason: str) -> str:
    """A reason with only the end of its node's path."""
    text, _, node = reason.rpartition(" (")
    tail = "/".join(node.split("/")[-3:])
    return f"{text} ({'…/' if tail != node else ''}{tail}" if text else reason
