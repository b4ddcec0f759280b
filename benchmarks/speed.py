"""Is a promise of speed kept, does the latency table foretell, and how good are models at measured speed?

    python -m benchmarks.speed promise table plans accuracy [--markdown docs/speed.md]
    python -m benchmarks.speed --list

A case is named as a whole (`promise:minilm128:2`) or by how its name begins (`promise`, `plans:binary`).  Cases are
short, run one at a time, and what has been run is recalled, so that a study can be stopped and go on.  `harm` before
`plans` before `accuracy`, `tune-peer` before `peer`, and both before `tuned`: `harm`, `accuracy`, `peer` and `tuned`
time nothing and may run on a busy machine.  Dense models of the tasks are trained by `python -m benchmarks.movie` and
`python -m benchmarks.fashion`; the others have random weights.  Peers need the extra `[peers]`, and the cases of
`openvino` an environment whose ONNX Runtime has that provider.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console

from benchmarks.harness import Record, Records, Section, describe, publish, run_cases, study_parser, warm
from benchmarks.speed_cases import KEYS, MODELS, SPEEDS, all_cases, plans_case, run
from benchmarks.speed_peers import TITLES, TOOLS
from benchmarks.speed_tasks import BUILD, PARTS, SEEDS, TASK_SPEEDS, TASKS, TUNED, WIDTHS
from prunegraph.passes.choose.meet_time import OVER, UNDER

UNTIMED = ("harm", "accuracy", "peer", "tuned")
NAMES = {"binary": "movie, two classes", "five": "movie, five classes", "fashion": "Fashion ViT"}


def main() -> None:
    """Run the cases that are asked for, and print or write the tables of all that have been run."""
    parser = study_parser("benchmarks.speed", __doc__, page=True)
    parser.add_argument("cases", nargs="*", metavar="CASE", help="names of cases, or how they begin")
    parser.add_argument("--list", action="store_true", help="list the names of the cases")
    parser.add_argument("--again", action="store_true", help="run cases once more that failed")
    parser.add_argument("--fresh", action="store_true", help="run the cases that are named even if they have been run")
    parser.add_argument("--timeout", type=float, default=540.0, metavar="S", help="for one case (default: 540)")
    parser.add_argument("--records", type=Path, default=BUILD / "records.jsonl", metavar="FILE")
    arguments = parser.parse_args()
    names = list(all_cases())
    if arguments.list:
        print(*names, sep="\n")
        return
    cases = [name for prefix in arguments.cases for name in names if name == prefix or name.startswith(f"{prefix}:")]
    if unknown := [each for each in arguments.cases if not any(n == each or n.startswith(f"{each}:") for n in names)]:
        sys.exit(f"there is no case {unknown[0]}; --list lists them")
    records = Records(arguments.records)
    if arguments.fresh:
        for name in cases:
            records.keep(name, {"failure": "to be run again"})
    warm("onnxruntime", "prunegraph")
    for name in dict.fromkeys(cases):  # one at a time: others would be heard in the timings
        by_name = run_cases(
            name, [name], records, lambda case: (run, (case,)), name=str, jobs=1, timeout=arguments.timeout,
            again=arguments.again or arguments.fresh,
        )  # fmt: skip
        record = by_name[name]
        Console(stderr=True).print(f"{name}: {record.get('failure') or str(round(record['took'])) + ' s'}")
    asked = {"promise": "Is the promise kept?", "openvino": "Is it kept on OpenVINO?"}
    sections = [*(promises(records, case, heading) for case, heading in asked.items()), foretold(records)]
    sections += [table(records, task) for task in TASKS for table in (accuracies, after_tuning)]
    sections.append(effort(records))
    here = [name for name in names if not name.startswith(("openvino", *UNTIMED))]
    note = f"Measured by `python -m benchmarks.speed` on {_machine(records, here)}, one thread."
    tables = [section for section in sections if section.rows]
    publish("speed", [*tables, Section("", (), (), note)], arguments.markdown)


def _machine(records: Records, names: Sequence[str]) -> str:
    """Where cases were run, and how busy it was at most when one began."""
    machines = [record for name in names if "environment" in (record := records.recall(name) or {})]
    if not machines:
        return describe("onnxruntime")
    loads = [record["load"] for record in machines if "load" in record]
    return describe("onnxruntime", machine=machines[-1]["environment"], load=max(loads, default=None))


def promises(records: Records, case: str, heading: str) -> Section:
    """What was asked for on a provider, what the report promised, and what a second measurement says."""
    rows, met, count = [], 0, 0
    for title, key in zip(MODELS, KEYS, strict=True):
        for speed in SPEEDS:
            record = records.recall(f"{case}:{key}:{speed:g}")
            if record is None or "failure" in record:
                continue
            if "refused" in record:
                rows.append([title, f"{speed:g}", "refused", "", "", "", f"{record['seconds']:.0f}"])
                continue
            ratio, again = record["speed"]["measured"], record["again"]
            within = UNDER * speed <= again["median"] <= OVER * speed
            met, count = met + within, count + 1
            other = next(iter(record["speed"]["other"].values()), None)
            same = record["speed"]["same_form"]
            cells = [title, f"{speed:g}", _ratio(ratio), _ratio(again) + ("" if within else " (outside)")]
            rows.append([*cells, _ratio(other), _ratio(same), f"{record['seconds']:.0f}"])
    header = ("model", "asked", "promised", "measured again", "in blocks", "beside the same form", "seconds")
    note = f"Without data, in turns; {met} of {count} second measurements (100 rounds) lie within -2 and +5 %."
    if case == "openvino":
        note += f" On {_machine(records, [f'{case}:{key}:{speed:g}' for key in KEYS for speed in SPEEDS])}."
    return Section(heading, header, rows, note)


def foretold(records: Records) -> Section:
    """How far what the table foretells of random plans is from what is measured."""
    rows = []
    for title, key in zip(MODELS, KEYS, strict=True):
        record = records.recall(f"table:{key}")
        if record is None or "failure" in record:
            continue
        measured = np.array([plan["measured"]["median"] for plan in record["plans"]])
        cells = [
            title,
            str(record["cuts"]),
            f"{record['seconds']:.0f}",
            f"{measured.min():.1f} to {measured.max():.1f}",
        ]
        for source in ("foretold", "macs", "roofline"):
            error = np.array([plan[source] for plan in record["plans"]]) / measured - 1
            within = int((np.abs(error) <= 0.05).sum())
            cells += [f"{100 * error.mean():+.1f}, {100 * np.abs(error).max():.1f}, {within}/{len(error)}"]
        rows.append(cells)
    header = ("model", "cuts", "seconds", "times faster", "table", "multiply-adds alone", "roofline")
    note = "Speed foretold over measured of 30 random plans: mean and largest error in percent, how many within 5 %."
    return Section("Does the table foretell?", header, rows, note)


def accuracies(records: Records, task: str) -> Section:
    """Accuracy of every part and of every peer at every speed, differences to dense paired by example, over seeds."""
    rows = []
    for part, name in enumerate(PARTS):
        cells = [_cell(records, task, speed, f"accuracy:{task}:{{}}:{part}", _part_speed(records, task, part, speed))
                 for speed in TASK_SPEEDS]  # fmt: skip
        rows.append([name, *cells])
    for tool in TOOLS:
        cells = [
            "not reached"
            if "refused" in (records.recall(f"tune-peer:{task}:{tool}:{speed:g}") or {})
            else _cell(records, task, speed, f"peer:{task}:{{}}:{tool}", _peer_speed(records, task, tool, speed))
            for speed in TASK_SPEEDS
        ]
        rows.append([TITLES[tool], *cells])
    title = f"Accuracy at measured speed, nothing trained: {NAMES[task]}"
    note = (
        f"Points beside dense ({_whole(records, task)}), with the 95 % bootstrap interval, paired by example and "
        "pooled over seeds; in brackets the measured speed, smallest to largest over seeds. Versions of other tools "
        "are in the same forms."
    )
    return Section(title, ("", *(f"{speed:g} times" for speed in TASK_SPEEDS)), _told(rows), note)


def after_tuning(records: Records, task: str) -> Section:
    """The same after a short fine-tune, the same for all."""
    rows = []
    for arm, name in ((WIDTHS, list(PARTS)[WIDTHS]), *((tool, TITLES[tool]) for tool in TOOLS)):
        cells = [_cell(records, task, speed, f"tuned:{task}:{{}}:{arm}:{speed:g}") for speed in TASK_SPEEDS]
        rows.append([name, *cells])
    title = f"Accuracy at measured speed after a short fine-tune: {NAMES[task]}"
    note = f"As above, after one pass over {TUNED[task]:,} training examples with labels, the dense model as teacher."
    return Section(title, ("", *(f"{speed:g} times" for speed in TASK_SPEEDS)), _told(rows), note)


def effort(records: Records) -> Section:
    """Seconds and lines of user code by tool, to the version of twice the speed."""
    rows = []
    for task in TASKS:
        harm = (records.recall(f"harm:{task}:0") or {}).get("seconds")
        plan = (records.recall(plans_case(task, 0, WIDTHS, TASK_SPEEDS[0])) or {}).get("took")
        if harm is not None and plan is not None:
            rows.append([f"{NAMES[task]}: this package", "1", f"{harm + plan:.0f}"])
        for tool in TOOLS:
            tuned = (records.recall(f"tune-peer:{task}:{tool}:{TASK_SPEEDS[0]:g}") or {}).get("seconds")
            lines = (records.recall(f"peer:{task}:0:{tool}") or {}).get("lines")
            if tuned is not None and lines is not None:
                rows.append([f"{NAMES[task]}: {TITLES[tool]}", str(lines), f"{tuned:.0f}"])
    note = "Lines that a user writes, and seconds to a version that is twice as fast, timings included; tables cached."
    return Section("What does it take?", ("", "lines", "seconds"), rows, note)


def _told(rows: Sequence[Sequence[str]]) -> list[Sequence[str]]:
    """The rows that say something."""
    return [row for row in rows if any(row[1:])]


def _whole(records: Records, task: str) -> str:
    """How good the dense models are."""
    seeds = [each for seed in SEEDS if (each := _right(records, f"accuracy:{task}:{seed}:0", "dense")) is not None]
    if not seeds:
        return "not measured"
    return f"{100 * np.mean([each.mean() for each in seeds]):.1f} on {len(seeds[0]):,} examples, {len(seeds)} seeds"


def _cell(records: Records, task: str, speed: float, case: str, speeds: Sequence[float] = ()) -> str:
    """The difference to dense at one speed; empty where nothing was measured."""
    pairs = [
        (_right(records, f"accuracy:{task}:{seed}:0", "dense"), _right(records, case.format(seed), f"{speed:g}"))
        for seed in SEEDS
    ]
    known = [(dense, slim) for dense, slim in pairs if dense is not None and slim is not None]
    return _difference(known, speeds) if known else ""


def _right(records: Records, case: str, name: str) -> np.ndarray[Any, Any] | None:
    text = (records.recall(case) or {}).get("right", {}).get(name)
    return None if text is None else np.array([each == "1" for each in text], dtype=np.float64)


def _part_speed(records: Records, task: str, part: int, speed: float) -> list[float]:
    ratios = []
    for seed in SEEDS:
        record: Mapping[str, Any] = records.recall(plans_case(task, seed, part, speed)) or {}
        plan = record.get("plans", {}).get(f"{speed:g}", {})
        if "ratio" in plan:
            ratios.append(plan["ratio"]["median"])
    return ratios


def _peer_speed(records: Records, task: str, tool: str, speed: float) -> list[float]:
    record = records.recall(f"tune-peer:{task}:{tool}:{speed:g}") or {}
    return [record["measured"]["median"]] if "measured" in record else []


def _difference(pairs: Sequence[tuple[np.ndarray[Any, Any], np.ndarray[Any, Any]]], speeds: Sequence[float]) -> str:
    rng = np.random.default_rng(0)
    changes = [slim - dense for dense, slim in pairs]
    draws = [np.mean([rng.choice(each, len(each)).mean() for each in changes]) for _ in range(1000)]
    low, high = np.quantile(draws, (0.025, 0.975))
    measured = f" ({min(speeds):.2f} to {max(speeds):.2f})" if speeds else ""
    return f"{100 * np.mean([each.mean() for each in changes]):+.1f} [{100 * low:+.1f}, {100 * high:+.1f}]{measured}"


def _ratio(ratio: Record | None) -> str:
    return "" if not ratio else f"{ratio['median']:.2f} [{ratio['low']:.2f}, {ratio['high']:.2f}]"


if __name__ == "__main__":
    main()
