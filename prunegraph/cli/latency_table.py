"""The table of `prunegraph bench`: latencies and ratios for people."""

from __future__ import annotations

from rich.markup import escape
from rich.table import Table

from prunegraph.bench.results import Comparison, Latency

NAME = 24
"""Characters of a name that are never broken, however narrow the terminal."""


def latency_table(comparison: Comparison) -> Table:
    """One row per provider and model; which model the ratios refer to is said below."""
    table = Table(title="Latency", caption=escape(_caption(comparison)), caption_justify="left")
    table.add_column("provider")
    longest = max((len(row.model) for row in comparison.results), default=0)
    table.add_column("model", overflow="fold", min_width=min(longest, NAME))
    for heading in ("median ms", "p95 ms", "min ms", "load s", "times faster", "nodes there"):
        table.add_column(heading, justify="right")
    previous = None
    for row in comparison.results:
        if previous not in (None, row.provider):
            table.add_section()
        previous = row.provider
        table.add_row(
            row.provider,
            escape(row.model),
            *(f"{value:.3f}" for value in (row.median_ms, row.p95_ms, row.min_ms)),
            f"{row.load_seconds:.2f}",
            escape(_ratio(row)),
            _placed(row),
        )
    return table


def _ratio(row: Latency) -> str:
    if row.ratio is None:
        return ""
    return f"{row.ratio.median:.2f} [{row.ratio.low:.2f}, {row.ratio.high:.2f}]"


def _placed(row: Latency) -> str:
    if not row.nodes:
        return "?"
    return f"{row.nodes.get(row.ep, 0)} of {sum(row.nodes.values())}"


def _caption(comparison: Comparison) -> str:
    first = comparison.results[0]
    machine = comparison.environment
    shapes = ", ".join(f"{name} {'x'.join(map(str, shape))}" for name, shape in comparison.inputs.items())
    rounds = sorted({len(row.samples_ms) for row in comparison.results})
    lines = [
        shapes,
        f"{machine['cpu']}, threads: {comparison.threads}, onnxruntime {machine['onnxruntime']}, "
        f"rounds: {' to '.join(map(str, dict.fromkeys((rounds[0], rounds[-1]))))}, in {comparison.protocol}, random "
        "order in each",
    ]
    if any(row.ratio for row in comparison.results):
        lines.append(f"times faster: than {first.model}, median of paired ratios with its 95 % bootstrap interval")
    return "\n".join(lines)
