"""Every architecture of the coverage table, small, exported by both exporters and checked against its module."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterable
from pathlib import Path

import onnxruntime as ort
import torch
from torch import Tensor

from benchmarks.harness import Record, Records, reason, run_cases
from benchmarks.zoo.model import ZooModel, export, file_name
from benchmarks.zoo.timm_models import TIMM
from benchmarks.zoo.transformers_models import TRANSFORMERS

ZOO: dict[str, Callable[[], ZooModel]] = TIMM | TRANSFORMERS
TOLERANCE = 1e-3
GROWTH = {"batch": 1, "images": 1}
GROWTH_OF_LENGTHS = 4


def build(name: str) -> ZooModel:
    """Make a model of the zoo; equal names give equal weights.

    Raises:
        KeyError: The zoo has no such model.
    """
    torch.manual_seed(0)
    return ZOO[name]()


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


def export_missing(
    folder: Path, names: Iterable[str], exporters: Iterable[str], records: Records, *, jobs: int, timeout: float,
    again: bool = False,
) -> dict[Path, Record]:  # fmt: skip
    """Export what the folder lacks, each in a process of its own; by file that is not there still, why."""
    folder.mkdir(parents=True, exist_ok=True)
    files = {folder / file_name(name, exporter): (name, exporter) for exporter in exporters for name in names}
    results = run_cases(
        "export",
        [file for file in files if not file.exists()],
        records,
        lambda file: (export_checked, (file, *files[file])),
        name=lambda file: f"{file.stem}: export",
        jobs=jobs,
        timeout=timeout,
        again=again,
    )
    return {file: record for file, record in results.items() if "failure" in record}


def export_checked(path: Path, name: str, exporter: str) -> Record:
    """Export and check one model; the file is kept only if it computes what the module computes."""
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
