"""Tokenize texts into batches: padded, truncated, and put under the names that the model's inputs have."""

from __future__ import annotations

import hashlib
import json
import os
import sys
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from prunegraph.errors import UsageError, first_line
from prunegraph.extras import needs_extra
from prunegraph.observe.data import Sample, Samples
from prunegraph.observe.files import is_file, open_text
from prunegraph.runtime.feeds import Feeds
from prunegraph.runtime.inputs import InputSpec

if TYPE_CHECKING:
    from tokenizers import Encoding


MAX_LENGTH = 128
_TOKENIZER_HINT = "save it as tokenizer.json with the library tokenizers, and give one that fits the model"
WINDOW = 16
"""Batches that are sorted by length together, so that little is padded."""

FILLED = 1 << 14
"""So many rows of a batch, or positions of a text, may be filled up to what a model fixes: no file's word is more."""


@dataclass(frozen=True, slots=True)
class Tokens:
    """Where the tokens of one sample come from, padding included, so that positions are those of the model's input.

    Attributes:
        offsets: `[tokens, 2]`: the characters of its text that every token stands for.
        segments: Which text every token is of; -1 for special tokens and padding.
        truncated: Whether pieces were cut off.
    """

    offsets: npt.NDArray[np.int64]
    segments: npt.NDArray[np.int64]
    truncated: bool


@dataclass(frozen=True, slots=True)
class Batch:
    """Inputs for one run.

    Attributes:
        feeds: Inputs of the model, `[batch, ...]`.
        samples: The samples; a fixed batch size may need more rows in `feeds`, which do not count.
        mask: `[batch, tokens]`, True for what is no padding; None where the model reads no text.
        tokens: By sample, where its tokens come from; empty where the inputs were given as they are.
    """

    feeds: Feeds
    samples: tuple[Sample, ...]
    mask: npt.NDArray[np.bool_] | None
    tokens: tuple[Tokens, ...] = ()


class TextReader:
    """A tokenizer of the `tokenizers` library, and how its output is put into a model.

    Padding and truncation of the file are replaced: batches are padded to their longest text.
    """

    def __init__(self, where: str | os.PathLike[str], *, max_length: int = MAX_LENGTH) -> None:
        """Load it.

        Args:
            where: A `tokenizer.json`, or a folder that holds one.
            max_length: Tokens of a text that are read, special ones included.

        Raises:
            UsageError: there is none.
            MissingExtra: the package `tokenizers` is not installed.
        """
        with needs_extra("text", "tokenizers"):
            from tokenizers import Tokenizer
        path, text = read_tokenizer(where)
        try:
            self._tokenizer = Tokenizer.from_str(text)
            self.pad_id, self.left = _padding(path, json.loads(text), self._tokenizer)
            self._tokenizer.no_padding()
            self._tokenizer.enable_truncation(max_length)
        except UsageError:
            raise
        except BaseException as error:  # the library raises bare exceptions, and panics that are no exceptions
            if isinstance(error, (KeyboardInterrupt, SystemExit, MemoryError)):
                raise
            raise UsageError(f"{path} is no tokenizer: {first_line(error)}", hint=_TOKENIZER_HINT) from error
        self.vocabulary = int(self._tokenizer.get_vocab_size())
        self.fingerprint = f"{hashlib.sha256(text.encode()).hexdigest()}/{max_length}/{self.left}/{self.pad_id}"
        self.max_length = max_length

    def encode(self, samples: Sequence[Sample]) -> list[Encoding]:
        """Tokenize one batch, unpadded."""
        texts = [sample.texts if len(sample.texts) > 1 else sample.texts[0] for sample in samples]
        try:
            return list(self._tokenizer.encode_batch(texts))
        except BaseException as error:
            if isinstance(error, (KeyboardInterrupt, SystemExit, MemoryError)):
                raise
            problem = f"the tokenizer cannot read the texts: {first_line(error)}"
            raise UsageError(problem, hint=_TOKENIZER_HINT) from error

    def batch(
        self, samples: Sequence[Sample], encodings: Sequence[Encoding], specs: Sequence[InputSpec], rows: int
    ) -> Batch:
        """Pad to the longest, or to what the model fixes."""
        fixed = [spec.dims[1] for spec in specs if len(spec.dims) == 2 and isinstance(spec.dims[1], int)]
        longest = max(len(encoding.ids) for encoding in encodings)
        length = fixed[0] if fixed else longest
        assert isinstance(length, int)
        _check_filled("tokens in a text", length, longest)
        ids = np.full((rows, length), self.pad_id, dtype=np.int64)
        types, mask = np.zeros_like(ids), np.zeros((rows, length), dtype=bool)
        tokens = []
        for row, encoding in enumerate(encodings):
            count = min(len(encoding.ids), length)
            at = slice(length - count, length) if self.left else slice(0, count)
            ids[row, at], types[row, at], mask[row, at] = encoding.ids[:count], encoding.type_ids[:count], True
            offsets, segments = np.zeros((length, 2), dtype=np.int64), np.full(length, -1, dtype=np.int64)
            offsets[at] = np.asarray(encoding.offsets[:count], dtype=np.int64).reshape(-1, 2)
            segments[at] = [-1 if s is None else s for s in encoding.sequence_ids[:count]]
            tokens.append(Tokens(offsets, segments, bool(encoding.overflowing) or count < len(encoding.ids)))
        mask[len(encodings) :, : 1 if not self.left else None] = True  # a row without a token would be all NaN
        values = {"ids": ids, "mask": mask, "types": types, "positions": np.maximum(np.cumsum(mask, axis=1) - 1, 0)}
        feeds = {spec.name: values[text_role(spec)].astype(spec.dtype) for spec in specs}
        return Batch(feeds, tuple(samples), mask[: len(samples)], tuple(tokens))


def read_tokenizer(where: str | os.PathLike[str]) -> tuple[Path, str]:
    """The path of a `tokenizer.json`, which may be given by its folder, and its text.

    Raises:
        UsageError: there is none, or it cannot be read.
    """
    path = Path(where)
    path = path / "tokenizer.json" if path.is_dir() else path
    if not is_file(path):
        hint = "give a tokenizer.json or the folder that holds it: tokenizer=…, --tokenizer …"
        raise UsageError(f"there is no tokenizer {path}", hint=hint)
    with open_text(path) as file:
        return path, file.read()


def _padding(path: Path, written: dict[str, Any], tokenizer: Any) -> tuple[int, bool]:
    """Which token pads, and whether on the left, from the tokenizer or the configuration beside it.

    Raises:
        UsageError: the configuration is none.
    """
    padding = written.get("padding") or {}
    side, token = padding.get("direction", ""), padding.get("pad_token")
    config = path.with_name("tokenizer_config.json")
    if is_file(config):
        settings = _settings(config)
        named = settings.get("pad_token")
        side = side or settings.get("padding_side", "")
        token = token or (named.get("content") if isinstance(named, dict) else named)
    number = tokenizer.token_to_id(token) if isinstance(token, str) and token else padding.get("pad_id")
    return int(number or 0), str(side).lower() == "left"


def _settings(config: Path) -> dict[str, Any]:
    with open_text(config) as file:
        text = file.read()
    hint = "save the tokenizer again, or leave this file out: tokenizer.json is enough"
    try:
        settings = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise UsageError(f"{config} is no JSON: {error}", hint=hint) from error
    if not isinstance(settings, dict):
        raise UsageError(f"{config} holds no settings", hint=hint)
    return settings


def text_role(spec: InputSpec) -> str:
    """What an input of a text model is: "ids", "mask", "types", "positions", or "" if it is none of these."""
    name = spec.name.lower()
    if len(spec.dims) != 2 or spec.dtype.kind not in "iubf" or "past" in name or "decoder" in name:
        return ""
    for role, parts in (("mask", ("mask",)), ("types", ("type", "segment")), ("positions", ("position",))):
        if any(part in name for part in parts):
            return role
    return "ids" if spec.dtype.kind in "iu" and ("id" in name or "token" in name or "input" in name) else ""


def check_data(source: Samples, reader: TextReader | None, specs: Sequence[InputSpec]) -> None:
    """Tell whether the data fit the model, before anything is run.

    Raises:
        UsageError: no tokenizer was given, the model reads no text, an input is missing, or is of another type or
            shape.
    """
    sample = source.first()
    if sample.texts:
        _check_text(reader, specs)
        return
    for spec in specs:
        if spec.name not in sample.feeds:
            there = ", ".join(sorted(sample.feeds)) or "nothing"
            raise UsageError(
                f"{source.name} has no values for the input {spec.name!r}, but for {there}",
                hint=f"the model's inputs are {', '.join(s.name for s in specs)}",
            )
        if not spec.dims:
            hint = "give it an axis of examples, or make it a constant (onnx.compose, onnx.helper)"
            raise UsageError(f"the input {spec.name!r} is one number for a whole batch, no data of examples", hint=hint)
        if spec.dims[0] == 0:
            hint = "export the model with a dynamic batch"
            raise UsageError(f"the model takes batches of 0 examples: {spec.name!r} is stated so", hint=hint)
        array, dims = sample.feeds[spec.name], spec.dims[1:]
        if array.ndim != len(dims) or any(
            isinstance(d, int) and d != n for d, n in zip(dims, array.shape, strict=True)
        ):
            shape = ", ".join(map(str, spec.dims))
            raise UsageError(
                f"{spec.name} is [{shape}], an example of {source.name} {list(array.shape)}", hint="reshape the data"
            )
        if array.dtype.kind != spec.dtype.kind and not (array.dtype.kind in "iu" and spec.dtype.kind in "iub"):
            raise UsageError(
                f"{spec.name} is {spec.dtype}, the data are {array.dtype}", hint=f"store it as {spec.dtype}"
            )


def _check_text(reader: TextReader | None, specs: Sequence[InputSpec]) -> None:
    roles = {spec.name: text_role(spec) for spec in specs}
    strange = [name for name, role in roles.items() if not role]
    if strange or "ids" not in roles.values():
        what = f"the model has the input {strange[0]!r}" if strange else "no input of the model holds token ids"
        hint = "give the inputs as they are (.npz), or export the model without caches"
        raise UsageError(f"{what}: texts cannot be fed to it", hint=hint)
    if reader is None:
        raise UsageError("texts need a tokenizer", hint="give the model's tokenizer.json: tokenizer=…, --tokenizer …")
    for spec in specs:
        if roles[spec.name] == "ids" and spec.bound is not None and reader.vocabulary > spec.bound:
            raise UsageError(
                f"the tokenizer has {reader.vocabulary} tokens, the model an embedding of {spec.bound}",
                hint="give the tokenizer that the model was trained with",
            )


def batches(source: Samples, reader: TextReader | None, specs: Sequence[InputSpec], size: int) -> Iterator[Batch]:
    """One pass over the data, in batches of samples of like length."""
    fixed = [spec.dims[0] for spec in specs if spec.dims and isinstance(spec.dims[0], int)]
    rows = fixed[0] if fixed and isinstance(fixed[0], int) else size
    for window in _chunks(source.read(), min(rows * WINDOW, sys.maxsize)):
        if fixed:
            _check_filled("examples in a batch", rows, len(window))
        if window[0].texts:
            assert reader is not None
            encodings = reader.encode(window)
            order = sorted(range(len(window)), key=lambda k: len(encodings[k].ids))
            for chosen in _chunks(order, rows):
                count = rows if fixed else len(chosen)
                yield reader.batch([window[k] for k in chosen], [encodings[k] for k in chosen], specs, count)
        else:
            for samples in _chunks(window, rows if _stackable(window) else 1):
                yield _stacked(samples, specs, rows if fixed else len(samples))


def _check_filled(what: str, fixed: int, there: int) -> None:
    if fixed - there > FILLED:
        hint = f"export the model with a dynamic dim there, or with fewer than {FILLED:,}"
        raise UsageError(f"the model takes exactly {fixed:,} {what}, the data have {there:,}", hint=hint)


def _chunks(items: Iterable[Any], size: int) -> Iterator[list[Any]]:
    iterator = iter(items)
    while chunk := list(islice(iterator, size)):
        yield chunk


def _stackable(samples: Sequence[Sample]) -> bool:
    return len({tuple((name, array.shape) for name, array in sorted(s.feeds.items())) for s in samples}) == 1


def _stacked(samples: Sequence[Sample], specs: Sequence[InputSpec], rows: int) -> Batch:
    chosen = [*samples, *[samples[-1]] * (rows - len(samples))]
    for spec in specs:
        if any(spec.name not in sample.feeds for sample in samples):
            raise UsageError(f"an example of the data has no {spec.name!r}", hint="give every example all inputs")
    feeds = {spec.name: np.stack([s.feeds[spec.name] for s in chosen]).astype(spec.dtype) for spec in specs}
    masks = [feeds[spec.name] for spec in specs if text_role(spec) == "mask"]
    mask = masks[0][: len(samples)].astype(bool) if masks else None
    return Batch(feeds, tuple(samples), mask)
