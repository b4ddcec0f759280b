"""Data: every kind of source gives the same samples, and what does not fit is told before anything runs."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from prunegraph import prune_graph
from prunegraph.analysis.selection import Selection
from prunegraph.analyzed import load_and_analyze
from prunegraph.errors import UsageError
from prunegraph.observe.conllu import read_conllu
from prunegraph.observe.data import open_data
from prunegraph.observe.stream import Data
from prunegraph.observe.text import TextReader
from prunegraph.runtime.inputs import InputSpec
from tests.graphs.text import SENTENCES, conllu, shifting, word_tokenizer

TEXTS = ["the dog, it saw", 'a "small" cat', "today"]
LABELS = [2, 0, 1]
ROWS = [{"text": text, "label": label} for text, label in zip(TEXTS, LABELS, strict=True)]


class HuggingFace:
    """What a `datasets.Dataset` is to us: dicts, again and again, and a fingerprint."""

    _fingerprint = "abc"

    def __iter__(self) -> Iterator[Mapping[str, Any]]:
        return iter(ROWS)


def written(name: str, text: str) -> Callable[[Path], Any]:
    def write(folder: Path) -> Path:
        (folder / name).write_text(text, encoding="utf-8")
        return folder / name

    return write


CSV = 'text,label\n"the dog, it saw",2\n"a ""small"" cat",0\ntoday,1\n'
TSV = 'label\ttext\n2\tthe dog, it saw\n0\ta "small" cat\n1\ttoday\n'
SOURCES: dict[str, Callable[[Path], Any]] = {
    "csv": written("d.csv", CSV),
    "tsv": written("d.tsv", TSV),
    "jsonl": written("d.jsonl", "\n".join(map(json.dumps, ROWS)) + "\n\n"),
    "dicts": lambda folder: ROWS,
    "generator": lambda folder: (row for row in ROWS),
    "hugging face": lambda folder: HuggingFace(),
}


@pytest.mark.parametrize("kind", SOURCES)
def test_labelled_texts(kind: str, tmp_path: Path) -> None:
    """Twice: a source is read as often as it is asked for."""
    source = open_data(SOURCES[kind](tmp_path))
    for _ in range(2):
        assert [(sample.texts, sample.label) for sample in source.read()] == [
            ((text,), label) for text, label in zip(TEXTS, LABELS, strict=True)
        ]


def test_lines_of_text(tmp_path: Path) -> None:
    source = open_data(written("d.txt", "\n".join(["", *TEXTS, " ", ""]))(tmp_path), limit=2)
    assert [sample.texts for sample in source.read()] == [(text,) for text in TEXTS[:2]]


def test_pairs_and_columns_by_name(tmp_path: Path) -> None:
    path = written("d.csv", "id,premise,hypothesis,gold\n7,the dog saw,it saw,1\n")(tmp_path)
    (sample,) = open_data(path, label="gold").read()
    assert (sample.texts, sample.label) == (("the dog saw", "it saw"), 1)
    (sample,) = open_data(path, text=["hypothesis"]).read()
    assert (sample.texts, sample.label) == (("it saw",), None)


def test_fingerprints_tell_data_apart(tmp_path: Path) -> None:
    path = written("d.csv", CSV)(tmp_path)
    fingerprints = {open_data(path).fingerprint, open_data(path, limit=2).fingerprint, open_data(ROWS).fingerprint}
    fingerprints |= {open_data(ROWS[:2]).fingerprint, open_data([*ROWS, {"text": "it", "label": 0}]).fingerprint}
    assert len(fingerprints) == 5
    assert open_data(ROWS).fingerprint == open_data(list(ROWS)).fingerprint
    path.write_text(CSV.replace("today", "now"))
    assert open_data(path).fingerprint not in fingerprints


# ---- CoNLL-U -------------------------------------------------------------------------------------------------------

CONLLU = """# sent_id = 1
1-2\tdon't\t_\t_\t_\t_\t_\t_\t_\t_
1\tdo\tdo\tAUX\t_\t_\t4\taux\t_\t_
2\tn't\tnot\tPART\t_\t_\t4\tadvmod\t_\t_
3\tjust\t_\t_\t_\t_\t4\tadvmod\t_\t_
4\tgo\t_\t_\t_\t_\t0\troot\t_\tSpaceAfter=No
4.1\tghost\t_\t_\t_\t_\t_\t_\t_\t_
5\t!\t_\t_\t_\t_\t4\tpunct\t_\t_

1\tYes\t_\t_\t_\t_\t0\troot\t_\t_
"""


def test_conllu(tmp_path: Path) -> None:
    """A multi-word token is one place in the text, an empty node none."""
    (text, parse), (last, _) = read_conllu(written("t.conllu", CONLLU)(tmp_path))
    assert (text, last) == ("don't just go!", "Yes")
    assert parse.spans == ((0, 5), (0, 5), (6, 10), (11, 13), (13, 14))
    assert parse.heads == (3, 3, 3, -1, 3)
    assert parse.labels == ("aux", "advmod", "advmod", "root", "punct")


def test_conllu_round_trip(tmp_path: Path) -> None:
    read = list(read_conllu(written("t.conllu", conllu(SENTENCES))(tmp_path)))
    assert [text for text, _ in read] == [text for text, _ in SENTENCES]
    assert [list(zip(parse.heads, parse.labels, strict=True)) for _, parse in read] == [arcs for _, arcs in SENTENCES]


# ---- batches -------------------------------------------------------------------------------------------------------


def test_inputs_are_known_by_name(tmp_path: Path) -> None:
    """Ids, mask, segments and positions, each in the type that the model wants, padded to the longest."""
    types = {"input_ids": np.int64, "attention_mask": np.float32, "token_type_ids": np.int32, "position_ids": np.int64}
    specs = tuple(InputSpec(name, np.dtype(dtype), ("b", "s")) for name, dtype in types.items())
    reader = TextReader(word_tokenizer(tmp_path, left=True))
    samples = list(open_data([{"text": "the dog", "text_pair": "it"}, {"text": "the", "text_pair": "a"}]).read())
    feeds = reader.batch(samples, reader.encode(samples), specs, 2).feeds
    assert {name: array.dtype for name, array in feeds.items()} == {n: np.dtype(t) for n, t in types.items()}
    assert feeds["input_ids"].tolist() == [[2, 4, 6, 3, 12, 3], [0, 2, 4, 3, 8, 3]]
    assert feeds["attention_mask"].tolist() == [[1] * 6, [0] + [1] * 5]
    assert feeds["token_type_ids"].tolist() == [[0, 0, 0, 0, 1, 1], [0, 0, 0, 0, 1, 1]]
    assert feeds["position_ids"].tolist() == [[0, 1, 2, 3, 4, 5], [0, 0, 1, 2, 3, 4]]


def test_arrays_are_fed_as_they_are(tmp_path: Path) -> None:
    model = load_and_analyze(shifting([[0, 1]])).original
    ids = np.arange(4, 14).reshape(5, 2)
    arrays = {"input_ids": ids, "attention_mask": np.ones_like(ids), "position_ids": ids % 2, "labels": np.arange(5)}
    np.savez(tmp_path / "inputs.npz", **arrays)
    for data in (tmp_path / "inputs.npz", arrays):
        first, second = Data(data, batch_size=3).inputs(model).batches()
        assert np.concatenate([first.feeds["input_ids"], second.feeds["input_ids"]]).tolist() == ids.tolist()
        assert [sample.label for sample in second.samples] == [3, 4]


# ---- what does not fit ---------------------------------------------------------------------------------------------

IDS = np.ones((2, 4), np.int64)
WRONG: dict[str, tuple[Callable[[Path], Any], str]] = {
    "no such file": (lambda folder: folder / "none.txt", "no data file"),
    "unknown kind": (written("d.pdf", "x"), "of no known kind"),
    "empty text": (written("d.txt", "\n \n"), "holds no example"),
    "empty table": (written("d.csv", "text,label\n"), "holds no example"),
    "empty list": (lambda folder: [], "holds no example"),
    "no column of text": (written("d.csv", "a,b\nx,y\n"), "none of the columns a, b"),
    "label is a word": (written("d.csv", "text,label\nx,good\n"), "no class number"),
    "not JSON": (written("d.jsonl", "{text: 1}\n"), "line 1"),
    "not an object": (written("d.jsonl", "[1]\n"), "no object"),
    "CoNLL-U without columns": (written("d.conllu", "1\tdog\n"), "2 columns"),
    "CoNLL-U with a wrong head": (written("d.conllu", conllu([("dog", [(7, "x")])])), "no word of the text"),
    "missing input": (lambda folder: {"input_ids": IDS}, "no values for the input 'attention_mask'"),
    "wrong rank": (
        lambda folder: {"input_ids": IDS[:, 0], "attention_mask": IDS, "position_ids": IDS},
        r"input_ids is \[batch, sequence\]",
    ),
    "wrong type": (
        lambda folder: {"input_ids": IDS * 1.5, "attention_mask": IDS, "position_ids": IDS},
        "input_ids is int64, the data are float64",
    ),
    "unequal lengths": (lambda folder: {"input_ids": IDS, "attention_mask": IDS[:1]}, "unequal lengths"),
}


@pytest.mark.parametrize("case", WRONG)
def test_wrong_data(case: str, tmp_path: Path) -> None:
    make, message = WRONG[case]
    with pytest.raises(UsageError, match=message) as caught:
        Data(make(tmp_path), word_tokenizer(tmp_path)).inputs(load_and_analyze(shifting([[0, 1]])).original)
    assert caught.value.hint


def test_wrong_tokenizers(tmp_path: Path) -> None:
    model = load_and_analyze(shifting([[0, 1]])).original
    with pytest.raises(UsageError, match="need a tokenizer"):
        Data(ROWS).inputs(model)
    with pytest.raises(UsageError, match="no tokenizer"):
        Data(ROWS, tmp_path / "nowhere").inputs(model)
    (tmp_path / "tokenizer.json").write_text("{}")
    with pytest.raises(UsageError, match="is no tokenizer"):
        Data(ROWS, tmp_path).inputs(model)
    folder = word_tokenizer(tmp_path / "words")
    written_down = json.loads((folder / "tokenizer.json").read_text())
    written_down["model"]["vocab"] |= {f"more{k}": 14 + k for k in range(9)}
    (folder / "tokenizer.json").write_text(json.dumps(written_down))
    with pytest.raises(UsageError, match="23 tokens, the model an embedding of 14"):
        Data(ROWS, folder).inputs(model)


def test_bad_data_is_told_before_the_model_is_read(tmp_path: Path) -> None:
    """The model does not even exist: the data are looked at first."""
    with pytest.raises(UsageError, match="no data file"):
        prune_graph(tmp_path / "none.onnx", {"head": 0.5}, scorer="sap", data=tmp_path / "none.txt")


def test_data_do_not_change_scorers_without_eyes(tmp_path: Path) -> None:
    plain = prune_graph(shifting([[0, 1, 2]]), {"head": 0.4}, scorer="magnitude")
    result = prune_graph(
        shifting([[0, 1, 2]]), {"head": 0.4}, scorer="magnitude", data=Data(ROWS, word_tokenizer(tmp_path))
    )
    assert Selection.to_json(plain.selection) == Selection.to_json(result.selection)
