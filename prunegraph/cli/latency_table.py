"""The table of `prunegraph bench`: latencies and ratios for people."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

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
    columns = [column for column in _COLUMNS if any(column.text(row) for row in comparison.results)]
    if len({_shapes(row) for row in comparison.results}) > 1:
        columns.insert(0, _Column("inputs", _shapes))
    for column in columns:
        table.add_column(column.heading, justify="right")
    previous = None
    for row in comparison.results:
        block = (row.provider, row.inputs)
        if previous not in (None, block):
            table.add_section()
        previous = block
        table.add_row(row.provider, escape(row.model), *(escape(column.text(row)) for column in columns))
    return table


@dataclass(frozen=True, slots=True)
class _Column:
    """A heading, and what stands below it for a row; nothing where nobody knows."""

    heading: str
    text: Callable[[Latency], str]


def _ratio(row: Latency) -> str:
    if row.ratio is None:
        return ""
    return f"{row.ratio.median:.2f} [{row.ratio.low:.2f}, {row.ratio.high:.2f}]"


def _placed(row: Latency) -> str:
    if not row.nodes:
        return "?"
    return f"{row.nodes.get(row.ep, 0)} of {sum(row.nodes.values())}"


def _shapes(row: Latency) -> str:
    return ", ".join("x".join(map(str, shape)) for shape in dict.fromkeys(row.inputs.values()))


def _ms(value: float | None) -> str:
    return "" if value is None else f"{value:.3f}"


def _peak(row: Latency) -> str:
    return f"{row.alone.peak_memory_mib:.0f}" if row.alone and row.alone.peak_memory_mib else ""


def _joules(row: Latency) -> str:
    return "\n".join(f"{joules:.3g} ({rail})" for rail, joules in sorted(row.joules.items()))


_COLUMNS = (
    _Column("median ms", lambda row: _ms(row.median_ms)),
    _Column("p90 ms", lambda row: _ms(row.p90_ms)),
    _Column("p99 ms", lambda row: _ms(row.p99_ms)),
    _Column("min ms", lambda row: _ms(row.min_ms)),
    _Column("load s", lambda row: f"{row.load_seconds:.2f}"),
    _Column("alone: load s", lambda row: f"{row.alone.load_seconds:.2f}" if row.alone else ""),
    _Column("peak MiB", lambda row: _peak(row)),
    _Column("J a run", lambda row: _joules(row)),
    _Column("times faster", lambda row: _ratio(row)),
    _Column("nodes there", lambda row: _placed(row)),
    _Column("MB", lambda row: f"{row.bytes / 1e6:.1f}" if row.bytes is not None else ""),
)
"""What a row tells; columns that are empty in all rows are left out."""


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
    fused = {row.model: row.fused for row in comparison.results if row.fused}
    lines += [f"{model}: {', '.join(f'{op} {count}' for op, count in ops.items())}" for model, ops in fused.items()]
    return "\n".join(lines)
