"""Probes: look at the model at several sizes and write down every shape and every integer that states one.

What exporters annotate is not trusted: most leave shapes out, and some give one extent several names.  An extent that
all probes see alike is static, unless it hangs on data or on a dim that could not be varied; one of the probes is long,
since a short sequence may be padded up to a block.  What inference at concrete sizes cannot tell is learnt by running
the model on blank weights, within limits of time and memory; sizes that neither accepts prove nothing.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TypeVar

import onnx_ir as ir

from prunegraph.analysis.axes import Size
from prunegraph.analysis.facts import Facts
from prunegraph.analysis.relations import IntArray
from prunegraph.arrays import Array
from prunegraph.errors import UsageError
from prunegraph.passes.normalize.infer import KNOWN_UP_TO, Seen
from prunegraph.passes.normalize.slice_assignment import IndexBlock
from prunegraph.passes.normalize.trial import Trial
from prunegraph.runtime.inputs import InputSpec, shape_of
from prunegraph.runtime.limits import CannotRun, TooLong
from prunegraph.runtime.sizes_from_weights import SizesFromWeights, sizes_from_weights
from prunegraph.runtime.trial_sizes import SHORT, Plan, baked_sizes, empty_pasts, narrow_plans, size_plans
from prunegraph.runtime.widen import widened

logger = logging.getLogger(__name__)
T = TypeVar("T")

RUNS = ({"batch": 1, "row": 128}, {"batch": 2, "row": 23}, {"batch": 1, "row": 701})
"""Costs are stated for the first; the last tells a length that is static from one that is padded to a multiple."""

Held = dict[str, tuple[Array, ...]]
Blocks = dict[str, tuple[IndexBlock, ...]]


@dataclass(frozen=True, slots=True)
class Probed:
    """What the probes saw.

    Attributes:
        facts: Shapes and small integers.
        held: What every stated value held in each probe.
        blocks: Which block each ScatterND writes, by the name of its indices.
        plan: The lengths of dynamic dims of inputs in each probe; empty where the model runs at none that was tried.
    """

    facts: Facts
    held: Held
    blocks: Blocks
    plan: Plan


def probe(model: ir.Model, sizes: Mapping[str, int] | None = None, likely: Mapping[str, int] | None = None) -> Probed:
    """Learn shapes at every size of `RUNS`, or at such sizes as the model takes.

    Args:
        model: Flat, its constants initializers.
        sizes: Lengths of dynamic dims of inputs that the caller gives.
        likely: Lengths at which it is known to run, such as those of data: tried where the usual ones fail.

    Raises:
        ModelError: an input is no tensor of known rank.
        UsageError: there is no such dim.
    """
    trial = Trial.of(widened(model))
    given = _checked(trial.specs, sizes or {})
    weights = SizesFromWeights()
    if trial.asks_weights:
        weights = sizes_from_weights(trial.graph, trial.blank, trial.specs)
    follows = weights.certain
    fixed = {**follows, **given}
    reason: CannotRun | None = None
    last: Plan = ()
    for plan, known in _attempts(trial, given, fixed, {**weights.likely, **fixed, **(likely or {})}):
        last = last or plan
        try:
            by_probe = trial.look(plan, unvaried=_unvaried(trial.specs, plan) - (follows.keys() & known.keys()))
        except TooLong as error:
            reason = error
            break
        except CannotRun as error:
            logger.debug("probing at %s failed: %s", plan, error)
            reason = reason or error
            continue
        return _facts(trial, plan, by_probe)
    why = f"ONNX Runtime runs it at none of the sizes tried: {reason}"
    return _unseen(trial, last, why, endless=isinstance(reason, TooLong))


def _checked(specs: Sequence[InputSpec], sizes: Mapping[str, int]) -> Mapping[str, int]:
    """The caller's sizes of dims that there are.

    Raises:
        UsageError: no input has a dynamic dim of that name, or a size is not positive.
    """
    names = sorted({dim for spec in specs for dim in spec.dims if isinstance(dim, str)})
    for name, size in sizes.items():
        if name not in names:
            hint = f"its dynamic dims are: {', '.join(names) or 'none, every size is static'}"
            raise UsageError(f"the model has no dynamic dim named {name}", hint=hint)
        if size < 1:
            raise UsageError(f"the size of {name!r} is not positive", hint="sizes are 1 or more")
    return sizes


def _attempts(
    trial: Trial, given: Mapping[str, int], fixed: Mapping[str, int], likely: Mapping[str, int]
) -> Iterator[tuple[Plan, Mapping[str, int]]]:
    """Sizes to try, the most usual first, each with what of them was known before."""
    if not trial.dynamic:
        yield ({},), {}
        return
    specs = trial.specs
    usual = list(size_plans(specs, RUNS, fixed))
    if trial.can_infer(usual):
        yield usual[0], fixed
        yield from ((plan[:2], fixed) for plan in usual)
    yield from ((plan, fixed) for plan in size_plans(specs, SHORT, fixed))
    if likely != fixed:
        yield from ((plan, fixed) for plan in size_plans(specs, SHORT, likely))
    if pasts := empty_pasts(specs, fixed):
        yield from ((plan, fixed) for plan in size_plans(specs, SHORT, {**fixed, **pasts}))
    rows, batches, sides = baked_sizes(trial.graph)
    yield from ((plan, fixed) for plan in narrow_plans(specs, rows, fixed, batches, sides))
    if fixed != given:
        yield from ((plan, given) for plan in size_plans(specs, SHORT, given))


def _unvaried(specs: Sequence[InputSpec], plan: Plan) -> set[str]:
    """Dims that are declared dynamic and had one length in all probes."""
    names = {dim for spec in specs for dim in spec.dims if isinstance(dim, str)}
    return {name for name in names if len({sizes[name] for sizes in plan}) == 1}


def _facts(trial: Trial, plan: Plan, by_probe: Sequence[Seen]) -> Probed:
    probes = len(by_probe)
    shapes: dict[str, tuple[Size, ...]] = dict(_constant_shapes(trial.graph, probes))
    for spec in trial.specs:
        shapes[spec.name] = tuple(zip(*(shape_of(spec, sizes) for sizes in plan), strict=True))
    shapes |= _agreeing([each.shapes for each in by_probe])
    values, blocks = _by_name([each.held for each in by_probe]), _by_name([each.blocks for each in by_probe])
    return Probed(Facts(probes, shapes, integers(trial.graph, values, probes)), values, blocks, plan)


def _unseen(trial: Trial, plan: Plan, why: str, *, endless: bool) -> Probed:
    """What static shapes say of a model that could not be run: nothing in it is frozen."""
    probes = max(len(plan), 1)
    shapes: dict[str, tuple[Size, ...]] = dict(_constant_shapes(trial.graph, probes))
    shapes |= _agreeing(trial.static_shapes(plan))
    return Probed(Facts(probes, shapes, integers(trial.graph, {}, probes), why, endless), {}, {}, ())


def _agreeing(by_probe: Sequence[Mapping[str, tuple[int, ...]]]) -> dict[str, tuple[Size, ...]]:
    """The lengths of every value in each probe, where it has one rank in all of them."""
    return {
        name: tuple(zip(*shapes, strict=True))
        for name, shapes in _by_name(by_probe).items()
        if len({len(shape) for shape in shapes}) == 1
    }


def _by_name(by_probe: Sequence[Mapping[str, T]]) -> dict[str, tuple[T, ...]]:
    """What every probe saw, of names that all of them saw."""
    first = by_probe[0] if by_probe else {}
    return {name: tuple(each[name] for each in by_probe) for name in first if all(name in each for each in by_probe)}


def _constant_shapes(graph: ir.Graph, probes: int) -> Iterable[tuple[str, tuple[Size, ...]]]:
    for name, value in graph.initializers.items():
        if value.const_value is not None:
            yield name, tuple((int(n),) * probes for n in value.const_value.shape.numpy())


def integers(graph: ir.Graph, values: Held, probes: int) -> dict[str, tuple[IntArray, ...]]:
    """The small integers among what was seen, those of initializers included."""
    small_integers = {name: arrays for name, arrays in values.items() if arrays[0].dtype.kind in "iu"}
    for name, value in graph.initializers.items():
        tensor = value.const_value
        if tensor is not None and tensor.dtype.is_integer() and tensor.size <= KNOWN_UP_TO:
            small_integers[name] = (tensor.numpy(),) * probes
    return small_integers
