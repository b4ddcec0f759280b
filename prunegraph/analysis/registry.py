"""The table from ops to their axis rules, and the one decorator that fills it and the table of traits."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from prunegraph.analysis.ops import declare
from prunegraph.analysis.relations import AxisRule, NodeView

Rule = Callable[[NodeView], AxisRule]

RULES: dict[tuple[str, str], Rule] = {}
"""(domain, op type) -> rule; "" is the domain of ai.onnx."""


def axis_rule(*ops: str, domain: str = "", **traits: Any) -> Callable[[Rule], Rule]:
    """Register a pure function as the rule of one or several ops, which have these traits (fields of `ops.Traits`)."""

    def register(rule: Rule) -> Rule:
        for op in ops:
            key = (domain, op)
            if key in RULES:
                raise ValueError(f"{op} of domain {domain!r} has two axis rules")
            RULES[key] = rule
        declare(*ops, domain=domain, **traits)
        return rule

    return register


def rule_for(domain: str, op: str) -> Rule | None:
    """The rule of an op, None where there is none: its axes are pinned."""
    return RULES.get(("" if domain == "ai.onnx" else domain, op))
