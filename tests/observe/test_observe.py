"""Observation: attention is found whoever wrote the graph, a gate is a mask, one pass serves all and keeps nothing."""

from __future__ import annotations

import gc
import weakref
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnx_ir as ir
import pytest

from prunegraph.analysis.groups import Group
from prunegraph.analysis.selection import Selection
from prunegraph.analyzed import Analyzed, load_and_analyze
from prunegraph.errors import UsageError
from prunegraph.observe.attention_sites import HEAD_KINDS, ObservedValue, attentions, consumers
from prunegraph.observe.head_mask import NAME, HeadMaskSession, head_mask_of, no_head_masked, with_head_mask
from prunegraph.observe.moments import Moments
from prunegraph.observe.stream import Data, observe
from prunegraph.observe.text import Batch
from prunegraph.observe.with_outputs import with_outputs
from prunegraph.passes.prove.mask import masked
from prunegraph.runtime.feeds import Feeds, random_feeds
from prunegraph.runtime.inputs import input_specs
from prunegraph.runtime.session import open_session, run
from prunegraph.runtime.trial_sizes import size_plans
from prunegraph.runtime.widen import widened, widened_feeds
from tests.graphs import attention as graphs_attention
from tests.graphs import fused as graphs_fused
from tests.graphs import heads as graphs_heads
from tests.graphs.skeleton import load_skeleton
from tests.graphs.text import SENTENCES, conllu, shifting, word_tokenizer

SMALL: list[Callable[[], onnx.ModelProto]] = [
    graphs_attention.mha,
    graphs_attention.packed_3hd,
    graphs_attention.packed_h_3d,
    graphs_attention.rope_half,
    graphs_attention.gqa,
    graphs_attention.mqa,
    graphs_attention.bias_table,
    graphs_attention.cross_attention,
    graphs_heads.einsum_attention,
    graphs_fused.onnx_attention,
    graphs_fused.onnx_attention_4d,
    graphs_fused.onnx_attention_gqa,
    graphs_fused.multi_head_cross,
    graphs_fused.microsoft_rotary,
    graphs_fused.group_query,
]
EXPORTS = ["zoo_gpt2", "zoo_llama", "zoo_llama_legacy", "zoo_bert_legacy", "zoo_albert", "zoo_t5", "zoo_distilbert"]


def feeds_for(analyzed: Analyzed, batch: int = 2, row: int = 9) -> Feeds:
    specs = input_specs(analyzed.normalized.model.graph)
    (sizes,) = next(iter(size_plans(specs, ({"batch": batch, "row": row},))))
    return widened_feeds(random_feeds(specs, sizes, 0))


def by_heads(array: np.ndarray, heads: int, width: int) -> np.ndarray:
    """`[batch, heads, positions, width]` of either layout."""
    if array.ndim == 4:
        return array
    return array.reshape(*array.shape[:2], -1, width).transpose(0, 2, 1, 3)


@pytest.mark.parametrize("make", SMALL, ids=lambda make: make.__name__)
def test_probabilities_times_values_are_the_context(make: Callable[[], onnx.ModelProto]) -> None:
    """What is found as probabilities, values and context is just that, also where an op computes it inside."""
    analyzed = load_and_analyze(make())
    model = analyzed.normalized.model
    (site,) = attentions(model, analyzed.analysis)
    assert site.probabilities is not None
    assert {group.id for group in analyzed.analysis.groups if group.kind in HEAD_KINDS} == set(site.units)
    names = [site.probabilities.value, site.v, site.context]
    with open_session(
        with_outputs(widened(model), [site.probabilities, ObservedValue(site.v), ObservedValue(site.context)])
    ) as session:
        values = dict(zip(names, run(session, feeds_for(analyzed), names), strict=True))
    maps, context = site.maps(values), values[site.context]
    if make is graphs_heads.einsum_attention:
        context = np.einsum("bhqk,bkhd->bqhd", maps, values[site.v])
        np.testing.assert_allclose(values[site.context], context, atol=1e-5)
        return
    context = by_heads(context, site.heads, context.shape[-1] // site.heads)
    v = by_heads(values[site.v], site.heads, context.shape[-1])
    np.testing.assert_allclose(maps.sum(axis=-1), 1, atol=1e-5)
    np.testing.assert_allclose(maps @ np.repeat(v, site.heads // v.shape[1], axis=1), context, atol=1e-5)


def half_of(group: Group, rng: np.random.Generator) -> np.ndarray:
    keep = np.argsort(rng.random(group.shape), axis=-1) < max(1, group.units // 2)
    return np.asarray(keep)


GATED = [make.__name__ for make in SMALL if make is not graphs_fused.onnx_attention_4d]  # that one puts out scores too


@pytest.mark.slow
@pytest.mark.parametrize("name", [*EXPORTS, *GATED])
def test_a_closed_gate_is_a_mask(name: str) -> None:
    """Ones change nothing; zeros do what the oracle of verify does."""
    small = {make.__name__: make for make in SMALL}
    analyzed = load_and_analyze(small[name]() if name in small else load_skeleton(name))
    wide, analysis = widened(analyzed.normalized.model), analyzed.analysis
    twin, sites = with_head_mask(wide, analysis)
    feeds, rng = feeds_for(analyzed), np.random.default_rng(0)
    there = {group for site in sites for group in site.units}
    keep = {group.id: half_of(group, rng) for group in analysis.groups if group.id in there}
    mask = masked(wide, analysis.solution, Selection(keep).keeps(analysis.groups))
    with open_session(twin) as session, open_session(wide) as whole, open_session(mask) as oracle:
        assert NAME not in [value.name for value in HeadMaskSession(session, no_head_masked(sites)).get_inputs()]
        plain = HeadMaskSession(session, no_head_masked(sites)).run(None, feeds)
        closed = HeadMaskSession(session, head_mask_of(sites, keep)).run(None, feeds)
        original, expected = run(whole, feeds), run(oracle, feeds)
    for a, b, c, d in zip(plain, original, closed, expected, strict=True):
        np.testing.assert_allclose(a, b, atol=1e-5)
        np.testing.assert_allclose(c, d, atol=1e-5)
    assert max(float(np.abs(a - c).max()) for a, c in zip(plain, closed, strict=True)) > 1e-3


def test_layers_that_share_heads_share_their_units() -> None:
    analyzed = load_and_analyze(load_skeleton("zoo_albert"))
    sites = attentions(analyzed.normalized.model, analyzed.analysis)
    assert [sorted(site.units) for site in sites] == [["head.0"]] * 2


# ---- the pass ------------------------------------------------------------------------------------------------------


class Watcher:
    """Remembers what it was shown."""

    def __init__(self, name: str, observed: Sequence[ObservedValue] = ()) -> None:
        self.key = name
        self._values = list(observed)
        self.samples: list[str] = []
        self.shown: list[tuple[str, ...]] = []

    def observed_values(self) -> Sequence[ObservedValue]:
        return self._values

    def update(self, batch: Batch, values: Mapping[str, np.ndarray]) -> None:
        self.samples += [sample.texts[0] for sample in batch.samples]
        self.shown.append(tuple(values))

    def state(self) -> dict[str, np.ndarray]:
        return {"samples": np.array(self.samples)}

    def restore(self, state: Mapping[str, np.ndarray]) -> None:
        self.samples = state["samples"].tolist()


def texts(folder: Path, count: int = 40) -> Path:
    path = folder / "texts.txt"
    rng = np.random.default_rng(0)
    words = ["the", "big", "dog", "saw", "it"]
    path.write_text("".join(" ".join(rng.choice(words, rng.integers(1, 9))) + "\n" for _ in range(count)))
    return path


def test_all_statistics_share_one_pass(tmp_path: Path) -> None:
    analyzed = load_and_analyze(shifting([[0, 1]]))
    inputs = Data(texts(tmp_path), word_tokenizer(tmp_path), batch_size=16).inputs(analyzed.original)
    (site,) = attentions(analyzed.normalized.model, analyzed.analysis)
    assert site.probabilities is not None
    one, none = Watcher("one", [site.probabilities]), Watcher("none")
    other = Watcher("other", [ObservedValue(site.q), site.probabilities])
    progress: list[int] = []
    observe(analyzed.normalized.model, inputs, [one, other, none], progress=progress.append)
    assert progress == [16, 32, 40]
    assert sorted(one.samples) == sorted((tmp_path / "texts.txt").read_text().splitlines())
    assert one.samples == other.samples == none.samples
    assert set(one.shown) == {(site.probabilities.value,)} and set(none.shown) == {()}
    assert set(other.shown) == {(site.q, site.probabilities.value)}


def test_what_was_seen_is_not_run_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    analyzed = load_and_analyze(shifting([[0, 1]]))
    model = analyzed.normalized.model
    inputs = Data(texts(tmp_path), word_tokenizer(tmp_path)).inputs(analyzed.original)
    first, other = Watcher("a"), Watcher("b")
    observe(model, inputs, [first], cache=tmp_path / "cache")
    again, runs = Watcher("a"), []
    observe(model, inputs, [again, other], cache=tmp_path / "cache", progress=runs.append)
    assert again.samples == first.samples and not again.shown and other.shown  # only what was new was run
    changed = Data(texts(tmp_path, 41), word_tokenizer(tmp_path)).inputs(analyzed.original)
    fresh = Watcher("a")
    observe(model, changed, [fresh], cache=tmp_path / "cache")
    assert fresh.shown
    weight = model.graph.initializers["w_v0"]
    assert weight.const_value is not None
    weight.const_value = ir.tensor(weight.const_value.numpy() * 2, name="w_v0")
    fresh = Watcher("a")
    observe(model, inputs, [fresh], cache=tmp_path / "cache")
    assert fresh.shown


@pytest.mark.parametrize("left", [False, True])
def test_padding_changes_no_statistic(left: bool, tmp_path: Path) -> None:
    """Batches of one have no padding; the numbers are the same."""
    analyzed = load_and_analyze(shifting([[0, 1], [1, -2]]))
    model, analysis = analyzed.normalized.model, analyzed.analysis
    (site, _) = attentions(model, analysis)
    ((joined, axis),) = consumers(model, analysis, analysis.group("head.1"))
    calls: list[Moments] = []
    for size in (1, 16):
        calibration = Data(texts(tmp_path), word_tokenizer(tmp_path, left=left), batch_size=size)
        moments = Moments([(site.context, 3), (joined, axis)])
        observe(model, calibration.inputs(analyzed.original), [moments])
        calls.append(moments)
    tokens = sum(len(line.split()) + 2 for line in (tmp_path / "texts.txt").read_text().splitlines())
    for value, heads in ((site.context, 2), (joined, 1)):
        assert calls[0].count[value] == calls[1].count[value] == tokens * heads
        np.testing.assert_allclose(calls[0].sums[value], calls[1].sums[value], rtol=1e-4, atol=1e-2)
        np.testing.assert_allclose(calls[0].squares[value], calls[1].squares[value], rtol=1e-4, atol=1e-2)


def test_hidden_activations_are_found() -> None:
    analyzed = load_and_analyze(load_skeleton("zoo_distilbert"))
    groups = {group.id: group for group in analyzed.analysis.groups}
    shapes = analyzed.normalized.facts.shapes
    for kind in ("ffn.0", "ffn.1"):
        ((name, axis),) = consumers(analyzed.normalized.model, analyzed.analysis, groups[kind])
        assert shapes[name][axis][0] == groups[kind].units
    ((name, axis),) = consumers(analyzed.normalized.model, analyzed.analysis, groups["v_dim.0"])
    assert shapes[name][axis][0] == groups["v_dim.0"].units * groups["head.0"].units


def of_fixed_size(rows: int, tokens: int) -> onnx.ModelProto:
    model = shifting([[0, 1]])
    for value in model.graph.input:
        for dim, length in zip(value.type.tensor_type.shape.dim, (rows, tokens), strict=True):
            dim.ClearField("dim_param")
            dim.dim_value = length
    for dim in model.graph.output[0].type.tensor_type.shape.dim[:1]:
        dim.ClearField("dim_param")
        dim.dim_value = rows
    return model


def test_fixed_sizes_are_filled_up(tmp_path: Path) -> None:
    """A model of four rows of twelve tokens: the last batch is filled up, and what fills it does not count."""
    model = of_fixed_size(4, 12)
    path = tmp_path / "trees.conllu"
    path.write_text(conllu(SENTENCES * 2))
    analyzed = load_and_analyze(model)
    watcher = Watcher("all")
    observe(analyzed.normalized.model, Data(path, word_tokenizer(tmp_path)).inputs(analyzed.original), [watcher])
    assert sorted(watcher.samples) == sorted([text for text, _ in SENTENCES] * 2)


@pytest.mark.parametrize(("rows", "tokens", "what"), [(1 << 20, 12, "examples"), (4, 1 << 20, "tokens")])
def test_sizes_that_a_file_states_are_not_filled_up_without_end(
    rows: int, tokens: int, what: str, tmp_path: Path
) -> None:
    (tmp_path / "trees.conllu").write_text(conllu(SENTENCES))
    inputs = Data(tmp_path / "trees.conllu", word_tokenizer(tmp_path)).inputs(
        ir.from_proto(of_fixed_size(rows, tokens))
    )
    with pytest.raises(UsageError, match=f"exactly 1,048,576 {what}") as caught:
        next(iter(inputs.batches()))
    assert "dynamic dim" in caught.value.hint


@pytest.mark.slow
def test_memory_does_not_grow_with_the_data(tmp_path: Path) -> None:
    """Every batch lets go of the last one's maps."""
    analyzed = load_and_analyze(shifting([[0, 1]]))
    (site,) = attentions(analyzed.normalized.model, analyzed.analysis)
    assert site.probabilities is not None
    alive: list[int] = []
    maps: list[Any] = []

    class Counting(Watcher):
        def update(self, batch: Batch, values: Mapping[str, np.ndarray]) -> None:
            super().update(batch, values)
            gc.collect()
            alive.append(sum(reference() is not None for reference in maps))
            maps.extend(weakref.ref(array) for array in values.values())

    inputs = Data(texts(tmp_path, 24), word_tokenizer(tmp_path), batch_size=4).inputs(analyzed.original)
    gc.collect()
    gc.freeze()  # what is there from other tests is not looked at in every batch
    observe(analyzed.normalized.model, inputs, [Counting("count", [site.probabilities])])
    assert len(alive) == 6 and max(alive) == 0
