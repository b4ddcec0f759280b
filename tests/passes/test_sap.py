"""SAP: counts worked out by hand, heads ranked as they were built, and what it refuses."""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import onnx
import pytest
from typer.testing import CliRunner

from prunegraph import prune_graph
from prunegraph.analysis.analyze import Analysis
from prunegraph.analyzed import load_and_analyze
from prunegraph.cli import app
from prunegraph.errors import MissingExtra, PruneGraphError, UsageError
from prunegraph.observe.attention_sites import Attention, HeadAxes, ObservedValue
from prunegraph.observe.conllu import Parse
from prunegraph.observe.data import Sample
from prunegraph.observe.stream import Data
from prunegraph.observe.text import Batch, Tokens
from prunegraph.passes.score import Context, Sap, make_scorer, observe_for, resolve_scorers, score_with
from prunegraph.passes.score.dependencies import SpacyParser, corrupted, pairs
from prunegraph.passes.score.relations import RelationAttention
from prunegraph.passes.score.sap import OBSERVATION, RESULT, result
from tests.graphs.skeleton import load_skeleton
from tests.graphs.text import SENTENCES, conllu, shifting, tree, word_tokenizer

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("own_cache")]


# ---- by hand -------------------------------------------------------------------------------------------------------

TEXT = "a b c"
TREES = (
    tree(TEXT, [(1, "det"), (-1, "root"), (1, "obj")]),
    tree(TEXT, [(1, "det"), (-1, "root"), (1, "det")]),
)
WORDS_TO_WORDS = (
    [[0.1, 0.6, 0.1], [0.2, 0.2, 0.2], [0.1, 0.1, 0.6]],  # head 0
    [[0.0, 0.0, 0.0], [0.0, 0.0, 0.2], [0.0, 0.4, 0.0]],  # head 1
)
"""Between words; the rest of every row goes to [SEP].  Their mean is 2.8 / 18 = 0.1556, that of all cells 1 / 5."""


def by_hand(**settings: Any) -> RelationAttention:
    """`[CLS] a b c [SEP]` twice, with the same maps and two trees."""
    maps = np.zeros((2, 2, 5, 5), np.float32)
    maps[:, :, 1:4, 1:4] = WORDS_TO_WORDS
    maps[..., 4] = 1 - maps.sum(-1)
    site = Attention(
        0, 0, "only", 2, (), {"head.0": np.arange(2)}, ObservedValue("p"), HeadAxes((0,), (1,), (2, 3), 2), *"qkvc"
    )
    offsets = np.array([[0, 0], [0, 1], [2, 3], [4, 5], [0, 0]])
    tokens = Tokens(offsets, np.array([-1, 0, 0, 0, -1]), False)
    samples = tuple(Sample(texts=(TEXT,), parses=(parse,)) for parse in TREES)
    statistic = RelationAttention([site], None, exclude=("root",), **settings)
    statistic.update(Batch({}, samples, np.ones((2, 5), bool), (tokens, tokens)), {"p": maps})
    return statistic


HAND: dict[str, tuple[dict[str, Any], list[float]]] = {
    "frequent relations missed": ({"rules": "top"}, [1, 2]),
    "rare relations attended": ({"rules": "rest"}, [0, 1]),
    "both, as the paper says": ({"rules": "both"}, [1, 3]),
    "dependent to head": ({"rules": "both", "direction": "dep_to_head"}, [1, 3]),
    "head to dependent": ({"rules": "both", "direction": "head_to_dep"}, [1, 3]),
    "head to dependent, top": ({"rules": "top", "direction": "head_to_dep"}, [0, 2]),
    "the larger one": ({"rules": "both", "direction": "max"}, [1, 3]),
    "the larger one, top": ({"rules": "top", "direction": "max"}, [0, 2]),
    "threshold of every head": ({"rules": "both", "scope": "head"}, [1, 3]),
    "1/n": ({"rules": "both", "threshold": "literal"}, [1, 3]),
    "a number": ({"rules": "top", "threshold": 0.35}, [1, 3]),
    "a tie counts for neither side": ({"rules": "both", "threshold": 0.0}, [1, 1]),
    "two frequent labels, weights 2 and 1": ({"rules": "top", "k": 2}, [3, 4]),
    "flat weights": ({"rules": "top", "k": 2, "weights": "flat"}, [2, 2]),
}


@pytest.mark.parametrize("case", HAND)
def test_penalties_by_hand(case: str) -> None:
    """`det` is seen three times, `obj` once; k = 1 unless said."""
    settings, expected = HAND[case]
    options = Sap(**{"k": 1, **settings})
    threshold = options.threshold if not isinstance(options.threshold, str) else None
    sap_result = result(by_hand(direction=options.direction, threshold=threshold), options)
    assert sap_result.penalties[0].tolist() == expected


def test_thresholds_by_hand() -> None:
    statistic = by_hand()
    statistic.finish()
    np.testing.assert_allclose(statistic.tau["words", "global"], 2.8 / 18, rtol=1e-6)
    np.testing.assert_allclose(statistic.tau["words", "head"], [2.2 / 9, 0.6 / 9], rtol=1e-6)
    np.testing.assert_allclose(statistic.tau["literal", "head"], 0.2, rtol=1e-6)  # 1/n for every head: it says nothing


def test_what_was_gathered_survives_the_cache() -> None:
    first, second = by_hand(), RelationAttention(by_hand().sites, None, exclude=("root",))
    second.restore(first.state())
    options = Sap(k=1, rules="both", threshold="literal")
    assert result(second, options).penalties[0].tolist() == result(first, options).penalties[0].tolist() == [1, 3]


# ---- by construction -----------------------------------------------------------------------------------------------

BUILT = ("the big dog saw a cat", [(1, "det"), (2, "det"), (3, "det"), (-1, "root"), (2, "obj"), (3, "obj")])
"""Three words hang on the next one, two on the last but one."""


def trees(folder: Path, *sentences: Any) -> Path:
    path = folder / "trees.conllu"
    path.write_text(conllu(sentences or SENTENCES))
    return path


def penalties(model: Any, folder: Path, sentences: Any, **settings: Any) -> tuple[list[list[float]], Context, Analysis]:
    analyzed = load_and_analyze(model)
    inputs = Data(trees(folder, *sentences), word_tokenizer(folder)).inputs(analyzed.original)
    groups = [group for group in analyzed.analysis.groups if group.kind in ("head", "kv_group", "query_head")]
    scorer = make_scorer("sap", settings)
    context = Context(analyzed.normalized.model, analyzed.analysis)
    context = observe_for(resolve_scorers(scorer).shares(groups), context, inputs).of(scorer)
    of = context.observations[RESULT]
    return [penalty.tolist() for penalty in of.penalties], context, analyzed.analysis


@pytest.mark.parametrize(
    ("k", "expected"),
    [(1, [[0, 3, 3], [3, 3, 3]]), (2, [[2, 8, 8], [6, 8, 8]])],
)
def test_heads_are_ranked_as_they_were_built(k: int, expected: list[list[float]], tmp_path: Path) -> None:
    """Head 0 of layer 0 attends to the next token, head 0 of layer 1 to the last but one, all others elsewhere."""
    model = shifting([[1, 0, 3], [-2, 0, 3]])
    penalty_counts, _, _ = penalties(model, tmp_path, [BUILT], k=k, direction="dep_to_head")
    assert penalty_counts == expected


def test_the_right_heads_stay(tmp_path: Path) -> None:
    """Ranked over both layers: four of six go, and the two that attend along relations are left."""
    result = prune_graph(
        shifting([[3, 1, 0], [-2, 0, 3]]),
        {"head": 2 / 3},
        scorer=Sap(k=2, direction="dep_to_head"),
        data=Data(trees(tmp_path, BUILT), word_tokenizer(tmp_path)),
    )
    kept = {name: np.flatnonzero(mask).tolist() for name, mask in result.selection.keep.items()}
    assert kept == {"head.0": [1], "head.1": [0]}
    assert result.report.verify is not None and result.report.verify.ok


@pytest.mark.parametrize("direction", ["mean", "max", "dep_to_head", "head_to_dep"])
def test_causal_models_have_one_direction(direction: str, tmp_path: Path) -> None:
    """The later word asks: a head that attends to the previous token finds dependents that hang on the next word."""
    penalty_counts, context, _ = penalties(
        shifting([[-1, 0], [0, -3]], causal=True), tmp_path, [BUILT], k=1, direction=direction
    )
    assert context.observations[OBSERVATION].causal
    assert penalty_counts == [[0, 3], [3, 3]]


@pytest.mark.parametrize("name", ["zoo_gpt2", "zoo_llama"])
def test_decoders(name: str, tmp_path: Path) -> None:
    penalty_counts, context, analysis = penalties(load_skeleton(name), tmp_path, SENTENCES)
    assert context.observations[OBSERVATION].causal
    groups = [group for group in analysis.groups if group.kind in ("head", "kv_group", "query_head")]
    scores = score_with("sap", groups, context)
    if name == "zoo_llama":
        assert [len(layer) for layer in penalty_counts] == [8, 8]
        np.testing.assert_array_equal(scores["query_head.0"].reshape(-1), -np.array(penalty_counts[0]))
        np.testing.assert_array_equal(scores["kv_group.0"], scores["query_head.0"].sum(axis=-1))
    else:
        np.testing.assert_array_equal(scores["head.1"], -np.array(penalty_counts[1]))


# ---- dependencies --------------------------------------------------------------------------------------------------


def test_pairs_leave_roots_and_excluded_labels_out() -> None:
    parse = Parse(((0, 1), (2, 3), (4, 5)), (1, -1, 1), ("nsubj:pass", "root", "punct"))
    assert pairs(parse) == [(1, 0, "nsubj:pass")]
    assert pairs(parse, ("nsubj", "punct")) == []


def test_noise_is_the_same_for_the_same_text() -> None:
    related = pairs(tree(*BUILT))
    assert corrupted(related, 6, 0.0, 0, "x") == related
    noisy = corrupted(related, 6, 1.0, 0, "x")
    assert noisy == corrupted(related, 6, 1.0, 0, "x") != corrupted(related, 6, 1.0, 1, "x")
    assert len(noisy) == len(related) and all(head != word for head, word, _ in noisy)
    some = corrupted(related * 200, 6, 0.2, 0, "x")
    assert 0.1 < np.mean([new != old for new, old in zip(some, related * 200, strict=True)]) < 0.2


# ---- refusals ------------------------------------------------------------------------------------------------------


def prune(model: Any, data: Any, tokenizer: Path | None, ratio: Any = 0.5, **settings: Any) -> None:
    prune_graph(model, ratio, scorer=make_scorer("sap", settings), data=data and Data(data, tokenizer))


def test_a_vision_model_has_no_text(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="texts cannot be fed"):
        prune(load_skeleton("zoo_deit"), trees(tmp_path), word_tokenizer(tmp_path))


REFUSED: dict[str, tuple[Mapping[str, Any], str]] = {
    "no data": ({"data": None}, "needs data"),
    "inputs without text": (
        {"data": {name: np.ones((2, 4), np.int64) for name in ("input_ids", "attention_mask", "position_ids")}},
        "holds no text",
    ),
    "only other kinds": ({"ratio": {"ffn": 0.5}}, "no group of kind ffn"),
    "unknown option": ({"depth": 3}, "no option 'depth'"),
    "k": ({"k": 0}, "k must be"),
    "rules": ({"rules": "some"}, "rules cannot be"),
    "threshold": ({"threshold": "1/n"}, "threshold cannot be"),
    "noise": ({"noise": "2"}, "noise must be"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_refused_with_a_reason(case: str, tmp_path: Path) -> None:
    given, message = REFUSED[case]
    with pytest.raises(PruneGraphError, match=message) as caught:
        prune(shifting([[0, 1]]), **{"data": trees(tmp_path), "tokenizer": word_tokenizer(tmp_path), **given})
    assert caught.value.hint


def test_no_relation_is_no_ranking(tmp_path: Path) -> None:
    with pytest.raises(PruneGraphError, match="no relation"):
        prune(shifting([[0, 1]]), trees(tmp_path, ("dog", [(-1, "root")])), word_tokenizer(tmp_path))


def test_a_missing_parser_says_how_to_get_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    texts = tmp_path / "texts.txt"
    texts.write_text("the dog saw a cat\n")
    monkeypatch.setitem(sys.modules, "spacy", None)
    with pytest.raises(MissingExtra, match="spacy"):
        prune(shifting([[0, 1]]), texts, word_tokenizer(tmp_path))

    def load(name: str, **_: Any) -> None:
        raise OSError(name)

    monkeypatch.setitem(sys.modules, "spacy", SimpleNamespace(load=load))
    with pytest.raises(UsageError, match="'de_core_news_sm' is not installed") as caught:
        prune(shifting([[0, 1]]), texts, word_tokenizer(tmp_path), parser="de_core_news_sm")
    assert "spacy download de_core_news_sm" in caught.value.hint


def test_spacy_parses_words_where_they_are() -> None:
    """Only where spaCy and its English pipeline are installed: spans are those of the text, arcs stay inside it."""
    pytest.importorskip("spacy")
    text = "The dog  doesn't bark. It sleeps."
    try:
        parser = SpacyParser()
    except UsageError:
        pytest.skip("no English pipeline of spaCy is installed")
    first, second = parser.parse([text, "Go!"])
    assert [text[start:end] for start, end in first.spans] == [
        "The",
        "dog",
        "does",
        "n't",
        "bark",
        ".",
        "It",
        "sleeps",
        ".",
    ]
    assert (1, 0, "det") in pairs(first) and (4, 1, "nsubj") in pairs(first)
    assert [label for _, _, label in pairs(second)] == []


def test_the_command_line_shows_labels_and_heads(tmp_path: Path) -> None:
    """`score` prints the label table and the head map, `--json` the same numbers, and `prune` uses them."""
    onnx.save(shifting([[1, 0, 3], [-2, 0, 3]]), tmp_path / "model.onnx")
    given = ["--data", str(trees(tmp_path, BUILT)), "--tokenizer", str(word_tokenizer(tmp_path))]
    given += ["--scorer-option", "k=2", "--scorer-option", "direction=dep_to_head"]
    runner = CliRunner()
    shown = runner.invoke(app, ["score", str(tmp_path / "model.onnx"), *given])
    assert shown.exit_code == 0, shown.output
    rows = [line.split() for line in shown.stdout.splitlines()]
    assert ["det", "1", "3", "60.0%", "2", "top"] in rows and ["obj", "2", "2", "40.0%", "1", "top"] in rows
    assert ["0", "2", "8", "8"] in rows and ["1", "6", "8", "8"] in rows
    data = json.loads(runner.invoke(app, ["score", str(tmp_path / "model.onnx"), *given, "--json"]).stdout)
    assert [layer["penalties"] for layer in data["layers"]] == [[2, 8, 8], [6, 8, 8]]
    assert data["scores"] == {"head.0": [-2, -8, -8], "head.1": [-6, -8, -8]}
    target = str(tmp_path / "slim.onnx")
    more = ["--ratio", "head=0.5", "--scorer", "sap", "--tolerance", "0", "--policy", "skip", "--json"]
    pruned = runner.invoke(app, ["prune", str(tmp_path / "model.onnx"), "-o", target, *given, *more])
    assert pruned.exit_code == 0, pruned.output
    report = json.loads(pruned.stdout)
    assert report["filter"]["removed"] == report["filter"]["candidates"] == 3
    assert sum(group["after"] for group in report["groups"]) == 3


@pytest.mark.parametrize("causal", [False, True])
def test_neither_padding_nor_its_side_matters(causal: bool, tmp_path: Path) -> None:
    """One sentence a run has no padding; beside longer ones, on either side, every head has the same count."""
    analyzed = load_and_analyze(shifting([[1, 0, -1], [-2, 2, 3]], causal=causal))
    model, analysis = analyzed.normalized.model, analyzed.analysis
    groups = [group for group in analysis.groups if group.kind == "head"]
    counts, scorer = [], Sap(rules="both")
    for left in (False, True):
        for size in (1, 8):
            folder = word_tokenizer(tmp_path / f"{left}", left=left)
            inputs = Data(trees(tmp_path, *SENTENCES, BUILT), folder, batch_size=size).inputs(analyzed.original)
            context = observe_for({scorer: groups}, Context(model, analysis), inputs)
            of = result(context.of(scorer).observations[OBSERVATION], scorer)
            counts.append([penalty.tolist() for penalty in of.penalties])
            assert of.causal is causal
    assert counts[0] == counts[1] == counts[2] == counts[3]
    assert len(set(counts[0][0])) > 1
