"""Michel: how much the loss hangs on a head (Michel, Levy and Neubig 2019, arXiv 1905.10650).

`I_h = E_x |Σ Att_h(x) · dL/dAtt_h(x)|`, divided by its Euclidean norm over the heads of a layer.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from prunegraph.analysis.groups import Group
from prunegraph.observe.attention_sites import HEAD_KINDS
from prunegraph.observe.gradients import GradientStatistic, check_settings
from prunegraph.observe.stream import Inputs
from prunegraph.passes.score.base import Account, Context, Scores, scorer
from prunegraph.passes.score.differentiate import HOW, Differentiated
from prunegraph.passes.score.head_mask_gradients import GateGradients, gated_sites

OBSERVATION = "gate gradients"


def gradients(groups: Sequence[Group], context: Context, inputs: Inputs) -> Mapping[str, GradientStatistic]:
    """Gate gradients of all units.

    Raises:
        UsageError: there is no such option.
        PruneGraphError: a group has no attention of its own.
    """
    check_settings("michel", context.settings)
    sites = gated_sites(groups, context, "michel")
    return {OBSERVATION: GateGradients(sites, groups, context.analysis.solution)}


def account(context: Context) -> Account:
    """Which gradients they were."""
    how: Differentiated = context.observations[HOW]
    seen: GateGradients = context.observations[OBSERVATION]
    return Account((f"michel: {how.line}, {seen.count} examples",), {**how.to_dict(), "examples": seen.count})


@scorer("michel", gradients=gradients, account=account, kinds=HEAD_KINDS, across=True)
def michel(group: Group, context: Context) -> Scores:
    """Mean over examples of |dL/dgate|, of unit length over the units of a layer."""
    return by_layer(context.observations[OBSERVATION], group.id)


def by_layer(seen: GateGradients, group: str) -> Scores:
    """Michel's score of a group."""
    each = seen.by_example(group)
    return each / max(float(np.linalg.norm(each)), np.finfo(np.float64).tiny)
