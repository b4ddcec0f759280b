"""What is written into the metadata of nodes and initializers, and that it survives."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import onnx
import onnx_ir as ir
import onnxruntime as ort
import pytest

from prunegraph.analysis.selection import Selection
from prunegraph.passes.annotate import MAX_SCORES, PREFIX, annotate, describe, note_removal, strip
from tests.graphs.small import analysed

SAMPLE = ("constant_nodes", "gqa", "mqa", "window_attention", "mha", "packed_3hd", "transformer_block", "unet")


def entries(proto: onnx.ModelProto) -> dict[str, dict[str, object]]:
    """By name of a node or an initializer what its metadata say, parsed."""
    holders = [*proto.graph.node, *proto.graph.value_info]
    written = {
        holder.name: {entry.key: json.loads(entry.value) for entry in holder.metadata_props if entry.key[:11] == PREFIX}
        for holder in holders
    }
    return {name: facts for name, facts in written.items() if facts}


@pytest.mark.parametrize("name", SAMPLE)
def test_every_weight_of_every_group_and_its_readers_are_annotated(name: str) -> None:
    case = analysed(name)
    scores = {
        group.id: np.arange(np.prod(group.shape), dtype=np.float64).reshape(group.shape)
        for group in case.analysis.groups
    }
    proto = ir.to_proto(annotate(case.model, case.normalized, case.analysis, scores, "magnitude"))
    onnx.checker.check_model(proto)
    written = entries(proto)
    for group in case.analysis.groups:
        speaking = [holder for holder, facts in written.items() if PREFIX + group.id in facts]
        assert speaking, group
        for holder in speaking:
            facts = written[holder][PREFIX + group.id]
            assert facts["kind"] == group.kind and facts["scorer"] == "magnitude"  # type: ignore[index]
    assert not entries(ir.to_proto(case.model)), "the model that was given is changed"


def test_scores_and_decisions_in_words_that_can_be_parsed() -> None:
    case = analysed("transformer_block")
    group = next(group for group in case.analysis.groups if group.kind == "ffn")
    scores = np.linspace(0, 1, group.units)
    keep = scores > 0.5
    facts = describe(group, scores, "activation", Selection({group.id: keep}))
    assert facts["units"] == f"0-{group.units - 1}" and facts["keeps"] == int(keep.sum())
    assert facts["removed"] == np.flatnonzero(~keep).tolist()
    assert facts["scores"]["values"] == pytest.approx(scores.tolist(), rel=1e-5)
    many = describe(group, np.zeros(MAX_SCORES + 1), "activation", None)
    assert set(many["scores"]) == {"min", "median", "max"} and "keeps" not in many


def test_metadata_survive_the_runtime_and_another_reading_and_strip_removes_them(tmp_path: Path) -> None:
    case = analysed("transformer_block")
    model = annotate(case.model, case.normalized, case.analysis)
    note_removal(model, "{}", {"ffn.0": (8, 4)}, "model.onnx", "1.2.3")
    options = ort.SessionOptions()
    options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
    options.optimized_model_filepath = str(tmp_path / "again.onnx")
    ort.InferenceSession(ir.to_proto(model).SerializeToString(), options)
    again = onnx.load(tmp_path / "again.onnx")
    assert {entry.key: entry.value for entry in again.metadata_props}[PREFIX + "removed"] == '{"ffn.0": [8, 4]}'
    read = ir.from_proto(ir.to_proto(model))
    assert entries(ir.to_proto(read)) == entries(ir.to_proto(model)) != {}
    strip(read)
    assert not entries(ir.to_proto(read)) and not any(key.startswith(PREFIX) for key in read.metadata_props)
