"""The ONNX file door: any ONNX file or model in, a model safe to change out; and back to files, all or none."""

from __future__ import annotations

import copy
import functools
import logging
import os
import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import onnx
import onnx_ir as ir
from google.protobuf import json_format, text_format
from google.protobuf.message import DecodeError, EncodeError
from onnx_ir.passes.common import CheckerPass

from prunegraph.atomic_write import check_room, check_target, stage
from prunegraph.errors import ModelError, OutputError, UsageError, first_line
from prunegraph.export import diagnose, external_data, sparse
from prunegraph.export.function_calls import check_calls
from prunegraph.export.function_opsets import align_opsets
from prunegraph.export.stored_tensors import check_tensors
from prunegraph.observe.fingerprint import fingerprint

logger = logging.getLogger(__name__)

INLINE_LIMIT = 1_800_000_000
"""Bytes of weights above which they go to a data file; a protobuf message ends at 2 GiB, names and nodes included."""

_SOURCE = "prunegraph.source"
_TEXT_ERRORS = (json_format.Error, text_format.Error, onnx.parser.ParseError)
_DIGITS = 12  # of the fingerprint in the name of a data file
_PAGE = 1 << 16  # bytes; what Windows maps files in, others in less
_SHARD = re.compile(r"-\d{5}-of-\d{5}")  # in the name of one data file of several
_SMALL = 1000  # bytes; the checker pass leaves out larger tensors, so those are checked one by one
_CHECK_HINT = f"onnx.checker rejects it; if it is newer than onnx {onnx.__version__}: pip install --upgrade onnx"

_RUNTIME = "com.microsoft"
_IN_NO_OPSET = {"SimplifiedLayerNormalization"}
"""Ops that ONNX Runtime writes into files as if they were ONNX's own."""


@dataclass(frozen=True, slots=True)
class ModelFiles:
    """Where a loaded model came from; it travels in ``model.graph.meta`` and survives ``model.clone()``.

    Attributes:
        files: Absolute paths of the model file and its data files, which must not be written over.
        external: Whether weights lay in data files beside the model.
    """

    files: tuple[str, ...] = ()
    external: bool = False


def load(source: str | os.PathLike[str] | onnx.ModelProto | ir.Model) -> ir.Model:
    """Read a model that may be changed freely: neither the file nor the object given is ever touched.

    Large external weights stay on disk until somebody asks for their values, weights in memory are shared with the
    object given (tensors are immutable), and the ONNX checker has accepted the result. Sparse initializers of the
    main graph become dense ones.

    Args:
        source: A path to an ONNX file (``.onnx``; also the text formats that ``onnx.load`` knows by their suffix), or
            a model in memory.

    Returns:
        A new model; `files_of` tells where it came from.

    Raises:
        ModelError: The file is missing, is not ONNX, is cut short, has no outputs, lacks its external data or points
            outside its folder for it, or the ONNX checker rejects it.
        UsageError: ``source`` is none of the accepted types.
    """
    if isinstance(source, ir.Model):
        model = _clone(source, "the model")
        known = files_of(source)
        data = external_data.resolve(model, folder=None, trusted=known.files, floor=_SMALL)
        record = ModelFiles(tuple(dict.fromkeys([*known.files, *data])), known.external or bool(data))
    elif isinstance(source, onnx.ModelProto):
        model = _deserialize(source, "the model")
        data = external_data.resolve(model, folder=Path.cwd(), floor=_SMALL)
        record = ModelFiles(data, bool(data))
    elif isinstance(source, (str, os.PathLike)):
        path = Path(source)
        model = _deserialize(_read(path), str(path))
        data = external_data.resolve(model, folder=path.absolute().parent, model_file=path.resolve(), floor=_SMALL)
        record = ModelFiles((str(path.resolve()), *data), bool(data))
    else:
        raise UsageError(
            f"cannot read a model from {type(source).__name__}",
            hint="give the path of an ONNX file, an onnx.ModelProto or an onnx_ir.Model",
        )
    align_opsets(model)
    check_calls(model)
    _check(model, str(source) if isinstance(source, (str, os.PathLike)) else "the model")
    model.graph.meta[_SOURCE] = record
    return _own_tensors(model)


def files_of(model: ir.Model) -> ModelFiles:
    """Where `load` found this model or the one it was cloned from; empty for any other model."""
    source = model.graph.meta.get(_SOURCE)
    return source if isinstance(source, ModelFiles) else ModelFiles()


def name_of(model: ir.Model) -> str:
    """The name of the file that a model was read from, or of its graph."""
    files = files_of(model).files
    return Path(files[0]).name if files else model.graph.name or "the model"


def save(
    model: ir.Model,
    path: str | os.PathLike[str],
    *,
    input_path: str | os.PathLike[str] | None = None,
    companions: Mapping[str, str] | None = None,
    shard: int | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> tuple[Path, ...]:
    """Write the model to ``path``, replacing what is there; all the files appear, or none changes.

    The weights go to a data file beside the model if they lay outside the model file when it was read, or if they
    exceed `INLINE_LIMIT`. It is named after the model and what it holds (``slim.onnx.0123456789ab.data``), so that
    whoever opens the model while it is replaced reads all old or all new; the data of a replaced model go. Large
    weights begin at addresses that systems can map into memory.

    Args:
        model: The model; it is not changed.
        path: Where to write it. An existing file is replaced, its permissions are kept.
        input_path: A file that must not be written over, beside those that `files_of` lists.
        companions: Text files to write beside the model, by file name, such as ``{"slim.plan.json": "{}"}``.
        shard: Split the data into files of no more than so many bytes; a larger weight has one of its own.
        progress: Called with the bytes of the data file that are written, and with all.

    Returns:
        The files written, the model first.

    Raises:
        OutputError: The path is an input, a folder or not a regular file, or cannot be written; or there is no room.
    """
    target = Path(path)
    record = files_of(model)
    inputs = [*record.files, *([input_path] if input_path is not None else [])]
    tensors = [value.const_value for graph in model.graphs() for value in graph.initializers.values()]
    need = sum(t.nbytes for t in tensors if t is not None and t.dtype is not ir.DataType.STRING)
    outside = record.external or any(isinstance(tensor, ir.ExternalTensor) for tensor in tensors)
    outside = outside or need > INLINE_LIMIT or shard is not None
    data_name = f"{_text_name(target)}.{fingerprint(model)[:_DIGITS]}.data" if outside else None
    names = [target.name, *([data_name] if data_name else []), *(companions or {})]
    written: list[str] = []
    for name in names:
        check_target(target.parent / name, inputs)
    check_room(target, need)
    old = _data_of(target)

    def outdated() -> Iterator[Path]:
        inputs = {os.path.realpath(path) for path in record.files}
        for path in {*old, *_unused_data(target)} - {target.parent / name for name in written}:
            if os.path.realpath(path) not in inputs:
                yield path

    with stage(target, outdated=outdated, need=need) as folder:
        try:
            ir.save(
                model,
                folder / target.name,
                external_data=data_name,
                size_threshold_bytes=_SMALL,
                max_shard_size_bytes=shard if data_name else None,
                alignment=_PAGE if data_name else None,
                callback=None if progress is None else _counted(progress, need),
            )
        except (EncodeError, ValueError) as error:
            raise OutputError(f"cannot write {target}: {error}", hint="the graph may exceed 2 GiB of nodes") from error
        for name, text in (companions or {}).items():
            (folder / name).write_text(text, encoding="utf-8")
        data = sorted(path.name for path in folder.iterdir() if path.name not in {target.name, *(companions or {})})
        written += [target.name, *data, *(companions or {})]  # without large weights there is no data file
    return tuple(target.parent / name for name in written)


def _counted(progress: Callable[[int, int], None], need: int) -> Callable[[ir.TensorProtocol, Any], None]:
    """Tells how many bytes are written before each tensor."""
    total = 0

    def count(tensor: ir.TensorProtocol, _: Any) -> None:
        nonlocal total
        progress(total, need)
        total += tensor.nbytes

    return count


def check_outputs(path: Path, inputs: Iterable[str | os.PathLike[str]] = (), companions: Iterable[str] = ()) -> None:
    """Refuse a path that `save` would refuse; ask before the long work starts.

    Raises:
        OutputError: The path is an input, a folder or not a regular file, or cannot be written.
    """
    given = list(inputs)
    for name in (path.name, f"{_text_name(path)}.{'0' * _DIGITS}.data", *companions):
        check_target(path.parent / name, given)


def _text_name(target: Path) -> str:
    """The name of a file as a model can state it: in UTF-8, which names of files need not be."""
    return os.fsencode(target.name).decode("utf-8", "replace").replace("\N{REPLACEMENT CHARACTER}", "_")


def data_names(path: Path) -> set[str]:
    """The names of the files that hold the large weights of a model, as it states them."""
    proto = onnx.load(path, load_external_data=False)
    tensors = [tensor for tensor in proto.graph.initializer if tensor.external_data]
    return {entry.value for tensor in tensors for entry in tensor.external_data if entry.key == "location"}


def _data_of(target: Path) -> tuple[Path, ...]:
    """The data files that `save` wrote for the model that is there."""
    if not target.is_file():
        return ()
    try:
        names = data_names(target)
    except Exception:  # whatever is there is replaced
        return ()
    return tuple(target.parent / name for name in names if _is_data_of(target, name) or name == f"{target.name}.data")


def _unused_data(target: Path) -> Iterator[Path]:
    """Data files that `save` wrote for the target and that no model came to."""
    return (path for path in target.parent.iterdir() if _is_data_of(target, path.name))


def _is_data_of(target: Path, name: str) -> bool:
    start = _text_name(target)
    name = _SHARD.sub("", name, count=1) if not _SHARD.search(start) else name
    digits = name.removeprefix(f"{start}.").removesuffix(".data")
    return name == f"{start}.{digits}.data" and len(digits) == _DIGITS and set(digits) <= set("0123456789abcdef")


def _read(path: Path) -> onnx.ModelProto:
    """Parse a file, its external data left where it is."""
    try:
        if path.is_dir():
            raise diagnose.explain_folder(path)
        if path.exists() and not path.is_file():
            raise ModelError(f"{path} is not a regular file", hint="give a .onnx file")
        proto = onnx.load(path, load_external_data=False)
    except FileNotFoundError:
        raise ModelError(f"{path} does not exist", hint=f"the current folder is {Path.cwd()}") from None
    except OSError as error:
        raise ModelError(
            f"{path} cannot be read: {error.strerror}", hint="check the path and its permissions"
        ) from error
    except (DecodeError, ValueError, RecursionError, *_TEXT_ERRORS) as error:
        if "\0" in str(path):
            raise ModelError(f"{str(path)!r} is no path: it holds a null character", hint="give a path") from error
        raise diagnose.explain(path) from error
    if not proto.HasField("graph"):
        raise diagnose.explain(path)
    return proto


def _deserialize(proto: onnx.ModelProto, name: str) -> ir.Model:
    """Proto to IR; sparse initializers are made dense before, for the IR would drop them in silence."""
    if proto.training_info:
        logger.warning("%s: training_info is left out; it would not fit a smaller graph", name)
    try:
        check_tensors(proto)
        _refuse_maps(proto)
        return _in_order(_with_open_lengths(ir.from_proto(sparse.densify(proto))))
    except ModelError as error:
        raise ModelError(f"{name}: {error.message}", hint=error.hint) from error
    except Exception as error:  # the IR wraps whatever went wrong in a chain of its own types
        cause: BaseException = error
        while (deeper := cause.__cause__ or cause.__context__) is not None:
            cause = deeper
        raise ModelError(f"{name} cannot be understood: {first_line(cause)}", hint=_CHECK_HINT) from error


def _refuse_maps(proto: onnx.ModelProto) -> None:
    """Refuse outputs that are maps, as the exporter of scikit-learn makes them: the IR has no such type."""
    for value in proto.graph.output:
        kinds = (value.type, value.type.sequence_type.elem_type)
        if any(kind.WhichOneof("value") == "map_type" for kind in kinds):
            hint = "export without it (skl2onnx: options={'zipmap': False}), or make the input of its ZipMap an output"
            raise ModelError(f"the output {value.name!r} is a map of classes, which cannot be carried over", hint=hint)


def _with_open_lengths(model: ir.Model) -> ir.Model:
    """Lengths below zero, by which some exporters mean any length, as lengths that the model leaves open."""
    for graph in model.graphs():
        values = (value for node in graph for value in node.outputs)
        for value in (*graph.inputs, *graph.outputs, *values):
            if value.shape is not None and any(isinstance(n, int) and n < 0 for n in value.shape):
                value.shape = ir.Shape([None if isinstance(n, int) and n < 0 else n for n in value.shape])
    return model


def _in_order(model: ir.Model) -> ir.Model:
    """Nodes after what they read: ONNX asks for that, ONNX Runtime does not, and its float16 converter leaves it so."""
    earlier: set[ir.Node] = set()
    for node in model.graph:
        producers = (value.producer() for value in node.inputs if value is not None)
        if any(maker is not None and maker not in earlier and maker.graph is model.graph for maker in producers):
            model.graph.sort()
            break
        earlier.add(node)
    return model


def _clone(model: ir.Model, name: str) -> ir.Model:
    """Copy the structure, share the tensors; needs nodes in order, which the checker would ask for anyway."""
    try:
        return model.clone()
    except Exception as error:
        used = (value for node in model.graph.all_nodes() for value in node.inputs if value is not None)
        loose = next((value.name for value in used if value.graph is None), None)
        reason = "its nodes are not in topological order" if loose is None else f"nothing defines the value {loose!r}"
        raise ModelError(f"{name} is not valid ONNX: {reason}", hint=_CHECK_HINT) from error


def _check(model: ir.Model, name: str) -> None:
    """Run the ONNX checker without ever holding a second copy of all weights."""
    if not model.graph.outputs:
        raise ModelError(f"{name} has no outputs", hint="export it again; a graph without outputs computes nothing")
    for value in (*model.graph.inputs, *model.graph.outputs):
        if isinstance(value.type, ir.TensorType) and not _is_known(value.type.dtype):
            raise ModelError(f"{name} does not say of which type {value.name!r} is", hint="export it again")
    spare = _clone(model, name)  # the checker pass would leave the initializers in another order
    for node in spare.graph.all_nodes():
        if node.domain in ("", "ai.onnx") and node.op_type in _IN_NO_OPSET:
            node.domain = _RUNTIME
            spare.graph.opset_imports.setdefault(_RUNTIME, 1)
    try:
        CheckerPass()(spare)
        for value in model.graph.initializers.values():
            if isinstance(value.const_value, ir.serde.TensorProtoTensor) and value.const_value.nbytes > _SMALL:
                onnx.checker.check_tensor(value.const_value.raw)
    except Exception as error:
        raise ModelError(
            f"{name} is not valid ONNX: {first_line(error.__cause__ or error)}", hint=_CHECK_HINT
        ) from error


def _is_known(dtype: ir.DataType) -> bool:
    """Whether there are arrays of this type."""
    try:
        dtype.numpy()
    except TypeError:
        return dtype is ir.DataType.STRING
    return True


def _own_tensors(model: ir.Model) -> ir.Model:
    """Give each value a tensor object of its own, so that a new name never reaches the caller's; the data is shared."""
    for value in _constants(model):
        tensor = value.const_value
        if isinstance(tensor, ir.serde.TensorProtoTensor):
            value.const_value = _renamable(tensor)
        else:
            value.const_value = copy.copy(tensor)
    return model


def _renamable(tensor: ir.serde.TensorProtoTensor) -> ir.LazyTensor:
    """A view of a proto's tensor whose name can change: `TensorProtoTensor` would write the name into the proto."""
    metadata = dict(tensor.metadata_props)
    shape, doc = ir.Shape(tensor.shape), tensor.doc_string
    read = functools.partial(_itself, tensor)  # a function by name, so that models pickle
    return ir.LazyTensor(read, tensor.dtype, shape, name=tensor.name, doc_string=doc, metadata_props=metadata)


def _itself(tensor: ir.serde.TensorProtoTensor) -> ir.serde.TensorProtoTensor:
    return tensor


def _constants(model: ir.Model) -> Iterator[ir.Value]:
    """Every value with a known tensor: initializers of all graphs, outputs that a pass found constant."""
    for graph in model.graphs():
        for value in graph.initializers.values():
            if value.const_value is not None:
                yield value
        for node in graph:
            yield from (value for value in node.outputs if value.const_value is not None)
