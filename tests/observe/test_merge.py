"""The law of merging: two parts of the data, gathered apart and merged, are one pass over both."""

from __future__ import annotations

import ast
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

import prunegraph
from prunegraph.analyzed import Analyzed, load_and_analyze
from prunegraph.errors import UsageError
from prunegraph.observe import run_batches
from prunegraph.observe.attention_sites import ObservedValue
from prunegraph.observe.moments import Moments
from prunegraph.observe.stream import Data, Inputs, observe
from prunegraph.observe.text import Batch
from prunegraph.observe.with_outputs import with_outputs
from prunegraph.passes.repair.statistics import Gram
from prunegraph.passes.rotate.groups import places
from prunegraph.passes.rotate.moments import HeadMoments
from prunegraph.passes.rotate.sites import Turn, sites
from prunegraph.passes.rotate.turn_stream import StreamMoments
from prunegraph.passes.score import Context, make_scorer
from prunegraph.passes.score.head_mask_gradients import HeadMaskGradients
from prunegraph.passes.score.qk_scores import QkScores
from prunegraph.passes.score.relations import RelationAttention
from prunegraph.passes.score.signature import Signatures
from prunegraph.passes.score.taylor import WeightGradients
from prunegraph.runtime import blocks
from prunegraph.runtime.blocks import bytes_of_weights
from prunegraph.runtime.session import open_session, run
from tests.graphs.text import SENTENCES, conllu, shifting, word_tokenizer

SAMPLES, FIRST = 40, 32
"""All samples, and those of the first part."""

Make = Callable[[Analyzed, Inputs], Any]


def of_scorer(name: str, kind: str, *, gradients: bool = False) -> Make:
    def make(analyzed: Analyzed, inputs: Inputs) -> Any:
        groups = [group for group in analyzed.analysis.groups if group.kind == kind]
        scorer, context = make_scorer(name), Context(analyzed.normalized.model, analyzed.analysis)
        (statistic,) = (scorer.gradients if gradients else scorer.observes)(groups, context, inputs).values()
        return statistic

    return make


def head_moments(analyzed: Analyzed, _: Inputs) -> HeadMoments:
    turns = [turn for turn in sites(analyzed.normalized.model.graph, analyzed.analysis) if isinstance(turn, Turn)]
    assert turns
    return HeadMoments(places(turns))


def stream_moments(analyzed: Analyzed, inputs: Inputs) -> StreamMoments:
    """Of one value as if a norm read it: no residual stream of this model can be turned."""
    ((name, axis), *_) = of_scorer("activation", "v_dim")(analyzed, inputs).places
    group = SimpleNamespace(id="hidden.0", units=analyzed.analysis.solution.facts.shapes[name][axis][0])
    return StreamMoments([SimpleNamespace(group=group, norms=[SimpleNamespace(x=name)], centred=True)])  # type: ignore[list-item]


STATISTICS: dict[type, Make] = {
    Moments: of_scorer("activation", "v_dim"),
    Gram: of_scorer("obs", "v_dim"),
    HeadMoments: head_moments,
    StreamMoments: stream_moments,
    QkScores: of_scorer("snp", "qk_dim"),
    Signatures: of_scorer("cahp", "head"),
    RelationAttention: of_scorer("sap", "head"),
    WeightGradients: of_scorer("taylor", "v_dim", gradients=True),
    HeadMaskGradients: of_scorer("cahp", "head", gradients=True),
}


class Observed:
    """A small text model, its data, and what every batch made of them."""

    def __init__(self, folder: Path) -> None:
        sentences = (SENTENCES * SAMPLES)[:SAMPLES]
        path = folder / "trees.conllu"
        path.write_text(conllu(sentences))
        self.found = load_and_analyze(shifting([[1, 0, 3], [-2, 0, 3]]))
        self.inputs = Data(path, word_tokenizer(folder), batch_size=8).inputs(self.found.original)
        self.batches: list[Batch] = list(self.inputs.batches())
        self.values: list[dict[str, Any]] = []
        self.weights = {
            name: value.const_value.numpy()
            for name, value in self.found.normalized.model.graph.initializers.items()
            if value.const_value is not None
        }

    def run(self, values: Any, names: list[str]) -> list[Mapping[str, Any]]:
        with open_session(with_outputs(self.found.normalized.model, values)) as session:
            return [
                dict(zip(names, run(session, batch.feeds, names), strict=True)) if names else {}
                for batch in self.batches
            ]

    def given(self, statistic: Any) -> list[Mapping[str, Any]]:
        """What the statistic is given of every batch; gradients are random."""
        if not hasattr(statistic, "activations"):
            inner = statistic.observed_values()
            return self.run(inner, [each.value for each in inner])
        names = list(statistic.activations())
        rng = np.random.default_rng(0)
        pairs = []
        for values in self.run([ObservedValue(name) for name in names], names):
            both = {**values, **{name: self.weights[name] for name in statistic.weights()}}
            pairs.append({name: (array, rng.normal(size=array.shape)) for name, array in both.items()})
        return pairs


@pytest.fixture(scope="module")
def observed(tmp_path_factory: pytest.TempPathFactory) -> Observed:
    return Observed(tmp_path_factory.mktemp("merge"))


@pytest.mark.parametrize("kind", STATISTICS, ids=lambda kind: kind.__name__)
def test_two_parts_merged_are_one_pass(kind: type, observed: Observed) -> None:
    whole, first, second = (STATISTICS[kind](observed.found, observed.inputs) for _ in range(3))
    assert isinstance(whole, kind)
    if isinstance(second, Gram):
        second.before = FIRST
    count = 0
    for batch, values in zip(observed.batches, observed.given(whole), strict=True):
        whole.update(batch, values)
        (first if count < FIRST else second).update(batch, values)
        count += len(batch.samples)
    counted = kind is RelationAttention  # its state is a result, which nothing can be added to
    alone = {} if counted else {name: np.array(array) for name, array in first.state().items()}
    first.merge(second)
    expected, merged = whole.state(), first.state()
    assert merged.keys() == expected.keys()
    for name, array in expected.items():
        if array.dtype.kind == "f":
            np.testing.assert_allclose(merged[name], array, rtol=1e-9, atol=1e-9 * np.abs(array).max(initial=0))
        else:
            np.testing.assert_array_equal(merged[name], array)
    assert counted or any(not np.allclose(alone[name], expected[name], rtol=1e-3) for name in expected)


@pytest.mark.parametrize("kind", [kind for kind in STATISTICS if "Gradients" not in kind.__name__])
def test_by_blocks_statistics_gather_what_they_gather_of_the_whole(
    kind: type, observed: Observed, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole, by_blocks, also = (STATISTICS[kind](observed.found, observed.inputs) for _ in range(3))
    moments = STATISTICS[Moments](observed.found, observed.inputs)
    model = observed.found.normalized.model
    observe(model, observed.inputs, [whole])
    monkeypatch.setattr(run_batches, "BYTES_RUN_WHOLE", 0)
    monkeypatch.setattr(blocks, "BYTES_A_BLOCK", bytes_of_weights(model.graph) // 4)
    parts: list[int] = []
    update = Moments.update
    monkeypatch.setattr(Moments, "update", lambda *arguments: parts.append(1) or update(*arguments))
    samples: list[int] = []
    observe(model, observed.inputs, [by_blocks], progress=samples.append)
    assert samples[-1] == SAMPLES
    assert kind is not Moments or len(parts) > len(observed.batches)
    observe(model, observed.inputs, [also, moments])
    for each in (by_blocks, also):
        assert_alike(each, whole)


def assert_alike(statistic: Any, expected: Any) -> None:
    """Equal to the rounding of float32."""
    state = statistic.state()
    for name, array in expected.state().items():
        if array.dtype.kind == "f":
            np.testing.assert_allclose(state[name], array, rtol=1e-4, atol=1e-5 * np.abs(array).max(initial=0))
        else:
            np.testing.assert_array_equal(state[name], array)


@pytest.mark.parametrize("kind", [kind for kind in STATISTICS if "Gradients" not in kind.__name__])
def test_parts_gathered_by_jobs_are_one_pass(kind: type, observed: Observed) -> None:
    """Batches shared out among jobs, here one after the other; see below for some at a time."""
    joblib = pytest.importorskip("joblib")
    whole, parts = (STATISTICS[kind](observed.found, observed.inputs) for _ in range(2))
    model = observed.found.normalized.model
    observe(model, observed.inputs, [whole])
    progress: list[int] = []
    with joblib.parallel_config(backend="threading", n_jobs=2):
        observe(model, replace(observed.inputs, jobs=None), [parts], progress=progress.append)
    assert progress == [24, SAMPLES]
    assert_alike(parts, whole)


@pytest.mark.slow
def test_a_dask_cluster_gathers_the_parts(observed: Observed) -> None:
    joblib = pytest.importorskip("joblib")
    distributed = pytest.importorskip("distributed", reason="dask.distributed is not installed")
    whole, parts = (STATISTICS[Moments](observed.found, observed.inputs) for _ in range(2))
    model = observed.found.normalized.model
    observe(model, observed.inputs, [whole])
    progress: list[int] = []
    with distributed.Client(processes=False, n_workers=2, threads_per_worker=1, dashboard_address=None):
        with joblib.parallel_config(backend="dask"):
            observe(model, replace(observed.inputs, jobs=None), [parts], progress=progress.append)
    assert len(progress) == 2
    assert_alike(parts, whole)


def test_every_statistic_is_in_the_table() -> None:
    """Whatever has a state that is restored, in the whole package."""
    classes = set()
    for path in Path(prunegraph.__file__).parent.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.ClassDef) and not any("Protocol" in ast.unparse(base) for base in node.bases):
                names = {each.name for each in node.body if isinstance(each, ast.FunctionDef)}
                if {"update", "state", "restore"} <= names:
                    classes.add(node.name)
    assert classes == {kind.__name__ for kind in STATISTICS}


def test_what_merging_would_get_wrong_is_refused(observed: Observed) -> None:
    for kind, message in (
        (HeadMaskGradients, "cannot be merged"),
        (RelationAttention, "were counted cannot be merged"),
        (Signatures, "more than 1 classes"),
    ):
        first, second = (STATISTICS[kind](observed.found, observed.inputs) for _ in range(2))
        batch, values = observed.batches[0], observed.given(first)[0]
        first.update(batch, values)
        if kind is RelationAttention:
            first.finish()
        if kind is Signatures:
            second.update(batch, values)
            first._limit = second._limit = 1
            first.labels, second.labels = [0], [1]
        with pytest.raises(UsageError, match=message):
            first.merge(second)
