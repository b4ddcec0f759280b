"""Candidate filtering: the same as trying everything by hand, at the price that was promised."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

import joblib
import numpy as np
import pytest

from prunegraph import Amount, Repair, prune_graph
from prunegraph.analysis.selection import Selection
from prunegraph.analyzed import Analyzed, load_and_analyze
from prunegraph.errors import UsageError
from prunegraph.observe.evaluation import evaluate_models
from prunegraph.observe.head_mask import HeadMaskSession
from prunegraph.observe.stream import Data, Inputs
from prunegraph.passes.choose.head_filter import Filtered, FilterOptions, filter_candidates
from prunegraph.passes.prove.mask import masked
from prunegraph.runtime.session import open_session, run
from prunegraph.runtime.widen import widened
from tests.graphs.skeleton import load_skeleton
from tests.graphs.text import WORDS, shifting, word_tokenizer

pytestmark = pytest.mark.slow

SHIFTS = [[0, 1, -1], [2, 0, -2]]
CANDIDATES = {"head.0": [0, 2], "head.1": [0, 1]}


@pytest.fixture(scope="module")
def setting(tmp_path_factory: pytest.TempPathFactory) -> tuple[Analyzed, Inputs]:
    """A model of two layers with three heads each, and sentences that carry labels."""
    folder = tmp_path_factory.mktemp("filter")
    rng = np.random.default_rng(1)
    rows = [
        {"text": " ".join(rng.choice(WORDS[4:], int(rng.integers(3, 12)))), "label": int(rng.integers(3))}
        for _ in range(120)
    ]
    analyzed = load_and_analyze(shifting(SHIFTS))
    return analyzed, Data(rows, word_tokenizer(folder)).inputs(analyzed.original)


def selection(removed: dict[str, list[int]] | list[tuple[str, int]]) -> Selection:
    keep = {name: np.ones(3, bool) for name in ("head.0", "head.1")}
    for name, units in removed.items() if isinstance(removed, dict) else [(n, [u]) for n, u in removed]:
        keep[name][units] = False
    return Selection({name: mask for name, mask in keep.items() if not mask.all()})


def by_hand(analyzed: Analyzed, inputs: Inputs, removed: list[tuple[str, int]], reference: Any) -> float:
    """The metric by the mask oracle: a model of its own for every choice of heads."""
    analysis = analyzed.analysis
    model = masked(widened(analyzed.normalized.model), analysis.solution, selection(removed).keeps(analysis.groups))
    hits: list[bool] = []
    with open_session(model) as session:
        for k, batch in enumerate(inputs.batches()):
            says = run(session, batch.feeds)[0].argmax(-1)
            hits += (says == reference(k, batch)).tolist()
    return float(np.mean(hits))


def brute(
    analyzed: Analyzed, inputs: Inputs, metric: str, options: FilterOptions
) -> tuple[list[tuple[str, int]], float]:
    with open_session(widened(analyzed.normalized.model)) as session:
        whole = [run(session, batch.feeds)[0].argmax(-1) for batch in inputs.batches()]

    def reference(k: int, batch: Any) -> Any:
        return [sample.label for sample in batch.samples] if metric == "accuracy" else whole[k]

    candidates = [(name, unit) for name, units in CANDIDATES.items() for unit in units]
    base = by_hand(analyzed, inputs, [], reference)
    ranked = sorted(candidates, key=lambda c: -by_hand(analyzed, inputs, [c], reference))  # stable, as promised
    removed: list[tuple[str, int]] = []
    after = base
    for candidate in ranked:
        value = by_hand(analyzed, inputs, [*removed, candidate], reference)
        if value >= options.tolerance * base:
            removed, after = [*removed, candidate], value
        elif options.policy == "stop":
            break
    return removed, after


@pytest.mark.parametrize("metric", ["accuracy", "agreement"])
@pytest.mark.parametrize("policy", ["stop", "skip"])
@pytest.mark.parametrize("tolerance", [0.99, 0.7, 0.3])
def test_filtering_equals_brute_force(
    metric: str, policy: str, tolerance: float, setting: tuple[Analyzed, Inputs]
) -> None:
    analyzed, inputs = setting
    options = FilterOptions(tolerance=tolerance, policy=policy, metric=metric)
    filtered = filter_candidates(analyzed.normalized.model, analyzed.analysis, selection(CANDIDATES), inputs, options)
    removed, after = brute(analyzed, inputs, metric, options)
    assert list(filtered.removed) == removed
    assert filtered.after == pytest.approx(after)
    expected = selection(removed).keep
    assert filtered.selection.keep.keys() == expected.keys()
    assert all(np.array_equal(filtered.selection.keep[name], mask) for name, mask in expected.items())
    assert filtered.ratio == len(removed) / 6
    if policy == "stop":  # the original's run, and the one removal that was taken back
        assert filtered.evaluations <= len(filtered.candidates) + len(removed) + 1


class Counting:
    """A metric of the caller's, which sees a session and nothing else."""

    def __init__(self) -> None:
        self.gates: list[np.ndarray] = []

    def __call__(self, session: HeadMaskSession) -> float:
        self.gates.append(session.head_mask)
        return float(session.head_mask.sum())


def test_a_metric_of_ones_own(setting: tuple[Analyzed, Inputs]) -> None:
    """Nothing is evaluated twice; every head costs the same, so they go in order until the share is reached."""
    analyzed, _ = setting
    metric = Counting()
    options = FilterOptions(tolerance=4 / 6, metric=metric)
    filtered = filter_candidates(analyzed.normalized.model, analyzed.analysis, selection(CANDIDATES), None, options)
    assert filtered.removed == (("head.0", 0), ("head.0", 2))
    assert (filtered.before, filtered.after) == (6, 4)
    assert len({gate.tobytes() for gate in metric.gates}) == len(metric.gates) == filtered.evaluations


@pytest.mark.slow
def test_a_dask_cluster_takes_the_evaluations(setting: tuple[Analyzed, Inputs]) -> None:
    """Two worker processes, told by `joblib.parallel_config` alone, find what one process finds."""
    distributed = pytest.importorskip("distributed")
    analyzed, inputs = setting
    options = FilterOptions(tolerance=0.7, metric="agreement")

    def filtered() -> Filtered:
        return filter_candidates(analyzed.normalized.model, analyzed.analysis, selection(CANDIDATES), inputs, options)

    alone = filtered()
    with _quiet(distributed) as client, joblib.parallel_config(backend="dask"):
        together = filtered()
        workers = client.scheduler_info()["workers"]
        transitions = client.run_on_scheduler(lambda dask_scheduler: len(dask_scheduler.transition_log))
    assert len(workers) == 2 and transitions > 0
    assert (together.removed, together.candidates) == (alone.removed, alone.candidates)
    assert together.after == alone.after


class _quiet:
    """A local cluster that neither serves a dashboard nor says good-bye."""

    def __init__(self, distributed: Any) -> None:
        logging.getLogger("distributed").setLevel(logging.CRITICAL)
        self.cluster = distributed.LocalCluster(
            n_workers=2, threads_per_worker=1, processes=True, dashboard_address=None, silence_logs=logging.CRITICAL
        )
        self.client = distributed.Client(self.cluster)

    def __enter__(self) -> Any:
        return self.client

    def __exit__(self, *_: object) -> None:
        self.client.close()
        self.cluster.close()


def test_prune_filters_and_says_so(setting: tuple[Analyzed, Inputs], tmp_path: Path) -> None:
    _, inputs = setting
    rows = [{"text": sample.texts[0]} for sample in inputs.source.read()]
    result = prune_graph(
        shifting(SHIFTS),
        Amount({"head": 2 / 3}, filtering=FilterOptions(tolerance=0.6)),
        scorer="magnitude",
        data=Data(rows, word_tokenizer(tmp_path)),
    )
    filtered = result.filtered
    assert filtered is not None and filtered.metric == "agreement" and 0 < len(filtered.removed) < 4
    assert result.selection.removed == len(filtered.removed)
    assert result.report.verify is not None and result.report.verify.ok
    assert filtered.to_dict()["candidates"] == 4


REFUSED: dict[str, tuple[dict[str, Any], str]] = {
    "tolerance": ({"tolerance": 1.5}, "tolerance must be"),
    "policy": ({"policy": "give up"}, "no policy"),
    "metric": ({"metric": "f1"}, "no metric 'f1'"),
    "output": ({"output": "y"}, "no output 'y'"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_refused_with_a_reason(case: str, setting: tuple[Analyzed, Inputs]) -> None:
    analyzed, inputs = setting
    settings, message = REFUSED[case]
    with pytest.raises(UsageError, match=message):
        model, analysis = analyzed.normalized.model, analyzed.analysis
        filter_candidates(model, analysis, selection(CANDIDATES), inputs, FilterOptions(**settings))


def test_accuracy_needs_labels_and_filtering_data(setting: tuple[Analyzed, Inputs], tmp_path: Path) -> None:
    analyzed, _ = setting
    model, analysis = analyzed.normalized.model, analyzed.analysis
    plain = Data([{"text": "the dog"}], word_tokenizer(tmp_path)).inputs(analyzed.original)
    with pytest.raises(UsageError, match="needs labels"):
        filter_candidates(model, analysis, selection(CANDIDATES), plain, FilterOptions(metric="accuracy"))
    with pytest.raises(UsageError, match="needs data"):
        filter_candidates(model, analysis, selection(CANDIDATES), None)
    with pytest.raises(UsageError, match="needs data"):
        prune_graph(
            tmp_path / "none.onnx", Amount({"head": 0.5}, filtering=FilterOptions())
        )  # before the model is read
    with pytest.raises(UsageError, match="no head is to be removed"):
        filter_candidates(model, analysis, Selection({}), plain)


def test_query_heads_go_from_all_groups_at_once() -> None:
    """Every KV group keeps as many query heads: a candidate takes one of each, and harm is told for all of them."""
    analyzed = load_and_analyze(load_skeleton("zoo_llama"))
    slots = next(group for group in analyzed.analysis.groups if group.kind == "query_head")
    mask = np.array([[True, False, True, False], [False, True, True, False]])
    assert slots.shape == mask.shape
    metric = Counting()
    options = FilterOptions(tolerance=13 / 16, metric=metric)
    model, analysis = analyzed.normalized.model, analyzed.analysis
    filtered = filter_candidates(model, analysis, Selection({slots.id: mask}), None, options)
    assert [unit for unit, _ in filtered.candidates] == [(slots.id, 0), (slots.id, 1)]
    assert filtered.removed == ((slots.id, 0),) and (filtered.before, filtered.after) == (16, 14)
    assert filtered.ratio == 2 / 8
    expected = np.array([[True, False, True, True], [False, True, True, True]])
    np.testing.assert_array_equal(filtered.selection.keep[slots.id], expected)


def test_heads_of_a_decoder_go_until_its_perplexity_rises_too_far() -> None:
    """What filtering saw with head masks is what evaluation measures of the original, and of the masked original."""
    analyzed = load_and_analyze(load_skeleton("zoo_llama"))
    model, analysis = analyzed.normalized.model, analyzed.analysis
    slots = next(group for group in analysis.groups if group.kind == "query_head")
    ids = np.random.default_rng(0).integers(0, 16, (24, 1))
    with open_session(widened(model)) as session:  # tokens that the whole model expects
        for _ in range(8):
            logits = run(session, {"input_ids": ids, "attention_mask": np.ones_like(ids)})[0]
            ids = np.concatenate([ids, logits[:, -1:].argmax(-1)], axis=1)
    inputs = Data({"input_ids": ids, "attention_mask": np.ones_like(ids)}, batch_size=7).inputs(analyzed.original)
    candidates = Selection({slots.id: np.array([[True, False, False, False]] * 2)})
    options = FilterOptions(tolerance=0.0, metric="perplexity")
    every = filter_candidates(model, analysis, candidates, inputs, options)
    values = dict(every.candidates)
    assert [values[unit] for unit in every.removed] == sorted(values.values())  # the least harmful first
    assert len(every.removed) == 3 and every.before < every.after
    second = sorted(values.values())[1]
    few = FilterOptions(tolerance=every.before / second, metric="perplexity", policy="skip")
    filtered = filter_candidates(model, analysis, candidates, inputs, few)
    assert 0 < len(filtered.removed) and filtered.after <= filtered.before / few.tolerance * (1 + 1e-9)
    without = masked(model, analysis.solution, filtered.selection.keeps(analysis.groups))
    scores = evaluate_models({"whole": model, "masked": without}, inputs, "perplexity").scores
    assert (filtered.before, filtered.after) == pytest.approx([score.value for score in scores], rel=1e-5)


def test_all_heads_of_a_layer_may_go(tmp_path: Path) -> None:
    rows = [{"text": "the dog saw the cat"}]
    result = prune_graph(
        shifting(SHIFTS),
        Amount({"head": 2 / 3}, layer_threshold=0.5, filtering=FilterOptions(tolerance=0.0)),
        data=Data(rows, word_tokenizer(tmp_path)),
        after=Repair("none"),
    )
    assert result.filtered is not None and len(result.filtered.removed) == 6
    assert {group.after for group in result.report.groups} == {0}
    assert result.report.verify is not None and result.report.verify.ok


@pytest.mark.parametrize(
    ("name", "message"), [("gpu", "unknown execution provider 'gpu'"), ("dnnl", "dnnl is not in this onnxruntime")]
)
def test_providers_that_are_not_there(name: str, message: str, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=message):  # before the model is read
        prune_graph(tmp_path / "none.onnx", data=Data([{"text": "x"}], word_tokenizer(tmp_path), providers=[name]))


def test_data_run_on_the_providers_asked_for(tmp_path: Path) -> None:
    data = Data([{"text": "the dog"}], word_tokenizer(tmp_path), providers=["CPU", "CPUExecutionProvider"])
    assert data.opened().inputs(load_and_analyze(shifting(SHIFTS)).original).providers == ("CPUExecutionProvider",)
