"""Random models, randomly pruned, against an oracle that knows nothing of this package.

    python -m benchmarks.soundness                        # 200 models of each kind, 6 selections each
    python -m benchmarks.soundness --models 1670          # nightly: 10,000 models in all
    python -m benchmarks.soundness --markdown docs/verification.md

The proof is off: what is counted is whether the analysis and the rewrite are right by themselves. The oracle looks up
every number of the slim file's weights in the weights of the original, sets to zero what is missing, and runs that: it
shares no code with Shrink, with the masks of the proof or with the solver's answer. No number occurs twice in a model,
so that a look-up is certain; weights of bytes are found by the scale of their columns and then row by row.

Left out are groups that are not exact: norms over their axis, and choices of experts.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt
import onnx
import onnx_ir as ir
import onnxruntime as ort
from onnx import TensorProto, helper, numpy_helper
from rich.console import Console

from benchmarks.harness import Section, describe, publish, study_parser
from benchmarks.random_models import Network, RandomModel, at_will
from prunegraph.analysis.groups import Group
from prunegraph.analysis.selection import Selection
from prunegraph.analyzed import Analyzed, load_and_analyze
from prunegraph.errors import PruneGraphError
from prunegraph.pipeline import rewrite

Array = npt.NDArray[np.generic]

TOLERANCE = {"float32": 1e-4, "float16": 1e-4, "int8": 3e-2}
"""Largest difference that is right, relative to the output; of activations rounded to bytes one step may tip over."""

MOVED = 1e-3
"""A selection whose zeros change no output by more than this tells nothing."""

MODELS, SELECTIONS = 200, 6


@dataclass
class Tally:
    """What came of the models of one kind."""

    models: int = 0
    selections: int = 0
    right: int = 0
    wrong: list[str] = field(default_factory=list)
    refused: list[str] = field(default_factory=list)
    unmoved: int = 0
    worst: float = 0.0
    kinds: Counter[str] = field(default_factory=Counter)


# ---- models ----------------------------------------------------------------------------------------------------------


def halved(model: RandomModel, seed: int) -> RandomModel | None:
    """The model in float16, no number of its weights twice; None where there are too few numbers for that."""
    proto = onnx.ModelProto()
    proto.CopyFrom(model.proto)
    pool = np.arange(0x1800, 0x3A00, dtype=np.uint16)  # 0.002 to 0.75
    pool = np.concatenate([pool, pool | 0x8000]).view(np.float16)
    np.random.default_rng(seed).shuffle(pool)
    for tensor in proto.graph.initializer:
        if tensor.data_type != TensorProto.FLOAT:
            continue
        array = numpy_helper.to_array(tensor).astype(np.float16)
        if tensor.name in model.weights:
            fitting = np.flatnonzero((pool > 0) | (array.min() < 0))[: array.size]  # a spread stays positive
            if fitting.size < array.size:
                return None
            array, pool = pool[fitting].reshape(array.shape), np.delete(pool, fitting)
        tensor.CopyFrom(numpy_helper.from_array(np.ascontiguousarray(array), tensor.name))
    for value in (*proto.graph.input, *proto.graph.output):
        value.type.tensor_type.elem_type = TensorProto.FLOAT16
    return RandomModel(proto, model.inputs, model.weights)


FAMILIES: Mapping[str, tuple[str, Callable[[int], RandomModel | None]]] = {
    "layers over tokens": ("float32", lambda seed: Network(seed).over_tokens()),
    "layers over images": ("float32", lambda seed: Network(seed).over_images()),
    "ops at will": ("float32", at_will),
    "layers over tokens, weights of bytes": ("int8", lambda seed: Network(seed, int8=True).over_tokens()),
    "layers over tokens, float16": ("float16", lambda seed: halved(Network(seed + 10**6).over_tokens(), seed)),
    "layers over images, float16": ("float16", lambda seed: halved(Network(seed + 10**6).over_images(), seed)),
}


def selections(groups: tuple[Group, ...], rng: np.random.Generator, count: int) -> Iterator[Selection]:
    """One group alone, some of them, all of them: any number of units of each."""
    for k in range(count):
        share = (0.0, 0.5, 1.0)[k % 3]
        chosen = [group for group in groups if rng.random() < share] or [groups[int(rng.integers(len(groups)))]]
        keep = {}
        for group in chosen:
            kept = int(rng.integers(group.least, group.units))
            keep[group.id] = rng.random(group.shape).argsort(-1).argsort(-1) < kept
        yield Selection(keep)


# ---- the oracle ------------------------------------------------------------------------------------------------------


def initializers(proto: onnx.ModelProto) -> dict[str, Array]:
    """The numbers of a file, by name."""
    return {tensor.name: numpy_helper.to_array(tensor) for tensor in proto.graph.initializer}


def zeroed(model: RandomModel, slim: onnx.ModelProto) -> onnx.ModelProto:
    """The original with every number of its weights set to zero that the slim file has not.

    Raises:
        LookupError: bytes of the slim file are nowhere in the original.
    """
    left = initializers(slim)
    numbers = np.unique(np.concatenate([a.reshape(-1) for a in left.values() if a.dtype.kind == "f"]))
    proto = onnx.ModelProto()
    proto.CopyFrom(model.proto)
    arrays = initializers(proto)
    for tensor in proto.graph.initializer:
        if tensor.name not in model.weights:
            continue
        array = arrays[tensor.name]
        if array.dtype == np.int8:
            kept = np.zeros(array.shape, bool)
            columns = np.isin(arrays[model.scales[tensor.name]], numbers)
            named = {tensor.name: left[tensor.name]} if tensor.name in left else left
            kept[np.ix_(rows_left(array[:, columns], named), columns)] = True
        else:
            kept = np.isin(array, numbers)
        tensor.CopyFrom(numpy_helper.from_array(np.where(kept, array, np.zeros((), array.dtype)), tensor.name))
    return proto


def rows_left(array: Array, left: Mapping[str, Array]) -> npt.NDArray[np.bool_]:
    """Which rows of bytes a file still has."""
    rows = {row.tobytes(): k for k, row in enumerate(array)}
    for other in sorted(left.values(), key=lambda other: -other.size):
        if other.dtype == np.int8 and other.ndim == 2 and other.shape[1] == array.shape[1] and other.shape[1] > 0:
            at = [rows.get(row.tobytes()) for row in other]
            if all(k is not None for k in at):
                return np.isin(np.arange(len(array)), at)
    raise LookupError("bytes that are nowhere in the original")


def wide(proto: onnx.ModelProto) -> onnx.ModelProto:
    """A float16 model in float32: both files are compared where rounding is small."""
    twin = onnx.ModelProto()
    twin.CopyFrom(proto)
    del twin.graph.value_info[:]
    for tensor in twin.graph.initializer:
        if tensor.data_type == TensorProto.FLOAT16:
            tensor.CopyFrom(numpy_helper.from_array(numpy_helper.to_array(tensor).astype(np.float32), tensor.name))
    for value in (*twin.graph.input, *twin.graph.output):
        if value.type.tensor_type.elem_type == TensorProto.FLOAT16:
            value.type.tensor_type.elem_type = TensorProto.FLOAT
    for node in twin.graph.node:
        for attribute in node.attribute:
            if node.op_type == "Cast" and attribute.name == "to" and attribute.i == TensorProto.FLOAT16:
                attribute.CopyFrom(helper.make_attribute("to", TensorProto.FLOAT))
    return twin


def outputs(proto: onnx.ModelProto, feeds: Mapping[str, Array]) -> list[Array]:
    """What ONNX Runtime makes of a file as it is written."""
    options = ort.SessionOptions()
    options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
    options.intra_op_num_threads, options.log_severity_level = 1, 4
    session = ort.InferenceSession(proto.SerializeToString(), options, providers=["CPUExecutionProvider"])
    return [np.asarray(array) for array in session.run(None, feeds)]


def apart(expected: list[Array], actual: list[Array]) -> float:
    """Largest difference, relative to the largest value of the output; infinite where shapes differ."""
    worst = 0.0
    for a, b in zip(expected, actual, strict=True):
        if a.shape != b.shape or not (np.isfinite(a).all() and np.isfinite(b).all()):
            return float("inf")
        worst = max(worst, float(np.abs(a - b).max()) / max(float(np.abs(a).max()), 1e-12))
    return worst


# ---- the count -------------------------------------------------------------------------------------------------------


def check(family: str, seeds: range, count: int = SELECTIONS) -> Tally:
    """Prune the models of these seeds, and count what is right."""
    tally = Tally()
    precision, make = FAMILIES[family]
    for seed in seeds:
        model = make(seed)
        if model is None:
            continue
        rng = np.random.default_rng([seed, 1])
        analyzed = load_and_analyze(model.proto)
        groups = tuple(group for group in analyzed.analysis.groups if group.exact and group.units > group.least)
        if not groups:
            continue
        tally.models += 1
        tally.kinds.update(group.kind for group in groups)
        sizes = (2, 7)
        feeds = {
            name: rng.standard_normal([sizes[min(axis, 1)] if n == 0 else n for axis, n in enumerate(shape)]).astype(
                "f4"
            )
            for name, shape in model.inputs.items()
        }
        whole = outputs(wide(model.proto), feeds)
        for k, selection in enumerate(selections(groups, rng, count)):
            case = f"{family}, seed {seed}, selection {k}"
            tally.selections += 1
            try:
                slim = pruned(analyzed, selection)
                expected = outputs(wide(zeroed(model, slim)), feeds)
                error = apart(expected, outputs(wide(slim), feeds))
            except PruneGraphError as reason:
                tally.refused.append(f"{case}: {reason}")
                continue
            except LookupError as reason:
                tally.wrong.append(f"{case}: {reason}")
                continue
            tally.unmoved += apart(whole, expected) < MOVED
            tally.worst = max(tally.worst, error if np.isfinite(error) else 0.0)
            if error <= TOLERANCE[precision]:
                tally.right += 1
            else:
                tally.wrong.append(f"{case}: off by {error:.1e}; keep {selection.to_json()}")
    return tally


def pruned(analyzed: Analyzed, selection: Selection) -> onnx.ModelProto:
    """The slim file, not proven."""
    slim, _ = rewrite(analyzed, selection, check=False)
    return onnx.ModelProto.FromString(ir.to_proto(slim).SerializeToString())


def figures(tallies: Mapping[str, Tally], seed: int, minutes: float) -> Section:
    """The table of the page, and all of it in a paragraph."""
    wrong, refused = (
        sum(len(lines) for lines in every)
        for every in zip(*((t.wrong, t.refused) for t in tallies.values()), strict=True)
    )
    models, count, unmoved = (
        sum(getattr(t, what) for t in tallies.values()) for what in ("models", "selections", "unmoved")
    )
    kinds: Counter[str] = sum((t.kinds for t in tallies.values()), Counter())
    groups = ", ".join(f"{count} of {kind}" for kind, count in kinds.most_common())
    rows = [
        (family, *map(str, (t.models, t.selections, len(t.wrong), len(t.refused))), f"{t.worst:.1e}")
        for family, t in tallies.items()
    ]
    note = (
        f"**Wrong: {wrong} of {count}** selections of {models} models ({refused} refused; in {unmoved} what went moved "
        f"no output by more than a thousandth, so that these tell little). Groups: {groups}. Seeds from {seed}, "
        f"{minutes:.0f} minutes: {describe('onnxruntime', 'onnx', 'numpy')}."
    )
    return Section("", ("models", "files", "selections", "wrong", "refused", "largest error"), rows, note)


def main() -> int:
    """Count, print, and write the page if that is asked for."""
    parser = study_parser("benchmarks.soundness", __doc__, page=True)
    parser.add_argument("--models", type=int, default=MODELS, help="models of every family")
    parser.add_argument("--selections", type=int, default=SELECTIONS, help="selections of every model")
    parser.add_argument("--seed", type=int, default=0, help="of the first model")
    arguments = parser.parse_args()
    console, start = Console(stderr=True), time.monotonic()
    tallies = {}
    for family in FAMILIES:
        seeds = range(arguments.seed, arguments.seed + arguments.models)
        tallies[family] = tally = check(family, seeds, arguments.selections)
        console.print(f"{family}: {tally.models} models, {tally.right} of {tally.selections} right")
        for line in (*tally.wrong[:5], *tally.refused[:5]):
            console.print(f"  {line}", soft_wrap=True, markup=False)
    minutes = (time.monotonic() - start) / 60
    publish("soundness", [figures(tallies, arguments.seed, minutes)], arguments.markdown)
    return 1 if any(tally.wrong for tally in tallies.values()) else 0


if __name__ == "__main__":
    raise SystemExit(main())
