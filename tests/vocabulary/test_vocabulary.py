"""Fewer tokens: rows of tables and logits go together, tokenizers are numbered anew, kept logits stay as they were."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnx_ir as ir
import onnxruntime as ort
import pytest
from onnx import TensorProto
from tokenizers import Tokenizer, models, pre_tokenizers, processors
from typer.testing import CliRunner

import prunegraph as pg
from prunegraph.cli import app
from prunegraph.errors import UsageError
from prunegraph.vocabulary import cut_tokenizer, cut_vocabulary, mapped_config
from tests.graphs import misc
from tests.graphs.builder import Builder, linear

WORDS = 23
KEPT = (0, 1, 5, 6, 7, 20)


def separate_head(*, softmax: bool = False, arithmetic: bool = False) -> onnx.ModelProto:
    """An embedding, a head of its own with a bias, and padding that is told by its number."""
    g = Builder("separate_head")
    ids = g.input("input_ids", "B", "S", dtype=TensorProto.INT64)
    h = g("Gather", g.weight("table", WORDS, 10), ids)
    mask = g("Cast", g("Equal", ids, np.array(5)), to=TensorProto.FLOAT)
    h = g("Add", h, g("Unsqueeze", mask, [-1]))
    if arithmetic:
        h = g("Add", h, g("Unsqueeze", g("Cast", g("Add", ids, np.array(1)), to=TensorProto.FLOAT), [-1]))
    y = linear(g, g("Relu", linear(g, h, "ffn", 10, 12)), "head", 12, WORDS)
    g.output(g("Softmax", y, axis=-1) if softmax else y, "B", "S", WORDS)
    return g.model()


def outputs(model: onnx.ModelProto, ids: np.ndarray) -> list[np.ndarray]:
    session = ort.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    return list(session.run(None, {session.get_inputs()[0].name: ids}))


@pytest.mark.parametrize("make", [misc.tied_embeddings, separate_head])
def test_kept_tokens_have_the_logits_that_they_had(make: Any) -> None:
    model = make()
    result = cut_vocabulary(pg.analyze(model), KEPT)
    slim = ir.to_proto(result.model)
    onnx.checker.check_model(slim, full_check=True)
    new = np.random.default_rng(0).integers(0, len(KEPT), (2, 7))
    before, after = outputs(model, np.array(KEPT)[new]), outputs(slim, new)
    assert result.outputs and result.error < 1e-5 and result.size == WORDS
    for a, b in zip(before, after, strict=True):
        np.testing.assert_allclose(b, a[..., list(KEPT)] if a.shape[-1] == WORDS else a, rtol=1e-5, atol=1e-5)
    assert all(WORDS not in tensor.dims for tensor in slim.graph.initializer)


@pytest.mark.parametrize(
    ("make", "problem"),
    [
        (lambda: separate_head(softmax=True), "Softmax runs along it"),
        (lambda: separate_head(arithmetic=True), "computes with token ids"),
        (misc.padded_and_tiled, "no input of the model looks up"),
    ],
)
def test_what_cannot_be_cut_says_why(make: Any, problem: str) -> None:
    with pytest.raises(UsageError, match=problem):
        cut_vocabulary(pg.analyze(make()), KEPT)


def test_ids_are_those_of_the_model() -> None:
    with pytest.raises(UsageError, match="the tokens 0 to 22"):
        cut_vocabulary(pg.analyze(separate_head()), [3, 23])


# ---- tokenizers ------------------------------------------------------------------------------------------------------


def pieces() -> Tokenizer:
    words = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "the", "dog", "##s", "saw", "cat"]
    tokenizer = Tokenizer(models.WordPiece({word: k for k, word in enumerate(words)}, unk_token="[UNK]"))
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    tokenizer.post_processor = processors.BertProcessing(("[SEP]", 3), ("[CLS]", 2))
    tokenizer.add_special_tokens(words[:4])
    tokenizer.enable_padding(pad_id=0, pad_token="[PAD]")
    return tokenizer


def merges() -> Tokenizer:
    words = ["<s>", "x", "y", "h", "e", "l", "o", "he", "ll", "hell", "hello", "xy", "</s>"]
    pairs = [("h", "e"), ("l", "l"), ("he", "ll"), ("hell", "o"), ("x", "y")]
    tokenizer = Tokenizer(models.BPE({word: k for k, word in enumerate(words)}, pairs))
    tokenizer.post_processor = processors.TemplateProcessing(
        single="<s> $A </s>", special_tokens=[("<s>", 0), ("</s>", 12)]
    )
    return tokenizer


def unigrams() -> Tokenizer:
    scores = [("<unk>", 0.0), ("a", -3.0), ("b", -3.0), ("ab", -1.0), ("abab", -0.5)]
    return Tokenizer(models.Unigram(scores, unk_id=0))


@pytest.mark.parametrize(
    ("make", "tokens", "text"),
    [(pieces, ["dog", "##s"], "the dogs saw"), (merges, ["hello"], "hello"), (unigrams, ["ab"], "abab")],
)
def test_a_small_tokenizer_gives_new_numbers_of_the_same_tokens(make: Any, tokens: list[str], text: str) -> None:
    """What it still knows is what it was, in the old order; specials, pads and what tokens are merged from stay."""
    large = make()
    small = cut_tokenizer(large.to_str(), tokens)
    loaded = Tokenizer.from_str(small.text)
    assert loaded.get_vocab_size() == len(small.kept) < large.get_vocab_size()
    for token, number in loaded.get_vocab().items():
        assert large.token_to_id(token) == small.kept[number]
    assert {*tokens} <= loaded.get_vocab().keys()
    encoded = loaded.encode(text)
    assert [loaded.id_to_token(number) for number in encoded.ids] == encoded.tokens
    if make is merges:
        assert encoded.tokens == large.encode(text).tokens and loaded.token_to_id("xy") is None


def test_whatever_a_text_may_merge_a_kept_token_from_stays() -> None:
    """Two pairs make one token, as where a SentencePiece model was converted: which of them a text takes, ranks say."""
    words = ["a", "b", "c", "ab", "bc", "abc", "ca"]
    pairs = [("b", "c"), ("a", "b"), ("ab", "c"), ("a", "bc"), ("c", "a")]
    large = Tokenizer(models.BPE({word: k for k, word in enumerate(words)}, pairs))
    small = Tokenizer.from_str(cut_tokenizer(large.to_str(), ["abc"]).text)
    assert small.encode("abc").tokens == large.encode("abc").tokens == ["abc"]
    assert small.get_vocab().keys() == {"a", "b", "c", "ab", "bc", "abc"}


def test_a_token_that_is_not_there_is_refused() -> None:
    with pytest.raises(UsageError, match="no token 'horse'"):
        cut_tokenizer(pieces().to_str(), ["horse"])


def test_ids_in_a_config_are_mapped() -> None:
    config = {"vocab_size": 9, "pad_token_id": 0, "eos_token_id": [3, 5], "text": {"bos_token_id": 8}, "depth": 3}
    expected = {"vocab_size": 3, "pad_token_id": 0, "eos_token_id": [1], "text": {"bos_token_id": 2}, "depth": 3}
    assert mapped_config(config, (0, 3, 8)) == expected
    lists = {"suppress_tokens": [3, 4, 8], "bad_words_ids": [[3, 8], [3, 4]], "forced_decoder_ids": [[1, 8], [2, 4]]}
    expected = {"suppress_tokens": [1, 2], "bad_words_ids": [[1, 2]], "forced_decoder_ids": [[1, 2]]}
    assert mapped_config({**lists, "unk_token_id": -1}, (0, 3, 8)) == {**expected, "unk_token_id": -1}


@pytest.mark.parametrize("by", ["keep", "data"])
def test_the_command_writes_model_tokenizer_and_plan(tmp_path: Path, by: str) -> None:
    words = [f"w{k}" for k in range(WORDS - 1)]
    tokenizer = Tokenizer(models.WordLevel({word: k for k, word in enumerate([*words, "[UNK]"])}, unk_token="[UNK]"))
    tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    tokenizer.save(str(tmp_path / "tokenizer.json"))
    onnx.save(separate_head(), tmp_path / "model.onnx")
    (tmp_path / "config.json").write_text(json.dumps({"vocab_size": WORDS, "pad_token_id": 5}))
    (tmp_path / "keep.txt").write_text("w5\nw9\n" if by == "keep" else "w9 w5\nw5 w9\n")
    arguments = ["vocab", str(tmp_path / "model.onnx"), "-o", str(tmp_path / "slim.onnx"), "--json"]
    result = CliRunner().invoke(app, [*arguments, f"--{by}", str(tmp_path / "keep.txt")])
    assert result.exit_code == 0, result.output
    assert json.loads(result.stdout)["tokens"] == [WORDS, 3]
    assert json.loads((tmp_path / "slim.vocab.json").read_text())["kept"] == [5, 9, 22]
    assert json.loads((tmp_path / "slim.config.json").read_text()) == {"vocab_size": 3, "pad_token_id": 0}
    small = Tokenizer.from_file(str(tmp_path / "slim.tokenizer.json"))
    old, new = tokenizer.encode("w9 w5").ids, small.encode("w9 w5").ids
    model, slim = (onnx.load(tmp_path / name) for name in ("model.onnx", "slim.onnx"))
    expected = outputs(model, np.array([old]))[0][..., [5, 9, 22]]
    np.testing.assert_allclose(outputs(slim, np.array([new]))[0], expected, rtol=1e-5, atol=1e-5)


def word_level(folder: Path) -> Tokenizer:
    words = [f"w{k}" for k in range(WORDS - 1)]
    tokenizer = Tokenizer(models.WordLevel({word: k for k, word in enumerate([*words, "[UNK]"])}, unk_token="[UNK]"))
    tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    tokenizer.save(str(folder / "tokenizer.json"))
    (folder / "keep.txt").write_text("w5\nw9\nw11\n")
    return tokenizer


def called(*arguments: str | Path) -> tuple[int, str]:
    result = CliRunner().invoke(app, [str(each) for each in arguments])
    return result.exit_code, result.output


def test_verify_proves_a_file_with_fewer_tokens_again(tmp_path: Path) -> None:
    """The plan beside it says which tokens; a row that no text uses is looked at, too, and another model is refused."""
    word_level(tmp_path)
    model, slim = tmp_path / "model.onnx", tmp_path / "slim.onnx"
    onnx.save(separate_head(), model)
    assert called("vocab", model, "-o", slim, "--keep", tmp_path / "keep.txt")[0] == 0
    code, text = called("verify", model, slim, "--json")
    assert code == 0 and json.loads(text)["tokens"] == [WORDS, 4]
    assert called("verify", model, slim, "--plan", tmp_path / "slim.vocab.json")[0] == 0
    small = onnx.load(slim)
    for name in ("table", "b_head"):
        tampered = onnx.ModelProto.FromString(small.SerializeToString())
        (tensor,) = (each for each in tampered.graph.initializer if each.name == name)
        rows = onnx.numpy_helper.to_array(tensor).copy()
        rows[-1] += 0.01
        tensor.CopyFrom(onnx.numpy_helper.from_array(rows, name))
        onnx.save(tampered, slim)
        code, text = called("verify", model, slim)
        assert code == 1 and "does not hold the rows" in text
    changed = onnx.load(model)
    (table,) = (each for each in changed.graph.initializer if each.name == "table")
    table.CopyFrom(onnx.numpy_helper.from_array(onnx.numpy_helper.to_array(table) * 2, "table"))
    onnx.save(changed, tmp_path / "other.onnx")
    code, text = called("verify", tmp_path / "other.onnx", slim)
    assert code == 1 and "the plan was made for model.onnx" in " ".join(text.split())


def test_a_body_of_another_shape_is_seen(tmp_path: Path) -> None:
    """All weights are right, and what is computed of them is not."""
    word_level(tmp_path)
    model, slim = tmp_path / "model.onnx", tmp_path / "slim.onnx"
    onnx.save(separate_head(), model)
    assert called("vocab", model, "-o", slim, "--keep", tmp_path / "keep.txt")[0] == 0
    other = onnx.load(slim)
    (relu,) = (node for node in other.graph.node if node.op_type == "Relu")
    relu.op_type = "Tanh"
    onnx.save(other, slim)
    code, text = called("verify", model, slim)
    assert code == 1 and "off by" in text


@pytest.mark.parametrize(
    ("text", "problem"),
    [("{}", "no plan"), ('{"prunegraph_vocabulary": 1, "kept": ["a"]}', "does not list ids"), ("[", "no plan")],
)
def test_a_plan_that_is_none_is_refused(tmp_path: Path, text: str, problem: str) -> None:
    onnx.save(separate_head(), tmp_path / "model.onnx")
    (tmp_path / "odd.json").write_text(text)
    code, said = called("verify", tmp_path / "model.onnx", tmp_path / "model.onnx", "--plan", tmp_path / "odd.json")
    assert code == 1 and problem in " ".join(said.split())


def test_a_folder_becomes_a_folder(tmp_path: Path) -> None:
    """Tokenizer and configurations are written anew, and what has the old ids is left out."""
    folder, slim = tmp_path / "folder", tmp_path / "slim"
    (folder / "onnx").mkdir(parents=True)
    large = word_level(folder)
    onnx.save(separate_head(), folder / "onnx" / "model.onnx")
    (folder / "config.json").write_text(json.dumps({"vocab_size": WORDS, "pad_token_id": 5}))
    decoder = {"5": {"content": "w5"}, "7": {"content": "w7"}, "22": {"content": "[UNK]"}}
    (folder / "tokenizer_config.json").write_text(json.dumps({"added_tokens_decoder": decoder, "model_max_length": 9}))
    (folder / "generation_config.json").write_text(json.dumps({"eos_token_id": [9, 14]}))
    (folder / "vocab.txt").write_text("w0\nw1\n")
    (folder / "special_tokens_map.json").write_text(json.dumps({"unk_token": "[UNK]"}))
    code, text = called("vocab", folder, "-o", slim, "--keep", folder / "keep.txt")
    assert code == 0, text
    names = {str(path.relative_to(slim)) for path in slim.rglob("*") if path.is_file()}
    assert {"onnx/model.onnx", "onnx/model.vocab.json", "tokenizer.json", "special_tokens_map.json"} <= names
    assert "vocab.txt" not in names
    assert json.loads((slim / "config.json").read_text()) == {"vocab_size": 5, "pad_token_id": 0}
    assert json.loads((slim / "generation_config.json").read_text()) == {"eos_token_id": [1, 3]}  # the second, too
    stated = json.loads((slim / "tokenizer_config.json").read_text())["added_tokens_decoder"]
    assert stated == {"0": {"content": "w5"}, "4": {"content": "[UNK]"}}
    small = Tokenizer.from_file(str(slim / "tokenizer.json"))
    assert small.encode("w9 w11").tokens == large.encode("w9 w11").tokens
    assert called("verify", folder / "onnx" / "model.onnx", slim / "onnx" / "model.onnx")[0] == 0
    code, text = called("vocab", folder, "-o", slim, "--keep", folder / "keep.txt")
    assert code == 1 and "exists already" in " ".join(text.split())
