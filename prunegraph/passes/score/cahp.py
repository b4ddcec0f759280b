"""CAHP: heads that complement each other stay (Complementary Attention Head Pruning, arXiv 2606.19150).

A head is described by how its attention maps differ between classes; heads of all layers are clustered by that, and
of every cluster the head stays on which the loss hangs most.  How many clusters there are is the knee of their
silhouette, and with that how many heads stay, unless the caller says how many.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

import numpy as np

from prunegraph.analysis.groups import Group
from prunegraph.errors import PruneGraphError, UsageError
from prunegraph.observe.attention_sites import HEAD_KINDS, attentions
from prunegraph.observe.gradients import GradientStatistic, Objective
from prunegraph.observe.stream import Inputs, Statistic
from prunegraph.passes.score.base import Context, Scorer, Scores, ScoringReport
from prunegraph.passes.score.clusters import REDUCERS
from prunegraph.passes.score.complement import Chosen, choose
from prunegraph.passes.score.differentiate import HOW, Differentiated
from prunegraph.passes.score.head_mask_gradients import BATCH, HeadMaskGradients, masked_sites
from prunegraph.passes.score.options import check_choice
from prunegraph.passes.score.signature import Signatures

OBSERVATION, SALIENCE, CHOSEN = "cahp", "cahp salience", "cahp choice"
REPRESENTATIVES = ("salience", "medoid")


@dataclass(frozen=True)
class Cahp(Scorer):
    """Heads that complement each other stay: how they are clustered, and what stays of a cluster.

    Attributes:
        degree: Of the polynomial through the silhouette curve. It decides how many heads stay more than the data do:
            on what was measured about 0.5, 0.25 and 0.2 of them for degree 2, 4 and 6.
        keep: How many heads stay in all, whatever the knee.
        reducer: "tsne" as published, or "mds", or "pca" (the same on every machine; give a number of heads with it).
        representative: What stays of a cluster: the head of most "salience", or its "medoid".
        share: The share of the data that salience is taken from, the first of them.
        classes: How many classes are told apart, the first ones to appear.
        seed: For t-SNE and k-medoids.
        output: The logits; the first output if empty.
    """

    name: ClassVar[str] = "cahp"
    kinds: ClassVar[tuple[str, ...]] = HEAD_KINDS
    data_kinds: ClassVar[tuple[str, ...]] = HEAD_KINDS
    extras: ClassVar[tuple[str, ...]] = ("cluster",)
    comparable: ClassVar[bool] = True
    decides: ClassVar[bool] = True

    degree: int = 6
    keep: int | None = None
    reducer: str = "tsne"
    representative: str = "salience"
    share: float = 0.25
    classes: int = 16
    seed: int = 42
    output: str = ""

    def __post_init__(self) -> None:
        """Check every option.

        Raises:
            UsageError: one has a value that it cannot have.
        """
        for name, allowed in (("reducer", REDUCERS), ("representative", REPRESENTATIVES)):
            check_choice(self.name, name, getattr(self, name), allowed)
        least = {"degree": 1, "classes": 2, "seed": 0} | ({"keep": 1} if self.keep is not None else {})
        for name, low in least.items():
            value = getattr(self, name)
            if isinstance(value, bool) or not isinstance(value, int) or value < low:
                raise UsageError(f"cahp: {name} cannot be {value!r}", hint=f"give a whole number, at least {low}")
        if not 0 < self.share <= 1:
            raise UsageError(f"cahp: share must be in (0, 1], not {self.share}", hint="0.25 is a quarter of the data")

    def observes(self, groups: Sequence[Group], context: Context, inputs: Inputs) -> Mapping[str, Statistic]:
        """Signatures of all units, by class.

        Raises:
            UsageError: the model gives no classes and the data have no labels.
            PruneGraphError: an op hides its attention probabilities.
        """
        members = _decided(groups, context)
        sites = masked_sites(members, context, self.name)
        hidden = next((site.label for site in sites if site.probabilities is None), None)
        if hidden is not None:
            hint = "export the model without attention fusion, or choose another scorer"
            raise PruneGraphError(f"{hidden} does not give its attention probabilities away", hint=hint)
        objective = None
        if inputs.source.first().label is None:
            objective = Objective.of(context.model, context.analysis, inputs, self.output)
            if len(context.analysis.solution.facts.shapes[objective.output]) > 2:
                hint = "give labels: a column of class numbers, such as the sort of a text"
                problem = "cahp needs a class for every example, and the model names one for every token"
                raise UsageError(problem, hint=hint)
        return {OBSERVATION: Signatures(sites, members, objective, self.classes)}

    def gradients(self, groups: Sequence[Group], context: Context, inputs: Inputs) -> Mapping[str, GradientStatistic]:
        """Gradients by the head mask of all units, over the first share of the data in whole batches.

        Raises:
            PruneGraphError: a group has no attention of its own.
        """
        members = _decided(groups, context)
        batches = -(-sum(1 for _ in inputs.source.read()) // BATCH)
        samples = max(1, int(self.share * batches)) * BATCH
        sites = masked_sites(members, context, self.name)
        return {SALIENCE: HeadMaskGradients(sites, members, context.analysis.solution, samples)}

    def conclude(self, context: Context) -> Mapping[str, Chosen]:
        """What stays, for all groups together.

        Raises:
            UsageError: the number of heads is given twice.
            PruneGraphError: the data show fewer than two classes.
            MissingExtra: a library for clustering is not installed.
        """
        signatures: Signatures = context.observations[OBSERVATION]
        count = self.keep
        if all(name in context.kept for name in signatures.shapes):
            if count is not None:
                hint = "leave out the ratio of heads, or cahp's keep"
                raise UsageError("the number of heads is given by a ratio and by cahp's option keep", hint=hint)
            count = sum(context.kept[name] * int(np.prod(shape[:-1])) for name, shape in signatures.shapes.items())
        chosen = choose(
            signatures,
            context.observations[SALIENCE],
            count=count,
            degree=self.degree,
            reducer=self.reducer,
            seed=self.seed,
            medoids=self.representative == "medoid",
        )
        return {CHOSEN: chosen}

    def counts(self, groups: Sequence[Group], context: Context) -> Mapping[str, int]:
        """How many units of every group stay, as the clusters say."""
        chosen: Chosen = context.observations[CHOSEN]
        return {group.id: chosen.count(group.id) for group in groups if group.id in chosen.shapes}

    def score(self, group: Group, context: Context) -> Scores:
        """Salience in [0, 1], and two more for the heads that stay."""
        chosen: Chosen = context.observations[CHOSEN]
        return chosen.scores(group.id) if group.id in chosen.shapes else np.ones(group.shape)

    def report(self, context: Context) -> ScoringReport:
        """How many heads stay and why, for people, for programs and as figures."""
        from prunegraph.passes.score.cahp_report import facts_of, lines_of

        chosen: Chosen = context.observations[CHOSEN]
        signatures: Signatures = context.observations[OBSERVATION]
        how: Differentiated = context.observations[HOW]

        def draw(folder: Path) -> tuple[Path, ...]:
            from prunegraph.passes.score.cahp_figures import figures

            return figures(chosen, folder)

        facts = {**facts_of(chosen, signatures), **how.to_dict(), "degree": self.degree, "reducer": self.reducer}
        return ScoringReport(lines_of(chosen, signatures, how, self.degree), facts, draw)


def _decided(groups: Sequence[Group], context: Context) -> list[Group]:
    """The groups to choose in: not the query heads of KV groups that are chosen, unless the caller wants both."""
    sites = attentions(context.model, context.analysis)
    whole = {group.id for group in groups if group.kind != "query_head"}
    inside = {name for site in sites if whole & set(site.units) for name in site.units} - whole
    return [group for group in groups if group.id not in inside or group.id in context.kept]
