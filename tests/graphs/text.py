"""Small text models and tokenizers, written for what they must show."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors

from prunegraph.observe.conllu import Parse
from tests.graphs.builder import Builder, linear

WORDS = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "the", "big", "dog", "saw", "a", "small", "cat", "today", "it", "is"]
LENGTH = 24
"""Positions that `shifting` tells apart."""


def word_tokenizer(folder: Path, *, left: bool = False, special: bool = True) -> Path:
    """Words split at white space; `[CLS] text [SEP]`, and `text [SEP] text [SEP]` for pairs."""
    tokenizer = Tokenizer(models.WordLevel({word: k for k, word in enumerate(WORDS)}, unk_token="[UNK]"))
    tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    return _saved(tokenizer, folder, left, special)


def piece_tokenizer(folder: Path, pieces: Sequence[str], *, left: bool = False) -> Path:
    """BERT's way: lower case, split at punctuation, word pieces."""
    vocabulary = {piece: k for k, piece in enumerate([*WORDS[:4], *pieces])}
    tokenizer = Tokenizer(models.WordPiece(vocabulary, unk_token="[UNK]"))
    tokenizer.normalizer = normalizers.BertNormalizer()
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    return _saved(tokenizer, folder, left, special=True)


def _saved(tokenizer: Tokenizer, folder: Path, left: bool, special: bool) -> Path:
    if special:
        tokenizer.post_processor = processors.TemplateProcessing(
            single="[CLS] $A [SEP]",
            pair="[CLS] $A [SEP] $B:1 [SEP]:1",
            special_tokens=[("[CLS]", 2), ("[SEP]", 3)],
        )
    tokenizer.enable_padding(direction="left" if left else "right", pad_id=0, pad_token="[PAD]", length=40)
    folder.mkdir(parents=True, exist_ok=True)
    tokenizer.save(str(folder / "tokenizer.json"))
    return folder


def shifting(shifts: Sequence[Sequence[int]], *, causal: bool = False) -> onnx.ModelProto:
    """Heads that attend to the token so many places on (or to themselves, where there is none), by construction.

    Hidden columns tell positions apart; Q asks for a position and K of a head has it `shift` places away.
    """
    g = Builder("shifting")
    ids = g.input("input_ids", "batch", "sequence", dtype=TensorProto.INT64)
    mask = g.input("attention_mask", "batch", "sequence", dtype=TensorProto.INT64)
    at = g.input("position_ids", "batch", "sequence", dtype=TensorProto.INT64)
    width, extra = LENGTH, 6
    table = np.concatenate([np.eye(width), np.zeros((width, extra))], axis=1).astype(np.float32)
    words = np.concatenate([np.zeros((len(WORDS), width)), g.rng.normal(size=(len(WORDS), extra))], axis=1)
    x = g("Add", g("Gather", g.const("words", words, np.float32), ids), g("Gather", g.const("table", table), at))
    open_keys = g("Unsqueeze", g("Cast", mask, to=TensorProto.FLOAT), [1, 2])
    bias = g("Mul", g("Sub", open_keys, 1.0), 1e4)
    if causal:
        later = g("Greater", g("Unsqueeze", at, [1]), g("Unsqueeze", at, [2]))
        bias = g("Sub", bias, g("Unsqueeze", g("Mul", g("Cast", later, to=TensorProto.FLOAT), 1e4), [1]))
    for layer, of_heads in enumerate(shifts):
        x = g("Add", x, _attention(g, x, bias, of_heads, f"{layer}", width, extra))
    pooled = g("Gather", x, np.array(0), axis=1)
    y = linear(g, pooled, "out", width + extra, 3)
    g.output(y, "batch", 3)
    return g.model()


def _attention(g: Builder, x: str, bias: str, shifts: Sequence[int], layer: str, width: int, extra: int) -> str:
    """One layer: the identity asks, shifted identities answer, random weights carry."""
    heads, size = len(shifts), width + extra
    ask = np.zeros((size, heads, width), np.float32)
    answer = np.zeros((size, heads, width), np.float32)
    for head, shift in enumerate(shifts):
        ask[:width, head] = np.eye(width) * (30 + int(layer))  # equal weights would tie the heads of two layers
        answer[:width, head] = np.eye(width, k=-shift)
        answer[:width, head] += np.eye(width) * 0.5  # where there is nobody, a head attends to itself
    q, k = (g("MatMul", x, g.const(f"w_{n}{layer}", w.reshape(size, -1))) for n, w in (("q", ask), ("k", answer)))
    v = g("MatMul", x, g.weight(f"w_v{layer}", size, heads * 4))

    def split(value: str, each: int) -> str:
        return g("Transpose", g("Reshape", value, [0, 0, heads, each]), perm=[0, 2, 1, 3])

    scores = g("MatMul", split(q, width), g("Transpose", split(k, width), perm=[0, 1, 3, 2]))
    mixed = g("MatMul", g("Softmax", g("Add", scores, bias), axis=-1), split(v, 4))
    joined = g("Reshape", g("Transpose", mixed, perm=[0, 2, 1, 3]), [0, 0, heads * 4])
    back = g.rng.normal(size=(heads * 4, size)).astype(np.float32)
    back[:, :width] = 0  # positions stay as they are for the next layer
    return g("MatMul", joined, g.const(f"w_o{layer}", back))


def tree(text: str, arcs: Sequence[tuple[int, str]]) -> Parse:
    """A tree over the words of a text, split at blanks: (head, label) of every word, -1 for none."""
    spans, start = [], 0
    for word in text.split(" "):
        spans.append((start, start + len(word)))
        start += len(word) + 1
    return Parse(tuple(spans), tuple(head for head, _ in arcs), tuple(label for _, label in arcs))


def conllu(sentences: Sequence[tuple[str, Sequence[tuple[int, str]]]]) -> str:
    """Sentences as a CoNLL-U file has them."""
    blocks = []
    for text, arcs in sentences:
        words = text.split(" ")
        rows = [
            f"{k}\t{word}\t_\t_\t_\t_\t{head + 1}\t{label}\t_\t_"
            for k, (word, (head, label)) in enumerate(zip(words, arcs, strict=True), 1)
        ]
        blocks.append("\n".join([f"# text = {text}", *rows]))
    return "\n\n".join(blocks) + "\n"


SENTENCES: list[tuple[str, list[tuple[int, str]]]] = [
    ("the dog saw a cat", [(1, "det"), (2, "nsubj"), (-1, "root"), (4, "det"), (2, "obj")]),
    ("the big dog saw it today", [(2, "det"), (2, "amod"), (3, "nsubj"), (-1, "root"), (3, "obj"), (3, "advmod")]),
    ("a small cat saw the dog", [(2, "det"), (2, "amod"), (3, "nsubj"), (-1, "root"), (5, "det"), (3, "obj")]),
]
