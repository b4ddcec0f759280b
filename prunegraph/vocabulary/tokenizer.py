"""Rewrite the JSON of the tokenizers library for fewer tokens, numbered anew in their old order."""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from prunegraph.errors import UsageError

_LISTS = ("_token_id", "suppress_tokens", "bad_words_ids")
"""How keys of configurations end that list ids of tokens."""

_HINT = "give the tokenizer.json of the model, and tokens as they stand in its vocabulary"


@dataclass(frozen=True, slots=True)
class SmallTokenizer:
    """A tokenizer of fewer tokens.

    Attributes:
        text: Its JSON.
        kept: The old ids of its tokens, ascending: a new id is a position in this.
    """

    text: str
    kept: tuple[int, ...]


def cut_tokenizer(text: str, tokens: Collection[str] = (), ids: Iterable[int] = ()) -> SmallTokenizer:
    """A tokenizer that knows these tokens, and those without which it does not work.

    Such are added and special tokens, the unknown token, single characters and bytes of BPE and Unigram, and whatever
    a kept token of BPE is merged from.

    Args:
        text: The JSON of the tokenizer.
        tokens: What it knows, as it stands in the vocabulary.
        ids: The same by old number.

    Raises:
        UsageError: it is no such JSON, or does not have a token.
    """
    try:
        spec: dict[str, Any] = json.loads(text)
        model = spec["model"]
        vocabulary = _vocabulary(model)
    except (ValueError, LookupError, TypeError) as error:
        raise UsageError(f"this is no tokenizer of the tokenizers library: {error}", hint=_HINT) from error
    added = {entry["content"]: int(entry["id"]) for entry in spec.get("added_tokens") or ()}
    every = {**vocabulary, **added}
    if unknown := [token for token in tokens if token not in every]:
        raise UsageError(f"the tokenizer has no token {unknown[0]!r}", hint=_HINT)
    by_id = {number: token for token, number in every.items()}
    kept_tokens = {*tokens, *added, *(by_id[number] for number in ids if number in by_id)}
    kept_tokens |= set(_needed(model, vocabulary, spec))
    kept_tokens |= set(_merged_from(model, kept_tokens))
    kept = tuple(sorted(every[token] for token in kept_tokens if token in every))
    new = {old: number for number, old in enumerate(kept)}
    _renumber(spec, new, kept_tokens)
    return SmallTokenizer(json.dumps(spec, ensure_ascii=False, indent=2), kept)


def mapped_config(config: Mapping[str, Any], kept: tuple[int, ...]) -> dict[str, Any]:
    """A config.json whose size of vocabulary and ids of tokens are those of the small tokenizer."""
    new = {old: number for number, old in enumerate(kept)}

    def mapped(key: str, value: Any) -> Any:
        if isinstance(value, Mapping):
            if key == "added_tokens_decoder":
                return {str(new[int(k)]): v for k, v in value.items() if k.isdecimal() and int(k) in new}
            return {k: mapped(k, v) for k, v in value.items()}
        if key == "vocab_size":
            return len(kept)
        if _names_token(key, value):
            return new.get(value, value)
        if key == "forced_decoder_ids" and isinstance(value, list):  # positions, and the tokens that stand there
            return [[place, new[token]] for place, token in value if token in new]
        if key.endswith(_LISTS) and isinstance(value, list):
            return _mapped_list(value, new)
        return value

    return {key: mapped(key, value) for key, value in config.items()}


def stated_ids(config: Mapping[str, Any]) -> Iterator[int]:
    """The single tokens that a configuration names, such as the one that ends a text: they must stay.

    >>> list(stated_ids({"eos_token_id": 2, "text_config": {"pad_token_id": [0, 1]}, "hidden_size": 8}))
    [2, 0, 1]
    """
    for key, value in config.items():
        if isinstance(value, Mapping):
            yield from stated_ids(value)
        elif _names_token(key, value):
            yield value
        elif key.endswith("_token_id") and isinstance(value, list):
            yield from (each for each in value if _names_token(key, each))


def _names_token(key: str, value: Any) -> bool:
    return key.endswith("_token_id") and isinstance(value, int) and not isinstance(value, bool) and value >= 0


def _mapped_list(ids: list[Any], new: Mapping[int, int]) -> list[Any]:
    """New ids of those that stay; in a list of lists, such as words that may not be written, of those that stay whole.

    >>> _mapped_list([3, 5], {3: 0}), _mapped_list([[1, 3], [3, 5]], {1: 0, 3: 1}), _mapped_list([[1, None]], {1: 0})
    ([0], [[0, 1]], [[0, None]])
    """
    if not any(isinstance(each, list) for each in ids):
        return [new.get(each, each) for each in ids if each in new or not isinstance(each, int)]
    whole = [each for each in ids if all(k in new or not isinstance(k, int) for k in each)]
    return [_mapped_list(each, new) for each in whole]


def _vocabulary(model: Mapping[str, Any]) -> dict[str, int]:
    """Token -> id."""
    listed = model["vocab"]
    if isinstance(listed, dict):
        return {str(token): int(number) for token, number in listed.items()}
    return {str(token): number for number, (token, _) in enumerate(listed)}


def _needed(model: Mapping[str, Any], vocabulary: Mapping[str, int], spec: Mapping[str, Any]) -> Iterator[str]:
    """Tokens without which the tokenizer does not work, or would not cover what it is given."""
    if isinstance(unknown := model.get("unk_token"), str):
        yield unknown
    if isinstance(position := model.get("unk_id"), int):
        yield next(token for token, number in vocabulary.items() if number == position)
    yield from _special(spec.get("post_processor") or {})
    if isinstance(padding := spec.get("padding"), dict) and "pad_token" in padding:
        yield str(padding["pad_token"])
    if model.get("type", "BPE") in ("BPE", "Unigram"):
        yield from (token for token in vocabulary if len(token) == 1 or (token[:3] == "<0x" and token[-1:] == ">"))


def _special(processor: Mapping[str, Any]) -> Iterator[str]:
    for inner in processor.get("processors") or ():
        yield from _special(inner)
    yield from (pair[0] for key in ("sep", "cls") if isinstance(pair := processor.get(key), list))
    for entry in (processor.get("special_tokens") or {}).values():
        yield from entry["tokens"]


def _merged_from(model: Mapping[str, Any], tokens: Iterable[str]) -> Iterator[str]:
    """What the tokens of a BPE are merged from, step by step, in every way that there is: a text decides which."""
    parts = defaultdict[str, list[str]](list)
    for left, right in map(_pair, model.get("merges") or ()):
        parts[left + right] += (left, right)
    waiting, known = list(tokens), set(tokens)
    while waiting:
        for part in parts.get(waiting.pop(), ()):
            if part not in known:
                known.add(part)
                waiting.append(part)
                yield part


def _pair(merge: str | list[str]) -> tuple[str, str]:
    left, right = merge.split(" ") if isinstance(merge, str) else merge
    return left, right


def _renumber(spec: dict[str, Any], new: Mapping[int, int], tokens: Collection[str]) -> None:
    model = spec["model"]
    if isinstance(model["vocab"], dict):
        model["vocab"] = {token: new[number] for token, number in model["vocab"].items() if number in new}
    else:
        model["vocab"] = [entry for number, entry in enumerate(model["vocab"]) if number in new]
    if model.get("merges"):
        pairs = ((merge, *_pair(merge)) for merge in model["merges"])
        merges = (merge for merge, left, right in pairs if {left, right, left + right} <= set(tokens))
        model["merges"] = list(merges)
    if isinstance(model.get("unk_id"), int):
        model["unk_id"] = new[model["unk_id"]]
    for entry in spec.get("added_tokens") or ():
        entry["id"] = new[entry["id"]]
    _renumber_processor(spec.get("post_processor") or {}, new)
    if isinstance(padding := spec.get("padding"), dict) and "pad_id" in padding:
        padding["pad_id"] = new[padding["pad_id"]]


def _renumber_processor(processor: dict[str, Any], new: Mapping[int, int]) -> None:
    for inner in processor.get("processors") or ():
        _renumber_processor(inner, new)
    for key in ("sep", "cls"):
        if isinstance(pair := processor.get(key), list):
            processor[key] = [pair[0], new[pair[1]]]
    for entry in (processor.get("special_tokens") or {}).values():
        entry["ids"] = [new[number] for number in entry["ids"]]
