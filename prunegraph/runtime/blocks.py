"""Run a model block by block: in memory are the weights of one block and what crosses between two.

A model of few weights, and one that cannot be cut, runs whole.  What several inputs make goes through a block together,
so that its weights are read once, and lies on the disk meanwhile where it is large.
"""

from __future__ import annotations

import contextlib
import logging
import tempfile
import time
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Protocol

import numpy as np
import onnx
import onnx_ir as ir
import onnxruntime as ort

from prunegraph.analysis.read_weight import read_weight
from prunegraph.arrays import Array
from prunegraph.runtime.cut import BYTES_A_BLOCK, CARRIED, Block, cut
from prunegraph.runtime.limits import UNLIMITED, CannotRun, Limits
from prunegraph.runtime.session import (
    SessionSettings,
    is_heavy,
    open_message,
    open_session,
    run,
    without_numbers,
)

logger = logging.getLogger(__name__)

Values = dict[str, Array]
"""What a run made, by name."""

Given = Mapping[str, Array | ir.TensorProtocol]
"""Inputs by name; a tensor is read when the block runs that is given it."""

BYTES_IN_MEMORY = 1 << 28
"""What crosses between blocks lies on the disk beyond so many bytes."""

_LARGE = 1 << 20
"""What is smaller stays in memory in any case."""

_TYPES = {f"tensor({dtype.name.lower()})" for dtype in CARRIED}


class Runner(Protocol):
    """Runs a model on several inputs."""

    def run(
        self, feeds: Iterable[Given], outputs: Iterable[Sequence[str]], limits: Limits = UNLIMITED
    ) -> Iterator[Values]:
        """What the model makes of one input after the other; by blocks all of them run together.

        Args:
            feeds: Inputs; those that the model does not have are left out.
            outputs: For every one of them the names of the values that are asked for.
            limits: What every input may take.

        Raises:
            CannotRun: ONNX Runtime does not run it, or not within the limits.
        """
        ...


@contextlib.contextmanager
def open_runner(
    model: ir.Model, outputs: Sequence[str], settings: SessionSettings, *, most: int | None = None
) -> Iterator[Runner]:
    """A way to run a model: whole, or by blocks where it has more weights than one block holds.

    Args:
        model: What runs.
        outputs: Names of all values of the graph that will be asked for, outputs or not.
        settings: How its sessions are opened.
        most: How many bytes of weights a block holds at most, where the graph allows that; `BYTES_A_BLOCK` if None.

    Raises:
        CannotRun: ONNX Runtime does not accept the model.
    """
    most = BYTES_A_BLOCK if most is None else most
    blocks = cut(model.graph, outputs, most) if bytes_of_weights(model.graph) > most else ()
    if len(blocks) > 1:
        yield _ByBlocks(model, blocks, settings)
        return
    if blocks:
        logger.info("the model cannot be cut into blocks: it runs whole")
    with _whole(model, outputs, settings) as runner:
        yield runner


def bytes_of_weights(graph: ir.Graph) -> int:
    """What the initializers of a graph take in memory."""
    tensors = (value.const_value for value in graph.initializers.values())
    return sum(tensor.nbytes for tensor in tensors if tensor is not None)


# ---- whole -----------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class _Whole:
    """Runs a model in one session."""

    session: ort.InferenceSession

    def run(
        self, feeds: Iterable[Given], outputs: Iterable[Sequence[str]], limits: Limits = UNLIMITED
    ) -> Iterator[Values]:
        taken = {spec.name for spec in (*self.session.get_inputs(), *self.session.get_overridable_initializers())}
        for feed, names in zip(feeds, outputs, strict=True):
            given = {name: _array(numbers) for name, numbers in feed.items() if name in taken}
            yield dict(zip(names, run(self.session, given, names, limits=limits), strict=True)) if names else {}


def _array(numbers: Array | ir.TensorProtocol) -> Array:
    return numbers if isinstance(numbers, np.ndarray) else read_weight(numbers)


@contextlib.contextmanager
def _whole(model: ir.Model, outputs: Sequence[str], settings: SessionSettings) -> Iterator[_Whole]:
    options = {"optimize": settings.optimize, "prepack": settings.prepack, "trial": settings.trial}
    with _putting_out(model, outputs), open_session(model, providers=settings.providers, **options) as session:
        yield _Whole(session)


@contextlib.contextmanager
def _putting_out(model: ir.Model, names: Sequence[str]) -> Iterator[None]:
    """Inner values are outputs of a model meanwhile: a copy of the graph would take as long as a run."""
    graph_outputs = model.graph.outputs
    there = {value.name for value in graph_outputs}
    wanted = [name for name in dict.fromkeys(names) if name not in there]
    by_name = {value.name: value for node in model.graph for value in node.outputs} if wanted else {}
    graph_outputs.extend(by_name[name] for name in wanted)
    try:
        yield
    finally:
        for _ in wanted:
            graph_outputs.pop()


# ---- by blocks -------------------------------------------------------------------------------------------------------


class _CannotCarry(Exception):
    """A block cannot be run by itself: a value that crosses is no array, or what it reads must be constant."""


@dataclass
class _Carried:
    """What the blocks so far have made of one input, as long as somebody reads it."""

    given: Given
    wanted: frozenset[str]
    values: dict[str, Array | ir.TensorProtocol] = field(default_factory=dict)
    seconds: float = 0.0


@dataclass
class _ByBlocks:
    """Runs a model one block after the other."""

    model: ir.Model
    blocks: Sequence[Block]
    settings: SessionSettings

    def run(
        self, feeds: Iterable[Given], outputs: Iterable[Sequence[str]], limits: Limits = UNLIMITED
    ) -> Iterator[Values]:
        feeds, outputs = list(feeds), list(outputs)
        if self.blocks:
            try:
                yield from self._run(feeds, outputs, limits)
                return
            except _CannotCarry as reason:
                logger.info("the model cannot be run by blocks: it runs whole (%s)", reason)
                self.blocks = ()
        names = list(dict.fromkeys(name for each in outputs for name in each))
        with _whole(self.model, names, self.settings) as runner:
            yield from runner.run(feeds, outputs, limits)

    def _run(self, feeds: Sequence[Given], outputs: Sequence[Sequence[str]], limits: Limits) -> list[Values]:
        names = {value.name for value in self.model.graph.inputs}
        inputs = [{name: numbers for name, numbers in feed.items() if name in names} for feed in feeds]
        runs = [_Carried(given, frozenset(wanted), dict(given)) for given, wanted in zip(inputs, outputs, strict=True)]
        with tempfile.TemporaryDirectory(prefix="prunegraph-", ignore_cleanup_errors=True) as folder:
            readers = {name: k for k, block in enumerate(self.blocks) for name in block.reads}
            for k, block in enumerate(self.blocks):
                read_later = {name for name, last in readers.items() if last > k}
                self._run_block(block, runs, read_later, limits)
                for each in runs:
                    each.values = {n: v for n, v in each.values.items() if n in each.wanted or n in read_later}
                _spill(runs, Path(folder), k)
            return [self._asked(each, wanted) for each, wanted in zip(runs, outputs, strict=True)]

    def _asked(self, run: _Carried, names: Sequence[str]) -> Values:
        """What was asked for; an output may be an input or a weight."""
        weights = self.model.graph.initializers
        return {
            name: _array(run.values[name]) if name in run.values else _array(_tensor(weights[name])) for name in names
        }

    def _run_block(self, block: Block, runs: Sequence[_Carried], read_later: Collection[str], limits: Limits) -> None:
        arrays = [{n: _array(each.values[n]) for n in block.reads if n in each.values} for each in runs]
        message, weights = _message(self.model, block, arrays)
        with contextlib.ExitStack() as stack:
            try:
                session = stack.enter_context(open_message(message, weights, self.settings))
            except CannotRun as error:
                raise _CannotCarry(error) from error
            del message
            for node in session.get_outputs():
                if node.type not in _TYPES:
                    raise _CannotCarry(f"{node.name} is of type {node.type}")
            made_before: dict[tuple[object, ...], Values] = {}
            for each, given in zip(runs, arrays, strict=True):
                asked = [name for name in block.makes if name in each.wanted or name in read_later]
                # Runs that were given other weights are alike up to the block that reads these.
                key = (tuple(asked), *(id(each.values.get(name)) for name in block.reads))
                if key not in made_before:
                    start = time.monotonic()
                    made = run(session, given, asked, limits=_rest(limits, each.seconds)) if asked else []
                    each.seconds += time.monotonic() - start
                    made_before[key] = dict(zip(asked, made, strict=True))
                each.values |= made_before[key]


def _rest(limits: Limits, seconds: float) -> Limits:
    return limits if limits.seconds is None else replace(limits, seconds=max(limits.seconds - seconds, 0.0))


def _tensor(value: ir.Value) -> ir.TensorProtocol:
    assert value.const_value is not None, value.name
    return value.const_value


def _message(model: ir.Model, block: Block, arrays: Sequence[Mapping[str, Array]]) -> tuple[bytes, Mapping[str, Array]]:
    """A block as a model of its own, whose inputs are what it is given, and its weights."""
    graph = model.graph
    proto = onnx.ModelProto(ir_version=model.ir_version)
    proto.graph.name = graph.name or "block"
    for domain, version in graph.opset_imports.items():
        proto.opset_import.add(domain=domain, version=version)
    proto.functions.extend(ir.serde.serialize_function(function) for function in model.functions.values())
    proto.graph.node.extend(ir.serde.serialize_node(node) for node in block.nodes)
    inputs = {value.name: value for value in graph.inputs}
    for name in block.reads:
        if name in inputs:
            proto.graph.input.append(ir.serde.serialize_value(inputs[name]))
        else:
            proto.graph.input.append(_declared(name, [each[name] for each in arrays]))
    proto.graph.output.extend(onnx.ValueInfoProto(name=name) for name in block.makes)
    weights: dict[str, Array] = {}
    for name in block.weights:
        tensor = _tensor(graph.initializers[name])
        if is_heavy(tensor):
            tensor, weights[name] = without_numbers(tensor, name)
        initializer = ir.serde.serialize_tensor(tensor)
        initializer.name = name
        proto.graph.initializer.append(initializer)
    return proto.SerializeToString(), weights


def _declared(name: str, arrays: Sequence[Array]) -> onnx.ValueInfoProto:
    """An input of a block: of the type that was made, its lengths open where they differ."""
    dtype = arrays[0].dtype
    elem_type = ir.DataType.STRING if dtype.kind == "O" else ir.DataType.from_numpy(dtype)
    shapes = {array.shape for array in arrays}
    if len({len(shape) for shape in shapes}) > 1:
        return onnx.helper.make_tensor_value_info(name, elem_type, None)
    dims = [lengths[0] if len(set(lengths)) == 1 else None for lengths in zip(*shapes, strict=True)]
    return onnx.helper.make_tensor_value_info(name, elem_type, dims)


def _spill(runs: Sequence[_Carried], folder: Path, block: int) -> None:
    """Write to the disk what takes too much memory together, and read it from there."""
    spilled: dict[int, Array] = {}
    held = 0
    for each in runs:
        for name, array in each.values.items():
            if not isinstance(array, np.ndarray) or isinstance(array, np.memmap) or name in each.given:
                continue
            if id(array) in spilled:
                each.values[name] = spilled[id(array)]
                continue
            held += array.nbytes
            if held > BYTES_IN_MEMORY and array.nbytes >= _LARGE and array.dtype != object:
                each.values[name] = spilled[id(array)] = _mapped(array, folder / f"{block}.{len(spilled)}.npy")


def _mapped(array: Array, path: Path) -> Array:
    """An array that lies in a file, which goes with it; itself where the disk is full."""
    try:
        np.save(path, array)
        mapped: Array = np.load(path, mmap_mode="r")
    except OSError:
        return array
    with contextlib.suppress(OSError):  # Windows removes it with the folder
        path.unlink()
    return mapped
