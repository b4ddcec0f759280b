"""A latency table: how fast versions of a model are beside the whole one on one device, each cut in one known way.

It is measured here or on another machine, and is all that a plan for that device needs.  It holds what was measured and
nothing that was made of it: relative times of pairs, since milliseconds differ from day to day.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from prunegraph.atomic_write import check_target, write_text
from prunegraph.bench.results import Comparison
from prunegraph.bench.stats import PairedRatio
from prunegraph.errors import UsageError
from prunegraph.strict_json import parse_json

SCHEMA = 1
WHOLE = "whole"
"""What the model is called that all others are compared with."""

_HINT = "give what `prunegraph table -o` or the script of a bundle wrote"


@dataclass(frozen=True, slots=True)
class Cut:
    """One version of a model that a table is measured with.

    Attributes:
        name: Unique in a table; what the version is called in a comparison.
        kept: By group id how many units stay in every row, 0 where the group goes whole; groups not named stay whole.
    """

    name: str
    kept: Mapping[str, int]


@dataclass(frozen=True, slots=True)
class TimedCut:
    """How fast one version is.

    Attributes:
        name: See `Cut`.
        kept: See `Cut`.
        ratio: How many times faster than the whole model, measured side by side.
    """

    name: str
    kept: Mapping[str, int]
    ratio: PairedRatio


@dataclass(frozen=True, slots=True)
class LatencyTable:
    """Versions of one model, timed beside it on one execution provider of one machine.

    Attributes:
        model: The fingerprint of the whole model, see `observe.fingerprint`; "" where nobody knows it.
        groups: By group id how many units the whole model has: what `kept` refers to.
        provider: Short name of the execution provider.
        ep: ONNX Runtime's name of it.
        threads: Threads inside an operator.
        sizes: Size of each dynamic dim.
        protocol: How the models took turns, see `latency.PROTOCOLS`.
        whole_ms: Median milliseconds of the whole model.
        cuts: What was timed.
        forms: Equal forms that the cuts are written in and the whole model is not, see `passes.rewrite.for_runtime`.
        environment: Machine and versions; never a host or user name.
    """

    model: str
    groups: Mapping[str, int]
    provider: str
    ep: str
    threads: int
    sizes: Mapping[str, int]
    protocol: str
    whole_ms: float
    cuts: tuple[TimedCut, ...]
    forms: tuple[str, ...] = ()
    environment: Mapping[str, str | int] = field(default_factory=dict)

    @classmethod
    def of(
        cls,
        comparisons: Iterable[Comparison],
        cuts: Iterable[Cut],
        *,
        model: str,
        groups: Mapping[str, int],
        provider: str,
        forms: tuple[str, ...] = (),
    ) -> LatencyTable:
        """The table of cuts that were timed, in one comparison or in several, the whole model first in each.

        Args:
            comparisons: Their models are called as the cuts are; other models are passed over.
            cuts: What the versions are.
            model: See the attribute.
            groups: See the attribute.
            provider: Which of the providers that were compared.
            forms: See the attribute.

        Raises:
            UsageError: a cut was not timed there.
        """
        rows = [(each, row) for each in comparisons for row in each.results if row.provider == provider]
        ratios = {row.model: row.ratio for _, row in rows if row.ratio is not None}
        wholes = [(each, row) for each, row in rows if row.ratio is None]
        timed = []
        for cut in cuts:
            if cut.name not in ratios:
                raise UsageError(f"{cut.name!r} was not timed on {provider}", hint="time all cuts of the table")
            timed.append(TimedCut(cut.name, dict(cut.kept), ratios[cut.name]))
        if not wholes:
            raise UsageError(f"nothing was timed on {provider}", hint="name a provider that was compared")
        first, whole = wholes[0]
        return cls(
            model=model,
            groups=dict(groups),
            provider=provider,
            ep=whole.ep,
            threads=first.threads,
            sizes=dict(first.sizes),
            protocol=first.protocol,
            whole_ms=sorted(row.median_ms for _, row in wholes)[len(wholes) // 2],
            cuts=tuple(timed),
            forms=forms,
            environment=dict(first.environment),
        )

    def to_dict(self) -> dict[str, Any]:
        """Plain data for JSON."""
        return {"schema": SCHEMA, "what": "latency table", **asdict(self)}

    @classmethod
    def from_dict(cls, data: Any, *, provider: str = "") -> LatencyTable:
        """A table from what `to_dict` or the script of a bundle wrote.

        Args:
            data: A table, or results that hold one.
            provider: Which one, of results that hold those of several providers.

        Raises:
            UsageError: it is something else, or holds the tables of several providers, and of none that is named.
        """
        if isinstance(data, dict) and isinstance(data.get("tables"), dict):
            data = _one_of(data["tables"], provider)
        try:
            if data["what"] != "latency table" or data["schema"] != SCHEMA:
                raise UsageError(f"this is no latency table of version {SCHEMA}", hint=_HINT)
            cuts = tuple(_timed(entry) for entry in data["cuts"])
            table = cls(
                model=str(data["model"]),
                groups={str(name): int(units) for name, units in data["groups"].items()},
                provider=str(data["provider"]),
                ep=str(data["ep"]),
                threads=int(data["threads"]),
                sizes={str(name): int(size) for name, size in data["sizes"].items()},
                protocol=str(data["protocol"]),
                whole_ms=float(data["whole_ms"]),
                cuts=cuts,
                forms=tuple(map(str, data.get("forms", ()))),
                environment=dict(data.get("environment", {})),
            )
        except (KeyError, TypeError, AttributeError, ValueError) as error:
            raise UsageError(f"this is no latency table: {error!r}", hint=_HINT) from error
        for cut in table.cuts:
            if unknown := [name for name, kept in cut.kept.items() if not 0 <= kept <= table.groups.get(name, -1)]:
                raise UsageError(f"the cut {cut.name!r} keeps more of {unknown[0]} than there is", hint=_HINT)
        return table

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write it as JSON; the file appears whole or not at all.

        Raises:
            OutputError: it cannot be written.
        """
        target = Path(path)
        check_target(target)
        write_text(target, json.dumps(self.to_dict(), indent=1, allow_nan=False) + "\n")

    @classmethod
    def load(cls, path: str | os.PathLike[str], *, provider: str = "") -> LatencyTable:
        """Read what `save` or the script of a bundle wrote; arguments and errors are those of `from_dict`.

        Raises:
            UsageError: it cannot be read, or is no table.
        """
        try:
            return cls.from_dict(parse_json(Path(path).read_text(encoding="utf-8-sig")), provider=provider)
        except (OSError, UnicodeDecodeError, ValueError) as error:
            raise UsageError(f"the latency table {path} cannot be read: {error}", hint=_HINT) from error


def _one_of(tables: Mapping[str, Any], provider: str) -> Any:
    """The only table of results, or that of a provider."""
    if not tables:
        raise UsageError("these results hold no latency table", hint="run the script of a bundle with --table")
    if len(tables) > 1 and provider not in tables:
        raise UsageError(f"these results hold the tables of {', '.join(tables)}", hint="name one with --ep")
    return tables.get(provider, next(iter(tables.values())))


def _timed(entry: Mapping[str, Any]) -> TimedCut:
    kept = {str(name): int(count) for name, count in entry["kept"].items()}
    ratio = PairedRatio(**{end: float(entry["ratio"][end]) for end in ("median", "low", "high")})
    if not 0 < ratio.median < float("inf"):
        raise ValueError(f"{entry['name']} is {ratio.median} times as fast")
    return TimedCut(str(entry["name"]), kept, ratio)
