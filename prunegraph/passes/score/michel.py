"""Michel: how much the loss hangs on a head (Michel, Levy and Neubig 2019, arXiv 1905.10650).

`I_h = E_x |Σ Att_h(x) · dL/dAtt_h(x)|`, divided by its Euclidean norm over the heads of a layer.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from prunegraph.analysis.groups import Group
from prunegraph.observe.attention_sites import HEAD_KINDS
from prunegraph.observe.gradients import GradientStatistic
from prunegraph.observe.stream import Inputs
from prunegraph.passes.score.base import Context, Scorer, Scores, ScoringReport
from prunegraph.passes.score.differentiate import HOW, Differentiated
from prunegraph.passes.score.head_mask_gradients import HeadMaskGradients, masked_sites

OBSERVATION = "gate gradients"


@dataclass(frozen=True)
class Michel(Scorer):
    """How much the loss hangs on a head.

    Attributes:
        output: The logits; the first output if empty.
    """

    name: ClassVar[str] = "michel"
    kinds: ClassVar[tuple[str, ...]] = HEAD_KINDS
    data_kinds: ClassVar[tuple[str, ...]] = HEAD_KINDS
    comparable: ClassVar[bool] = True

    output: str = ""

    def gradients(self, groups: Sequence[Group], context: Context, inputs: Inputs) -> Mapping[str, GradientStatistic]:
        """Gradients by the head mask of all units.

        Raises:
            PruneGraphError: a group has no attention of its own.
        """
        sites = masked_sites(groups, context, self.name)
        return {OBSERVATION: HeadMaskGradients(sites, groups, context.analysis.solution)}

    def score(self, group: Group, context: Context) -> Scores:
        """Mean over examples of |dL/dgate|, of unit length over the units of a layer."""
        return by_layer(context.observations[OBSERVATION], group.id)

    def report(self, context: Context) -> ScoringReport:
        """Which gradients they were."""
        how: Differentiated = context.observations[HOW]
        head_gradients: HeadMaskGradients = context.observations[OBSERVATION]
        facts = {**how.to_dict(), "examples": head_gradients.count}
        return ScoringReport((f"michel: {how.line}, {head_gradients.count} examples",), facts)


def by_layer(head_gradients: HeadMaskGradients, group: str) -> Scores:
    """Michel's score of a group."""
    each = head_gradients.by_example(group)
    return each / max(float(np.linalg.norm(each)), np.finfo(np.float64).tiny)
