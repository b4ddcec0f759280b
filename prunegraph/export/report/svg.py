"""Charts as inline SVG: no script, no font, no request; colours are the page's, numbers stand in tables beside them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from html import escape
from typing import Any

CELL, GAP, LABEL, LETTER = 18, 3, 88, 6.2
BAR, WIDE = 14, 246  # as wide as a phone


def head_map(layers: Sequence[Mapping[str, Any]]) -> str:
    """A row a layer, a square a head: filled where the head stays, hollow where it went.

    Args:
        layers: `id`, `kept` (a boolean a head) and perhaps `scores`, which shade the squares.
    """
    heads = max(len(layer["kept"]) for layer in layers)
    step = CELL + GAP
    parts = [_text(LABEL + k * step + CELL / 2, 12, str(k), "middle") for k in range(heads)]
    for row, layer in enumerate(layers):
        y = 20 + row * step
        parts.append(_text(LABEL - 8, y + CELL - 5, layer["id"], "end"))
        scores = layer.get("scores") or [1.0] * len(layer["kept"])
        low, high = min(scores), max(scores)
        for k, (stays, score) in enumerate(zip(layer["kept"], scores, strict=True)):
            shade = 0.55 + 0.45 * ((score - low) / (high - low) if high > low else 1.0)
            title = f"{layer['id']}, head {k}: {'stays' if stays else 'removed'}"
            title += f", score {score:.4g}" if layer.get("scores") else ""
            look = f'class="kept" fill-opacity="{shade:.2f}"' if stays else 'class="gone"'
            place = f'x="{LABEL + k * step}" y="{y}" width="{CELL}" height="{CELL}" rx="3"'
            parts.append(f"<rect {place} {look}><title>{escape(title)}</title></rect>")
    return _svg(LABEL + heads * step, 24 + len(layers) * step, "Kept heads, a row a layer", parts, "heads")


def before_and_after(rows: Sequence[tuple[str, float, float]], what: str) -> str:
    """Two bars a row: how much there was, and how much is left.

    Args:
        rows: Name, before, after.
        what: What is counted, for those who cannot see it.
    """
    most = max((before for _, before, _ in rows), default=1.0) or 1.0
    left = max(LABEL, 8 + LETTER * max((len(name) for name, _, _ in rows), default=0))
    parts = []
    for k, (name, before, after) in enumerate(rows):
        y = 4 + k * (BAR + 8)
        parts.append(_text(left - 8, y + BAR - 3, name, "end"))
        for value, look in ((before, "gone"), (after, "kept")):
            width = max(value / most * WIDE, 1.0)
            parts.append(f'<rect class="{look}" x="{left:.0f}" y="{y}" width="{width:.1f}" height="{BAR}" rx="2"/>')
    return _svg(left + WIDE + 8, 8 + len(rows) * (BAR + 8), f"{what}, before and after", parts)


def curve(points: Sequence[Mapping[str, Any]], metric: str) -> str:
    """Accuracy over latency, with intervals.

    Args:
        points: `name`, `latency_ms`, `metric`, `low`, `high`.
        metric: Its name.
    """
    left, top, width, height = 60, 12, 480, 220
    xs, lows, highs = [p["latency_ms"] for p in points], [p["low"] for p in points], [p["high"] for p in points]
    x_high, y_low, y_high = max(xs) * 1.05, min(lows), max(highs)
    span = (y_high - y_low) or 1.0

    def at(x: float, y: float) -> tuple[float, float]:
        return left + x / x_high * width, top + (1 - (y - y_low) / span) * height

    parts = [f'<path class="axis" d="M{left} {top}V{top + height}H{left + width}"/>']
    parts += [_text(left - 6, at(0, y)[1] + 4, f"{y:.3g}", "end") for y in (y_low, y_high)]
    parts += [_text(at(x, y_low)[0], top + height + 16, f"{x:.3g}", "middle") for x in (0, x_high / 2, x_high)]
    parts.append(_text(left + width / 2, top + height + 32, "milliseconds", "middle"))
    for point in points:
        x, y = at(point["latency_ms"], point["metric"])
        (_, low), (_, high) = at(0, point["low"]), at(0, point["high"])
        title = f"{point['name']}: {metric} {point['metric']:.4g} at {point['latency_ms']:.4g} ms"
        parts.append(f'<path class="axis" d="M{x:.1f} {low:.1f}V{high:.1f}"/>')
        parts.append(f'<circle class="kept" cx="{x:.1f}" cy="{y:.1f}" r="5"><title>{escape(title)}</title></circle>')
    return _svg(left + width + 20, top + height + 40, f"{metric} over latency", parts)


def incidence(modules: Sequence[str], groups: Sequence[tuple[str, Sequence[str], bool]]) -> str:
    """A row a group, a column a module: a square where the group makes the module smaller, hollow if it is inexact.

    Args:
        modules: Their names.
        groups: Id, names of modules, and whether removing equals zeroing.
    """
    step, tall = CELL + GAP, 16 + LETTER * max(map(len, modules), default=0) * 0.7
    left = 8 + LETTER * max((len(name) for name, _, _ in groups), default=0)
    parts = []
    for k, module in enumerate(modules):
        x = left + k * step + CELL / 2
        parts.append(f'<text transform="translate({x:.1f} {tall - 6:.1f}) rotate(-45)">{escape(module)}</text>')
    for row, (name, shrunk, exact) in enumerate(groups):
        y = tall + row * step
        parts.append(_text(left - 8, y + CELL - 5, name, "end"))
        for k, module in enumerate(modules):
            if module in shrunk:
                place = f'x="{left + k * step:.1f}" y="{y:.1f}" width="{CELL}" height="{CELL}" rx="3"'
                look = "kept" if exact else "gone"
                parts.append(
                    f'<rect {place} class="{look}"><title>{escape(f"{name} makes {module} smaller")}</title></rect>'
                )
    width = left + len(modules) * step + tall
    return _svg(width, tall + len(groups) * step + 4, "Which group makes which module smaller", parts, "heads")


def _text(x: float, y: float, text: str, anchor: str) -> str:
    return f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}">{escape(text)}</text>'


def _svg(width: float, height: float, label: str, parts: Sequence[str], look: str = "") -> str:
    head = f'<svg class="{look}" viewBox="0 0 {width:.0f} {height:.0f}" width="{width:.0f}" role="img" '
    head += f'aria-label="{escape(label)}">'
    return f"{head}{''.join(parts)}</svg>"
