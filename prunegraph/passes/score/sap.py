"""SAP: heads that attend along the relations of a dependency tree stay (arXiv 2512.19125; read retrain-free).

Step A ranks the labels of dependency relations by frequency; step B counts for every head the pairs of words where
it attends less than the threshold along a frequent relation, or more along a rare one.  What the paper leaves open is
an option, and the default is what measured best on validation data, not the literal reading: see `Sap`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from prunegraph.analysis.groups import Group
from prunegraph.errors import PruneGraphError, UsageError
from prunegraph.observe.attention_sites import HEAD_KINDS, Attention, attentions
from prunegraph.observe.stream import Inputs, Statistic
from prunegraph.passes.score.base import Context, Scorer, Scores, ScoringReport
from prunegraph.passes.score.dependencies import EXCLUDED, PARSER, SpacyParser, rank_labels
from prunegraph.passes.score.options import check_choice
from prunegraph.passes.score.relations import DIRECTIONS, SCOPES, THRESHOLDS, RelationAttention
from prunegraph.passes.score.sap_report import SapResult, report_of

OBSERVATION, RESULT = "sap", "sap penalties"
RULES = ("top", "rest", "both")
WEIGHTS = ("ranked", "flat")
AGGREGATES = ("sum", "max")


@dataclass(frozen=True)
class Sap(Scorer):
    """Heads that attend along syntax stay: how they are judged.

    Attributes:
        k: How many of the most frequent labels a head should attend along (useful: 3 to 7).
        rules: Which pairs count: "top" those of frequent labels that get too little attention, "rest" those of the
            others that get too much, "both" as the paper says.
        weights: "ranked" as the paper says, or "flat": every pair counts one.
        threshold: "words": mean attention between words; "literal": mean over all cells, which is 1/n whatever the
            model; or a number.
        scope: Whether the mean is taken over all heads, by layer or by head.
        direction: Which attention of a pair counts: "mean", "max", "dep_to_head", "head_to_dep"; causal models
            have one only.
        exclude_labels: Labels that do not count, besides roots and punctuation.
        aggregate: What a unit of several heads (a KV group, a head shared by layers) has of their counts.
        causal: Whether later tokens are hidden; None finds out.
        parser: The spaCy pipeline for texts without trees.
        noise: Fraction of arcs to corrupt, for studying what a worse parser would do.
        seed: For the noise; None: the seed of the call.
    """

    name: ClassVar[str] = "sap"
    kinds: ClassVar[tuple[str, ...]] = HEAD_KINDS
    data_kinds: ClassVar[tuple[str, ...]] = HEAD_KINDS
    parsing_extras: ClassVar[tuple[str, ...]] = ("syntax",)
    comparable: ClassVar[bool] = True

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
    seed: int | None = None

    def __post_init__(self) -> None:
        """Check every option.

        Raises:
            UsageError: one has a value that it cannot have.
        """
        object.__setattr__(self, "exclude_labels", tuple(self.exclude_labels))  # a list cannot be hashed
        choices = {
            "rules": RULES,
            "weights": WEIGHTS,
            "scope": SCOPES,
            "direction": DIRECTIONS,
            "aggregate": AGGREGATES,
        }
        for name, allowed in choices.items():
            check_choice(self.name, name, getattr(self, name), allowed)
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

    def observes(self, groups: Sequence[Group], context: Context, inputs: Inputs) -> Mapping[str, Statistic]:
        """Attention along dependency relations.

        Raises:
            UsageError: the data hold no texts, or the parser is missing.
            PruneGraphError: the model has no heads that attend to tokens.
        """
        sites = scored_sites(groups, context)
        sample = inputs.source.first()
        if not sample.texts:
            hint = "give texts with the model's tokenizer; sap asks which words depend on which"
            raise UsageError(f"{inputs.source.name} holds no text: sap has nothing to parse", hint=hint)
        relations = RelationAttention(
            sites,
            None if sample.parses else SpacyParser(self.parser),
            exclude=(*EXCLUDED, *self.exclude_labels),
            direction=self.direction,
            causal=self.causal,
            threshold=None if isinstance(self.threshold, str) else self.threshold,
            noise=self.noise,
            seed=context.seed if self.seed is None else self.seed,
        )
        return {OBSERVATION: relations}

    def conclude(self, context: Context) -> Mapping[str, SapResult]:
        """The penalties of all heads.

        Raises:
            PruneGraphError: the data hold no relation that counts.
        """
        return {RESULT: result(context.observations[OBSERVATION], self)}

    def score(self, group: Group, context: Context) -> Scores:
        """Minus the penalty counts of a unit's heads: query heads one by one, KV groups and shared heads together."""
        return unit_scores(group, context.observations[RESULT], self.aggregate)

    def report(self, context: Context) -> ScoringReport:
        """The frequent relations, and the head map of penalties."""
        return report_of(context.observations[RESULT])


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
            hint = "give ratios of head, kv_group or query_head only: ratio={'head': 0.5}, --ratio head=0.5"
            raise UsageError(f"sap scores heads, and {group.id} is none with attention probabilities", hint=hint)
    if not sites:
        raise PruneGraphError("the model has no attention heads that sap could score", hint="choose another scorer")
    for site in sites:
        if site.probabilities is None:
            hint = "export the model without attention fusion, or choose another scorer"
            raise PruneGraphError(f"{site.label} does not give its attention probabilities away", hint=hint)
    return tuple(sites)


def result(attention: RelationAttention, options: Sap) -> SapResult:
    """Penalty counts of all heads (step B): strict comparisons, a tie with the threshold never counts.

    Raises:
        PruneGraphError: the data hold no relation that counts.
    """
    attention.finish()
    if not attention.labels:
        hint = "give more or longer texts, or exclude fewer labels"
        raise PruneGraphError("no relation was found between words of the data", hint=hint)
    ranks = rank_labels(attention.labels, options.k, flat=options.weights == "flat")
    row = {label: k for k, label in enumerate(attention.labels)}
    below, above = attention.below[options.variant], attention.above[options.variant]
    penalty = np.zeros(attention.heads)
    for rank in ranks:
        if rank.top and options.rules != "rest":
            penalty += rank.weight * below[row[rank.label]]
        elif not rank.top and options.rules != "top":
            penalty += rank.weight * above[row[rank.label]]
    cuts = np.cumsum([site.heads for site in attention.sites])[:-1]
    tau = np.split(attention.tau[options.variant], cuts)
    return SapResult(ranks, tuple(np.split(penalty, cuts)), tuple(tau), attention.sites, bool(attention.causal))


def unit_scores(group: Group, judged: SapResult, aggregate: str) -> Scores:
    """Scores of a group's units from the penalties of their heads."""
    total = np.zeros(int(np.prod(group.shape)))
    for site, penalty in zip(judged.sites, judged.penalties, strict=True):
        units = site.units.get(group.id)
        if units is None:
            continue
        placed = units >= 0
        if aggregate == "max":
            np.maximum.at(total, units[placed], penalty[placed])
        else:
            np.add.at(total, units[placed], penalty[placed])
    return -total.reshape(group.shape)
