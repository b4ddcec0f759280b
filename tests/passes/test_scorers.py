"""Scorers as objects: options, functions, scorers of other packages."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from importlib.metadata import EntryPoint, EntryPoints
from typing import Any, ClassVar

import numpy as np
import pytest

from prunegraph import prune_graph
from prunegraph.errors import UsageError
from prunegraph.passes.score import (
    SCORERS,
    Activation,
    Cahp,
    Context,
    Magnitude,
    Michel,
    Random,
    Sap,
    Scorer,
    Scores,
    Snp,
    Taylor,
    as_scorer,
    make_scorer,
    registry,
    resolve_scorers,
    scorer_names,
)
from prunegraph.passes.score.activation import _energy
from tests.graphs import attention as graphs_attention


@dataclass(frozen=True)
class First(Scorer):
    """The first units stay, or the last."""

    name: ClassVar[str] = "first"
    kinds: ClassVar[tuple[str, ...]] = ("ffn", "head")

    last: bool = False

    def score(self, group: Any, context: Context) -> Scores:
        rank = np.broadcast_to(np.arange(group.units, dtype=float), group.shape)
        return rank if self.last else -rank


def last(group: Any, context: Context) -> Any:
    return np.broadcast_to(np.arange(group.units), group.shape)


def kept(scorer: Any, **more: Any) -> dict[str, list[int]]:
    result = prune_graph(graphs_attention.mha(), {"head": 0.5}, scorer=scorer, verify=False, **more)
    return {name: np.flatnonzero(mask).tolist() for name, mask in result.selection.keep.items()}


def installed(monkeypatch: pytest.MonkeyPatch, **values: str) -> None:
    entries = [EntryPoint(name, value, registry.ENTRY_POINTS) for name, value in values.items()]
    monkeypatch.setattr(registry, "entry_points", lambda group: EntryPoints(entries).select(group=group))


def test_a_function_is_a_scorer_and_so_is_an_object_or_a_class() -> None:
    first, rest = [0, 1], [1, 2]  # two of three heads
    for scorer, expected in ((last, rest), (First(), first), (First(last=True), rest), (First, first)):
        assert list(kept(scorer).values()) == [expected]
    assert list(kept({"head": last}).values()) == [rest]


@pytest.mark.parametrize("returned", [lambda group: np.zeros(7), lambda group: np.full(group.shape, np.nan)])
def test_a_function_that_returns_something_else_is_told_so(returned: Callable[[Any], Any]) -> None:
    with pytest.raises(UsageError, match="returned") as error:
        kept(lambda group, context: returned(group))
    assert "group.shape" in error.value.hint


def test_another_package_registers_a_scorer(monkeypatch: pytest.MonkeyPatch) -> None:
    installed(monkeypatch, first=f"{__name__}:First", rank=f"{__name__}:last", broken="no_such_module_here:Thing")
    monkeypatch.setattr(EntryPoint, "load", lambda self: _load(self.value))
    assert {"first", "rank", "magnitude"} <= set(scorer_names())
    assert make_scorer("first", {"last": "yes"}) == First(last=True)
    assert kept(make_scorer("first", {"last": "true"})) == kept("rank") == kept(last)
    with pytest.raises(UsageError, match="cannot be loaded"):
        make_scorer("broken")
    with pytest.raises(UsageError, match="no option 'k'"):
        make_scorer("rank", {"k": 1})
    with pytest.raises(UsageError, match="no scorer") as error:
        make_scorer("other")
    assert "first" in error.value.hint


def _load(value: str) -> Any:
    """This module is not importable by name under every import mode of pytest."""
    known = {f"{__name__}:First": First, f"{__name__}:last": last}
    return known[value] if value in known else __import__(value.partition(":")[0])


@pytest.mark.parametrize("name", SCORERS)
def test_scorers_are_values(name: str) -> None:
    """Equal options, equal scorers: whatever is observed for one is there for the other."""
    assert make_scorer(name) == make_scorer(name) == SCORERS[name]()
    assert len({make_scorer(name), SCORERS[name]()}) == 1
    assert set(make_scorer(name).data_kinds) <= set(make_scorer(name).kinds)


TEXTS: dict[str, tuple[str, dict[str, Any], Scorer]] = {
    "numbers": ("sap", {"k": "7", "noise": "0.5", "threshold": "0.25"}, Sap(k=7, noise=0.5, threshold=0.25)),
    "words beside numbers": ("sap", {"threshold": "literal", "rules": "both"}, Sap(threshold="literal", rules="both")),
    "a list": ("sap", {"exclude_labels": "det, obj"}, Sap(exclude_labels=("det", "obj"))),
    "truth or nothing": ("sap", {"causal": "no"}, Sap(causal=False)),
    "nothing": ("sap", {"causal": "auto"}, Sap()),
    "no text": ("snp", {"gamma": 3, "refresh": True}, Snp(3, refresh=True)),
    "a word or a number": ("snp", {"gamma": "energy", "energy": "0.8"}, Snp(energy=0.8)),
    "a number or nothing": ("cahp", {"keep": "none", "degree": "4"}, Cahp(degree=4)),
    "a name": ("taylor", {"output": "logits"}, Taylor(output="logits")),
}


@pytest.mark.parametrize("case", TEXTS)
def test_texts_stand_for_options(case: str) -> None:
    name, settings, expected = TEXTS[case]
    assert make_scorer(name, settings) == expected


WRONG: dict[str, tuple[str, dict[str, Any], str, str]] = {
    "unknown": ("snp", {"rank": "3"}, "snp has no option 'rank'", "energy, gamma"),
    "the only option": ("activation", {"rank": "3"}, "activation has no option 'rank'", "its option is statistic"),
    "none": ("magnitude", {"rank": "3"}, "magnitude has no option 'rank'", "it has none"),
    "no number": ("cahp", {"degree": "many"}, "cahp: degree cannot be 'many'", "give a number"),
    "no whole number": ("sap", {"k": "1.5"}, "sap: k cannot be '1.5'", "give a number"),
    "no truth": ("sap", {"causal": "perhaps"}, "sap: causal cannot be 'perhaps'", "true, false"),
    "no choice": ("activation", {"statistic": "max"}, "statistic cannot be 'max'", "norm, variance"),
}


@pytest.mark.parametrize("case", WRONG)
def test_wrong_options_are_refused(case: str) -> None:
    name, settings, message, hint = WRONG[case]
    with pytest.raises(UsageError) as error:
        make_scorer(name, settings)
    assert message in str(error.value) and hint in error.value.hint


def test_options_go_to_the_scorers_that_have_them() -> None:
    scorers = {"head": "michel", "ffn": "snp", "v_dim": "activation", "hidden": Random(3)}
    resolved = resolve_scorers(scorers, {"energy": "0.5", "michel.output": "logits"})
    assert resolved.of("head") == Michel("logits")
    assert resolved.of("ffn") == Snp(energy=0.5)
    assert resolved.of("v_dim") == Activation() and resolved.of("hidden") == Random(3)
    assert resolved.of("channel") == Magnitude()


LOST: dict[str, tuple[Any, dict[str, Any], str]] = {
    "nobody has it": ({"head": "michel", "ffn": "snp"}, {"k": 3}, "michel has no option 'k'"),
    "a scorer that is not used": ("snp", {"sap.k": 3}, "not used"),
    "an object has its own": (Snp(), {"gamma": 3}, "given by name"),
    "another kind": ({"ffn": "michel"}, {}, "michel does not score ffn"),
    "no scorer": (3, {}, "3 is no scorer"),
}


@pytest.mark.parametrize("case", LOST)
def test_scorers_that_cannot_be_resolved(case: str) -> None:
    scorers, settings, message = LOST[case]
    with pytest.raises(UsageError, match=message) as error:
        resolve_scorers(scorers, settings)
    assert error.value.hint


def test_a_scorer_that_cannot_be_compared_is_refused() -> None:
    @dataclass
    class Loose(Scorer):
        name: ClassVar[str] = "loose"

        def score(self, group: Any, context: Context) -> Scores:
            return np.zeros(group.shape)

    with pytest.raises(UsageError, match="hashed"):
        as_scorer(Loose())


ENERGIES = [((3, 5), 0, 3), ((3, 5), -1, 5), ((4, 3, 2), 1, 3), ((6, 2), 1, 4)]


@pytest.mark.parametrize(("shape", "axis", "length"), ENERGIES)
def test_energy_is_the_sum_of_squares_along_all_other_axes(shape: tuple[int, ...], axis: int, length: int) -> None:
    """A grouped convolution has one part of the axis, for each group of filters another one."""
    weight = np.random.default_rng(0).normal(size=shape).astype(np.float32)
    moved = np.moveaxis(weight.astype(np.float64), axis, 0)
    parts = moved.reshape(len(moved), length // len(moved), -1)
    expected = [np.square(parts[slot, group]).sum() for group in range(parts.shape[1]) for slot in range(len(moved))]
    np.testing.assert_allclose(_energy(weight, axis, length), expected)
