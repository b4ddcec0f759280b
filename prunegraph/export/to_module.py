"""A slim model as the PyTorch module that it came from has it: its names, and its layout of every weight."""

from __future__ import annotations

import logging
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import onnx_ir as ir
import torch

from prunegraph.analysis.analyze import Analysis
from prunegraph.analysis.slots import Keeps, kept_positions
from prunegraph.export.torch_tensors import ModuleTensors
from prunegraph.passes.rewrite.provenance import part_of, slots_of
from prunegraph.runtime.edit import Editor, Insertion
from prunegraph.torch_twin import to_torch

logger = logging.getLogger(__name__)

Positions = npt.NDArray[np.intp]


@dataclass(frozen=True, slots=True)
class Piece:
    """A weight that Normalize took out of a larger one.

    Attributes:
        name: Of its initializer.
        axis: Along which it was taken out.
        positions: Where its slots that stay were in the whole, along that axis.
    """

    name: str
    axis: int
    positions: Positions


def slim_module(
    slim: ir.Model,
    tensors: ModuleTensors,
    original: ir.Model,
    normalized: ir.Model,
    analysis: Analysis,
    keeps: Keeps,
) -> torch.fx.GraphModule:
    """A slim model as a module; see `prunegraph.to_module`.

    Args:
        slim: The slim model; it is not changed.
        tensors: What the module that it came from calls its tensors.
        original: The model as it was given.
        normalized: The form of it that was cut.
        analysis: Its analysis.
        keeps: What stays.
    """
    if tensors.folded:
        names = ", ".join(tensors.folded[:4]) + (", …" if len(tensors.folded) > 4 else "")
        logger.warning("the exporter made other weights of %s: no module of the original class loads the state", names)
    model = slim.clone()
    constants = [
        name for name in model.graph.initializers if name not in tensors.orders and _same(name, slim, original)
    ]
    _unshare(model.graph, original.graph, tensors.orders)
    _Layout(model, tensors, dict(_pieces(normalized, analysis, keeps))).write()
    module = to_torch(model, tie=False)
    _add_state(module, tensors, constants)
    return module


def _unshare(slim: ir.Graph, original: ir.Graph, names: Iterable[str]) -> None:
    """Give equal weights that became one initializer their own names again, in place: nodes tell which they read."""
    nodes: dict[str | None, ir.Node] = {node.name: node for node in slim if node.name}
    editor = Editor(slim)
    for name in names:
        value = original.initializers.get(name)
        if value is None or name in slim.initializers:
            continue
        for node, index in value.uses():
            reader = nodes.get(node.name)
            operand = reader.inputs[index] if reader is not None and index < len(reader.inputs) else None
            if reader is not None and operand is not None and operand.is_initializer() and node.graph is original:
                reader.replace_input_with(index, slim.initializers.get(name) or editor.copy_constant(operand, name))


def _same(name: str, slim: ir.Model, original: ir.Model) -> bool:
    """Whether an initializer is what it was before anything was cut."""
    before, now = original.graph.initializers.get(name), slim.graph.initializers[name].const_value
    if before is None or before.const_value is None or now is None:
        return False
    return np.array_equal(before.const_value.numpy(), now.numpy())


def _pieces(normalized: ir.Model, analysis: Analysis, keeps: Keeps) -> Iterator[tuple[str, list[Piece]]]:
    """By name of a weight that was taken apart, its pieces in the order in which they are joined again."""
    wholes: dict[str, list[tuple[int, ir.Value]]] = {}
    for value in normalized.graph.initializers.values():
        if (part := part_of(value)) is not None:
            wholes.setdefault(part[0], []).append((part[1], value))
    for whole, parts in wholes.items():
        if whole not in normalized.graph.initializers:
            pieces = [_piece(value, analysis, keeps) for _, value in sorted(parts, key=lambda part: part[0])]
            known = [piece for piece in pieces if piece is not None]
            if len(known) == len(pieces) and len({piece.axis for piece in known}) == 1:
                yield whole, known


def _piece(value: ir.Value, analysis: Analysis, keeps: Keeps) -> Piece | None:
    """None where it is not known from which positions of one axis alone a part was taken."""
    masks = slots_of(value) or ()
    cut_axes = [(axis, mask) for axis, mask in enumerate(masks) if mask is not None]
    if len(cut_axes) != 1 or cut_axes[0][1].ndim != 1:
        return None
    (axis, mask), name = cut_axes[0], value.name or ""
    positions = np.flatnonzero(mask)
    slim_positions = kept_positions(analysis.solution.resolve(name), keeps, analysis.solution.dim_size)[axis]
    if slim_positions is not None and slim_positions.ndim != 1:
        return None
    return Piece(name, axis, positions if slim_positions is None else positions[slim_positions])


class _Layout:
    """Writes the weights of a model as a module lays them out, and what turns them into those that the graph reads."""

    def __init__(self, model: ir.Model, tensors: ModuleTensors, pieces: Mapping[str, Sequence[Piece]]) -> None:
        self.tensors, self.pieces = tensors, pieces
        self.graph, self.editor = model.graph, Editor(model.graph)

    def write(self) -> None:
        """Write every weight that the module has, in place."""
        first = next(iter(self.graph), None)
        if first is None:
            return
        here = self.editor.at(first).before()
        for name, order in self.tensors.orders.items():
            value = self.graph.initializers.get(name)
            pieces = self.pieces.get(name, ())
            if value is not None:
                places = [piece.positions for piece in pieces]
                sources = {value: (pieces[0].axis, np.concatenate(places))} if pieces else {value: None}
            elif pieces and all(piece.name in self.graph.initializers for piece in pieces):
                sources = {self.graph.initializers[piece.name]: (piece.axis, piece.positions) for piece in pieces}
            else:
                continue
            self._write(here, name, order, sources)

    def _write(
        self,
        here: Insertion,
        name: str,
        order: tuple[int, ...],
        sources: Mapping[ir.Value, tuple[int, Positions] | None],
    ) -> None:
        """One weight: its pieces in the order of the whole, its axes in that of the module."""
        arrays = [value.const_value.numpy() for value in sources if value.const_value is not None]
        cuts = [each for each in sources.values() if each is not None]
        ranks: list[Positions | None] = [None]
        whole, along = arrays[0], 0
        if cuts:
            along, places = cuts[0][0], [positions for _, positions in cuts]
            everywhere = np.concatenate(places)
            whole = np.concatenate(arrays, along).take(np.argsort(everywhere), along)
            ranks = [np.searchsorted(np.sort(everywhere), each) for each in places]
            everything = np.arange(len(everywhere))
            ranks = [None if np.array_equal(rank, everything) else rank for rank in ranks if rank is not None]
        in_order = order == tuple(range(whole.ndim))
        if in_order and all(rank is None for rank in ranks):
            return
        inverse = tuple(int(k) for k in np.argsort(order))
        for value in sources:
            value.name = self.editor.unused(f"{name}/read")  # the name is the module's
        dtype = next(iter(sources)).dtype
        stored = self.editor.constant(
            ir.tensor(np.ascontiguousarray(whole.transpose(inverse)), dtype=dtype), f"{name}/stored"
        )
        stored.name = name
        turned = stored if in_order else here.add("Transpose", stored, perm=order)
        for value, rank in zip(sources, ranks, strict=True):
            chosen = turned
            if rank is not None:
                chosen = here.add("Gather", turned, here.constant(rank.astype(np.int64)), axis=along)
            value.replace_all_uses_with(chosen)
            self.graph.initializers.pop(value.name or "")


def _add_state(module: torch.fx.GraphModule, tensors: ModuleTensors, constants: Collection[str]) -> None:
    """Make the `state_dict` of a twin that of the module: tied names, tensors that nobody reads, no constants.

    Weights that the module never had stay in it, so that who loads it strictly is told of them.

    Args:
        module: The twin, changed in place.
        tensors: What the module calls its tensors.
        constants: Names of initializers that were there before, and are none of the module's tensors.
    """
    state = {**dict(module.named_parameters()), **dict(module.named_buffers())}
    for name, tensor in state.items():
        if name in constants or (name not in tensors.orders and not tensor.is_floating_point()):
            _put(module, name, tensor.detach(), parameter=False, persistent=False)
        elif name in tensors.orders:
            _put(module, name, tensor, name in tensors.parameters and tensor.is_floating_point())
    for name, array in tensors.unread.items():
        state[name] = _put(module, name, torch.from_numpy(np.array(array)), name in tensors.parameters)
    for alias, name in tensors.aliases.items():
        first, *_ = [each for each in (name, alias) if each in state] or [""]
        for other in {name, alias} - {first} if first else ():
            _put(module, other, module.get_parameter(first), parameter=True)


def _put(
    module: torch.nn.Module, path: str, tensor: torch.Tensor, parameter: bool, persistent: bool = True
) -> torch.Tensor:
    """Let a module hold a tensor under a name, in place of what it holds there."""
    *parts, name = path.split(".")
    owner = module
    for part in parts:
        if part not in owner._modules:
            owner.add_module(part, torch.nn.Module())
        owner = owner.get_submodule(part)
    owner._parameters.pop(name, None)
    owner._buffers.pop(name, None)
    if not parameter:
        owner.register_buffer(name, tensor.detach(), persistent=persistent)
        return tensor
    parameter_tensor = tensor if isinstance(tensor, torch.nn.Parameter) else torch.nn.Parameter(tensor)
    owner.register_parameter(name, parameter_tensor)
    return parameter_tensor
