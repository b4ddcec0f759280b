"""One cell of the coverage table: one file, one variant of it, pruned with no hints."""

from __future__ import annotations

import tempfile
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import onnx
import onnxruntime as ort

from benchmarks.harness import Record, reason
from prunegraph import Graph, Scope, analyze
from prunegraph.errors import NothingToPrune, PruneGraphError

VARIANTS = ("as exported", "ort basic", "ort extended", "ort transformers", "float16")
EXACT, HIDDEN = 0.5, 0.25


def run_case(file: Path, variant: str) -> Record:
    """Make the variant, prune it, and say what came of it."""
    start = time.process_time()
    with tempfile.TemporaryDirectory() as folder:
        try:
            record = prune(vary(file, variant, Path(folder)))
        except PruneGraphError as error:
            record = {"failure": error.message}
        except Exception as error:
            record = {"failure": reason(error)}
    return record | {"seconds": round(time.process_time() - start, 2)}


def vary(file: Path, variant: str, folder: Path) -> Path:
    """The file as another tool leaves it.

    Raises:
        RuntimeError: That tool fails on it; no fault of the pruner.
    """
    target = folder / "model.onnx"
    try:
        if variant in ("ort basic", "ort extended"):
            options = ort.SessionOptions()
            options.log_severity_level = 4
            level = variant.replace("ort ", "").upper()
            options.graph_optimization_level = getattr(ort.GraphOptimizationLevel, f"ORT_ENABLE_{level}")
            options.optimized_model_filepath = str(target)
            ort.InferenceSession(file, options, providers=["CPUExecutionProvider"])
        elif variant == "ort transformers":
            from onnxruntime.transformers.optimizer import optimize_model

            kind = next((k for k in ("gpt2", "t5", "bart", "vit", "clip") if k in file.stem), "bert")
            optimize_model(str(file), model_type=kind, opt_level=0).save_model_to_file(str(target))
        elif variant == "float16":
            from onnxruntime.transformers.float16 import convert_float_to_float16

            onnx.save(convert_float_to_float16(onnx.load(file), keep_io_types=True), target)
        else:
            return file
        ort.InferenceSession(target, providers=["CPUExecutionProvider"])
    except Exception as error:
        raise RuntimeError(f"not made: {str(error).splitlines()[0][:120]}") from error
    return target


def prune(path: Path) -> Record:
    """Half of every exact kind; then a quarter of the hidden width as well."""
    graph = analyze(path)
    kinds = Counter(group.kind for group in graph.analysis.groups)
    exact = {kind: EXACT for kind in {g.kind for g in graph.analysis.groups if g.exact}}
    inexact_ids = [g.id for g in graph.analysis.groups if not g.exact]
    record: Record = {"groups": dict(kinds), "nodes": len(onnx.load(path, load_external_data=False).graph.node)}
    record |= {f"half {key}": value for key, value in outcome(graph, exact, inexact_ids).items()}
    if inexact_ids:
        inexact = {g.kind: HIDDEN for g in graph.analysis.groups if not g.exact and g.kind not in exact}
        record |= {f"hidden {key}": value for key, value in outcome(graph, exact | inexact).items()}
    record["pins"] = pins(graph)
    return record


def outcome(analyzed: Graph, ratio: dict[str, float], whole: Sequence[str] = ()) -> Record:
    """What one run removed, and how far it is from the masked original; the groups `whole` are left alone."""
    if not ratio:
        return {"refused": "nothing can be removed exactly"}
    try:
        graph = replace(analyzed, scope=Scope(exclude=whole))
        selection = graph.select(graph.score(groups=graph.targets(ratio).of_group), ratio)
    except NothingToPrune as reason:
        return {"refused": reason.message}
    result = graph.apply(selection)
    before, after = analyzed.original.graph, result.ir_model.graph
    proof = result.report.verify
    assert proof is not None
    return {
        "params": result.report.params,
        "error": proof.max_rel_error,
        "moved": proof.moved,
        "io": [(v.name, str(v.shape)) for v in (*before.inputs, *before.outputs)]
        == [(v.name, str(v.shape)) for v in (*after.inputs, *after.outputs)],
    }


def pins(graph: Graph) -> dict[str, str]:
    """The first reason for every length that no group has: the kind that is missing has it here."""
    free = {group.units for group in graph.analysis.groups}
    return {str(p.units): str(p.pins[0]) for p in graph.analysis.pinned if p.units > 1 and p.units not in free}
