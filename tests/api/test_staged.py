"""The staged object: scored, selected from and applied as often as one likes, analysed and observed once."""

from __future__ import annotations

import inspect
import pickle
import re
import sys
import warnings
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import onnx
import onnxruntime as ort
import pytest

import prunegraph as pg
import prunegraph.analyzed
import prunegraph.passes.choose.select_units
import prunegraph.passes.choose.targets
import prunegraph.pipeline
import prunegraph.proof
from prunegraph.analysis.selection import Selection
from prunegraph.errors import UsageError
from prunegraph.former_keywords import NOW
from tests.graphs.cli import classifier

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def graph() -> pg.Graph:
    """Two blocks: head (2), qk_dim and v_dim (2, 4), ffn (12) each; hidden (8)."""
    return pg.analyze(classifier())


def arrays(samples: int = 32) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(0)
    return {"x": rng.normal(size=(samples, 6, 5)).astype(np.float32)}


def counted(monkeypatch: pytest.MonkeyPatch, *functions: tuple[Any, str]) -> Counter[str]:
    """How often functions are called, by name."""
    calls: Counter[str] = Counter()

    def wrapped(name: str, function: Callable[..., Any]) -> Callable[..., Any]:
        def call(*args: Any, **kwargs: Any) -> Any:
            calls[name] += 1
            return function(*args, **kwargs)

        return call

    for module, name in functions:
        monkeypatch.setattr(module, name, wrapped(name, getattr(module, name)))
    return calls


def same(one: Selection, other: Selection) -> bool:
    return one.keep.keys() == other.keep.keys() and all((one.keep[k] == other.keep[k]).all() for k in one.keep)


def test_a_sweep_analyses_and_observes_once(monkeypatch: pytest.MonkeyPatch) -> None:
    calls = counted(
        monkeypatch,
        (prunegraph.analyzed, "normalize"),
        (prunegraph.analyzed, "analyze_graph"),
        (prunegraph.pipeline, "observe_for"),
        (prunegraph.proof, "verify"),
    )
    graph = pg.analyze(classifier())
    scores = graph.score("activation", arrays())
    sizes = [graph.apply(graph.select(scores, ratio)).report.params[1] for ratio in (0.25, 0.5, 0.75)]
    assert sizes[0] > sizes[1] > sizes[2]
    assert calls == {"normalize": 1, "analyze_graph": 1, "observe_for": 1, "verify": 3}


def test_pruning_resolves_each_question_once(monkeypatch: pytest.MonkeyPatch) -> None:
    choose = prunegraph.passes.choose
    calls = counted(
        monkeypatch,
        (choose.select_units, "resolve_targets"),
        (choose.targets, "_by_group"),
        (choose.targets, "_kept_numbers"),
        (choose.targets, "_check_fit"),
    )
    pg.prune_graph(classifier(), pg.Amount({"ffn": 0.5}, {"head": 1}))
    assert calls == {"resolve_targets": 1, "_by_group": 2, "_kept_numbers": 1, "_check_fit": 1}


def test_the_steps_are_what_one_call_does(graph: pg.Graph) -> None:
    for scorer in ("magnitude", "random", pg.scorers.Random(seed=3)):
        at_once = pg.prune_graph(classifier(), 0.5, scorer=scorer)
        by_steps = graph.apply(graph.select(graph.score(scorer), 0.5))
        assert same(at_once.selection, by_steps.selection)
        assert at_once.report.to_dict()["groups"] == by_steps.report.to_dict()["groups"]


def test_a_graph_is_what_an_analysis_was(graph: pg.Graph) -> None:
    analysis = graph.analysis
    assert (graph.groups, graph.pinned, graph.pins) == (analysis.groups, analysis.pinned, analysis.pinned)
    assert (graph.params, graph.names, graph.solution) == (analysis.params, analysis.names, analysis.solution)
    assert graph.group("ffn.1") is analysis.group("ffn.1")
    place = graph.group("ffn.1").places[0]
    axis = graph.solution.resolve(place.name)[place.axis]
    assert graph.render(axis) == analysis.render(axis) == "ffn.1"
    assert repr(graph) == "Graph('classifier': 9 groups (1 hidden, 2 head, 2 qk_dim, 2 v_dim, 2 ffn), 1,139 parameters)"
    assert all(f"<td>{group.id}</td>" in graph._repr_html_() for group in graph.groups)
    assert graph.explain().startswith("9 groups") and "graph input" in graph.explain()
    assert "  x: graph input" in graph.explain(verbose=True) and "inexact" in graph.explain()


def test_a_graph_pickles(graph: pg.Graph) -> None:
    again = pickle.loads(pickle.dumps(graph))
    assert [group.id for group in again.groups] == [group.id for group in graph.groups]
    assert same(again.select(again.score(), 0.5), graph.select(graph.score(), 0.5))


def test_a_result_pickles_and_is_told_in_a_line(graph: pg.Graph) -> None:
    result = graph.apply(graph.select(graph.score(), {"ffn": 0.5}))
    assert repr(result).startswith("PruneResult(2 groups smaller, 1,139 to ") and repr(result).endswith(", verified)")
    again = pickle.loads(pickle.dumps(result))
    assert repr(again) == repr(result) and same(again.selection, result.selection)
    assert again.model.SerializeToString() == result.model.SerializeToString()


def test_selections_of_ones_own(graph: pg.Graph, tmp_path: Path) -> None:
    mask = np.arange(12) % 2 == 0
    selection = Selection.of(graph.groups, keep={"ffn.0": mask}, remove={"ffn.1": [0, 11], "v_dim.0": [3]})
    assert selection.keep["ffn.0"].sum() == 6 and not selection.keep["v_dim.0"][:, 3].any()
    selection = selection.replaced(Selection.of(graph.groups, keep={"ffn.0": range(3)}))
    selection.save(tmp_path / "plan.json")
    result = graph.apply(Selection.load(tmp_path / "plan.json"))
    assert {g.id: g.after for g in result.report.groups} == {"v_dim.0": 3, "ffn.0": 3, "ffn.1": 10}


WRONG: dict[str, tuple[dict[str, Any], str]] = {
    "no such group": ({"ffn.7": [0]}, "no group 'ffn.7'"),
    "no such unit": ({"ffn.0": [12]}, "units 0 to 11"),
    "a negative unit": ({"ffn.0": [-1]}, "units 0 to 11"),
    "half a unit": ({"ffn.0": [0.5]}, "units 0 to 11"),
    "another shape": ({"ffn.0": np.ones(5, bool)}, r"\(12,\), the array \(5,\)"),
}


@pytest.mark.parametrize("case", WRONG)
def test_selections_that_cannot_be(case: str, graph: pg.Graph) -> None:
    keep, message = WRONG[case]
    with pytest.raises(UsageError, match=message):
        Selection.of(graph.groups, keep)


def test_scores_of_ones_own(graph: pg.Graph) -> None:
    own = {"ffn.0": np.arange(12.0), "ffn.1": -np.arange(12.0)}
    kept = graph.select(own, {"ffn": 0.5}).keep
    assert np.flatnonzero(kept["ffn.0"]).tolist() == list(range(6, 12))
    assert np.flatnonzero(kept["ffn.1"]).tolist() == list(range(6))
    with pytest.raises(UsageError, match=r"no scores of head\.0"):
        graph.select(own, 0.5)
    with pytest.raises(UsageError, match="its scores"):
        graph.select({**own, "ffn.0": np.zeros(3)}, {"ffn": 0.5})


def test_units_are_ranked_across_groups_where_that_is_asked_for(graph: pg.Graph) -> None:
    own = {"ffn.0": np.arange(12.0), "ffn.1": 100 + np.arange(12.0)}

    def sizes(**fields: Any) -> dict[str, int]:
        keep = graph.select(own, pg.Amount({"ffn": 0.5}, **fields)).keep
        return {name: int(keep[name].sum()) if name in keep else 12 for name in own}

    assert sizes() == sizes(rank="local") == {"ffn.0": 6, "ffn.1": 6}
    assert sizes(rank="global") == {"ffn.0": 1, "ffn.1": 11}
    assert sizes(rank="global", least=0.25) == {"ffn.0": 3, "ffn.1": 9}


def test_what_a_result_can_do(graph: pg.Graph) -> None:
    result = graph.apply(graph.select(graph.score(), {"ffn": 0.5}))
    agreement = result.evaluate(arrays())
    assert agreement.metric == "agreement" and [score.model for score in agreement.scores] == ["original", "slim"]
    assert result.evaluate(arrays(), "cosine").scores[1].value > 0.5
    assert result.verify().ok and result.verify(arrays()).ok
    mended = result.repair(arrays())
    assert mended.report.repair is not None and mended.report.repair.written
    assert mended.verify().ok, "what was re-fitted is put back"
    assert mended.selection is result.selection and result.report.repair is None


def test_a_result_is_self_contained(graph: pg.Graph) -> None:
    result = graph.apply(graph.select(graph.score(), 0.5))
    session = ort.InferenceSession(result.model.SerializeToString(), providers=["CPUExecutionProvider"])
    assert session.run(None, {"x": arrays(2)["x"]})[0].shape == (2, 6, 3)


def test_scores_become_a_table(graph: pg.Graph, monkeypatch: pytest.MonkeyPatch) -> None:
    tables: list[dict[str, Any]] = []

    def frame(columns: dict[str, Any]) -> dict[str, Any]:
        tables.append(columns)
        return columns

    pandas = SimpleNamespace(DataFrame=frame, concat=lambda parts, ignore_index: parts)
    monkeypatch.setitem(sys.modules, "pandas", pandas)
    scores = graph.score("magnitude", groups=["ffn.0", "v_dim.1"])
    assert set(scores) == {"v_dim.1", "ffn.0"} and scores["v_dim.1"].shape == (2, 4)
    scores.to_pandas()
    by_group = {columns["group"]: columns for columns in tables}
    assert by_group["v_dim.1"]["row"].tolist() == [0] * 4 + [1] * 4
    assert by_group["v_dim.1"]["unit"].tolist() == [0, 1, 2, 3] * 2
    assert by_group["ffn.0"]["score"].tolist() == scores["ffn.0"].tolist()


# ---- the face --------------------------------------------------------------------------------------------------------


def test_every_name_of_the_face_is_there_and_completes() -> None:
    assert set(pg.__all__) <= set(dir(pg))
    assert all(getattr(pg, name) is not None for name in pg.__all__)
    assert re.match(r"\d+\.\d+", pg.__version__)
    with pytest.raises(AttributeError, match="no attribute 'prune'"):
        pg.prune  # noqa: B018


def test_prune_graph_takes_eight_arguments() -> None:
    parameters = inspect.signature(pg.prune_graph).parameters
    assert len([p for p in parameters.values() if p.kind is not inspect.Parameter.VAR_KEYWORD]) == 8


FORMER: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {
    "keep": ({"keep": {"ffn": 5}}, {"amount": pg.Amount(keep={"ffn": 5})}),
    "budget": ({"budget": {"params": 0.8}}, {"amount": pg.Amount(params=0.8)}),
    "kinds": ({"ratio": 0.5, "kinds": "v_dim"}, {"amount": pg.Amount(0.5, kinds="v_dim")}),
    "align": ({"ratio": {"ffn": 0.6}, "align": 4}, {"amount": pg.Amount({"ffn": 0.6}, align=4)}),
    "drop": ({"drop": ["ffn.1"]}, {"amount": pg.Amount(drop=["ffn.1"])}),
    "layer_threshold": (
        {"ratio": {"head": 0.5}, "layer_threshold": 0.9},
        {"amount": pg.Amount({"head": 0.5}, layer_threshold=0.9)},
    ),
    "filtering": (
        {"ratio": {"head": 0.5}, "filtering": pg.FilterOptions(metric=lambda session: 1.0)},
        {"amount": pg.Amount({"head": 0.5}, filtering=pg.FilterOptions(metric=lambda session: 1.0))},
    ),
    "include": ({"include": "ffn.0"}, {"scope": pg.Scope(include="ffn.0")}),
    "exclude": ({"exclude": ["ffn.*"]}, {"scope": pg.Scope(exclude="ffn.*")}),
    "allow_io": ({"allow_io": "logits"}, {"scope": pg.Scope(allow_io="logits")}),
    "tokenizer": ({"data": arrays(), "tokenizer": "nowhere", "repair": "none"}, {"data": arrays(), "after": []}),
    "providers": ({"data": arrays(), "providers": "cpu"}, {"data": pg.Data(arrays(), providers="cpu")}),
    "scorer_options": (
        {"data": arrays(), "scorer": "activation", "scorer_options": {"statistic": "variance"}},
        {"data": arrays(), "scorer": pg.scorers.Activation("variance")},
    ),
    "seed": ({"scorer": "random", "seed": 7}, {"scorer": pg.scorers.Random(seed=7)}),
    "repair": ({"data": arrays(), "repair": "bias"}, {"data": arrays(), "after": pg.Repair("bias")}),
}


@pytest.mark.parametrize("keyword", FORMER)
def test_a_former_keyword_works_and_says_what_to_write(keyword: str) -> None:
    former, now = FORMER[keyword]
    with warnings.catch_warnings(record=True) as caught:  # some cases have more than one
        warnings.simplefilter("always")
        old = pg.prune_graph(classifier(), **former)
    ours = [warning for warning in caught if warning.category is DeprecationWarning]
    assert any(NOW[keyword] in str(warning.message) for warning in ours)
    assert all(warning.filename == __file__ for warning in ours)
    new = pg.prune_graph(classifier(), **now)
    assert same(old.selection, new.selection) and old.selection.keep
    assert (old.report.repair is None) == (new.report.repair is None)


def test_all_former_keywords_are_tested() -> None:
    assert NOW.keys() - FORMER.keys() == {"finetune", "example_inputs", "dynamic_shapes"}, "these need torch"


def test_a_keyword_that_never_was_is_refused() -> None:
    with pytest.raises(TypeError, match="unexpected keyword argument 'rato'"):
        pg.prune_graph(classifier(), rato=0.5)
    with pytest.raises(UsageError, match="given twice"):
        pg.prune_graph(classifier(), 0.5, ratio=0.5)


def test_the_examples_of_the_page_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    onnx.save(classifier(), "model.onnx")
    np.savez("data.npz", **arrays())
    text = (ROOT / "docs" / "python-api.md").read_text(encoding="utf-8")
    blocks = re.findall(r"```python\n(.*?)```", text, re.DOTALL)
    assert len(blocks) == 8
    namespace: dict[str, Any] = {}
    for block in blocks:
        exec(compile(block, "python-api.md", "exec"), namespace)
    assert (tmp_path / "slim.onnx").exists() and (tmp_path / "plan.json").exists()
