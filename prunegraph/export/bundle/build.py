"""Put a bundle together: models for a stack, inputs, what comes out of them, and the script."""

from __future__ import annotations

import hashlib
import io
import json
import os
import zipfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from importlib import resources
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnx_ir as ir

from prunegraph.atomic_write import check_target, stage
from prunegraph.bench.compare import labels_of
from prunegraph.bench.device_table import Cut
from prunegraph.bench.parity import TOLERANCES, number_format, output_error
from prunegraph.clock import Clock, Progress
from prunegraph.errors import ModelError, UsageError
from prunegraph.export.bundle.lower import lowered
from prunegraph.export.bundle.stacks import Stack, find_stack
from prunegraph.export.bundle.versions import Versions, with_patterns
from prunegraph.export.onnx_file import files_of, load
from prunegraph.installed import installed_version
from prunegraph.passes.normalize.static import freeze_sizes
from prunegraph.runtime.feeds import ID_BOUNDS, Feeds, random_feeds
from prunegraph.runtime.inputs import check_same_inputs, input_specs
from prunegraph.runtime.providers import PROVIDERS
from prunegraph.runtime.session import CannotRun, SessionSettings, open_message, run
from prunegraph.runtime.sizes_by_role import resolve_sizes

SETTINGS = {"threads": 1, "warmup": 10, "rounds": 100, "max_seconds": 60.0, "seed": 0, "block": 1}
"""How the script times unless told otherwise."""

TABLE_SETTINGS = {"rounds": 30, "max_seconds": 20.0}
"""How it times each version of a latency table beside the whole model."""

LARGEST = 2**31 - 2**24
"""Bytes of a model that still fit one message."""

_STAMP = (1980, 1, 1, 0, 0, 0)

_README = """Latency of {names} on {stack}.

1. Needs Python {python} (3.6 or newer), numpy and onnxruntime: {source}.
2. Fix the clocks where the device allows it, and let nothing else run. On a Jetson:
       sudo nvpmodel -q              which power mode is on; sudo nvpmodel -m N sets one
       sudo jetson_clocks
3. python3 run.py                    on every execution provider there is; --help for more
   python3 run.py --check            only whether the outputs are right
{table}
Bring results.json back: prunegraph bench --results results.json
"""

_TABLE = """   python3 run.py --table            a latency table too, for prunegraph prune --speedup 2 --table FILE
"""


@dataclass(frozen=True, slots=True)
class Bundle:
    """What lies in the zip.

    Attributes:
        path: Where it is.
        stack: What it is for; None for any device.
        shapes: Of the inputs.
        opsets: Of the models, by name.
    """

    path: Path
    stack: Stack | None
    shapes: Mapping[str, tuple[int, ...]]
    opsets: Mapping[str, int]

    def to_dict(self) -> dict[str, Any]:
        """Plain data for JSON."""
        stack = None if self.stack is None else self.stack.name
        shapes = {name: list(shape) for name, shape in self.shapes.items()}
        return {"path": str(self.path), "stack": stack, "shapes": shapes, "opsets": dict(self.opsets)}


@dataclass(frozen=True, slots=True)
class _Entry:
    name: str
    proto: onnx.ModelProto
    outputs: Mapping[str, np.ndarray[Any, Any]]
    tolerance: float


@dataclass(frozen=True, slots=True)
class _Table:
    versions: Versions
    cuts: Sequence[tuple[Cut, _Entry]]


@dataclass(frozen=True, slots=True)
class _Ready:
    """Makes models ready for a stack."""

    feeds: Feeds
    static: bool
    stack: Stack | None

    def entry(self, model: ir.Model, name: str, outputs: Mapping[str, Any]) -> _Entry:
        """The model at the stack's opset and format, which still has these outputs.

        Raises:
            ModelError: it cannot be lowered, or computes something else then.
        """
        proto = _proto(model, name, self.feeds, outputs, static=self.static)
        if self.stack is not None:
            proto = lowered(proto, name, self.stack)
        entry = _Entry(name, proto, outputs, TOLERANCES[number_format(proto)])
        _check(entry, self.feeds)
        return entry


def bundle(
    models: Sequence[str | os.PathLike[str]],
    path: str | os.PathLike[str],
    *,
    stack: str | None = None,
    static: Mapping[str, int] | None = None,
    batch: int = 1,
    sequence: int = 128,
    sizes: Mapping[str, int] | None = None,
    seed: int = 0,
    versions: Versions | None = None,
    progress: Progress | None = None,
) -> Bundle:
    """Write a zip that compares models on a device without prunegraph: unpack it there and run `run.py`.

    Args:
        models: ONNX files with the same inputs; the first is what the others are compared with.
        path: Where to write the zip; it appears whole or not at all.
        stack: One of `STACKS`: opset and file format are lowered to what it reads. None: they stay.
        static: Sizes of dims by name, or of `batch` and `sequence`, that the models have for good; no dim is dynamic
            afterwards.
        batch: Size of dynamic batch dims in the inputs.
        sequence: Size of dynamic sequence dims in them.
        sizes: Size of dynamic dims by name.
        seed: Of the inputs.
        versions: What `run.py --table` times beside the first model; their weights are patterns, which take no room.
        progress: Called with the name of each step.

    Raises:
        UsageError: there is no such stack, a size cannot be told, or the models have different inputs.
        ModelError: a model cannot be read, run, or lowered.
        OutputError: the path is an input, or cannot be written.
    """
    if not models:
        raise UsageError("there is no model to bundle", hint="give at least one ONNX file")
    clock, target = Clock(progress), Path(path)
    chosen = None if stack is None else find_stack(stack)
    loaded = {name: load(source) for name, source in zip(labels_of(models, None), models, strict=True)}
    check_target(target, [file for model in loaded.values() for file in files_of(model).files])
    first = next(iter(loaded.values()))
    specs = input_specs(first.graph)
    named = {key: size for key, size in (static or {}).items() if key not in ("batch", "sequence")}
    length = {"batch": batch, "sequence": sequence} | dict(static or {})
    resolved = resolve_sizes(
        specs, batch=length["batch"], sequence=length["sequence"], sizes={**(sizes or {}), **named}
    )
    for name, model in loaded.items():
        check_same_inputs(input_specs(model.graph), random_feeds(specs, resolved), name, next(iter(loaded)))
    with clock.step("run"):
        feeds, expected = _run_all(loaded, resolved, seed)
    ready = _Ready(feeds, static is not None, chosen)
    entries = []
    for name, model in loaded.items():
        with clock.step(f"write {name}"):
            entries.append(ready.entry(model, name, expected[name]))
    table = None
    if versions is not None:
        cuts = []
        for cut, model in versions.models():
            with clock.step(f"write {cut.name}"):
                patterned = with_patterns(model)
                entry = ready.entry(patterned, cut.name, _outputs(_message(patterned, cut.name), cut.name, feeds))
                cuts.append((cut, entry))
        table = _Table(versions, cuts)
    _write(target, entries, feeds, resolved, chosen, seed, table)
    shapes = {name: array.shape for name, array in feeds.items()}
    return Bundle(target, chosen, shapes, {entry.name: entry.proto.opset_import[0].version for entry in entries})


def _run_all(
    models: Mapping[str, ir.Model], sizes: Mapping[str, int], seed: int
) -> tuple[Feeds, dict[str, dict[str, Any]]]:
    """Inputs that all models take, and what they make of them on the CPU."""
    specs = input_specs(next(iter(models.values())).graph)
    for bound in ID_BOUNDS:
        feeds = random_feeds(specs, sizes, seed, id_bound=bound, whole_masks=True)
        try:
            return feeds, {name: _outputs(_message(model, name), name, feeds) for name, model in models.items()}
        except ModelError:
            if bound == ID_BOUNDS[-1]:
                raise
    raise AssertionError("unreachable")


def _outputs(message: bytes, name: str, feeds: Feeds) -> dict[str, Any]:
    try:
        with open_message(message, {}, SessionSettings(fuse_quantized=True)) as session:
            names = [output.name for output in session.get_outputs()]
            return dict(zip(names, run(session, feeds, names), strict=True))
    except CannotRun as error:
        raise ModelError(f"ONNX Runtime does not run {name}: {error}", hint="give sizes that it runs at") from error


def _message(model: ir.Model, name: str) -> bytes:
    weights = (value.const_value for graph in model.graphs() for value in graph.initializers.values())
    if sum(each.nbytes for each in weights if each is not None and each.dtype is not ir.DataType.STRING) > LARGEST:
        raise ModelError(f"{name} is larger than 2 GB", hint="quantize it first, or time it where it lies with bench")
    return ir.to_proto(ir.external_data.load_to_model(model)).SerializeToString()


def _proto(model: ir.Model, name: str, feeds: Feeds, outputs: Mapping[str, Any], *, static: bool) -> onnx.ModelProto:
    if static:
        model = freeze_sizes(model, {key: array.shape for key, array in {**feeds, **outputs}.items()})
    return onnx.ModelProto.FromString(_message(model, name))


def _check(entry: _Entry, feeds: Feeds) -> None:
    """Refuse what does not compute the same any more."""
    outputs = _outputs(entry.proto.SerializeToString(), entry.name, feeds)
    for name, array in entry.outputs.items():
        error = output_error(array, outputs[name])
        if not error <= entry.tolerance:
            message = f"{entry.name}: in the older opset the output {name!r} differs by {error:.2g} of its scale"
            raise ModelError(message, hint="choose a newer stack, or export the model with an older opset")


def _write(
    target: Path,
    entries: Sequence[_Entry],
    feeds: Feeds,
    sizes: Mapping[str, int],
    stack: Stack | None,
    seed: int,
    table: _Table | None,
) -> None:
    inputs = {name: f"i{number}" for number, name in enumerate(feeds)}
    timed = [entry for _, entry in table.cuts] if table is not None else []
    with stage(target) as folder, zipfile.ZipFile(folder / target.name, "w", zipfile.ZIP_DEFLATED) as archive:

        def add(name: str, content: bytes) -> None:
            archive.writestr(zipfile.ZipInfo(name, _STAMP), content, zipfile.ZIP_DEFLATED)

        stated: dict[str, Any] = {
            "schema": 1,
            "prunegraph": installed_version(otherwise="unknown"),
            "stack": None if stack is None else stack.name,
            "models": [_add_model(add, entry, f"models/{k}.onnx", f"m{k}") for k, entry in enumerate(entries)],
            "inputs": inputs,
            "shapes": {name: list(array.shape) for name, array in feeds.items()},
            "sizes": dict(sizes),
            "providers": _providers(),
            "settings": {**SETTINGS, "seed": seed},
        }
        if table is not None:
            cuts = [
                {**_add_model(add, entry, f"cuts/{k}.onnx", f"c{k}"), "kept": dict(cut.kept)}
                for k, (cut, entry) in enumerate(table.cuts)
            ]
            known = {"model": table.versions.model, "groups": dict(table.versions.groups), "forms": []}
            stated["table"] = {**known, "cuts": cuts, "settings": TABLE_SETTINGS}
        outputs = {
            f"{letter}{k}o{j}": array
            for letter, each in (("m", entries), ("c", timed))
            for k, entry in enumerate(each)
            for j, array in enumerate(entry.outputs.values())
        }
        add("bundle.json", json.dumps(stated, indent=1).encode())
        add("inputs.npz", _npz({inputs[name]: array for name, array in feeds.items()}))
        add("expected.npz", _npz(outputs))
        add("run.py", resources.files("prunegraph.export.bundle").joinpath("run.py").read_bytes())
        add("energy.py", resources.files("prunegraph.bench").joinpath("energy.py").read_bytes())
        add("README.txt", _readme(entries, stack, table).encode())


def _add_model(add: Callable[[str, bytes], None], entry: _Entry, file: str, key: str) -> dict[str, Any]:
    """Add a model to the archive, and describe it."""
    content = entry.proto.SerializeToString()
    add(file, content)
    return {
        "name": entry.name,
        "file": file,
        "sha256": hashlib.sha256(content).hexdigest(),
        "opset": {each.domain: each.version for each in entry.proto.opset_import},
        "ir_version": entry.proto.ir_version,
        "outputs": {name: f"{key}o{j}" for j, name in enumerate(entry.outputs)},
        "tolerance": entry.tolerance,
    }


def _providers() -> dict[str, dict[str, Any]]:
    """What the script knows of execution providers."""
    return {
        name: {
            "ep": each.ep,
            "options": dict(each.options),
            "after": list(each.after),
            "device": each.device,
            "tolerance": TOLERANCES[each.precision],
            "plugin": None if each.plugin is None else asdict(each.plugin),
        }
        for name, each in PROVIDERS.items()
    }


def _readme(entries: Sequence[_Entry], stack: Stack | None, table: _Table | None) -> str:
    return _README.format(
        names=", ".join(entry.name for entry in entries),
        stack="any device" if stack is None else stack.name,
        python="3.6" if stack is None else stack.python,
        source="pip install onnxruntime numpy" if stack is None else stack.source,
        table="" if table is None else _TABLE,
    )


def _npz(arrays: Mapping[str, Any]) -> bytes:
    buffer = io.BytesIO()
    np.savez(buffer, **arrays)
    return buffer.getvalue()
