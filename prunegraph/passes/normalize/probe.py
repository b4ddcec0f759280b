"""Probes: look at the model at several sizes and write down every shape and every integer that states one.

What exporters annotate is not trusted: most leave shapes out, and some give one extent several names.  An extent that
all probes see alike is static; one of them is long, since a short sequence may be padded up to a block.  What inference
at concrete sizes cannot tell is learnt by running the model on blank weights.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping, Sequence, Set
from dataclasses import dataclass
from typing import TypeVar

import onnx_ir as ir

from prunegraph.analysis.axes import Size
from prunegraph.analysis.facts import Facts
from prunegraph.analysis.ops import traits_of
from prunegraph.analysis.relations import IntArray
from prunegraph.passes.normalize.infer import KNOWN_UP_TO, Seen, constants_of, infer
from prunegraph.passes.normalize.slice_assignment import Block
from prunegraph.passes.normalize.without_weights import is_large, without_weights
from prunegraph.runtime.feeds import InputSpec, constant_feeds, input_specs, shape_of
from prunegraph.runtime.session import Array, CannotRun, open_session, run, widened, widened_feeds
from prunegraph.runtime.trial_sizes import size_plans

logger = logging.getLogger(__name__)
T = TypeVar("T")

RUNS = ({"batch": 1, "row": 128}, {"batch": 2, "row": 23}, {"batch": 1, "row": 701})
"""Costs are stated for the first; the last tells a length that is static from one that is padded to a multiple."""

SMALL = ({"batch": 1, "row": 11}, {"batch": 2, "row": 23})
"""For models that fit few positions, or that have to run to be understood."""

Held = dict[str, tuple[Array, ...]]
Blocks = dict[str, tuple[Block, ...]]


@dataclass(frozen=True, slots=True)
class Probed:
    """What the probes saw.

    Attributes:
        facts: Shapes and small integers.
        held: What every stated value held in each probe.
        blocks: Which block each ScatterND writes, by the name of its indices.
        sizes: The lengths of dynamic dims of inputs in the first probe; empty where nothing could be tried.
    """

    facts: Facts
    held: Held
    blocks: Blocks
    sizes: Mapping[str, int]


def probe(model: ir.Model) -> Probed:
    """Learn shapes at every size of `RUNS`; without the long one where the model does not take it, or has to run."""
    wide = widened(model)
    graph = wide.graph
    specs = input_specs(graph)
    stated = _stated(graph)
    values = [v.name for node in graph for v in node.outputs if v.name and not traits_of(node).sequences]
    dynamic = any(isinstance(dim, str) for spec in specs for dim in spec.dims)
    inferred: list[Seen] = []
    plans = list(size_plans(specs, RUNS if dynamic else RUNS[:1]))
    small = list(size_plans(specs, SMALL)) if dynamic else plans
    tries = [(_infer, plans[0]), *((_infer, plan[:2]) for plan in plans), *((_infer, plan) for plan in small)]
    for look, plan in (*(tries if dynamic else tries[:1]), *((_run, plan) for plan in small)):
        try:
            seen = look(wide, specs, plan, values, stated)
        except CannotRun as reason:
            logger.debug("probing at %s failed: %s", plan, reason)
            continue
        if all(name in each.shapes for each in seen for name in values):
            return _facts(graph, specs, plan, seen)
        inferred = seen
    logger.warning("the model cannot be run; what shape inference cannot tell is pinned")
    return _facts(graph, specs, (), inferred)


def _stated(graph: ir.Graph) -> list[str]:
    """Values that follow from constants and from shapes alone, whatever the weights and the data."""
    found = {
        name: value
        for name, value in graph.initializers.items()
        if not value.is_graph_input() and value.const_value is not None and not is_large(value.const_value)
    }
    for node in graph:
        traits = traits_of(node)  # folded, a weight would no longer be a quantized one
        if traits.random or traits.quantizes or any(a.type == ir.AttributeType.GRAPH for a in node.attributes.values()):
            continue
        if traits.states_lengths or all(v is None or v.name in found for v in node.inputs):
            found.update((value.name or "", value) for value in node.outputs)
    return list(found)


def _infer(
    model: ir.Model,
    specs: Sequence[InputSpec],
    plan: Sequence[dict[str, int]],
    values: Sequence[str],
    stated: Sequence[str],
) -> list[Seen]:
    blank = ir.to_proto(without_weights(model))
    constants = constants_of(model.graph, stated)
    made = [name for name in stated if name not in model.graph.initializers]
    inputs = [{spec.name: shape_of(spec, sizes) for spec in specs} for sizes in plan]
    written = _written(model.graph)
    return [infer(blank, shapes, constants, made, written) for shapes in inputs]


def _run(
    model: ir.Model,
    specs: Sequence[InputSpec],
    plan: Sequence[dict[str, int]],
    values: Sequence[str],
    stated: Sequence[str],
) -> list[Seen]:
    made = [name for name in stated if name not in model.graph.initializers]
    written = _written(model.graph)
    reason = CannotRun("no inputs to try")
    with open_session(without_weights(model, values, made), optimize=False) as session:
        for fill in (1, 0):
            try:
                outputs = [
                    run(
                        session,
                        widened_feeds({n: a * a.dtype.type(fill) for n, a in constant_feeds(specs, sizes).items()}),
                    )
                    for sizes in plan
                ]
            except CannotRun as error:
                reason = error
                continue
            return [_seen(values, made, arrays, written) for arrays in outputs]
    raise reason


def _seen(values: Sequence[str], made: Sequence[str], arrays: Sequence[Array], written: Set[str]) -> Seen:
    """What a run gave: the shapes of `values`, then what was `made` from constants and shapes."""
    seen = Seen({name: tuple(int(n) for n in shape) for name, shape in zip(values, arrays, strict=False)})
    seen.remember(dict(zip(made, arrays[len(values) :], strict=True)), written)
    return seen


def _written(graph: ir.Graph) -> set[str]:
    """The values by whose positions a ScatterND writes."""
    scatters = [node for node in graph if node.op_type == "ScatterND"]
    return {value.name or "" for node in scatters if (value := node.inputs[1]) is not None}


def _facts(graph: ir.Graph, specs: Sequence[InputSpec], plan: Sequence[dict[str, int]], seen: Sequence[Seen]) -> Probed:
    probes = max(1, len(seen))
    shapes: dict[str, tuple[Size, ...]] = dict(_constant_shapes(graph, probes))
    for spec in specs if plan else ():
        shapes[spec.name] = tuple(zip(*(shape_of(spec, sizes) for sizes in plan), strict=True))
    for name in seen[0].shapes if seen else ():
        found = [each.shapes.get(name) for each in seen]
        ranks = {len(shape) if shape is not None else None for shape in found}
        if len(ranks) == 1 and None not in ranks:
            shapes[name] = tuple(zip(*(shape for shape in found if shape is not None), strict=True))
    held, blocks = _by_name([each.held for each in seen]), _by_name([each.blocks for each in seen])
    sizes = {name: plan[0][name] for spec in specs for name in spec.dims if isinstance(name, str)} if plan else {}
    return Probed(Facts(probes, shapes, integers(graph, held, probes)), held, blocks, sizes)


def _by_name(seen: Sequence[Mapping[str, T]]) -> dict[str, tuple[T, ...]]:
    """What every probe saw, of names that all of them saw."""
    first = seen[0] if seen else {}
    return {name: tuple(each[name] for each in seen) for name in first if all(name in each for each in seen)}


def _constant_shapes(graph: ir.Graph, probes: int) -> Iterator[tuple[str, tuple[Size, ...]]]:
    for name, value in graph.initializers.items():
        if value.const_value is not None:
            yield name, tuple((int(n),) * probes for n in value.const_value.shape.numpy())


def integers(graph: ir.Graph, held: Held, probes: int) -> dict[str, tuple[IntArray, ...]]:
    """The small integers among what was seen, those of initializers included."""
    found = {name: arrays for name, arrays in held.items() if arrays[0].dtype.kind in "iu"}
    for name, value in graph.initializers.items():
        tensor = value.const_value
        if tensor is not None and tensor.dtype.is_integer() and tensor.size <= KNOWN_UP_TO:
            found[name] = (tensor.numpy(),) * probes
    return found
