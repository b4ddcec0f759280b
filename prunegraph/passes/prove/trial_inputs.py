"""Inputs to compare two graphs on: the caller's, or random ones of which the original makes numbers.

Masks of ones hide everything from one model and show everything to another, logarithms want positive numbers, and a
selection must not be empty: what gives no number is tried again with other numbers.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import chain, islice
from typing import TypeVar

import numpy as np
import onnx_ir as ir

from prunegraph.arrays import Array
from prunegraph.errors import PruneGraphError
from prunegraph.passes.prove.limits import check_inputs, check_outputs, limits_of
from prunegraph.passes.prove.runs import Values
from prunegraph.runtime.blocks import Runner, open_runner
from prunegraph.runtime.feeds import Feeds, random_feeds
from prunegraph.runtime.inputs import InputSpec, input_specs
from prunegraph.runtime.limits import SECONDS_A_TRIAL, UNLIMITED, CannotRun, Limits, OutOfLimits, TooLarge, TooLong
from prunegraph.runtime.session import SessionSettings
from prunegraph.runtime.trial_sizes import size_plans
from prunegraph.runtime.widen import widened_feeds

Result = TypeVar("Result")

logger = logging.getLogger(__name__)

SHORT, LONG = {"batch": 3, "row": 17}, {"batch": 1, "row": 130}
"""Sizes that no probe has used; the long one tells a length that is static from one that is padded to a multiple."""

LIGHT = {**SHORT, "batch": 1}
"""Sizes for runs of which there are many, and where the others take too much memory."""


BATCHES = 2
"""How many batches of the caller's data are compared on."""

HINT = (
    "give inputs that it accepts (data=…, --data FILE), or small sizes of its dynamic dims (sizes=…, --size NAME=N), "
    "or skip the proof (verify=False, --no-verify)"
)


@dataclass(frozen=True, slots=True)
class Fill:
    """What random inputs are filled with: `floats`, and `flags` for truths and for integers that look up nothing."""

    floats: str = "normal"
    flags: str = "padded"


FILLS = (
    Fill(),
    Fill(flags="inverse"),
    Fill(flags="ones"),
    Fill(floats="positive"),
    Fill("positive", "inverse"),
    Fill(flags="mixed"),
    Fill(flags="counts"),
    Fill("positive", "counts"),
    Fill("negative"),
    Fill("unit"),
    Fill("above one"),
)
"""What is tried in turn where the original makes something of it that is not finite."""


@dataclass(frozen=True, slots=True)
class Trial:
    """Inputs, and what the original makes of them.

    Attributes:
        feeds: One dict of arrays a run.
        outputs: What came of each.
        finite: Which share of the numbers is finite.
        light: Inputs like the first of a batch of one, to run many times; of the caller's, the first.
        limits: What further runs on them may take; the caller's own inputs may take what they take.
    """

    feeds: list[Feeds]
    outputs: list[Values]
    finite: float
    light: Feeds
    limits: Limits = UNLIMITED


def on_trial_inputs(
    compare: Callable[[Trial], Result],
    model: ir.Model,
    outputs: Sequence[str],
    feeds: Iterable[Feeds] | None,
    sizes: Mapping[str, int] | None = None,
    *,
    endless: bool = False,
) -> Result:
    """What a comparison says of trial inputs; of the smallest ones where it goes beyond its limits on others.

    Args:
        compare: Makes further runs on the inputs, within their limits.
        model: As the others for `trial_inputs`.
        outputs: See there.
        feeds: See there.
        sizes: See there.
        endless: See there.

    Raises:
        PruneGraphError: the original runs on none, or the comparison goes beyond its limits on all.
    """
    try:
        return compare(trial_inputs(model, outputs, feeds, sizes, endless=endless))
    except TooLarge:  # only made-up inputs have a limit
        logger.debug("the comparison is too large; it is tried again on the smallest inputs")
    except OutOfLimits as reason:
        raise _beyond(reason) from reason
    try:
        return compare(trial_inputs(model, outputs, None, sizes, smallest=True))
    except OutOfLimits as reason:
        raise _beyond(reason) from reason


def _beyond(reason: OutOfLimits) -> PruneGraphError:
    return PruneGraphError(f"cannot verify: a run of the comparison goes beyond its limits ({reason})", hint=HINT)


def trial_inputs(
    model: ir.Model,
    outputs: Sequence[str],
    feeds: Iterable[Feeds] | None,
    sizes: Mapping[str, int] | None = None,
    *,
    smallest: bool = False,
    endless: bool = False,
) -> Trial:
    """Inputs that the original accepts, and what it makes of them: the caller's before random ones.

    Args:
        model: The original.
        outputs: The names of its outputs.
        feeds: The caller's inputs; the first ones are taken.
        sizes: Sizes that the caller gives to dynamic dims of random inputs.
        smallest: Whether random inputs are as small as they may be.
        endless: Whether trial runs of the model did not end: then the caller's inputs have a limit of time, too.

    Raises:
        PruneGraphError: it runs on none of them, or nothing that it makes is a number.
    """
    limits = limits_of(model)
    try:
        with open_runner(model, outputs, SessionSettings(prepack=False, trial=limits.memory)) as runner:
            random = Random(runner, input_specs(model.graph), outputs, sizes or {}, limits, smallest)
            if feeds is None:
                best = random.trial()
            else:
                own = Limits(memory=limits.memory, seconds=SECONDS_A_TRIAL if endless else None)
                best = _and_random(_given(runner, model, list(islice(feeds, BATCHES)), outputs, own), random)
    except CannotRun as reason:
        raise _cannot(reason) from reason
    if best.finite == 0:
        message = "cannot verify: what the original makes of the inputs that were tried is not finite"
        raise PruneGraphError(message, hint=HINT)
    return best


def _given(runner: Runner, model: ir.Model, feeds: list[Feeds], outputs: Sequence[str], limits: Limits) -> Trial:
    """What the original makes of the caller's inputs, which may take what they take."""
    own = replace(limits, memory=False)
    try:
        return replace(_tried(runner, feeds, outputs, limits), limits=own)
    except TooLarge:
        with open_runner(model, outputs, SessionSettings(prepack=False)) as unlimited:
            return _tried(unlimited, feeds, outputs, own)


def _and_random(given: Trial, random: Random) -> Trial:
    """The caller's inputs, and random ones of other sizes where the original makes numbers of them."""
    try:
        more = random.trial()
    except (CannotRun, ValueError):
        return given
    if more.finite < 1:
        return given
    return Trial([*given.feeds, *more.feeds], [*given.outputs, *more.outputs], given.finite, given.light)


def _cannot(reason: Exception) -> PruneGraphError:
    return PruneGraphError(f"cannot verify: ONNX Runtime does not run the original ({reason})", hint=HINT)


@dataclass(frozen=True, slots=True)
class Random:
    """Random inputs for a model: see `trial_inputs`."""

    runner: Runner
    specs: Sequence[InputSpec]
    outputs: Sequence[str]
    sizes: Mapping[str, int]
    limits: Limits
    smallest: bool

    def trial(self) -> Trial:
        """The first fill of which everything is finite, or the one of which most is, at the first sizes that run.

        Raises:
            CannotRun: it runs at none, or not within the limits.
        """
        plans = list(self._plans())
        best: Trial | None = None
        reason: Exception = CannotRun("no inputs to run it on")
        for fill in FILLS:
            for plan in list(plans):
                try:
                    trial = self._filled(plan, fill)
                except TooLong:
                    raise
                except TooLarge as error:
                    reason = error
                    plans.remove(plan)  # whatever the numbers are
                    continue
                except CannotRun as error:
                    reason = error
                    continue
                plans = [plan]  # sizes that run do so whatever the numbers are
                if best is None or trial.finite > best.finite:
                    best = trial
                break
            if best is not None and best.finite == 1:
                break
        if best is None:
            raise reason
        return best

    def _filled(self, plan: Sequence[dict[str, int]], fill: Fill) -> Trial:
        check_inputs(self.specs, plan, self.limits)
        feeds = [filled(self.specs, sizes, seed, fill) for seed, sizes in enumerate(plan)]
        feeds = _both_ways(self.specs, feeds)
        light = next(iter(size_plans(self.specs, (LIGHT,), self.sizes)))[0]
        trial = _tried(self.runner, feeds, self.outputs, self.limits)
        return replace(trial, light=filled(self.specs, light, 0, fill))

    def _plans(self) -> Iterator[Sequence[dict[str, int]]]:
        """Short inputs and long ones where the sequence is dynamic; short ones alone if the long are too long."""
        if self.smallest:
            return size_plans(self.specs, (LIGHT,), self.sizes)
        both = next(iter(size_plans(self.specs, (SHORT, LONG), self.sizes)))
        same_batch = next(iter(size_plans(self.specs, (SHORT, {**SHORT, "row": LONG["row"]}), self.sizes)))
        plans = size_plans(self.specs, (SHORT,), self.sizes)
        smallest = size_plans(self.specs, (LIGHT,), self.sizes)
        return chain(plans if same_batch[0] == same_batch[1] else chain([both], plans), smallest)


def _both_ways(specs: Sequence[InputSpec], feeds: list[Feeds]) -> list[Feeds]:
    """Inputs at which every single truth is true once and false once: an If may hang on it."""
    single = [spec.name for spec in specs if spec.dtype.kind == "b" and all(dim == 1 for dim in spec.dims)]
    if not single:
        return feeds
    both = feeds if len(feeds) > 1 else [*feeds, dict(feeds[0])]
    return [
        {name: np.full_like(a, k % 2 == 0) if name in single else a for name, a in feed.items()}
        for k, feed in enumerate(both)
    ]


def _tried(runner: Runner, feeds: list[Feeds], outputs: Sequence[str], limits: Limits) -> Trial:
    runs: list[Values] = []
    for values in runner.run(map(widened_feeds, feeds), [outputs] * len(feeds), limits):
        runs.append(values)
        check_outputs(runs, limits)
    floats = [array for values in runs for array in values.values() if array.dtype.kind == "f"]
    count = sum(array.size for array in floats)
    finite = sum(int(np.isfinite(array).sum()) for array in floats) / count if count else 1.0
    return Trial(feeds, runs, finite, feeds[0] if feeds else {}, limits)


def filled(specs: Sequence[InputSpec], sizes: Mapping[str, int], seed: int, fill: Fill) -> Feeds:
    """Random inputs of one kind."""
    feeds = random_feeds(specs, sizes, seed)
    rng = np.random.default_rng(seed)
    for spec in specs:
        array = feeds[spec.name]
        if spec.dtype.kind == "f" or spec.dtype.num >= 256:
            feeds[spec.name] = _floats(array.astype(np.float32), fill.floats, rng).astype(spec.dtype)
        elif spec.dtype.kind in "iub" and spec.bound is None:
            feeds[spec.name] = _flags(array, fill.flags, rng)
    return feeds


def _floats(array: Array, how: str, rng: np.random.Generator) -> Array:
    if how == "normal":
        return array
    low, high = {"positive": (0.5, 2.0), "negative": (-2.0, -0.5), "unit": (0.05, 0.95), "above one": (1.5, 4.0)}[how]
    return rng.uniform(low, high, array.shape)


def _flags(array: Array, how: str, rng: np.random.Generator) -> Array:
    match how:
        case "inverse":
            return np.asarray(array == 0).astype(array.dtype)
        case "ones":
            return np.ones_like(array)
        case "mixed":
            return np.asarray(np.arange(array.size).reshape(array.shape) % 2 == 0).astype(array.dtype)
        case "counts":
            return rng.integers(1, 4, array.shape).astype(array.dtype)
    return array
