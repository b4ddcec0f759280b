"""Decoders with caches as Optimum exports them: by a slim folder it generates what the masked original says.

Optimum lags behind transformers, so that the usual environment has none; in another one, with `pip install
optimum-onnx`, these run.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from typer.testing import CliRunner

from prunegraph.analysis.selection import Selection
from prunegraph.analyzed import load_and_analyze
from prunegraph.cli import app
from prunegraph.export.onnx_file import load
from prunegraph.passes.choose.request import Scope
from prunegraph.passes.prove.mask import masked
from prunegraph.runtime.inputs import input_specs
from prunegraph.runtime.session import open_session, run
from prunegraph.runtime.widen import widened

transformers = pytest.importorskip("transformers")
pytest.importorskip("optimum.exporters.onnx", reason="optimum-onnx is not installed: it needs an older transformers")

pytestmark = pytest.mark.slow

WORDS, WIDTH, HEADS, FFN = 48, 32, 4, 40
SPECIAL = {"bos_token_id": 1, "eos_token_id": 2, "pad_token_id": 0}
CACHES = ("past_key_values.*", "present.*")
PROMPT, LENGTH = [1, 7, 30, 12, 45, 5], 16


def llama() -> Any:
    config = transformers.LlamaConfig(
        vocab_size=WORDS, hidden_size=WIDTH, num_hidden_layers=2, num_attention_heads=HEADS, num_key_value_heads=2,
        intermediate_size=FFN, max_position_embeddings=64, initializer_range=0.5, **SPECIAL,
    )  # fmt: skip
    return transformers.LlamaForCausalLM(config)


def gpt2() -> Any:
    config = transformers.GPT2Config(
        vocab_size=WORDS, n_embd=WIDTH, n_layer=2, n_head=HEADS, n_inner=FFN, n_positions=64, initializer_range=0.5,
        **SPECIAL,
    )  # fmt: skip
    return transformers.GPT2LMHeadModel(config)


def t5() -> Any:
    config = transformers.T5Config(
        vocab_size=WORDS, d_model=WIDTH, d_kv=8, d_ff=FFN, num_layers=2, num_heads=HEADS, initializer_factor=3.0,
        decoder_start_token_id=0, pad_token_id=0, eos_token_id=2,
    )  # fmt: skip
    return transformers.T5ForConditionalGeneration(config)


def merge(module: Any, folder: Path) -> None:
    """One file for the first token and the later ones, as earlier versions wrote it for every decoder."""
    from optimum.exporters.onnx.convert import export
    from optimum.exporters.tasks import TasksManager
    from optimum.onnx import merge_decoders

    task = {"task": "text-generation", "library_name": "transformers"}
    make = TasksManager.get_exporter_config_constructor(exporter="onnx", model=module, **task)
    folder.mkdir()
    parts = [folder / "decoder_model.onnx", folder / "decoder_with_past_model.onnx"]
    for part, past in zip(parts, (False, True), strict=True):
        export(module, make(module.config, use_past=True, use_past_in_inputs=past), part, opset=17)
    merge_decoders(*parts, save_path=folder / "decoder_model_merged.onnx")
    module.config.save_pretrained(folder)
    module.generation_config.save_pretrained(folder)


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Decoders with random weights, exported with their caches."""
    import torch
    from optimum.exporters.onnx import main_export

    where = tmp_path_factory.mktemp("decoders")
    for make in (llama, gpt2, t5):
        task = "text2text-generation-with-past" if make is t5 else "text-generation-with-past"
        torch.manual_seed(0)
        module = where / f"{make.__name__}-module"
        make().save_pretrained(module)
        main_export(str(module), output=where / make.__name__, task=task, do_validation=False)
    merge(transformers.LlamaForCausalLM.from_pretrained(where / "llama-module").eval(), where / "merged-llama")
    return {name: where / name for name in ("llama", "gpt2", "t5", "merged-llama")}


def prune(folder: Path, target: Path, *options: str) -> Any:
    allowed = [word for pattern in CACHES for word in ("--allow-io", pattern)]
    return CliRunner().invoke(app, ["prune", str(folder), "-o", str(target), *allowed, *options])


def expected(folder: Path, slim: Path) -> list[int]:
    """What the masked original says, one token after the other, without any cache; never the end."""
    (plan,) = slim.glob("*.plan.json")
    analyzed = load_and_analyze(folder / plan.name.replace("plan.json", "onnx"), scope=Scope(allow_io=CACHES))
    keeps = Selection.load(plan).keeps(analyzed.analysis.groups)
    oracle = masked(widened(analyzed.normalized.model), analyzed.analysis.solution, keeps)
    memory = encoded(folder)
    tokens = [0] if memory else list(PROMPT)
    specs = input_specs(oracle.graph)
    with open_session(oracle) as session:
        while len(tokens) < LENGTH:
            known = {
                "input_ids": np.array([tokens]),
                "attention_mask": np.ones((1, len(tokens)), np.int64),
                "position_ids": np.arange(len(tokens))[None],
                "use_cache_branch": np.array([False]),
                **memory,
            }
            for spec in specs:
                if spec.name not in known:
                    dims = [spec.dims[0], *spec.dims[1:]]
                    shape = [1 if k == 0 else dim if isinstance(dim, int) else 0 for k, dim in enumerate(dims)]
                    known[spec.name] = np.zeros(shape, np.float32)
            (logits,) = run(session, {spec.name: known[spec.name] for spec in specs}, ["logits"])
            tokens.append(int(np.where(np.arange(WORDS) == 2, -np.inf, logits[0, -1]).argmax()))
    return tokens


def encoded(folder: Path) -> dict[str, Any]:
    """What the encoder beside a decoder makes of the prompt; nothing where there is none."""
    path = folder / "encoder_model.onnx"
    if not path.is_file():
        return {}
    mask = np.ones((1, len(PROMPT)), np.int64)
    with open_session(load(path)) as session:
        (hidden,) = run(session, {"input_ids": np.array([PROMPT]), "attention_mask": mask}, ["last_hidden_state"])
    return {"encoder_hidden_states": hidden, "encoder_attention_mask": mask}


CASES: dict[str, tuple[str, tuple[str, ...], dict[str, int]]] = {
    "groups of heads and neurons": (
        "llama",
        ("--ratio", "kv_group=0.5", "--ratio", "ffn=0.5"),
        {"num_key_value_heads": 1, "num_attention_heads": HEADS, "intermediate_size": FFN // 2},
    ),
    "neurons": ("gpt2", ("--ratio", "ffn=0.5"), {"n_inner": FFN // 2, "n_head": HEADS}),
    "both branches of an If": (
        "merged-llama",
        ("--ratio", "kv_group=0.5", "--ratio", "ffn=0.5"),
        {"num_key_value_heads": 1, "intermediate_size": FFN // 2},
    ),
    "a decoder beside its encoder": ("t5", ("--ratio", "ffn=0.5"), {"d_ff": FFN // 2, "num_heads": HEADS}),
}


@pytest.mark.parametrize("case", CASES)
def test_optimum_generates_what_the_masked_original_says(case: str, folders: dict[str, Path], tmp_path: Path) -> None:
    import torch
    from optimum.onnxruntime import ORTModelForCausalLM, ORTModelForSeq2SeqLM

    name, options, stated = CASES[case]
    slim = tmp_path / "slim"
    ran = prune(folders[name], slim, *options)
    assert ran.exit_code == 0, ran.stderr
    config = json.loads((slim / "config.json").read_text())
    assert {key: config[key] for key in stated} == stated
    model = (ORTModelForSeq2SeqLM if name == "t5" else ORTModelForCausalLM).from_pretrained(slim)
    ids = torch.tensor([PROMPT])
    limits = {"max_length": LENGTH, "min_length": LENGTH}
    tokens = model.generate(ids, attention_mask=torch.ones_like(ids), do_sample=False, **limits)
    assert tokens[0].tolist() == expected(folders[name], slim)


def test_caches_that_no_configuration_can_say_are_refused(folders: dict[str, Path], tmp_path: Path) -> None:
    ran = prune(folders["gpt2"], tmp_path / "slim", "--ratio", "head=0.5")
    assert ran.exit_code == 1 and "one number for the heads of a cache and for their size" in ran.stderr
    assert not (tmp_path / "slim").exists()
