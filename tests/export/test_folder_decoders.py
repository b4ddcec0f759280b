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


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Decoders with random weights, exported with their caches."""
    import torch
    from optimum.exporters.onnx import main_export

    where = tmp_path_factory.mktemp("decoders")
    for make in (llama, gpt2):
        torch.manual_seed(0)
        make().save_pretrained(where / f"{make.__name__}-module")
        main_export(
            str(where / f"{make.__name__}-module"), output=where / make.__name__, task="text-generation-with-past",
            do_validation=False,
        )  # fmt: skip
    return {make.__name__: where / make.__name__ for make in (llama, gpt2)}


def prune(folder: Path, target: Path, *options: str) -> Any:
    allowed = [word for pattern in CACHES for word in ("--allow-io", pattern)]
    return CliRunner().invoke(app, ["prune", str(folder), "-o", str(target), *allowed, *options])


def expected(folder: Path, slim: Path) -> list[int]:
    """What the masked original says, one token after the other, without any cache."""
    (plan,) = slim.glob("*.plan.json")
    analyzed = load_and_analyze(folder / "model.onnx", scope=Scope(allow_io=CACHES))
    keeps = Selection.load(plan).keeps(analyzed.analysis.groups)
    oracle = masked(widened(analyzed.normalized.model), analyzed.analysis.solution, keeps)
    tokens = list(PROMPT)
    with open_session(oracle) as session:
        while len(tokens) < LENGTH:
            known = {
                "input_ids": np.array([tokens]),
                "attention_mask": np.ones((1, len(tokens)), np.int64),
                "position_ids": np.arange(len(tokens))[None],
            }
            for spec in input_specs(oracle.graph):
                if spec.name not in known:
                    dims = [spec.dims[0], *spec.dims[1:]]
                    shape = [1 if k == 0 else dim if isinstance(dim, int) else 0 for k, dim in enumerate(dims)]
                    known[spec.name] = np.zeros(shape, np.float32)
            (logits,) = run(session, known, ["logits"])
            tokens.append(int(logits[0, -1].argmax()))
    return tokens


CASES: dict[str, tuple[str, tuple[str, ...], dict[str, int]]] = {
    "groups of heads and neurons": (
        "llama",
        ("--ratio", "kv_group=0.5", "--ratio", "ffn=0.5"),
        {"num_key_value_heads": 1, "num_attention_heads": HEADS, "intermediate_size": FFN // 2},
    ),
    "neurons": ("gpt2", ("--ratio", "ffn=0.5"), {"n_inner": FFN // 2, "n_head": HEADS}),
}


@pytest.mark.parametrize("case", CASES)
def test_optimum_generates_what_the_masked_original_says(case: str, folders: dict[str, Path], tmp_path: Path) -> None:
    import torch
    from optimum.onnxruntime import ORTModelForCausalLM

    name, options, stated = CASES[case]
    slim = tmp_path / "slim"
    ran = prune(folders[name], slim, *options)
    assert ran.exit_code == 0, ran.stderr
    config = json.loads((slim / "config.json").read_text())
    assert {key: config[key] for key in stated} == stated
    model = ORTModelForCausalLM.from_pretrained(slim)
    ids = torch.tensor([PROMPT])
    tokens = model.generate(
        ids, attention_mask=torch.ones_like(ids), max_length=LENGTH, do_sample=False, eos_token_id=None
    )
    assert tokens[0].tolist() == expected(folders[name], slim)


def test_caches_that_no_configuration_can_say_are_refused(folders: dict[str, Path], tmp_path: Path) -> None:
    ran = prune(folders["gpt2"], tmp_path / "slim", "--ratio", "head=0.5")
    assert ran.exit_code == 1 and "one number for the heads of a cache and for their size" in ran.stderr
    assert not (tmp_path / "slim").exists()
