"""The table from ops to their axis rules."""

from __future__ import annotations

from collections.abc import Callable

from prunegraph.analysis.relations import AxisRule, NodeView

Rule = Callable[[NodeView], AxisRule]

RULES: dict[tuple[str, str], Rule] = {}
"""(domain, op type) -> rule; "" is the domain of ai.onnx."""


def axis_rule(*ops: str, domain: str = "") -> Callable[[Rule], Rule]:
    """Register a pure function as the rule of one or several ops."""

    def register(rule: Rule) -> Rule:
        for op in ops:
            key = (domain, op)
            if key in RULES:
                raise ValueError(f"{op} of domain {domain!r} has two axis rules")
            RULES[key] = rule
        return rule

    return register


def rule_for(domain: str, op: str) -> Rule | None:
    """The rule of an op, None where there is none: its axes are pinned."""
    return RULES.get(("" if domain == "ai.onnx" else domain, op))
