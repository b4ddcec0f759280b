"""Prove a file that knows fewer tokens, whoever made it: all its weights, and the logits of kept tokens."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import onnx_ir as ir

from prunegraph.analysis.read_weight import read_weight
from prunegraph.analyzed import Analyzed
from prunegraph.errors import VerificationFailed
from prunegraph.vocabulary.cut import SmallVocabulary, compare_kept, cut_vocabulary, find_vocabulary
from prunegraph.vocabulary.plan import VocabularyPlan

_HINT = "one of the files was changed, or they do not belong together; run `prunegraph vocab` again"


def verify_vocabulary(analyzed: Analyzed, slim: ir.Model, plan: VocabularyPlan) -> SmallVocabulary:
    """Compare a model with the original's rows of kept tokens; nothing of it is trusted but the plan.

    No few texts use all tokens, so that every weight is compared number by number beside what comes out.

    Args:
        analyzed: The original.
        slim: What knows fewer tokens.
        plan: Which.

    Returns:
        What was compared, with the largest error.

    Raises:
        UsageError: the original has no vocabulary that could be cut, or not these tokens.
        VerificationFailed: the plan is another model's, a weight holds something else, or logits are off.
    """
    if plan.made_for is not None and analyzed.mark.digest != plan.made_for.digest:
        raise VerificationFailed(f"the plan was made for {plan.made_for}, and this is {analyzed.mark}", hint=_HINT)
    made = cut_vocabulary(analyzed, plan.kept)
    given = slim.graph.initializers
    for name, value in made.model.graph.initializers.items():
        tensor = given[name].const_value if name in given else None
        if tensor is None or value.const_value is None or not _same(tensor, value.const_value):
            raise VerificationFailed(f"the weight {name} does not hold the rows of the kept tokens", hint=_HINT)
    there = find_vocabulary(analyzed.normalized.model.graph, analyzed.analysis)
    kept = np.array(made.kept)
    error = compare_kept(analyzed, slim, there, kept, np.isin(np.arange(made.size), kept))
    return replace(made, model=slim, error=error)


def _same(a: ir.TensorProtocol, b: ir.TensorProtocol) -> bool:
    if a.dtype != b.dtype or tuple(a.shape) != tuple(b.shape):
        return False
    left, right = read_weight(a), read_weight(b)
    return np.array_equal(left, right, equal_nan=left.dtype.kind == "f")
