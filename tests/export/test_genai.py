"""Folders of ONNX Runtime GenAI: a slim folder says how many heads there are, and generates what it should."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, numpy_helper
from onnxruntime.quantization.matmul_nbits_quantizer import MatMulNBitsQuantizer

from prunegraph import Amount, Scope, prune_graph
from prunegraph.analysis.selection import Selection
from prunegraph.api import verify_files
from prunegraph.cli.model_folder import cuts_of, opened
from prunegraph.errors import ModelError, PruneGraphError, VerificationFailed
from prunegraph.export.folder import Cut
from prunegraph.export.genai import NAME, slim_genai_config
from prunegraph.passes.prove.mask import masked
from prunegraph.result import PruneResult
from prunegraph.runtime.session import open_session, run
from prunegraph.runtime.widen import widened
from tests.graphs.builder import Builder

LAYERS, HIDDEN, KV, QUERIES, SIZE, FFN, WORDS = 2, 32, 4, 2, 16, 32, 48
CACHES = ("past_key_values.*", "present.*")

DECODER = {
    "filename": "model.onnx",
    "head_size": SIZE,
    "hidden_size": HIDDEN,
    "inputs": {
        "input_ids": "input_ids",
        "attention_mask": "attention_mask",
        "past_key_names": "past_key_values.%d.key",
        "past_value_names": "past_key_values.%d.value",
    },
    "outputs": {
        "logits": "logits",
        "present_key_names": "present.%d.key",
        "present_value_names": "present.%d.value",
    },
    "num_attention_heads": KV * QUERIES,
    "num_hidden_layers": LAYERS,
    "num_key_value_heads": KV,
}
CONFIG: dict[str, Any] = {
    "model": {
        "bos_token_id": 1,
        "context_length": 64,
        "decoder": DECODER,
        "eos_token_id": 2,
        "pad_token_id": 0,
        "type": "llama",
        "vocab_size": WORDS,
    },
    "search": {"do_sample": False, "max_length": 64, "past_present_share_buffer": False},
}


def decoder() -> onnx.ModelProto:
    """What the model builder writes: packed queries, keys and values, caches, lengths from the mask; without norms."""
    b = Builder("genai")
    b.domains["com.microsoft"] = 1
    ids = b.input("input_ids", "batch_size", "sequence_length", dtype=TensorProto.INT64)
    mask = b.input("attention_mask", "batch_size", "total_sequence_length", dtype=TensorProto.INT64)
    caches = [f"{layer}.{part}" for layer in range(LAYERS) for part in ("key", "value")]
    for name in caches:
        b.input(f"past_key_values.{name}", "batch_size", KV, "past_sequence_length", SIZE)
    last = b("Cast", b("Sub", b("ReduceSum", mask, [1], keepdims=0), [1]), to=TensorProto.INT32)
    total = b("Cast", b("Gather", b("Shape", mask), np.array(1), axis=0), to=TensorProto.INT32)
    x = b("Gather", b.weight("embed", WORDS, HIDDEN, scale=1.0), ids)
    for layer in range(LAYERS):
        width = KV * QUERIES * SIZE
        packed = b("MatMul", x, b.weight(f"qkv{layer}", HIDDEN, width + 2 * KV * SIZE))
        past = [f"past_key_values.{layer}.{part}" for part in ("key", "value")]
        operands = (packed, None, None, *past, last, total)
        y, *_ = b(
            "GroupQueryAttention", *operands, n=3, domain="com.microsoft", num_heads=KV * QUERIES, kv_num_heads=KV
        )
        b.nodes[-1].output[1:] = [f"present.{layer}.key", f"present.{layer}.value"]
        x = b("Add", x, b("MatMul", y, b.weight(f"o{layer}", width, HIDDEN)))
        hidden = b("Relu", b("MatMul", x, b.weight(f"up{layer}", HIDDEN, FFN)))
        x = b("Add", x, b("MatMul", hidden, b.weight(f"down{layer}", FFN, HIDDEN)))
    b.nodes.append(onnx.helper.make_node("MatMul", [x, b.weight("head", HIDDEN, WORDS)], ["logits"], "lm_head"))
    b.output("logits", "batch_size", "sequence_length", WORDS)
    for name in caches:
        b.output(f"present.{name}", "batch_size", KV, "total_sequence_length", SIZE)
    return b.model()


def halved(model: onnx.ModelProto) -> onnx.ModelProto:
    """The same with weights, caches and logits in float16."""
    for tensor in model.graph.initializer:
        if tensor.data_type == TensorProto.FLOAT:
            tensor.CopyFrom(numpy_helper.from_array(numpy_helper.to_array(tensor).astype(np.float16), tensor.name))
    for value in (*model.graph.input, *model.graph.output):
        if value.type.tensor_type.elem_type == TensorProto.FLOAT:
            value.type.tensor_type.elem_type = TensorProto.FLOAT16
    return model


def in_four_bits(model: onnx.ModelProto) -> onnx.ModelProto:
    """The same with its matrices in blocks of 16 rows of 4 bits."""
    quantizer = MatMulNBitsQuantizer(model, bits=4, block_size=16, is_symmetric=True)
    quantizer.process()
    packed: onnx.ModelProto = quantizer.model.model
    assert sum(node.op_type == "MatMulNBits" for node in packed.graph.node) == 4 * LAYERS + 1
    return packed


STORED: dict[str, Callable[[onnx.ModelProto], onnx.ModelProto]] = {
    "float32": lambda model: model,
    "float16": halved,
    "int4": in_four_bits,
}


def genai_folder(where: Path, stored: str = "float32") -> Path:
    where.mkdir()
    model = STORED[stored](decoder())
    onnx.save(model, where / "model.onnx", save_as_external_data=True, location="model.onnx.data")
    (where / NAME).write_text(json.dumps(CONFIG))
    return where


def prune(folder: Path, target: Path, **amount: Any) -> PruneResult:
    """What `prunegraph prune FOLDER` does."""
    with opened(folder, target, lambda _: None) as folder_model:
        assert folder_model is not None
        result = prune_graph(folder_model.model, Amount(**amount), scorer="random", scope=Scope(allow_io=CACHES))
        folder_model.write(target, result, result.facts())
    return result


def test_a_slim_folder_says_what_is_left(tmp_path: Path) -> None:
    source = genai_folder(tmp_path / "whole")
    result = prune(source, tmp_path / "slim", ratio={"kv_group": 0.5, "ffn": 0.5})
    config = json.loads((tmp_path / "slim" / NAME).read_text())
    assert config["model"]["decoder"] == DECODER | {"num_key_value_heads": 2, "num_attention_heads": 4}
    assert {**config, "model": 0} == {**CONFIG, "model": 0}
    assert {cut.kind: cut.after for cut in cuts_of(result)}["ffn"] == FFN // 2
    assert not list((tmp_path / "slim").glob("model.onnx.data"))
    slim = onnx.load(tmp_path / "slim" / "model.onnx")
    past = {value.name: [d.dim_value for d in value.type.tensor_type.shape.dim] for value in slim.graph.input}
    assert past["past_key_values.1.key"][1] == 2


def test_heads_of_queries_alone_are_counted() -> None:
    cuts = [Cut("kv_group", KV, KV)] * 2 + [Cut("query_head", QUERIES, 1)] * 2
    assert slim_genai_config(CONFIG, cuts, ()).config["model"]["decoder"]["num_attention_heads"] == KV


def test_layers_that_differ_are_refused_where_the_runtime_takes_one_number() -> None:
    ffn = [Cut("ffn", FFN, 3), Cut("ffn", FFN, 4)]
    assert slim_genai_config(CONFIG, ffn, ()).config == CONFIG
    with pytest.raises(PruneGraphError, match="one number for all layers, and the layers keep 1 to 2 of kv_group") as e:
        slim_genai_config(CONFIG, [Cut("kv_group", KV, 1), Cut("kv_group", KV, 2)], ())
    assert "--uniform" in e.value.hint


def test_a_configuration_without_a_decoder_is_refused(tmp_path: Path) -> None:
    source = genai_folder(tmp_path / "whole")
    (source / NAME).write_text("{}")
    with pytest.raises(ModelError, match="says nothing of a decoder"), opened(source, tmp_path / "s", lambda _: None):
        pass


def names_of(folder: Path) -> tuple[set[str], set[str]]:
    graph = onnx.load(folder / "model.onnx", load_external_data=False).graph
    return {value.name for value in graph.input}, {value.name for value in graph.output}


@pytest.mark.parametrize(("layer", "number"), [(0, 2), (1, 1)])
def test_the_caches_of_an_attention_that_goes_whole_go_with_it(tmp_path: Path, layer: int, number: int) -> None:
    source, slim = genai_folder(tmp_path / "whole"), tmp_path / "slim"
    result = prune(source, slim, ratio={"ffn": 0.5}, drop=[f"kv_group.{layer}"])
    inputs, outputs = names_of(slim)
    assert {name.split(".")[1] for name in inputs - {"input_ids", "attention_mask"}} == {str(1 - layer)}
    assert {name.split(".")[1] for name in outputs - {"logits"}} == {str(1 - layer)}
    config = json.loads((slim / NAME).read_text())["model"]["decoder"]
    assert config == DECODER | {"num_hidden_layers": number}
    proof = result.report.verify
    assert proof is not None and proof.ok and proof.moved > 1e-3
    plan = Selection.load(slim / "model.plan.json")
    assert verify_files(source / "model.onnx", slim / "model.onnx", plan, allow_io=CACHES).ok
    other = Selection({name: mask for name, mask in plan.keep.items() if name.startswith("ffn")})
    with pytest.raises(VerificationFailed, match="other inputs"):
        verify_files(source / "model.onnx", slim / "model.onnx", other, allow_io=CACHES)


def test_the_runtime_needs_a_cache(tmp_path: Path) -> None:
    with pytest.raises(PruneGraphError, match=r"no layer .* has a cache"):
        prune(genai_folder(tmp_path / "whole"), tmp_path / "slim", drop=["kv_group.*"])


GENERATED: dict[str, dict[str, Any]] = {
    "half of the heads and neurons": {"ratio": {"kv_group": 0.5, "ffn": 0.5}},
    "half of the dims of heads": {"ratio": {"qk_dim": 0.5}},
    "the first layer": {"drop": ["kv_group.0", "ffn.0"]},
    "the last layer and half of the heads": {"ratio": {"kv_group": 0.5}, "drop": ["kv_group.1", "ffn.1"]},
}


IN_BLOCKS = "half of the dims of heads"
"""What 4 bits do not allow: a scale is for all dims of a head together."""


@pytest.mark.parametrize(
    ("case", "stored"), [(case, how) for how in STORED for case in GENERATED if (case, how) != (IN_BLOCKS, "int4")]
)
def test_the_runtime_generates_what_the_masked_original_does(tmp_path: Path, case: str, stored: str) -> None:
    genai = pytest.importorskip("onnxruntime_genai", reason="onnxruntime-genai is not installed")
    source = genai_folder(tmp_path / "whole", stored)
    result = prune(source, tmp_path / "slim", **GENERATED[case])
    analyzed = result.analyzed
    assert analyzed is not None
    keeps = result.selection.keeps(analyzed.analysis.groups)
    oracle = masked(widened(analyzed.normalized.model), analyzed.analysis.solution, keeps)
    prompt, length = [1, 7, 30, 12, 45, 5], 16
    model = genai.Model(str(tmp_path / "slim"))
    parameters = genai.GeneratorParams(model)
    parameters.set_search_options(max_length=length, min_length=length, do_sample=False)
    generator = genai.Generator(model, parameters)
    generator.append_tokens(np.array([prompt], np.int32))
    while not generator.is_done():
        generator.generate_next_token()
    tokens = list(prompt)
    past = {value.name: np.zeros((1, KV, 0, SIZE), np.float32) for value in decoder().graph.input[2:]}
    with open_session(oracle) as session:
        while len(tokens) < length:
            ids = np.array([tokens])
            (logits,) = run(session, {"input_ids": ids, "attention_mask": np.ones_like(ids), **past}, ["logits"])
            last = np.where(np.arange(WORDS) == 2, -np.inf, logits[0, -1])  # the end may not come yet
            tokens.append(int(last.argmax()))
    assert list(map(int, generator.get_sequence(0))) == tokens
