"""Every architecture of the coverage table, small, exported by both exporters and checked against its module."""

from __future__ import annotations

import time
import warnings
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from itertools import product
from pathlib import Path
from typing import NamedTuple

import onnxruntime as ort
import torch
from torch import Tensor

from benchmarks.harness import Record, Stopped, in_child, reason
from benchmarks.zoo.model import ZooModel, export
from benchmarks.zoo.timm_models import TIMM
from benchmarks.zoo.transformers_models import TRANSFORMERS

ZOO: dict[str, Callable[[], ZooModel]] = TIMM | TRANSFORMERS
TOLERANCE = 1e-3
GROWTH = {"batch": 1, "images": 1}
GROWTH_OF_LENGTHS = 4


class Made(NamedTuple):
    """What came of one export: a file, or the reason why there is none."""

    name: str
    exporter: str
    seconds: float
    failure: str


def build(name: str) -> ZooModel:
    """Make a model of the zoo; equal names give equal weights.

    Raises:
        KeyError: The zoo has no such model.
    """
    torch.manual_seed(0)
    return ZOO[name]()


def file_name(name: str, exporter: str) -> str:
    """Return the name of the file that an exporter writes for a model."""
    return f"{name}.onnx" if exporter == "dynamo" else f"{name}_{exporter}.onnx"


def check(model: ZooModel, path: Path) -> str:
    """Compare a file with its module, at the size of the export and at a larger one.

    Returns:
        What is wrong with the file, or nothing.
    """
    options = ort.SessionOptions()
    options.log_severity_level = 3
    session = ort.InferenceSession(path, options, providers=["CPUExecutionProvider"])
    known = {value.name for value in session.get_inputs()}
    for label, inputs in (("as exported", model.inputs), ("larger", grown(model))):
        with torch.no_grad():
            expected = model.module(*inputs.values())
        feed = {name: tensor.numpy() for name, tensor in inputs.items() if name in known}
        try:
            actual = torch.from_numpy(session.run(None, feed)[0])
        except Exception as error:
            return f"onnxruntime, {label}: {reason(error)}"
        if actual.shape != expected.shape:
            return f"{label}: shape {tuple(actual.shape)} instead of {tuple(expected.shape)}"
        difference = float((actual - expected).abs().max() / expected.abs().max())
        if not difference < TOLERANCE:
            return f"{label}: differs from torch by {difference:.1e} relative"
    return ""


def grown(model: ZooModel) -> dict[str, Tensor]:
    """Inputs of a larger batch and length."""
    larger = {}
    for name, tensor in model.inputs.items():
        for axis, label in model.dynamic.get(name, {}).items():
            size = tensor.shape[axis]
            tensor = tensor.index_select(axis, torch.arange(size + GROWTH.get(label, GROWTH_OF_LENGTHS)) % size)
        larger[name] = tensor
    return larger


def make(folder: Path, names: list[str], exporters: list[str], timeout: float, jobs: int) -> Iterator[Made]:
    """Export models in child processes and yield what came of each, in order; nothing of one that was stopped."""
    folder.mkdir(parents=True, exist_ok=True)

    def one(work: tuple[str, str]) -> Made | None:
        start = time.monotonic()
        try:
            record = in_child(timeout, export_checked, folder, *work)
        except Stopped:
            return None
        return Made(*work, time.monotonic() - start, record.get("failure", ""))

    with ThreadPoolExecutor(jobs) as pool:
        yield from filter(None, pool.map(one, product(names, exporters)))


def export_checked(folder: Path, name: str, exporter: str) -> Record:
    """Export and check one model; the file is kept only if it computes what the module computes."""
    path = folder / file_name(name, exporter)
    if path.exists():
        return {}
    warnings.simplefilter("ignore")
    torch.set_num_threads(1)
    trial = path.with_suffix(".trial")
    try:
        model = build(name)
        export(model, exporter, trial)
        if failure := check(model, trial):
            return {"failure": failure}
        trial.replace(path)
    except Exception as error:
        while error.__cause__ is not None:  # exporters wrap what went wrong in advice
            error = error.__cause__  # type: ignore[assignment]
        return {"failure": reason(error)}
    finally:
        trial.unlink(missing_ok=True)
    return {}
