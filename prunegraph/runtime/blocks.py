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
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Protocol

import numpy as np
import onnx_ir as ir
import onnxruntime as ort

from prunegraph.analysis.read_weight import read_weight
from prunegraph.arrays import Array
from prunegraph.runtime.block_message import block_message
from prunegraph.runtime.cut import BYTES_A_BLOCK, CARRIED, GraphBlock, cut
from prunegraph.runtime.free_memory import FreedMemory
from prunegraph.runtime.limits import UNLIMITED, CannotRun, Limits
from prunegraph.runtime.nest_bodies import nested
from prunegraph.runtime.session import SessionSettings, open_message, open_session, run
from prunegraph.runtime.spill import spill

logger = logging.getLogger(__name__)

Values = dict[str, Array]
"""What a run made, by name."""

Given = Mapping[str, Array | ir.TensorProtocol]
"""Inputs by name; a tensor is read when the block runs that is given it."""

TOGETHER = 8
"""So many inputs go through a block before the next one is read."""

_TYPES = {f"tensor({dtype.name.lower()})" for dtype in CARRIED}


class Runner(Protocol):
    """Runs a model on several inputs."""

    @property
    def together(self) -> int:
        """How many inputs are worth it to be run together."""
        ...

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

    def parts(
        self, feeds: Iterable[Given], outputs: Iterable[Sequence[str]], limits: Limits = UNLIMITED
    ) -> Iterator[tuple[int, Values]]:
        """The number of an input and some of the values that are asked for, as soon as they are there.

        The arguments and errors are those of `run`; every value comes once, and nothing that was given is kept.
        """
        ...


@contextlib.contextmanager
def open_runner(
    model: ir.Model,
    outputs: Sequence[str],
    settings: SessionSettings,
    *,
    most: int | None = None,
    whole_up_to: int = 0,
) -> Iterator[Runner]:
    """A way to run a model: whole, or by blocks where it has more weights than one block holds.

    Args:
        model: What runs.
        outputs: Names of all values of the graph that will be asked for, outputs or not.
        settings: How its sessions are opened.
        most: How many bytes of weights a block holds at most, where the graph allows that; `BYTES_A_BLOCK` if None.
        whole_up_to: A model of so many bytes of weights runs whole, because it runs often.

    Raises:
        CannotRun: ONNX Runtime does not accept the model.
    """
    model = nested(model, outputs)
    most = BYTES_A_BLOCK if most is None else most
    blocks = cut(model.graph, outputs, most) if bytes_of_weights(model.graph) > max(most, whole_up_to) else ()
    if len(blocks) > 1:
        yield _ByBlocks(model, blocks, replace(settings, prepack=False))
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
    together: int = 1

    def run(
        self, feeds: Iterable[Given], outputs: Iterable[Sequence[str]], limits: Limits = UNLIMITED
    ) -> Iterator[Values]:
        doors = {spec.name for spec in (*self.session.get_inputs(), *self.session.get_overridable_initializers())}
        for feed, names in zip(feeds, outputs, strict=True):
            arrays = {name: _array(numbers) for name, numbers in feed.items() if name in doors}
            yield dict(zip(names, run(self.session, arrays, names, limits=limits), strict=True)) if names else {}

    def parts(
        self, feeds: Iterable[Given], outputs: Iterable[Sequence[str]], limits: Limits = UNLIMITED
    ) -> Iterator[tuple[int, Values]]:
        return enumerate(self.run(feeds, outputs, limits))


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
    missing = [name for name in dict.fromkeys(names) if name not in there]
    by_name = {value.name: value for node in model.graph for value in node.outputs} if missing else {}
    graph_outputs.extend(by_name[name] for name in missing)
    try:
        yield
    finally:
        for _ in missing:
            graph_outputs.pop()


# ---- by blocks -------------------------------------------------------------------------------------------------------


class _CannotCarry(Exception):
    """A block cannot be run by itself: a value that crosses is no array, or what it reads must be constant."""


@dataclass
class _Carried:
    """What the blocks so far have made of one input, as long as somebody reads it.

    Attributes:
        outputs: The values that are asked for and were not given yet.
        values: By name, the inputs too.
        seconds: How long it took so far.
    """

    outputs: set[str]
    values: dict[str, Array | ir.TensorProtocol]
    seconds: float = 0.0

    def give(self) -> Values:
        """Outputs that are asked for and computed; each is given once."""
        ready = {name: _array(self.values[name]) for name in self.outputs & self.values.keys()}
        self.outputs -= ready.keys()
        return ready


@dataclass
class _ByBlocks:
    """Runs a model one block after the other."""

    model: ir.Model
    blocks: Sequence[GraphBlock]
    settings: SessionSettings
    together: int = TOGETHER

    def run(
        self, feeds: Iterable[Given], outputs: Iterable[Sequence[str]], limits: Limits = UNLIMITED
    ) -> Iterator[Values]:
        feeds, outputs = list(feeds), list(outputs)
        results: list[dict[str, Array | ir.TensorProtocol]] = [{} for _ in feeds]
        with _folder() as folder:
            for number, (k, part) in enumerate(self.parts(feeds, outputs, limits)):
                results[k] |= part
                del part
                spill(results, folder, f"{number}")
            for names, values in zip(outputs, results, strict=True):
                yield {name: _array(values[name]) for name in names}

    def parts(
        self, feeds: Iterable[Given], outputs: Iterable[Sequence[str]], limits: Limits = UNLIMITED
    ) -> Iterator[tuple[int, Values]]:
        feeds = list(feeds)
        doors = {value.name for value in self.model.graph.inputs}
        runs = [
            _Carried(set(names), self._with_weights({name: feed[name] for name in feed.keys() & doors}, names))
            for feed, names in zip(feeds, outputs, strict=True)
        ]
        for k, each in enumerate(runs):
            yield k, each.give()
        try:
            yield from self._through_blocks(runs, limits)
        except _CannotCarry as reason:
            logger.info("the model cannot be run by blocks: it runs whole (%s)", reason)
            self.blocks, self.together = (), 1
            names = list(dict.fromkeys(name for each in runs for name in each.outputs))
            with _whole(self.model, names, self.settings) as runner:
                yield from runner.parts(feeds, [list(each.outputs) for each in runs], limits)

    def _with_weights(self, arrays: Given, outputs: Iterable[str]) -> dict[str, Array | ir.TensorProtocol]:
        """Inputs, and weights that are outputs."""
        weights = self.model.graph.initializers
        tensors = {name: weights[name].const_value for name in outputs if name in weights}
        return {**{name: tensor for name, tensor in tensors.items() if tensor is not None}, **arrays}

    def _through_blocks(self, runs: Sequence[_Carried], limits: Limits) -> Iterator[tuple[int, Values]]:
        if not self.blocks:
            raise _CannotCarry("it was tried before")
        last_reader = {name: k for k, block in enumerate(self.blocks) for name in block.reads}
        memory = FreedMemory()
        with _folder() as folder:
            for k, block in enumerate(self.blocks):
                read_later = {name for name, last in last_reader.items() if last > k}
                memory.add(self._run_block(block, runs, read_later, limits))
                for number, each in enumerate(runs):
                    yield number, each.give()
                    each.values = {name: array for name, array in each.values.items() if name in read_later}
                spill([each.values for each in runs], folder, f"{k}")

    def _run_block(
        self, block: GraphBlock, runs: Sequence[_Carried], read_later: Collection[str], limits: Limits
    ) -> int:
        """Run one block; about how many bytes it needed that nobody holds any more."""
        arrays = [{name: _array(each.values[name]) for name in block.reads if name in each.values} for each in runs]
        message, weights = block_message(self.model, block, arrays)
        with contextlib.ExitStack() as stack:
            try:
                session = stack.enter_context(open_message(message, weights, self.settings))
            except CannotRun as error:
                raise _CannotCarry(error) from error
            del message
            for node in session.get_outputs():
                if node.type not in _TYPES:
                    raise _CannotCarry(f"{node.name} is of type {node.type}")
            results: dict[tuple[object, ...], Values] = {}
            for each, feeds in zip(runs, arrays, strict=True):
                names = [name for name in block.makes if name in each.outputs or name in read_later]
                # Runs that were given other weights are alike up to the block that reads these.
                key = (tuple(names), *(id(each.values.get(name)) for name in block.reads))
                if key not in results:
                    start = time.monotonic()
                    arrays_out = run(session, feeds, names, limits=_rest(limits, each.seconds)) if names else []
                    each.seconds += time.monotonic() - start
                    results[key] = dict(zip(names, map(_own, arrays_out), strict=True))
                    del arrays_out
                each.values |= results[key]
        needed = [weights, *arrays, *results.values()]
        return sum(array.nbytes for each in needed for array in each.values())


def _own(array: Array) -> Array:
    """The same numbers apart from the session: a single output that is kept would keep all that its run allocated."""
    return array if array.base is None else array.copy()


def _rest(limits: Limits, seconds: float) -> Limits:
    return limits if limits.seconds is None else replace(limits, seconds=max(limits.seconds - seconds, 0.0))


@contextlib.contextmanager
def _folder() -> Iterator[Path]:
    with tempfile.TemporaryDirectory(prefix="prunegraph-", ignore_cleanup_errors=True) as folder:
        yield Path(folder)
