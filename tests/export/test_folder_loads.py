"""Slim folders load and run by the libraries that folders are for: Optimum, its pipelines, sentence-transformers.

Optimum lags behind transformers, so that the usual environment has none; in another one, with `pip install optimum-onnx
sentence-transformers`, these run.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime as ort
import pytest
from typer.testing import CliRunner

from prunegraph.cli import app

transformers = pytest.importorskip("transformers")
pytest.importorskip("optimum.onnxruntime", reason="optimum-onnx is not installed: it needs an older transformers")

pytestmark = pytest.mark.slow

WORDS = "[PAD] [UNK] [CLS] [SEP] [MASK] good bad film was the a not very".split()
TEXTS = ["the film was good", "a very bad film", "not good"]
SIZES = {
    "vocab_size": len(WORDS),
    "hidden_size": 16,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "intermediate_size": 24,
    "max_position_embeddings": 16,
}


def whole_folder(where: Path, model_class: Any) -> None:
    """What `save_pretrained` writes of a tiny BERT with random weights, and its tokenizer."""
    torch = pytest.importorskip("torch")
    torch.manual_seed(0)
    model = model_class(transformers.BertConfig(**SIZES, id2label={0: "bad", 1: "good"}, initializer_range=0.5))
    model.save_pretrained(where)
    (where / "vocab.txt").write_text("\n".join(WORDS))
    transformers.BertTokenizerFast(vocab_file=str(where / "vocab.txt"), model_max_length=16).save_pretrained(where)


@pytest.fixture(scope="module")
def slim(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Slim folders of a classifier and of an embedder, half of their heads and neurons gone."""
    where = tmp_path_factory.mktemp("folders")
    whole_folder(where / "classifier", transformers.BertForSequenceClassification)
    whole_folder(where / "embedder", transformers.BertModel)
    pooling = {"word_embedding_dimension": SIZES["hidden_size"], "pooling_mode_mean_tokens": True}
    modules = [
        {"idx": 0, "name": "0", "path": "", "type": "sentence_transformers.models.Transformer"},
        {"idx": 1, "name": "1", "path": "1_Pooling", "type": "sentence_transformers.models.Pooling"},
    ]
    (where / "embedder/1_Pooling").mkdir()
    (where / "embedder/1_Pooling/config.json").write_text(json.dumps(pooling))
    (where / "embedder/modules.json").write_text(json.dumps(modules))
    slim = {}
    for name in ("classifier", "embedder"):
        slim[name] = where / f"slim-{name}"
        command = ["prune", str(where / name), "-o", str(slim[name]), "--ratio", "head=0.5", "--ratio", "ffn=0.5"]
        ran = CliRunner().invoke(app, command)
        assert ran.exit_code == 0, ran.stderr
        assert json.loads((slim[name] / "config.json").read_text())["intermediate_size"] == 12
    return slim


def by_runtime(folder: Path, text: str) -> np.ndarray:
    """The first output for one text, by ONNX Runtime alone."""
    tokens = transformers.AutoTokenizer.from_pretrained(folder)(text, return_tensors="np")
    session = ort.InferenceSession(folder / "onnx/model.onnx")
    names = {value.name for value in session.get_inputs()}
    output: np.ndarray = session.run(None, {k: v.astype(np.int64) for k, v in tokens.items() if k in names})[0]
    return output


def test_optimum_and_its_pipeline_run_a_slim_classifier(slim: dict[str, Path]) -> None:
    from optimum.onnxruntime import ORTModelForSequenceClassification, pipeline

    folder = slim["classifier"]
    model = ORTModelForSequenceClassification.from_pretrained(folder)
    tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
    classify = pipeline("text-classification", model=model, tokenizer=tokenizer, accelerator="ort")
    for text in TEXTS:
        expected = by_runtime(folder, text)[0]
        logits = model(**tokenizer(text, return_tensors="pt")).logits.detach().numpy()[0]
        np.testing.assert_allclose(logits, expected, rtol=1e-4, atol=1e-5)
        assert classify(text)[0]["label"] == ["bad", "good"][int(expected.argmax())]


def test_sentence_transformers_embeds_by_a_slim_folder(slim: dict[str, Path]) -> None:
    sentence_transformers = pytest.importorskip("sentence_transformers")
    model = sentence_transformers.SentenceTransformer(str(slim["embedder"]), backend="onnx", device="cpu")
    for text, vector in zip(TEXTS, model.encode(TEXTS), strict=True):
        expected = by_runtime(slim["embedder"], text)[0].mean(axis=0)
        np.testing.assert_allclose(vector, expected, rtol=1e-3, atol=1e-4)


def test_a_pipeline_of_features_runs_a_slim_embedder(slim: dict[str, Path]) -> None:
    from optimum.onnxruntime import ORTModelForFeatureExtraction, pipeline

    model = ORTModelForFeatureExtraction.from_pretrained(slim["embedder"])
    tokenizer = transformers.AutoTokenizer.from_pretrained(slim["embedder"])
    features = pipeline("feature-extraction", model=model, tokenizer=tokenizer, accelerator="ort")(TEXTS[0])
    np.testing.assert_allclose(np.array(features)[0], by_runtime(slim["embedder"], TEXTS[0])[0], rtol=1e-4, atol=1e-5)
