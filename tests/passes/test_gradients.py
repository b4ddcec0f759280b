"""Gradient scorers against autograd on the same model written in torch, and finite differences against both."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import prunegraph.pipeline
from prunegraph import Amount, Repair, prune_graph
from prunegraph.analyzed import Analyzed, load_and_analyze
from prunegraph.errors import MissingExtra, ModelError, UsageError
from prunegraph.observe.gradients import Objective
from prunegraph.observe.stream import Data, Inputs
from prunegraph.passes.score import Context, Michel, Scorer, Taylor, make_scorer, observe_for, score_with
from prunegraph.passes.score.differentiate import HOW
from prunegraph.passes.score.head_mask_gradients import BATCH, HeadMaskGradients
from prunegraph.passes.score.michel import OBSERVATION
from tests.graphs.text import word_tokenizer
from tests.train.tiny_classifier import HEAD_DIM, Tiny, texts

torch = pytest.importorskip("torch")

from prunegraph.torch_twin.backward import backward  # noqa: E402

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("own_cache", "one_torch_thread")]

COUNT = 70


def given(tiny: Tiny, folder: Path, **settings: Any) -> tuple[Analyzed, Inputs]:
    analyzed = load_and_analyze(tiny.onnx())
    return analyzed, Data(texts(COUNT, **settings), word_tokenizer(folder)).inputs(analyzed.original)


def by_autograd(tiny: Tiny, inputs: Inputs, labels: bool = True) -> tuple[np.ndarray, list[dict[str, np.ndarray]]]:
    """HeadMask gradients `[examples, layers, heads]`, and of every batch's mean loss weight times gradient."""
    gates, products = [], []
    for batch in inputs.batches():
        weights = {name: torch.tensor(array, requires_grad=True) for name, array in tiny.weights.items()}
        gate = torch.ones(tiny.layers, tiny.heads, requires_grad=True)
        logits = tiny.logits(batch.feeds, weights, gate)
        targets = torch.tensor([s.label for s in batch.samples]) if labels else logits.argmax(-1)
        losses = torch.nn.functional.cross_entropy(logits, targets, reduction="none")
        gates += [torch.autograd.grad(loss, gate, retain_graph=True)[0].numpy() for loss in losses]
        gradients = torch.autograd.grad(losses.mean(), list(weights.values()))
        products.append({n: (w * g).detach().numpy() for (n, w), g in zip(weights.items(), gradients, strict=True)})
    return np.array(gates), products


@pytest.mark.parametrize("labels", [True, False], ids=["labels", "own predictions"])
def test_gate_gradients_are_those_of_autograd(tmp_path: Path, labels: bool) -> None:
    """Michel's score and CAHP's salience, both from one statistic."""
    tiny = Tiny()
    analyzed, inputs = given(tiny, tmp_path, labels=labels)
    heads = [group for group in analyzed.analysis.groups if group.kind == "head"]
    context = Context(analyzed.normalized.model, analyzed.analysis)
    context = observe_for({Michel(): heads}, context, inputs, backward=backward)
    assert context.of(Michel()).observations[HOW].to_dict() == {
        "gradients": "backward pass",
        "targets": "labels" if labels else "the model's own predictions",
        "labels_read": labels,
    }
    expected, _ = by_autograd(tiny, inputs, labels)
    size = np.abs(expected).mean(axis=0)
    scores = score_with("michel", heads, context)
    gradients: HeadMaskGradients = context.of(Michel()).observations[OBSERVATION]
    starts = range(0, COUNT, BATCH)
    batches = np.mean([np.abs(expected[s : s + BATCH].mean(axis=0)) for s in starts], axis=0)
    for layer, group in enumerate(heads):
        np.testing.assert_allclose(scores[group.id], size[layer] / np.linalg.norm(size[layer]), rtol=1e-4)
        np.testing.assert_allclose(gradients.by_batch(group.id), batches[layer], rtol=1e-3, atol=1e-7)


def test_finite_differences_agree_with_autograd(tmp_path: Path) -> None:
    tiny = Tiny()
    analyzed, inputs = given(tiny, tmp_path)
    heads = [group for group in analyzed.analysis.groups if group.kind == "head"]
    context = Context(analyzed.normalized.model, analyzed.analysis)
    context = observe_for({Michel(): heads}, context, inputs, backward=None)
    assert context.of(Michel()).observations[HOW].method == "finite differences"
    size = np.abs(by_autograd(tiny, inputs)[0]).mean(axis=0)
    gradients: HeadMaskGradients = context.of(Michel()).observations[OBSERVATION]
    for layer, group in enumerate(heads):
        np.testing.assert_allclose(gradients.by_example(group.id), size[layer], rtol=1e-3, atol=1e-5)


def test_heads_that_share_keys_have_one_gate(tmp_path: Path) -> None:
    """The gradient of a KV group's gate is the sum over its heads, before the absolute value."""
    tiny = Tiny(heads=4, shared=2)
    analyzed, inputs = given(tiny, tmp_path)
    groups = [group for group in analyzed.analysis.groups if group.kind in ("kv_group", "query_head")]
    assert {group.kind for group in groups} == {"kv_group", "query_head"}
    context = Context(analyzed.normalized.model, analyzed.analysis)
    gradients: HeadMaskGradients = (
        observe_for({Michel(): groups}, context, inputs, backward=backward).of(Michel()).observations[OBSERVATION]
    )
    each = by_autograd(tiny, inputs)[0].reshape(COUNT, 2, 2, 2)  # layers, KV groups, slots
    for group in groups:
        layer = [g.id for g in groups if g.kind == group.kind].index(group.id)
        of_class = each[:, layer]
        expected = (
            of_class.sum(axis=2) if group.kind == "kv_group" else of_class if group.rows else of_class.sum(axis=1)
        )
        np.testing.assert_allclose(gradients.by_example(group.id), np.abs(expected).mean(axis=0), rtol=1e-4)


@pytest.mark.parametrize("off", [torch.no_grad, torch.inference_mode])
@pytest.mark.parametrize("scorer", [Taylor(), Michel()])
def test_gradients_do_not_depend_on_what_is_switched_off_around(tmp_path: Path, scorer: Scorer, off: Any) -> None:
    """Neither an error nor, for heads, finite differences instead."""
    analyzed, inputs = given(Tiny(), tmp_path)
    heads = [group for group in analyzed.analysis.groups if group.kind == "head"]
    plain = Context(analyzed.normalized.model, analyzed.analysis)
    expected = observe_for({scorer: heads}, plain, inputs, backward=backward)
    with off():
        context = observe_for({scorer: heads}, plain, inputs, backward=backward)
        assert torch.is_grad_enabled() is False
    assert context.of(scorer).observations[HOW].method == "backward pass"
    for name, scores in score_with(scorer, heads, expected).items():
        np.testing.assert_array_equal(score_with(scorer, heads, context)[name], scores)


@pytest.mark.parametrize("labels", [True, False], ids=["labels", "own predictions"])
def test_taylor_is_that_of_autograd(tmp_path: Path, labels: bool) -> None:
    """Columns of Q, K and V and rows of the output projection for a head; column, bias and row for an FFN neuron."""
    tiny = Tiny()
    analyzed, inputs = given(tiny, tmp_path, labels=labels)
    groups = [group for group in analyzed.analysis.groups if group.kind in ("head", "ffn")]
    context = observe_for(
        {Taylor(): groups}, Context(analyzed.normalized.model, analyzed.analysis), inputs, backward=backward
    )
    scores = score_with("taylor", groups, context)
    report = Taylor().report(context.of(Taylor()))
    assert report.facts["labels_read"] == labels
    assert ("the labels of the data were read" if labels else "no labels were read") in report.lines[0]
    _, products = by_autograd(tiny, inputs, labels)
    for group in groups:
        k = [g.id for g in groups if g.kind == group.kind].index(group.id)
        sums = []
        for each in products:
            if group.kind == "head":
                wide = sum(each[f"{part}{k}"].reshape(-1, tiny.heads, HEAD_DIM).sum(axis=(0, 2)) for part in "qkv")
                sums.append(wide + each[f"o{k}"].reshape(tiny.heads, -1).sum(axis=1))
            else:
                sums.append(each[f"up{k}"].sum(axis=0) + each[f"bias{k}"] + each[f"down{k}"].sum(axis=1))
        np.testing.assert_allclose(scores[group.id], np.abs(sums).mean(axis=0), rtol=1e-3, atol=1e-6)


def test_without_torch(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Heads go by finite differences, and the report says so; the rest needs torch."""
    folder, model = word_tokenizer(tmp_path), Tiny().onnx()
    with_torch = prune_graph(model, {"head": 0.5}, scorer="michel", data=Data(texts(40), folder), after=Repair("none"))
    monkeypatch.setattr(prunegraph.pipeline, "gradients", lambda: None)
    without = prune_graph(model, {"head": 0.5}, scorer="michel", data=Data(texts(40), folder), after=Repair("none"))
    methods = [r.report.to_dict()["scorers"]["michel"]["gradients"] for r in (with_torch, without)]
    assert methods == ["backward pass", "finite differences"]
    assert {n: m.tolist() for n, m in with_torch.selection.keep.items()} == {
        n: m.tolist() for n, m in without.selection.keep.items()
    }
    with pytest.raises(MissingExtra) as error:
        prune_graph(model, 0.5, scorer="taylor", data=Data(texts(40), folder))
    assert "prunegraph[torch]" in error.value.hint


def test_the_second_run_reads_the_cache(tmp_path: Path) -> None:
    analyzed, inputs = given(Tiny(), tmp_path)
    heads = [group for group in analyzed.analysis.groups if group.kind == "head"]
    context = Context(analyzed.normalized.model, analyzed.analysis)
    cache = tmp_path / "cache"
    first = observe_for({Michel(): heads, Taylor(): heads}, context, inputs, cache=cache, backward=backward)

    def fails(*_: Any) -> None:
        raise AssertionError

    second = observe_for({Michel(): heads, Taylor(): heads}, context, inputs, cache=cache, backward=fails)
    for scorer in ("michel", "taylor"):
        one, two = (score_with(scorer, heads, each) for each in (first, second))
        assert all(np.array_equal(one[name], two[name]) for name in one)


def test_losses_of_tokens_count_once_an_example(tmp_path: Path) -> None:
    """A language model's loss is the mean over tokens that are no padding, towards its own argmax."""
    _, inputs = given(Tiny(), tmp_path)
    batch = next(iter(inputs.batches()))
    assert batch.mask is not None
    logits = np.random.default_rng(0).normal(size=(*batch.mask.shape, 5)).astype(np.float32)
    objective = Objective("y", labelled=False)
    classes, weights = objective.targets(batch, logits)
    np.testing.assert_allclose(weights.sum(axis=1), 1, rtol=1e-6)
    assert (weights[~batch.mask] == 0).all() and (classes == logits.argmax(-1)).all()
    each = torch.nn.functional.cross_entropy(
        torch.tensor(logits).flatten(0, 1), torch.tensor(classes).flatten(), reduction="none"
    )
    expected = (each.numpy().reshape(weights.shape) * batch.mask).sum(1) / batch.mask.sum(1)
    np.testing.assert_allclose(objective.losses(batch, logits), expected, rtol=1e-5)


@pytest.mark.parametrize(
    ("rows", "options", "what"),
    [
        ([{"text": "the dog", "label": 7}], {}, "label 7 is no class"),
        ([{"text": "the dog", "label": 1}], {"output": "nowhere"}, "no output 'nowhere'"),
        ([{"text": "the dog", "label": 1}], {"steps": 3}, "no option 'steps'"),
    ],
)
def test_what_is_refused(tmp_path: Path, rows: list[dict[str, Any]], options: dict[str, Any], what: str) -> None:
    with pytest.raises(UsageError, match=what):
        prune_graph(
            Tiny().onnx(),
            {"head": 0.5},
            scorer=make_scorer("michel", options),
            data=Data(rows, word_tokenizer(tmp_path)),
        )


def test_a_model_that_torch_does_not_know_goes_by_differences(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """Head gates do; what needs gradients of weights says why not."""
    analyzed, inputs = given(Tiny(layers=1), tmp_path)
    heads = [group for group in analyzed.analysis.groups if group.kind == "head"]
    context = Context(analyzed.normalized.model, analyzed.analysis)

    def unknown(*_: Any) -> None:
        raise ModelError("there is no torch function for Mystery", hint="choose another scorer")

    with caplog.at_level(logging.WARNING):
        observed_context = observe_for({Michel(): heads}, context, inputs, backward=unknown)
    assert observed_context.of(Michel()).observations[HOW].method == "finite differences" and "Mystery" in caplog.text
    with pytest.raises(ModelError, match="Mystery"):
        observe_for({Taylor(): heads}, context, inputs, backward=unknown)


def test_taylor_ranks_all_layers_together_and_keeps_the_alignment(tmp_path: Path) -> None:
    data = Data(texts(40), word_tokenizer(tmp_path))
    free = prune_graph(Tiny().onnx(), {"ffn": 0.5}, scorer="taylor", data=data)
    assert sum(group.after for group in free.report.groups) == 8
    even = prune_graph(Tiny().onnx(), Amount({"ffn": 0.5}, align=4), scorer="taylor", data=data)
    assert all(group.after % 4 == 0 for group in even.report.groups)
