"""Write docs/supported-ops.md from the rule registry: `python docs/supported_ops.py`."""

from __future__ import annotations

import inspect
from collections import defaultdict
from pathlib import Path

from prunegraph.analysis.registry import RULES, Rule

TARGET = Path(__file__).with_name("supported-ops.md")

INTRODUCTION = """# Supported ops

One rule is one small pure function that says which axes of an op's operands are the same, which are summed, and which
must stay whole. Every op that is not listed here is safe too: its axes are pinned, and `prunegraph explain` says so.

This page is generated from the registry by `python docs/supported_ops.py`.
"""


def render() -> str:
    """The page: for every family its rules, their ops, what they say, and how many lines they take."""
    families: dict[str, dict[Rule, list[str]]] = defaultdict(lambda: defaultdict(list))
    for (domain, op), rule in sorted(RULES.items()):
        families[rule.__module__][rule].append(f"{op}" if not domain else f"{op} ({domain})")
    lines = [INTRODUCTION, f"{len(RULES)} ops in {sum(map(len, families.values()))} rules.", ""]
    for module, rules in sorted(families.items()):
        summary = (inspect.getdoc(inspect.getmodule(next(iter(rules)))) or "").partition("\n")[0]
        lines += [
            f"## {module.rpartition('.')[2]}",
            "",
            summary,
            "",
            "| ops | what the rule says | lines |",
            "|---|---|---:|",
        ]
        for rule, ops in rules.items():
            says = (inspect.getdoc(rule) or "").partition("\n\n")[0].replace("\n", " ").replace("|", "\\|")
            lines.append(f"| {', '.join(ops)} | {says} | {len(inspect.getsource(rule).splitlines())} |")
        lines.append("")
    return "\n".join(lines)


if __name__ == "__main__":
    TARGET.write_text(render(), encoding="utf-8")
