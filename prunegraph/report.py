"""The report of a pruning run: what was removed, what that saves, and the proof."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

from prunegraph.bench.stats import PairedRatio
from prunegraph.passes.choose.meet_time import TimeMet
from prunegraph.passes.prove.verify import Verification
from prunegraph.passes.repair import Repaired
from prunegraph.passes.rewrite.for_runtime import FormTrial
from prunegraph.passes.rotate import Rotated
from prunegraph.passes.score import ScoringReport


@dataclass(frozen=True, slots=True)
class GroupReport:
    """How many units a group had and has.

    Attributes:
        id: Of the group.
        kind: Of its units.
        before: Units that it had, in every row.
        after: Units that it has.
        per: The kinds whose units have a choice of their own each, such as `head`; empty where there is one choice.
    """

    id: str
    kind: str
    before: int
    after: int
    per: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Report:
    """What was saved, and how that was checked.

    Attributes:
        params: Numbers in the weights, before and after.
        macs: Multiply-accumulates of one run at `sizes`, before and after.
        groups: Every group that got smaller.
        verify: What the comparison saw; None if it was not asked for.
        seconds: How long each pass took.
        repair: What was re-fitted after the proof; None if nothing was to be.
        accounts: By name of a scorer, what it has to say of how it judged.
        rotate: What was turned before it was cut; None if nothing was to be.
        sizes: The lengths of dynamic dims that `macs` are stated for: a batch of one, 128 tokens where the model takes
            so many.
    """

    params: tuple[int, int]
    macs: tuple[int, int]
    groups: tuple[GroupReport, ...]
    verify: Verification | None
    seconds: dict[str, float]
    repair: Repaired | None = None
    accounts: Mapping[str, ScoringReport] = field(default_factory=dict)
    rotate: Rotated | None = None
    sizes: Mapping[str, int] = field(default_factory=dict)

    def to_dict(self) -> dict[str, Any]:
        """The JSON that `prunegraph prune --json` prints."""
        return {
            "params": list(self.params),
            "macs": list(self.macs),
            "macs_at": dict(self.sizes),
            "groups": [{"id": g.id, "kind": g.kind, "before": g.before, "after": g.after} for g in self.groups],
            "verify": self.verify.to_dict() if self.verify is not None else None,
            "rotate": self.rotate.to_dict() if self.rotate is not None else None,
            "repair": self.repair.to_dict() if self.repair is not None else None,
            "scorers": {name: dict(account.facts) for name, account in self.accounts.items()},
            "seconds": {name: round(value, 3) for name, value in self.seconds.items()},
        }


@dataclass(frozen=True, slots=True)
class Drop:
    """How much worse the slim model is by a metric, where the fastest plan within a limit was asked for.

    Attributes:
        metric: Its name.
        limit: Percent that were allowed.
        drop: Percent that were lost: points of what lies in [0, 1], else percent of the original's value.
        values: The original's and the slim model's.
        examples: How many examples it was measured on.
        tried: What other plans lost, by the share of the time that they were to save.
    """

    metric: str
    limit: float
    drop: float
    values: tuple[float, float]
    examples: int
    tried: Mapping[float, float] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class SpeedReport:
    """How fast the slim model is, and how that was found.

    Attributes:
        ep: The execution provider that was timed.
        met: What was asked for, what was reached, and everything that was tried.
        same_form: How many times faster than the original written in the same form; None where no form was changed.
        forms: What the timing of every equal form said.
        plan: How levels were chosen: "measured harm", by what they do to outputs, with what streams got narrower, or
            "one ratio".
        harm: By plan, how far its outputs are from the original's on the data; empty without data.
        settings: How it was timed: batch, sequence, threads, protocol.
        latency_ms: Median milliseconds of the original and of the slim model; None where nothing was timed.
        other: By the name of the other protocol how many times faster the result is under it.
        predicted: Whether a latency table said how fast it is, and nothing was timed.
        drop: What was lost by a metric, where that was limited.
        budgets: By "macs", "params" and "bytes" the fraction that was allowed and the one that is left.
        profile: By "original" and "slim" the milliseconds of a run by op type, the most expensive first.
        searched: By "before" and "after" the harm on examples that the local search did not see.
    """

    ep: str
    met: TimeMet[Any]
    same_form: PairedRatio | None = None
    forms: tuple[FormTrial, ...] = ()
    plan: str = "one ratio"
    harm: Mapping[str, float] = field(default_factory=dict)
    settings: Mapping[str, Any] = field(default_factory=dict)
    latency_ms: tuple[float, float] | None = None
    other: Mapping[str, PairedRatio] = field(default_factory=dict)
    predicted: bool = False
    drop: Drop | None = None
    budgets: Mapping[str, tuple[float, float]] = field(default_factory=dict)
    profile: Mapping[str, Mapping[str, float]] = field(default_factory=dict)
    searched: Mapping[str, float] = field(default_factory=dict)

    def to_dict(self) -> dict[str, Any]:
        """The JSON under "speed" of `prunegraph prune --json`."""
        return {
            **self.met.to_dict(),
            "ep": self.ep,
            "same_form": None if self.same_form is None else asdict(self.same_form),
            "forms": [trial.to_dict() for trial in self.forms],
            "plan": self.plan,
            "harm": dict(self.harm),
            "settings": dict(self.settings),
            "latency_ms": None if self.latency_ms is None else list(self.latency_ms),
            "other": {protocol: asdict(ratio) for protocol, ratio in self.other.items()},
            "predicted": self.predicted,
            "drop": None if self.drop is None else _drop(self.drop),
            "budgets": {name: list(both) for name, both in self.budgets.items()},
            "profile": {model: dict(times) for model, times in self.profile.items()},
            "searched": dict(self.searched),
        }


def _drop(drop: Drop) -> dict[str, Any]:
    tried = [{"removal": removal, "drop": lost} for removal, lost in drop.tried.items()]
    return {**asdict(drop), "values": list(drop.values), "tried": tried}
