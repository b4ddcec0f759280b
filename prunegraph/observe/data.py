"""Calibration data: samples from files, iterables and Hugging Face data sets, read lazily, checked before any work."""

from __future__ import annotations

import csv
import hashlib
import math
import os
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from prunegraph.errors import UsageError
from prunegraph.observe.conllu import Parse, read_conllu
from prunegraph.observe.files import is_file, open_text, read_npz
from prunegraph.strict_json import parse_json

Array = npt.NDArray[Any]
DataLike = str | os.PathLike[str] | Iterable[Mapping[str, Any]] | Mapping[str, Array]

TEXTS = (
    ("sentence1", "sentence2"), ("premise", "hypothesis"), ("question1", "question2"), ("question", "sentence"),
    ("question", "context"), ("text", "text_pair"), ("text",), ("sentence",), ("content",), ("review",), ("premise",),
    ("question",), ("sentence1",),
)  # fmt: skip
"""Columns that hold text in usual data sets; the first of these that are all there are taken."""

LABELS = ("label", "labels", "target", "score")
SUFFIXES = (".txt", ".csv", ".tsv", ".jsonl", ".npz", ".conllu")


@dataclass(frozen=True, slots=True)
class Sample:
    """One example: one or two texts, or the model's inputs as they are; perhaps a label and dependency trees.

    Attributes:
        texts: One text, or a pair; empty where `feeds` are given.
        label: The number of its class.
        parses: A tree for each text, where the data come with them.
        feeds: Inputs of the model without the batch axis.
        image: Where an image lies that becomes an input of the model, see `observe.images`.
    """

    texts: tuple[str, ...] = ()
    label: int | None = None
    parses: tuple[Parse, ...] = ()
    feeds: Mapping[str, Array] = field(default_factory=dict)
    image: Path | None = None


@dataclass(frozen=True, slots=True)
class Samples:
    """Samples that can be read again and again, and a fingerprint of them.

    Attributes:
        read: Starts a new pass.
        fingerprint: Differs where the data differ.
        name: For messages.
    """

    read: Callable[[], Iterator[Sample]]
    fingerprint: str
    name: str

    def first(self) -> Sample:
        """The first sample.

        Raises:
            UsageError: there is none.
        """
        for sample in self.read():
            return sample
        raise UsageError(f"{self.name} holds no example", hint="give at least one text, or one row of inputs")


@dataclass(frozen=True, slots=True)
class _Columns:
    """Where texts and labels lie, and what labels that are no numbers mean."""

    text: tuple[str, ...]
    label: str
    label2id: Mapping[str, int]

    @property
    def fingerprint(self) -> str:
        """Differs where samples may."""
        return f"{self.text}/{self.label}" + (f"/{sorted(self.label2id.items())}" if self.label2id else "")


def open_data(
    data: DataLike | Samples,
    *,
    text: Sequence[str] = (),
    label: str = "",
    label2id: Mapping[str, int] | None = None,
    limit: int | None = None,
) -> Samples:
    """Samples from whatever holds them.

    Args:
        data: A `.txt` (a text a line), `.csv`, `.tsv`, `.jsonl` (columns of text and label), `.npz` (inputs of the
            model, perhaps `labels`) or `.conllu` file; a folder of images, or of class folders of images; arrays by
            input name; an iterable of dicts; a Hugging Face `Dataset`.
        text: Names of the one or two columns that hold text; usual names are found without.
        label: Name of the column of class numbers.
        label2id: Numbers of classes by name, for labels that are no numbers.
        limit: Read only so many.

    Raises:
        UsageError: there is no such file, its kind is unknown, it is empty, or no column holds text.
    """
    columns = _Columns(tuple(text), label, dict(label2id or {}))
    if isinstance(data, Samples):
        source = data
    elif isinstance(data, (str, os.PathLike)):
        source = _open_file(Path(data), columns)
    elif isinstance(data, Mapping):
        source = _from_arrays(data, "the data", columns)
    else:
        source = _from_rows(data, columns)
    if limit is not None:
        source = Samples(_limited(source.read, limit), f"{source.fingerprint}/{limit}", source.name)
    source.first()
    return source


def every_nth(source: Samples, n: int, first: int, *, others: bool = False) -> Samples:
    """Every n-th sample, beginning with number `first`; or all the others."""

    def read() -> Iterator[Sample]:
        return (sample for k, sample in enumerate(source.read()) if (k % n == first) != others)

    which = f"{'without ' if others else ''}{first} of {n}"
    return Samples(read, f"{source.fingerprint}/{which}", source.name)


def _limited(read: Callable[[], Iterator[Sample]], limit: int) -> Callable[[], Iterator[Sample]]:
    return lambda: islice(read(), limit)


def _open_file(path: Path, columns: _Columns) -> Samples:
    if path.is_dir():
        from prunegraph.observe.images import read_folder

        return read_folder(path, columns.label2id)
    if not is_file(path):
        hint = "give a file of texts, or of inputs of the model, or a folder of images"
        raise UsageError(f"there is no data file {path}", hint=hint)
    if path.suffix == ".npz":
        return _from_arrays(read_npz(path), path.name, columns)
    readers: dict[str, Callable[[], Iterator[Sample]]] = {
        ".txt": lambda: _lines(path),
        ".conllu": lambda: (Sample(texts=(words,), parses=(parse,)) for words, parse in read_conllu(path)),
        ".csv": lambda: _samples(_table(path, ","), columns, path.name),
        ".tsv": lambda: _samples(_table(path, "\t"), columns, path.name),
        ".jsonl": lambda: _samples(_objects(path), columns, path.name),
    }
    if path.suffix not in readers:
        raise UsageError(f"{path.name} is of no known kind", hint=f"name it as what it is: {', '.join(SUFFIXES)}")
    return Samples(readers[path.suffix], f"{_digest(path)}/{path.suffix}/{columns.fingerprint}", path.name)


def _digest(path: Path) -> str:
    try:
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise UsageError(f"{path} cannot be read: {error.strerror}", hint="check its permissions") from error


def _lines(path: Path) -> Iterator[Sample]:
    with open_text(path) as file:
        yield from (Sample(texts=(line.strip(),)) for line in file if line.strip())


def _table(path: Path, delimiter: str) -> Iterator[Mapping[str, Any]]:
    with open_text(path, newline="") as file:
        if delimiter == ",":
            reader = csv.DictReader(file)
        else:
            reader = csv.DictReader(file, delimiter=delimiter, quoting=csv.QUOTE_NONE)
        try:
            yield from reader
        except csv.Error as error:
            hint = f"a field has at most {csv.field_size_limit():,} characters; quotes must be closed"
            raise UsageError(f"{path.name}, line {reader.line_num}: {error}", hint=hint) from error


def _objects(path: Path) -> Iterator[Mapping[str, Any]]:
    hint = "write one JSON object a line"
    with open_text(path) as file:
        for number, line in enumerate(file, 1):
            if not line.strip():
                continue
            try:
                row = parse_json(line)
            except ValueError as error:
                raise UsageError(f"{path.name}, line {number}: {error}", hint=hint) from error
            if not isinstance(row, dict):
                raise UsageError(f"{path.name}, line {number} is no object", hint=hint)
            yield row


def _from_rows(rows: Iterable[Mapping[str, Any]], columns: _Columns) -> Samples:
    """An iterable of dicts; what can be iterated only once is kept."""
    kept = rows if iter(rows) is not iter(rows) else list(rows)
    fingerprint = getattr(rows, "_fingerprint", None)  # what a Hugging Face Dataset says of itself
    if fingerprint is None:
        digest = hashlib.sha256()
        for row in kept:
            for key, value in row.items():
                digest.update(repr((key, np.asarray(value).tolist())).encode())
        fingerprint = digest.hexdigest()
    known = f"rows/{fingerprint}/{columns.fingerprint}"
    return Samples(lambda: _samples(kept, columns, "the data"), known, "the data")


def _samples(rows: Iterable[Mapping[str, Any]], columns: _Columns, name: str) -> Iterator[Sample]:
    texts: tuple[str, ...] | None = None
    label = columns.label
    for row in rows:
        if texts is None:
            label = _label_column(row, label, name)
            others = {key: value for key, value in row.items() if key != label}
            texts = _text_columns(others, columns.text, name)
        number = _class(row.get(label), name, columns.label2id) if label else None
        if texts:
            yield Sample(texts=tuple(_text(row.get(column), column, name) for column in texts), label=number)
        else:
            yield Sample(label=number, feeds={k: _numbers(v, k, name) for k, v in row.items() if k != label})


def _text(value: object, column: str, name: str) -> str:
    if isinstance(value, (str, int, float)):
        return str(value)
    problem = "has no text" if value is None else f"holds {type(value).__name__}, not text,"
    raise UsageError(f"{name}: an example {problem} in the column {column!r}", hint="give every example its text")


def _numbers(value: object, column: str, name: str) -> Array:
    """What one example gives to an input of the model."""
    try:
        array = np.asarray(value)
    except (ValueError, TypeError, OverflowError) as error:
        raise UsageError(f"{name}: {column!r} is no array: {error}", hint="rows must be of one length") from error
    if array.dtype.kind not in "biufc" and array.dtype.kind != "V":  # V: bfloat16 and its kin
        raise UsageError(f"{name}: {column!r} holds {array.dtype}, not numbers", hint="give numbers that fit an array")
    return array


def _label_array(value: object, column: str, name: str) -> Array:
    """Class numbers or names, one an example."""
    array = np.asarray(value)
    return array if array.dtype.kind == "U" else _numbers(value, column, name)


def _text_columns(row: Mapping[str, Any], column_names: tuple[str, ...], name: str) -> tuple[str, ...]:
    """Names of the columns of text; none where a row holds numbers only: inputs of the model."""
    columns = ", ".join(map(str, row))
    if column_names:
        if not set(column_names) <= set(row) or len(column_names) > 2:
            raise UsageError(
                f"{name} has no columns {', '.join(column_names)} but {columns}", hint="name one or two columns of text"
            )
        return column_names
    for candidate in TEXTS:
        if set(candidate) <= set(row) and all(isinstance(row[column], str) for column in candidate):
            return candidate
    if any(isinstance(value, str) for value in row.values()):
        raise UsageError(
            f"{name}: none of the columns {columns} has a usual name for text",
            hint="name the column: text=['COLUMN'], --text-column COLUMN; a .csv needs a line of column names",
        )
    return ()


def _label_column(row: Mapping[str, Any], label_column: str, name: str) -> str:
    if label_column and label_column not in row:
        raise UsageError(
            f"{name} has no column {label_column!r} but {', '.join(map(str, row))}",
            hint="name a column of class numbers",
        )
    return label_column or next((column for column in LABELS if column in row), "")


def _class(value: Any, name: str, label2id: Mapping[str, int]) -> int:
    if isinstance(value, str) and value in label2id:
        return label2id[value]
    try:
        number = float(value)
    except (TypeError, ValueError, OverflowError):
        number = math.nan
    if not number.is_integer() or abs(number) >= 1 << 53:
        known = f"the model knows {', '.join(list(label2id)[:5])}" if label2id else "write classes as 0, 1, 2, …"
        hint = known if label2id else f"{known}, or keep the model's config.json with label2id beside it"
        raise UsageError(f"{name}: the label {value!r} is no class number", hint=hint)
    return int(number)


def _from_arrays(arrays: Mapping[str, Array], name: str, columns: _Columns) -> Samples:
    """Inputs of the model with their batch axis, and perhaps labels."""
    label = next((key for key in LABELS if key in arrays), None)
    labels = None if label is None else _label_array(arrays[label], label, name)
    given = {key: _numbers(value, key, name) for key, value in arrays.items() if key != label}
    lengths = {len(value) if value.ndim else -1 for value in (*given.values(), *([] if labels is None else [labels]))}
    if not given or len(lengths) != 1 or -1 in lengths:
        raise UsageError(
            f"{name} holds arrays of unequal lengths", hint="the first axis of every array counts the examples"
        )
    digest = hashlib.sha256()
    for key, value in sorted(arrays.items()):
        array = np.ascontiguousarray(value)
        digest.update(repr((key, array.dtype.str, np.shape(value))).encode() + array.tobytes())

    def read() -> Iterator[Sample]:
        for k in range(next(iter(lengths))):
            number = None if labels is None else _class(labels[k], name, columns.label2id)
            yield Sample(label=number, feeds={key: value[k] for key, value in given.items()})

    return Samples(read, f"arrays/{digest.hexdigest()}", name)
