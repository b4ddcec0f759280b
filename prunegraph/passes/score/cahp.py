"""CAHP: heads that complement each other stay (Complementary Attention Head Pruning, arXiv 2606.19150).

A head is described by how its attention maps differ between classes; heads of all layers are clustered by that, and
of every cluster the head stays on which the loss hangs most.  How many clusters there are is the knee of their
silhouette, and with that how many heads stay, unless the caller says how many.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import numpy as np

from prunegraph.analysis.groups import Group
from prunegraph.errors import PruneGraphError, UsageError
from prunegraph.observe.attention_sites import HEAD_KINDS, attentions
from prunegraph.observe.gradients import GradientStatistic, Objective, check_settings
from prunegraph.observe.stream import Inputs, Statistic
from prunegraph.passes.score.base import Account, Context, Scores, scorer
from prunegraph.passes.score.clusters import REDUCERS
from prunegraph.passes.score.complement import Chosen, choose
from prunegraph.passes.score.differentiate import HOW, Differentiated
from prunegraph.passes.score.head_mask_gradients import BATCH, GateGradients, gated_sites
from prunegraph.passes.score.signature import Signatures

OBSERVATION, SALIENCE, MEMO = "cahp", "cahp salience", "cahp"
REPRESENTATIVES = ("salience", "medoid")


@dataclass(frozen=True, slots=True)
class CahpOptions:
    """How heads are clustered, and what stays of a cluster.

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
            if getattr(self, name) not in allowed:
                raise UsageError(f"cahp: {name} cannot be {getattr(self, name)!r}", hint=f"choose {', '.join(allowed)}")
        least = {"degree": 1, "classes": 2, "seed": 0} | ({"keep": 1} if self.keep is not None else {})
        for name, low in least.items():
            value = getattr(self, name)
            if isinstance(value, bool) or not isinstance(value, int) or value < low:
                raise UsageError(f"cahp: {name} cannot be {value!r}", hint=f"give a whole number, at least {low}")
        if not 0 < self.share <= 1:
            raise UsageError(f"cahp: share must be in (0, 1], not {self.share}", hint="0.25 is a quarter of the data")

    @staticmethod
    def of(settings: Mapping[str, Any]) -> CahpOptions:
        """From settings by name, numbers perhaps as text.

        Raises:
            UsageError: there is no such option, or it is no number.
        """
        check_settings("cahp", settings, [field.name for field in fields(CahpOptions)])
        return CahpOptions(**{name: _typed(name, value) for name, value in settings.items()})


def _typed(name: str, value: Any) -> Any:
    """What the text of a command line stands for."""
    if not isinstance(value, str) or name in ("reducer", "representative", "output"):
        return value
    try:
        return float(value) if name == "share" else int(value)
    except ValueError:
        raise UsageError(f"cahp: {name} cannot be {value!r}", hint="give a number") from None


def needs(groups: Sequence[Group], context: Context, inputs: Inputs) -> Mapping[str, Statistic]:
    """Signatures of all units, by class.

    Raises:
        UsageError: an option is wrong, or the model gives no classes and the data have no labels.
        PruneGraphError: an op hides its attention probabilities.
    """
    options = CahpOptions.of(context.settings)
    mine = _decided(groups, context)
    sites = gated_sites(mine, context, "cahp")
    hidden = next((site.label for site in sites if site.probabilities is None), None)
    if hidden is not None:
        hint = "export the model without attention fusion, or choose another scorer"
        raise PruneGraphError(f"{hidden} does not give its attention probabilities away", hint=hint)
    objective = None
    if inputs.source.first().label is None:
        objective = Objective.of(context.model, context.analysis, inputs, options.output)
        if len(context.analysis.solution.facts.shapes[objective.output]) > 2:
            hint = "give labels: a column of class numbers, such as the sort of a text"
            raise UsageError("cahp needs a class for every example, and the model names one for every token", hint=hint)
    return {OBSERVATION: Signatures(sites, mine, objective, options.classes)}


def gradients(groups: Sequence[Group], context: Context, inputs: Inputs) -> Mapping[str, GradientStatistic]:
    """Gate gradients of all units, over the first share of the data in whole batches.

    Raises:
        PruneGraphError: a group has no attention of its own.
    """
    options = CahpOptions.of(context.settings)
    mine = _decided(groups, context)
    batches = -(-sum(1 for _ in inputs.source.read()) // BATCH)
    samples = max(1, int(options.share * batches)) * BATCH
    sites = gated_sites(mine, context, "cahp")
    return {SALIENCE: GateGradients(sites, mine, context.analysis.solution, samples)}


def _decided(groups: Sequence[Group], context: Context) -> list[Group]:
    """The groups to choose in: not the query slots of KV groups that are chosen, unless the caller wants both."""
    sites = attentions(context.model, context.analysis)
    whole = {group.id for group in groups if group.kind != "query_slot"}
    inside = {name for site in sites if whole & set(site.units) for name in site.units} - whole
    return [group for group in groups if group.id not in inside or group.id in context.kept]


def chosen(context: Context) -> Chosen:
    """What stays, worked out once.

    Raises:
        UsageError: the number of heads is given twice.
        PruneGraphError: the data show fewer than two classes.
        MissingExtra: a library for clustering is not installed.
    """
    if MEMO not in context.memo:
        options = CahpOptions.of(context.settings)
        seen: Signatures = context.observations[OBSERVATION]
        count = options.keep
        if all(name in context.kept for name in seen.shapes):
            if count is not None:
                hint = "leave out the ratio of heads, or cahp's keep"
                raise UsageError("the number of heads is given by a ratio and by cahp's option keep", hint=hint)
            count = sum(context.kept[name] * int(np.prod(shape[:-1])) for name, shape in seen.shapes.items())
        context.memo[MEMO] = choose(
            seen,
            context.observations[SALIENCE],
            count=count,
            degree=options.degree,
            reducer=options.reducer,
            seed=options.seed,
            medoids=options.representative == "medoid",
        )
    found: Chosen = context.memo[MEMO]
    return found


def counts(groups: Sequence[Group], context: Context) -> Mapping[str, int]:
    """How many units of every group stay, as the clusters say."""
    found = chosen(context)
    return {group.id: found.count(group.id) for group in groups if group.id in found.shapes}


def account(context: Context) -> Account:
    """How many heads stay and why, for people, for programs and as figures."""
    from prunegraph.passes.score.cahp_report import facts_of, lines_of

    found, seen = chosen(context), context.observations[OBSERVATION]
    how: Differentiated = context.observations[HOW]
    options = CahpOptions.of(context.settings)

    def draw(folder: Path) -> tuple[Path, ...]:
        from prunegraph.passes.score.cahp_figures import figures

        return figures(found, folder)

    facts = {**facts_of(found, seen), **how.to_dict(), "degree": options.degree, "reducer": options.reducer}
    return Account(lines_of(found, seen, how, options.degree), facts, draw)


@scorer("cahp", needs=needs, gradients=gradients, counts=counts, account=account, kinds=HEAD_KINDS, across=True)
def cahp(group: Group, context: Context) -> Scores:
    """Salience in [0, 1], and two more for the heads that stay."""
    found = chosen(context)
    return found.scores(group.id) if group.id in found.shapes else np.ones(group.shape)
