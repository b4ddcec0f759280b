"""CAHP from scores to a trained slim model: one head of each cluster, what the caller may say, and the report."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from typer.testing import CliRunner

from prunegraph import Data, PruneResult, Repair, prune_graph
from prunegraph.analyzed import load_and_analyze
from prunegraph.cli import app
from prunegraph.errors import PruneGraphError, UsageError
from prunegraph.passes.score import Cahp, make_scorer
from prunegraph.passes.score.complement import Chosen, choose
from prunegraph.passes.score.head_mask_gradients import HeadMaskGradients
from prunegraph.train.options import Finetune
from tests.graphs.text import word_tokenizer
from tests.passes.test_cahp import Shape, seen_of, site
from tests.train.tiny_classifier import CLASSES, Tiny, texts

torch = pytest.importorskip("torch")

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("own_cache", "one_torch_thread")]


def kept(result: PruneResult) -> list[int]:
    """Heads kept a layer."""
    groups = load_and_analyze(Tiny(heads=4, layers=3).onnx()).analysis.groups
    heads = [group for group in groups if group.kind == "head"]
    every = {group.id: np.ones(group.units, dtype=bool) for group in heads} | dict(result.selection.keep)
    return [int(every[group.id].sum()) for group in heads]


@pytest.fixture
def tiny(tmp_path: Path) -> dict[str, Any]:
    """Twelve heads in three layers, and sentences."""
    model = Tiny(heads=4, layers=3).onnx()
    return {
        "model": model,
        "scorer": "cahp",
        "data": Data(texts(96), word_tokenizer(tmp_path)),
        "after": Repair("none"),
    }


@pytest.mark.slow
def test_the_knee_decides_unless_the_caller_does(tiny: dict[str, Any]) -> None:
    """Nothing but heads goes unless it is asked for; a ratio of heads, one for all, and `keep` win over the knee."""
    free = prune_graph(**tiny)
    facts = free.report.to_dict()["scorers"]["cahp"]
    assert sum(kept(free)) == facts["kept"] == facts["knee"] + facts["returned"]
    assert {group.kind for group in free.report.groups} == {"head"} and min(kept(free)) >= 1
    assert sum(kept(prune_graph(**tiny, amount={"head": 0.5}))) == 6
    both = prune_graph(**tiny, amount=0.25)
    assert sum(kept(both)) == 9 and {group.kind for group in both.report.groups} >= {"head", "ffn"}
    assert sum(kept(prune_graph(**{**tiny, "scorer": Cahp(keep=5)}))) == 5
    beside = prune_graph(**tiny, amount={"ffn": 0.5})
    assert kept(beside) == kept(free) and {group.kind for group in beside.report.groups} == {"head", "ffn"}
    fewer = prune_graph(**{**tiny, "scorer": Cahp(degree=2, reducer="pca", representative="medoid")})
    assert sum(kept(fewer)) != sum(kept(free))


def test_the_report(tiny: dict[str, Any], tmp_path: Path) -> None:
    result = prune_graph(**{**tiny, "data": replace(tiny["data"], source=texts(96, labels=False))})
    facts = result.report.to_dict()["scorers"]["cahp"]
    assert facts["classes_from"] == facts["targets"] == "the model's own predictions"
    assert sum(facts["classes"].values()) == 96 and len(facts["heads"]) == 12
    assert sum(facts["michel_by_group"].values()) == facts["kept"] == sum(head["kept"] for head in facts["heads"])
    files = {path.name: path for path in result.write_report(tmp_path / "report")}
    figures = {"cahp-silhouette.png", "cahp-map.png", "cahp-layers.png", "heads.png", "where.png"}
    assert set(files) == {"report.html", "report.md", "report.json", *figures}
    assert all(path.read_bytes()[1:4] == b"PNG" for name, path in files.items() if name.endswith("png"))
    assert json.loads(files["report.json"].read_text())["scorers"]["cahp"]["knee"] == facts["knee"]


@pytest.mark.parametrize("reducer", ["tsne", "pca"])
def test_a_copy_of_a_head_goes_first(tmp_path: Path, reducer: str) -> None:
    """Two layers of four heads, two of each the same: six are distinct, and one of each stays."""
    model = Tiny(heads=4, layers=2, twins=((0, 0, 1), (1, 2, 3))).onnx()
    result = prune_graph(
        model,
        scorer=Cahp(keep=6, reducer=reducer),
        data=Data(texts(96), word_tokenizer(tmp_path)),
        after=Repair("none"),
    )
    first, second = (result.selection.keep[name] for name in sorted(result.selection.keep))
    assert first.tolist() in ([True, False, True, True], [False, True, True, True])
    assert second.tolist() in ([True, True, True, False], [True, True, False, True])


def test_query_heads_that_share_keys_go_together(tmp_path: Path) -> None:
    """KV groups are chosen, and their query heads stay unless the caller wants fewer."""
    model = Tiny(heads=8, shared=2, layers=2).onnx()
    arguments = {"data": Data(texts(64), word_tokenizer(tmp_path)), "after": Repair("none")}
    result = prune_graph(model, scorer="cahp", **arguments)
    assert {group.kind for group in result.report.groups} == {"kv_group"}
    slots = prune_graph(model, {"query_head": 0.5}, scorer={"query_head": "cahp"}, **arguments)
    assert {group.kind for group in slots.report.groups} == {"query_head"}


def by_hand(salience: list[float], owner: list[int], **settings: Any) -> Chosen:
    """Heads on a line, four well apart: 0 and 1, 2 and 3, 4, 5."""
    groups = [Shape(f"head.{k}", owner.count(k)) for k in sorted(set(owner))]
    felt = HeadMaskGradients.__new__(HeadMaskGradients)
    felt.shapes, felt.count = {g.id: g.shape for g in groups}, 32
    at = np.array(owner)
    felt.batches = {g.id: np.array(salience)[at == k] for k, g in enumerate(groups)}
    felt.examples, felt._waiting = felt.batches, {}
    statistic = seen_of(np.random.default_rng(6).random((6, len(owner), 3, 3)).astype(np.float32), [0, 1] * 3)
    statistic.shapes = felt.shapes
    return choose(
        statistic, felt, **{"degree": 2, "reducer": "pca", "seed": 0, "medoids": False, "count": None, **settings}
    )


def test_one_head_of_each_cluster_and_one_of_each_layer(monkeypatch: pytest.MonkeyPatch) -> None:
    line = np.array([[0, 0], [0, 1], [50, 0], [50, 1], [100, 0], [150, 0]], dtype=np.float64)
    monkeypatch.setattr("prunegraph.passes.score.complement.reduce", lambda *_: line)
    salience = [1.0, 2, 9, 8, 3, 5]
    free = by_hand(salience, [0, 0, 0, 1, 2, 2], count=4)
    assert np.flatnonzero(free.keep).tolist() == [2, 3, 4, 5] and free.returned == 1
    # Cluster 0 gives head 1, cluster 1 head 2; layer 1 has lost its only head and gets it back, so the least goes.
    monkeypatch.setattr("prunegraph.passes.score.complement.curve", lambda *_: None)
    knee = by_hand(salience, [0, 0, 0, 0, 1, 1])  # no curve: 0.3 of six
    assert knee.keep.sum() == 2 and knee.keep[:4].any() and knee.keep[4:].any()


def test_batches_make_the_salience() -> None:
    """|mean over 32 examples|, then the mean over batches: signs cancel within one and not between."""
    felt = HeadMaskGradients([site(2)], [Shape("head.0", 2)], _Solution())  # type: ignore[list-item, arg-type]
    signs = np.where(np.arange(64) % 2, 1.0, -1.0)
    felt.take([np.stack([signs, np.repeat([1.0, -1.0], 32)], axis=1)[:40]])
    felt.take([np.stack([signs, np.repeat([1.0, -1.0], 32)], axis=1)[40:]])
    assert felt.by_batch("head.0").tolist() == [0, 1] and felt.by_example("head.0").tolist() == [1, 1]


class _Solution:
    """Nothing is resolved where gradients are given as they are."""

    def resolve(self, _: str) -> tuple[()]:
        return ()


REFUSED: dict[str, tuple[dict[str, Any], str]] = {
    "one class": ({"data": [{"text": "the dog", "label": 1}] * 8}, "all examples are of one class"),
    "no such option": ({"scorer": {"clusters": 3}}, "no option 'clusters'"),
    "no such reducer": ({"scorer": {"reducer": "umap"}}, "reducer cannot be"),
    "no number": ({"scorer": {"degree": "many"}}, "degree cannot be"),
    "two numbers": ({"scorer": {"keep": 3}, "amount": {"head": 0.5}}, "given by a ratio and"),
    "a label too many": ({"data": [*texts(8), {"text": "the dog", "label": CLASSES}]}, f"label {CLASSES} is no class"),
    "no data": ({"data": None}, "needs data"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_is_refused(tiny: dict[str, Any], case: str) -> None:
    changed, what = REFUSED[case]
    with pytest.raises(PruneGraphError, match=what) as error:
        scorer = make_scorer("cahp", changed.get("scorer", {}))
        rows = changed.get("data", texts(96))
        data = rows and replace(tiny["data"], source=rows)
        prune_graph(tiny["model"], changed.get("amount"), scorer=scorer, data=data)
    assert error.value.hint
    assert isinstance(error.value, UsageError) == (case != "one class")


def test_options_from_the_command_line() -> None:
    assert make_scorer("cahp", {"degree": "4", "keep": "7", "share": "0.5", "reducer": "mds"}) == Cahp(
        degree=4, keep=7, share=0.5, reducer="mds"
    )


# ---- end to end ----------------------------------------------------------------------------------------------------


@pytest.mark.slow
def test_from_a_classifier_to_a_trained_slim_one(tmp_path: Path) -> None:
    """One command; the tokenizer lies beside the model; a trained model is not compared with anything."""
    folder = word_tokenizer(tmp_path)
    onnx.save(Tiny(heads=4, layers=3).onnx(), folder / "model.onnx")
    (folder / "train.jsonl").write_text("".join(json.dumps(row) + "\n" for row in texts(200)))
    run = CliRunner().invoke
    order = f"prune {folder}/model.onnx -o {folder}/slim.onnx --scorer cahp --data {folder}/train.jsonl"
    done = run(app, f"{order} --finetune --epochs 3 --lr 0.01 --report {folder}/report --json".split())
    assert done.exit_code == 0, done.output
    report = json.loads(done.stdout)
    assert report["finetune"]["metric"]["after"] > report["finetune"]["metric"]["before"]
    assert report["verify"]["max_rel_error"] < 1e-4 and len(report["files"]) == 10
    measured = json.loads((folder / "report/report.json").read_text())["evaluation"]
    assert measured["examples"] == report["finetune"]["examples"]["validation"] and "held out" in measured["on"]
    values = {row["model"]: row["value"] for row in measured["models"]}
    assert list(values) == ["original", "slim", "tuned"]
    metric = report["finetune"]["metric"]
    assert [values["slim"], values["tuned"]] == pytest.approx([metric["before"], metric["after"]])
    onnx.checker.check_model(str(folder / "slim.onnx"))
    assert json.loads((folder / "slim.plan.json").read_text())["trained"]
    compared = run(app, f"verify {folder}/model.onnx {folder}/slim.onnx".split())
    assert compared.exit_code == 1 and "trained after the proof" in compared.stderr


def test_fine_tuning_from_python(tiny: dict[str, Any]) -> None:
    result = prune_graph(**{**tiny, "after": [Repair("none"), Finetune(epochs=2, lr=0.01)]})
    assert result.tuned is not None and len(result.tuned.history) == 3
    assert result.ir_model is result.tuned.ir_model
    with pytest.raises(UsageError, match="needs data"):
        prune_graph(tiny["model"], after=Finetune())
