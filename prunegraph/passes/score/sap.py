"""SAP: heads that attend along the relations of a dependency tree stay (arXiv 2512.19125; read retrain-free).

Step A ranks the labels of dependency relations by frequency; step B counts for every head the pairs of words where
it attends
less than the threshold along a frequent relation, or more along a rare one.  What the paper leaves open is an
option, and the
default is what measured best on validation data, not the literal reading: see `SapOptions`.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from typing import Any

import numpy as np
import numpy.typing as npt

from prunegraph.analysis.groups import Group
from prunegraph.errors import PruneGraphError, UsageError
from prunegraph.observe.attention_sites import HEAD_KINDS, Attention, attentions
from prunegraph.observe.stream import Inputs, Statistic
from prunegraph.passes.score.base import Context, Scores, scorer
from prunegraph.passes.score.dependencies import EXCLUDED, PARSER, LabelRank, SpacyParser, rank_labels
from prunegraph.passes.score.relations import DIRECTIONS, SCOPES, THRESHOLDS, RelationAttention

OBSERVATION = "sap"
RULES = ("top", "rest", "both")
WEIGHTS = ("ranked", "flat")
AGGREGATES = ("sum", "max")


@dataclass(frozen=True, slots=True)
class SapOptions:
    """How heads are judged by syntax.

    Attributes:
        k: How many of the most frequent labels a head should attend along (useful: 3 to 7).
        rules: Which pairs count: "top" those of frequent labels that get too little attention, "rest" those of the
            others that
            get too much, "both" as the paper says.
        weights: "ranked" as the paper says, or "flat": every pair counts one.
        threshold: "words": mean attention between words; "literal": mean over all cells, which is 1/n whatever the
            model; or a
            number.
        scope: Whether the mean is taken over all heads, by layer or by head.
        direction: Which attention of a pair counts: "mean", "max", "dep_to_head", "head_to_dep"; causal models
            have one only.
        exclude_labels: Labels that do not count, besides roots and punctuation.
        aggregate: What a unit of several heads (a KV group, a head shared by layers) has of their counts.
        causal: Whether later tokens are hidden; None finds out.
        parser: The spaCy pipeline for texts without trees.
        noise: Fraction of arcs to corrupt, for studying what a worse parser would do.
    """

    k: int = 5
    rules: str = "top"
    weights: str = "ranked"
    threshold: str | float = "words"
    scope: str = "global"
    direction: str = "mean"
    exclude_labels: Sequence[str] = ()
    aggregate: str = "sum"
    causal: bool | None = None
    parser: str = PARSER
    noise: float = 0.0

    def __post_init__(self) -> None:
        """Check every option.

        Raises:
            UsageError: one has a value that it cannot have.
        """
        choices = {
            "rules": RULES,
            "weights": WEIGHTS,
            "scope": SCOPES,
            "direction": DIRECTIONS,
            "aggregate": AGGREGATES,
        }
        for name, allowed in choices.items():
            if getattr(self, name) not in allowed:
                raise UsageError(f"sap: {name} cannot be {getattr(self, name)!r}", hint=f"choose {', '.join(allowed)}")
        if isinstance(self.k, bool) or not isinstance(self.k, int) or self.k < 1:
            raise UsageError(f"sap: k must be a positive number, not {self.k!r}", hint="3 to 7 are useful")
        if isinstance(self.threshold, str) and self.threshold not in THRESHOLDS:
            hint = f"choose {', '.join(THRESHOLDS)} or a number between 0 and 1"
            raise UsageError(f"sap: threshold cannot be {self.threshold!r}", hint=hint)
        if not 0 <= self.noise <= 1:
            raise UsageError(f"sap: noise must be in [0, 1], not {self.noise}", hint="0.1 corrupts a tenth of all arcs")

    @property
    def variant(self) -> tuple[str, str]:
        """Which of the counted thresholds is asked for."""
        return (self.threshold, self.scope) if isinstance(self.threshold, str) else ("given", "global")

    @staticmethod
    def of(settings: Mapping[str, Any]) -> SapOptions:
        """From settings by name, numbers perhaps as text.

        Raises:
            UsageError: there is no such option.
        """
        known = {field.name for field in fields(SapOptions)}
        for name in settings:
            if name not in known:
                raise UsageError(f"sap has no option {name!r}", hint=f"its options are {', '.join(sorted(known))}")
        return SapOptions(**{name: _typed(name, value) for name, value in settings.items()})


def _typed(name: str, value: Any) -> Any:
    """What the text of a command line stands for."""
    if not isinstance(value, str):
        return value
    if name == "exclude_labels":
        return tuple(label.strip() for label in value.split(",") if label.strip())
    if name == "causal":
        return {"true": True, "yes": True, "false": False, "no": False}.get(value.lower())
    if name in ("k", "noise") or (name == "threshold" and value not in THRESHOLDS):
        try:
            number = float(value)
        except ValueError:
            number = math.nan
        if not math.isfinite(number) or (name == "k" and number != int(number)):
            raise UsageError(f"sap: {name} cannot be {value!r}", hint="give a number")
        return int(number) if name == "k" else number
    return value


def needs(groups: Sequence[Group], context: Context, inputs: Inputs) -> Mapping[str, Statistic]:
    """What SAP wants observed: attention along dependency relations.

    Raises:
        UsageError: the data hold no texts, or the parser is missing.
        PruneGraphError: the model has no heads that attend to tokens.
    """
    options = SapOptions.of(context.settings)
    sites = scored_sites(groups, context)
    sample = inputs.source.first()
    if not sample.texts:
        hint = "give texts with the model's tokenizer; sap asks which words depend on which"
        raise UsageError(f"{inputs.source.name} holds no text: sap has nothing to parse", hint=hint)
    threshold = options.threshold if not isinstance(options.threshold, str) else None
    return {
        OBSERVATION: RelationAttention(
            sites,
            None if sample.parses else SpacyParser(options.parser),
            exclude=(*EXCLUDED, *options.exclude_labels),
            direction=options.direction,
            causal=options.causal,
            threshold=threshold,
            noise=options.noise,
            seed=context.seed,
        )
    }


def scored_sites(groups: Sequence[Group], context: Context) -> tuple[Attention, ...]:
    """Where the heads of these groups attend.

    Raises:
        UsageError: a group is of another kind than heads.
        PruneGraphError: there is no such place, or the op does not give its probabilities away.
    """
    sites = [s for s in attentions(context.model, context.analysis) if any(group.id in s.units for group in groups)]
    covered = {name for site in sites for name in site.units}
    for group in groups:
        if group.id not in covered:
            hint = "give ratios of head, kv_group or query_slot only: ratio={'head': 0.5}, --ratio head=0.5"
            raise UsageError(f"sap scores heads, and {group.id} is none with attention probabilities", hint=hint)
    if not sites:
        raise PruneGraphError("the model has no attention heads that sap could score", hint="choose another scorer")
    for site in sites:
        if site.probabilities is None:
            hint = "export the model without attention fusion, or choose another scorer"
            raise PruneGraphError(f"{site.label} does not give its attention probabilities away", hint=hint)
    return tuple(sites)


@dataclass(frozen=True, slots=True)
class SapResult:
    """Everything that SAP found.

    Attributes:
        labels: The ranked labels with their weights.
        penalties: By site, the penalty count of every head; the largest go first.
        tau: By site, the threshold of every head.
        sites: The places, in the order of the graph.
        causal: Whether later tokens are hidden from earlier ones.
    """

    labels: tuple[LabelRank, ...]
    penalties: tuple[npt.NDArray[np.float64], ...]
    tau: tuple[npt.NDArray[np.float64], ...]
    sites: tuple[Attention, ...]
    causal: bool


def result(seen: RelationAttention, options: SapOptions) -> SapResult:
    """Penalty counts of all heads (step B): strict comparisons, a tie with the threshold never counts.

    Raises:
        PruneGraphError: the data hold no relation that counts.
    """
    seen.finish()
    if not seen.labels:
        hint = "give more or longer texts, or exclude fewer labels"
        raise PruneGraphError("no relation was found between words of the data", hint=hint)
    ranks = rank_labels(seen.labels, options.k, flat=options.weights == "flat")
    row = {label: k for k, label in enumerate(seen.labels)}
    below, above = seen.below[options.variant], seen.above[options.variant]
    penalty = np.zeros(seen.heads)
    for rank in ranks:
        if rank.top and options.rules != "rest":
            penalty += rank.weight * below[row[rank.label]]
        elif not rank.top and options.rules != "top":
            penalty += rank.weight * above[row[rank.label]]
    cuts = np.cumsum([site.heads for site in seen.sites])[:-1]
    tau = np.split(seen.tau[options.variant], cuts)
    return SapResult(ranks, tuple(np.split(penalty, cuts)), tuple(tau), seen.sites, bool(seen.causal))


@scorer("sap", needs=needs, kinds=HEAD_KINDS, across=True)
def sap(group: Group, context: Context) -> Scores:
    """Minus the penalty counts of a unit's heads: query heads one by one, KV groups and shared heads together."""
    options = SapOptions.of(context.settings)
    return unit_scores(group, result(context.observations[OBSERVATION], options), options.aggregate)


def unit_scores(group: Group, found: SapResult, aggregate: str) -> Scores:
    """Scores of a group's units from the penalties of their heads."""
    total = np.zeros(int(np.prod(group.shape)))
    for site, penalty in zip(found.sites, found.penalties, strict=True):
        units = site.units.get(group.id)
        if units is None:
            continue
        mine = units >= 0
        if aggregate == "max":
            np.maximum.at(total, units[mine], penalty[mine])
        else:
            np.add.at(total, units[mine], penalty[mine])
    return -total.reshape(group.shape)
