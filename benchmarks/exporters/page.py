"""The page of the second zoo: a line an exporter, a line a file, and reasons for all that is not a number."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping, Sequence
from statistics import median

from benchmarks.coverage_page import DULL, absent, cell, passed, short, why
from benchmarks.harness import Record, Section, describe

Cases = Mapping[tuple[str, str], Record]

PINS = "Lengths that no group has, with the first reason and its node; inputs, outputs, kernels and colours left out."
HEADER = (
    "",
    "versions",
    "models",
    "files",
    "pruned and equal",
    "nothing to prune",
    "failed",
    "not written",
    "removed, median",
)


def _summary(made: Cases, pruned: Cases, missing: Mapping[str, str]) -> Section:
    """A line an exporter, and all of them together."""
    rows, total = [], Counter[str]()
    for exporter in dict.fromkeys([*(name for name, _ in made), *missing]):
        exports = [record for (name, _), record in made.items() if name == exporter]
        results = [record for (name, _), record in pruned.items() if name == exporter]
        counts = Counter(map(_verdict, results))
        counts["not written"] += sum("failure" in record for record in exports)
        total += counts + Counter(models=len(exports), files=len(results))
        shares = [1 - after / before for record in results if passed(record) for before, after in [_params(record)]]
        versions: dict[str, str] = next((record["versions"] for record in exports if "versions" in record), {})
        about = ", ".join(f"{name} {version}" for name, version in versions.items()) or missing.get(exporter, "")
        numbers = (len(exports), len(results), *(counts[each] for each in HEADER[4:8]))
        rows.append((exporter, about, *map(str, numbers), f"{median(shares):.0%}" if shares else ""))
    rows.append(("together", "", *(str(total[each]) for each in HEADER[2:8]), ""))
    return Section("", HEADER, rows, describe("onnxruntime", "onnx"), texts=2)


def sections(made: Cases, pruned: Cases, missing: Mapping[str, str]) -> list[Section]:
    """The tables of the page."""
    rows = [(_name(case), *_row(record)) for case, record in pruned.items() if passed(record)]
    left = [(_name(case), _why(record)) for case, record in pruned.items() if not passed(record) and not absent(record)]
    unwritten = [(name, "all of it", reason) for name, reason in missing.items()]
    unwritten += [(*case, _escape(_plain(record["failure"]))) for case, record in made.items() if "failure" in record]
    unwritten += [(*case, _why(record)) for case, record in pruned.items() if absent(record)]
    pins = [(_name(case), reasons) for case, record in pruned.items() if (reasons := _pins(record))]
    whole = "What stays whole, and why"
    return [
        _summary(made, pruned, missing),
        Section("Files", ("file", "groups", "nodes", "removed", "error"), rows, texts=2),
        Section("Not pruned, and why", ("file", "reason") if left else (), left, "" if left else "None.", texts=2),
        Section(
            "Not written by the exporter, or not run by ONNX Runtime",
            ("exporter", "model", "reason"),
            unwritten,
            texts=3,
        ),
        Section(whole, ("file", "length: reason (node)"), pins, PINS, texts=2),
    ]


def _verdict(record: Record) -> str:
    if absent(record):
        return "not written"
    if passed(record):
        return "pruned and equal"
    return (
        "nothing to prune" if "half refused" in record or "othing to prune" in str(record.get("failure")) else "failed"
    )


def _params(record: Record) -> Sequence[int]:
    params: Sequence[int] = record.get("half params") or record["hidden params"]
    return params


def _name(case: tuple[str, str]) -> str:
    """The exporter, the model, and the file where a model has several."""
    name = "/".join(case).removesuffix(".onnx")
    return name.removesuffix("/model")


def _row(record: Record) -> tuple[str, ...]:
    groups = ", ".join(f"{n} {kind}" for kind, n in record["groups"].items())
    error = max(record[f"{stage} error"] for stage in ("half", "hidden") if f"{stage} error" in record)
    return groups, f"{record['nodes']:,}", cell(record), f"{error:.0e}"


def _pins(record: Record) -> str:
    plain = (*DULL, "graph output")
    return _escape("; ".join(f"{k}: {short(v)}" for k, v in record.get("pins", {}).items() if not v.startswith(plain)))


def _why(record: Record) -> str:
    return why(record | {"failure": _plain(record["failure"])} if "failure" in record else record)


def _plain(text: str) -> str:
    """A reason without what is said of this machine: folders of files, and a second naming of the node."""
    return re.sub(r"Load model from |failed:\s*|(/[^/\s]+)+/(?=[^/\s]+\.(onnx|py)\b)", "", text)


def _escape(text: str) -> str:
    return text.replace("|", "\\|").replace("\n", " ").replace("<", "&lt;").replace("](", "] (")  # which is no link
