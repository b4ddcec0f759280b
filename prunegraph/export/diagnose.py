"""Why a file is no ONNX model, told from its first bytes and its outermost fields."""

from __future__ import annotations

from pathlib import Path
from typing import BinaryIO

from prunegraph.errors import ModelError

_PROTOBUF_LIMIT = 1 << 31
_LOOKS_LIKE = {
    b"version https://git-lfs": ("is a Git LFS pointer, not the model itself", "git lfs pull"),
    b"PK\x03\x04": (
        "is a zip archive, such as a PyTorch checkpoint",
        "export it first: {export}, or torch.onnx.export",
    ),
    b"<!": ("is a web page, not a model", "download the file itself, not the page that shows it"),
    b"<html": ("is a web page, not a model", "download the file itself, not the page that shows it"),
}


_WEIGHTS = (".safetensors", ".pt", ".pth", ".bin", ".ckpt", ".h5", ".msgpack")
"""Suffixes of files that hold weights and no graph."""


def explain(path: Path) -> ModelError:
    """Find the likeliest reason why ``path`` could not be parsed, and what to do about it."""
    size = path.stat().st_size
    if size == 0:
        return ModelError(f"{path} is empty", hint="download or export it again")
    if size >= _PROTOBUF_LIMIT:
        hint = "an ONNX file ends at 2 GiB; export it with its weights in external data"
        return ModelError(f"{path} is {size / 1e9:.1f} GB, too large to be read", hint=hint)
    with path.open("rb") as file:
        start = file.read(32)
        for magic, (what, hint) in _LOOKS_LIKE.items():
            if start.lstrip().startswith(magic):
                return ModelError(f"{path} {what}", hint=hint.format(export=_export(path.parent)))
        file.seek(0)
        end = _stated_end(file, size)
    if end > size:
        return ModelError(
            f"{path} is cut short: it has {size} bytes of at least {end}", hint="download or export it again"
        )
    if path.suffix in _WEIGHTS:
        return ModelError(f"{path} holds weights and no graph", hint=f"export the model first: {_export(path.parent)}")
    return ModelError(f"{path} is not an ONNX model", hint="give a .onnx file; torch.onnx.export writes one")


def explain_folder(path: Path) -> ModelError:
    """What to give instead of a folder."""
    files = sorted([*path.glob("*.onnx"), *path.glob("onnx/*.onnx")])
    if files:
        return ModelError(f"{path} is a folder", hint=f"give the .onnx file inside it: {files[0]}")
    if (path / "config.json").is_file():
        return ModelError(f"{path} is a folder without an ONNX file", hint=f"export it first: {_export(path)}")
    return ModelError(f"{path} is a folder", hint="give a .onnx file")


def _export(folder: Path) -> str:
    return f"prunegraph export hf:{folder} -o model.onnx"


def _stated_end(file: BinaryIO, size: int) -> int:
    """How long the file says it is: the end of its last whole or broken field; 0 if it does not start like a model.

    A protobuf message is a row of fields, each a key (number and wire type) and a varint or a length with its bytes. A
    model starts with field 1, the IR version, and only has fields of these two types.
    """
    if file.read(1) != b"\x08":
        return 0
    file.seek(0)
    while (position := file.tell()) < size:
        key = _varint(file)
        value = _varint(file)
        if key is None or value is None:
            return size + 1
        if key & 7 == 2:
            file.seek(value, 1)
        elif key & 7 != 0 or key >> 3 == 0:
            return position
    return file.tell()


def _varint(file: BinaryIO) -> int | None:
    """Read seven bits a byte, lowest first, until one lacks the high bit; None where the file ends."""
    number = 0
    for shift in range(0, 70, 7):
        byte = file.read(1)
        if not byte:
            return None
        number |= (byte[0] & 0x7F) << shift
        if byte[0] < 0x80:
            break
    return number
