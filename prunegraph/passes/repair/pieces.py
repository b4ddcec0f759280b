"""Run a model piece by piece, each piece on what the one before it has left on disk for every batch."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import numpy as np
import onnx_ir as ir

from prunegraph.arrays import Array
from prunegraph.errors import PruneGraphError
from prunegraph.runtime.cut import values_read_by
from prunegraph.runtime.feeds import Feeds
from prunegraph.runtime.limits import CannotRun
from prunegraph.runtime.session import open_session, run


class TooMuchOnDisk(Exception):
    """What lies at a boundary of pieces is more than a caller allows."""


class Pieces:
    """One model, and how far it has been run.

    Attributes:
        model: The model, in float32; weights of nodes that are still to run may be changed.
        nodes: Its nodes, in order.
        position: The first node that has not been run.
    """

    def __init__(self, model: ir.Model, folder: Path, providers: Sequence[str], disk: int | None = None) -> None:
        """Nothing has been run yet.

        Args:
            model: The model, in float32.
            folder: An empty folder for what lies at a boundary, batch by batch.
            providers: Execution providers of ONNX Runtime.
            disk: How many bytes may lie at one boundary; any number if None.
        """
        self.model, self.nodes, self.position = model, list(model.graph), 0
        self._folder, self._providers = folder, providers
        self._places = {value.name or "": -1 for value in model.graph.inputs}
        for place, node in enumerate(self.nodes):
            self._places |= {value.name or "": place for value in node.outputs if value.name}
        self._types: dict[str, ir.DataType] = {}
        self._held: dict[int, list[str]] = {}
        self._disk, self._bytes = disk, dict[int, int]()

    def place(self, value: str) -> int | None:
        """Which node makes a value; -1 for an input of the graph, None where there is no such value."""
        return self._places.get(value)

    def begin(self, batch: int, feeds: Feeds) -> None:
        """Take in what a batch gives the model."""
        self._leave(batch, 0, {name: feeds[name] for name in self._boundary(0) if name in feeds})

    def run(self, batches: int, end: int, values: Sequence[str], *, move: bool) -> Iterator[Mapping[str, Array]]:
        """Run up to a node, batch by batch, and give some values on the way.

        Args:
            batches: How many there are.
            end: The first node that is not needed; `values` are made before it.
            values: Names of values.
            move: Whether the next piece begins there.

        Raises:
            PruneGraphError: ONNX Runtime does not run the model on the data.
        """
        first, following = self._boundary(self.position), self._boundary(end) if move else []
        names = list(dict.fromkeys((*values, *following)))
        fresh = [name for name in names if name not in first]
        try:
            yield from self._batches(batches, first, fresh, values, following, end)
        except CannotRun as error:
            hint = "check the data, or repair in one step: --repair lstsq"
            raise PruneGraphError(f"ONNX Runtime does not run a piece of the model: {error}", hint=hint) from error
        if move:
            for batch in range(batches):
                self._file(batch, self.position).unlink(missing_ok=True)
            self.position = end

    def _batches(
        self,
        batches: int,
        first: Sequence[str],
        fresh: Sequence[str],
        values: Sequence[str],
        following: Sequence[str],
        end: int,
    ) -> Iterator[Mapping[str, Array]]:
        piece = self._piece(first, fresh) if fresh else None
        if piece is None:
            for batch in range(batches):
                arrays = self._take(batch, self.position)
                self._pass_on(batch, end, arrays, following)
                yield {name: arrays[name] for name in values}
            return
        with open_session(piece, providers=self._providers) as session:
            for batch in range(batches):
                arrays = self._take(batch, self.position)
                computed = {**arrays, **dict(zip(fresh, run(session, arrays, fresh), strict=True))}
                self._pass_on(batch, end, computed, following)
                yield {name: computed[name] for name in values}

    def _pass_on(self, batch: int, end: int, values: Mapping[str, Array], following: Sequence[str]) -> None:
        if following:
            self._leave(batch, end, {name: values[name] for name in following})

    def _piece(self, first: Sequence[str], fresh: Sequence[str]) -> ir.Model:
        graph = ir.convenience.extract(self.model.graph, list(first), list(fresh))
        for value in graph.inputs:
            value.type, value.shape = ir.TensorType(self._types[value.name or ""]), None
        return ir.Model(graph, ir_version=self.model.ir_version, functions=list(self.model.functions.values()))

    def _boundary(self, position: int) -> list[str]:
        """What nodes before a place, or inputs of the graph, give to those behind it."""
        names = dict.fromkeys(name for node in self.nodes[position:] for name in _names_read_by(node))
        return [name for name in names if (place := self._places.get(name)) is not None and place < position]

    def _leave(self, batch: int, position: int, values: Mapping[str, Array]) -> None:
        """Write what lies at a boundary.

        Raises:
            TooMuchOnDisk: it is more than is allowed.
        """
        left = self._bytes.get(position, 0) + sum(array.nbytes for array in values.values())
        if self._disk is not None and left > self._disk:
            raise TooMuchOnDisk(f"activations of more than {self._disk / 2**30:.1f} GiB lie at one boundary")
        self._bytes[position] = left
        self._types |= {name: ir.DataType.from_numpy(array.dtype) for name, array in values.items()}
        np.savez(self._file(batch, position), *values.values())
        self._held[position] = list(values)

    def _take(self, batch: int, position: int) -> dict[str, Array]:
        with np.load(self._file(batch, position)) as arrays:
            return {name: arrays[f"arr_{k}"] for k, name in enumerate(self._held[position])}

    def _file(self, batch: int, position: int) -> Path:
        return self._folder / f"{position}-{batch}.npz"


def _names_read_by(node: ir.Node) -> Iterator[str]:
    return (value.name for value in values_read_by(node) if value.name)
