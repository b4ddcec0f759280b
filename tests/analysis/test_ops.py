"""Traits: what a pass needs to know of an op stands beside its rule, and what is not known is never guessed."""

from __future__ import annotations

import numpy as np
import pytest

from prunegraph.analysis import ops
from prunegraph.analysis.ops import Traits, traits_of
from prunegraph.analysis.registry import RULES
from prunegraph.analysis.relations import Reduction
from prunegraph.errors import VerificationFailed
from prunegraph.passes.prove.mask import masked
from tests.analysis.rule_cases import CASES
from tests.analysis.test_rules import analysed, free, in_words, some

NORM = next(case for case in CASES if case.op == "LayerNormalization")


def test_every_mean_has_a_masked_form() -> None:
    """An op that takes a mean says how the oracle can take it over what stays."""
    for case in CASES:
        if "Norm" in case.op or "Mean" in case.op or "Pool" in case.op:
            _, normal, analysis = analysed(case)
            nodes = list(normal.model.graph)
            means = [site for site in analysis.solution.reduces if site.kind is Reduction.MEAN]
            known = [traits_of(nodes[site.node]) for site in means]
            assert all(traits.norm or traits.averages for traits in known), case


def test_a_mean_of_an_unknown_kind_is_pinned(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(ops.TRAITS, ("", NORM.op), Traits())
    analysis = analysed(NORM)[2]
    assert NORM.text == "a b c, c, c -> a b c"
    assert in_words(NORM, analysis) == "a b 4, 4, 4 -> a b 4"
    space = analysis.solution.space
    assert "there is no masked form of LayerNormalization" in str(space.pins(analysis.solution.axes["x0"][2]))


def test_a_mean_of_an_unknown_kind_is_not_masked(monkeypatch: pytest.MonkeyPatch) -> None:
    _, normal, analysis = analysed(NORM)
    keeps = some(free(analysis), analysis, np.random.default_rng(0))
    monkeypatch.setitem(ops.TRAITS, ("", NORM.op), Traits())
    with pytest.raises(VerificationFailed, match="no masked form of LayerNormalization"):
        masked(normal.model, analysis.solution, keeps)


def test_traits_belong_to_an_op_of_a_domain() -> None:
    """An op of another domain that bears a known name has nothing in common with it."""
    for domain, op in ops.TRAITS:
        assert traits_of(op, domain) is ops.TRAITS[domain, op]
        assert traits_of(op, "org.example") == Traits()


def test_every_op_with_a_rule_has_traits() -> None:
    assert RULES.keys() <= ops.TRAITS.keys()
    assert {op for _, op in ops.TRAITS.keys() - RULES.keys()} == {
        *("RandomNormal", "RandomUniform", "SequenceAt", "SequenceConstruct", "SequenceEmpty", "SequenceErase"),
        *("SequenceInsert", "SequenceLength", "SequenceMap", "SplitToSequence", "ConcatFromSequence"),
        *("BlackmanWindow", "HammingWindow", "HannWindow", "MelWeightMatrix", "MaxUnpool", "If", "Loop"),
        *("NonMaxSuppression", "Optional", "OptionalGetElement", "RegexFullMatch", "StringSplit", "TfIdfVectorizer"),
        *("BeamSearch", "DynamicTimeWarping", "GreedySearch", "RemovePadding", "Sampling", "WhisperBeamSearch"),
    }


def test_what_contracts_says_so() -> None:
    """What is said of an op beside its rule agrees with what the rule says of axes; some ops do much besides."""
    whole = {"LSTM", "GRU", "RNN", "Attention"}
    cases = [case for case in CASES if not case.not_run and case.op not in whole]
    ruled = {case.op for case in cases if any(rule.contractions for rule in analysed(case)[2].solution.rules)}
    assert ruled == {case.op for case in cases if traits_of(case.op).contracts}
