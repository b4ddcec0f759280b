"""Load external data of ONNX files: where the bytes lie, whether they may be read, and whether all are there."""

from __future__ import annotations

import os
import stat
from collections.abc import Callable, Collection, Iterator
from pathlib import Path

import onnx_ir as ir

from prunegraph.errors import ModelError

_SHOWN = 80
"""Characters of a path in a message about it."""

_FETCH = "copy the data file into the model's folder; it is part of the model"


def resolve(
    model: ir.Model,
    *,
    folder: Path | None,
    model_file: Path | None = None,
    trusted: Collection[str] = (),
    floor: int = 0,
) -> tuple[str, ...]:
    """Resolve every external tensor of ``model`` once and for all.

    Afterwards only initializers of the main graph larger than ``floor`` bytes are external, by absolute path; all
    other tensors have been read, because neither the checker nor a serializer can follow them.

    Args:
        model: Changed in place.
        folder: What relative locations are relative to; None asks each tensor for its own ``base_dir``.
        model_file: The model's file with links followed. Data beside it is as good as data in ``folder``, so that a
            store which links both files from elsewhere works (the Hugging Face cache does that).
        trusted: Absolute paths that may be read although they are absolute.
        floor: Size in bytes.

    Returns:
        The data files, absolute, each once.

    Raises:
        ModelError: A data file is missing or too short, or lies outside the folder.
    """
    files: dict[str, None] = {}

    def resolve(tensor: ir.ExternalTensor, *, lazily: bool) -> ir.TensorProtocol:
        base = folder or Path(tensor.base_dir).absolute()
        path = _locate(tensor, [base, *([model_file.parent] if model_file else [])], trusted)
        files[str(path)] = None
        opened = _open(tensor, path)
        if lazily and opened.nbytes > floor:
            return opened
        return ir.Tensor(opened.numpy().copy(), dtype=opened.dtype, name=opened.name, doc_string=opened.doc_string)

    for value in model.graph.initializers.values():
        if isinstance(value.const_value, ir.ExternalTensor):
            value.const_value = resolve(value.const_value, lazily=True)
    for graph in _inner_graphs(model):
        for value in graph.initializers.values():
            if isinstance(value.const_value, ir.ExternalTensor):
                value.const_value = resolve(value.const_value, lazily=False)
    for node in _all_nodes(model):
        _settle_attributes(node, lambda tensor: resolve(tensor, lazily=False))
    return tuple(files)


def _locate(tensor: ir.ExternalTensor, folders: list[Path], trusted: Collection[str]) -> Path:
    """The data file with links followed; it must lie in one of the folders."""
    location = os.fspath(tensor.location)
    if not location:
        raise ModelError(f"the external data of {tensor.name!r} has no location", hint="export the model again")
    if location in trusted:
        return Path(location)
    refusal = ModelError(
        f"the external data of {tensor.name!r} points outside the model's folder: {location}",
        hint="refused, since a model could read any file that way; put the data file beside the model",
    )
    base = folders[0]
    if os.path.isabs(location) or Path(os.path.normpath(location)).parts[:1] == ("..",):
        raise refusal
    try:
        path = (base / location).resolve()
        inside = any(path.is_relative_to(folder.resolve()) for folder in folders)
        exists = _is_file(path)
    except (OSError, ValueError, RuntimeError) as error:  # too long, a null character, links that go round
        reason = getattr(error, "strerror", None) or str(error)
        shown = repr(location if len(location) <= _SHOWN else f"{location[:_SHOWN]}…")
        raise ModelError(
            f"the external data of {tensor.name!r} lies at {shown}, which is no path: {reason}",
            hint="export the model again",
        ) from error
    if not inside:
        raise refusal
    if not exists:
        raise ModelError(f"the external data file {base / location} is missing; it holds {tensor.name!r}", hint=_FETCH)
    if not os.access(path, os.R_OK):
        raise ModelError(f"the external data file {path} cannot be read", hint=f"chmod +r {path}")
    return path


def _is_file(path: Path) -> bool:
    """Whether a file is there; what is no path raises, which `Path.is_file` does in some versions of Python only.

    Raises:
        OSError: links go round, or a name is too long.
    """
    try:
        return stat.S_ISREG(path.stat().st_mode)
    except (FileNotFoundError, NotADirectoryError):
        return False


def _open(tensor: ir.ExternalTensor, path: Path) -> ir.ExternalTensor:
    """The same tensor by absolute path, once its place and length are known to be right."""
    name = tensor.name
    try:
        need = tensor.nbytes
    except TypeError:
        raise ModelError(f"{name!r} has type {tensor.dtype.name}, which external data cannot hold") from None
    offset, length = tensor.offset or 0, tensor.length
    if length is not None and length != need:
        raise ModelError(
            f"{name!r} is stated to have {length} bytes of external data, but its shape and type need {need}",
            hint="the model file and its data file do not belong together; export the model again",
        )
    size = path.stat().st_size
    if offset < 0 or offset + need > size:
        raise ModelError(
            f"the external data file {path} is too short: {name!r} ends at byte {offset + need}, the file at {size}",
            hint="it was cut short or belongs to another model; copy or export it again",
        )
    # onnx_ir refuses hard-linked files below a base_dir, as package caches make them; the path is checked above
    return ir.ExternalTensor(
        str(path),
        offset,
        need,
        tensor.dtype,
        shape=ir.Shape(tensor.shape),
        name=name or "",
        doc_string=tensor.doc_string,
        metadata_props=dict(tensor.metadata_props),
        base_dir="",
    )


def _settle_attributes(node: ir.Node, resolve: Callable[[ir.ExternalTensor], ir.TensorProtocol]) -> None:
    """Replace attributes that hold external tensors; attributes are shared with the caller's model, so never edited."""
    for name, attr in list(node.attributes.items()):
        if attr.is_ref():
            continue
        if attr.type == ir.AttributeType.TENSOR and isinstance(attr.value, ir.ExternalTensor):
            node.attributes[name] = ir.AttrTensor(name, resolve(attr.value), doc_string=attr.doc_string)
        elif attr.type == ir.AttributeType.TENSORS and any(isinstance(each, ir.ExternalTensor) for each in attr.value):
            tensors = [resolve(each) if isinstance(each, ir.ExternalTensor) else each for each in attr.value]
            node.attributes[name] = ir.AttrTensors(name, tensors, doc_string=attr.doc_string)


def _inner_graphs(model: ir.Model) -> Iterator[ir.Graph]:
    yield from model.graph.subgraphs()
    for function in model.functions.values():
        yield from function.subgraphs()


def _all_nodes(model: ir.Model) -> Iterator[ir.Node]:
    yield from model.graph.all_nodes()
    for function in model.functions.values():
        yield from function.all_nodes()
