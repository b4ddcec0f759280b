"""Model folders: what is found, what a configuration says afterwards, what is copied and what is not."""

from __future__ import annotations

import json
from pathlib import Path

import onnx
import pytest

from prunegraph.atomic_write import new_folder
from prunegraph.errors import ModelError, OutputError, PruneGraphError
from prunegraph.export.cache_config import with_caches
from prunegraph.export.folder import (
    Cut,
    SlimConfig,
    companions,
    find_model,
    model_card,
    slim_config,
    write_companions,
)
from tests.graphs.builder import Builder

BERT = {"model_type": "bert", "num_attention_heads": 12, "intermediate_size": 1536, "hidden_size": 384, "dim": 7}


def folder(where: Path, *names: str) -> Path:
    for name in names:
        (where / name).parent.mkdir(parents=True, exist_ok=True)
        (where / name).write_text(json.dumps(BERT) if name == "config.json" else name)
    return where


@pytest.mark.parametrize(
    ("files", "place"),
    [
        (["model.onnx", "config.json"], "model.onnx"),
        (["onnx/model.onnx", "onnx/model_quantized.onnx"], "onnx/model.onnx"),
        (["encoder.onnx"], "encoder.onnx"),
        (["model.onnx", "onnx/model.onnx"], "model.onnx"),
    ],
)
def test_the_onnx_file_of_a_folder(tmp_path: Path, files: list[str], place: str) -> None:
    assert find_model(folder(tmp_path, *files)) == tmp_path / place


@pytest.mark.parametrize(
    ("files", "message", "hint"),
    [
        (["config.json", "model.safetensors"], "no ONNX file yet", "prunegraph export hf:"),
        (["a.onnx", "b.onnx"], "several ONNX files: a.onnx, b.onnx", "name the one"),
        (["notes.txt"], "holds no ONNX file", "Optimum"),
    ],
)
def test_a_folder_without_one_says_what_to_do(tmp_path: Path, files: list[str], message: str, hint: str) -> None:
    with pytest.raises(ModelError, match=message) as error:
        find_model(folder(tmp_path, *files))
    assert hint in error.value.hint


CONFIGS = {
    "all layers alike": (
        [Cut("head", 12, 6), Cut("head", 12, 6), Cut("ffn", 1536, 768), Cut("ffn", 1536, 768)],
        {"num_attention_heads": 6, "intermediate_size": 768},
        {},
    ),
    "uneven layers": ([Cut("ffn", 1536, 768), Cut("ffn", 1536, 512)], {}, {"ffn": (768, 512)}),
    "a number of something else": ([Cut("hidden", 48, 24)], {}, {}),
    "whole groups": ([Cut("head", 12, 12)], {}, {}),
    "a kind that no key states": ([Cut("channel", 64, 32)], {}, {}),
}


@pytest.mark.parametrize("name", CONFIGS)
def test_a_configuration_says_what_the_slim_model_has(name: str) -> None:
    cuts, changes, uneven = CONFIGS[name]
    slim = slim_config(BERT, cuts)
    assert slim.config == BERT | changes and set(slim.changed) == set(changes) and slim.uneven == uneven


def names(where: Path) -> set[str]:
    return {str(path.relative_to(where)) for path in where.rglob("*")}


def test_a_slim_folder_has_all_but_the_weights(tmp_path: Path) -> None:
    files = ("config.json", "tokenizer.json", "vocab.txt", "onnx/model.onnx", "model.safetensors", "README.md", ".git")
    more = ("1_Pooling/config.json", "2_Dense/model.safetensors", "other/config.json")
    source = folder(tmp_path / "source", *files, *more)
    modules = [{"path": ""}, {"path": "1_Pooling"}, {"path": "2_Dense"}, {"path": "../../etc"}]
    (source / "modules.json").write_text(json.dumps(modules))
    small = {"config.json", "tokenizer.json", "vocab.txt", "README.md", "modules.json", *more[:2]}
    copied = companions(source, source / "onnx/model.onnx")
    assert {str(path.relative_to(source)) for path in copied} == small
    target = tmp_path / "deep" / "slim"
    with new_folder(target) as staging:
        config = BERT | {"num_attention_heads": 6}
        card = model_card("it", "facts", SlimConfig(config, (), {}))
        write_companions(source, source / "onnx/model.onnx", staging, config, card)
        assert not target.exists()
    assert {name for name in names(target) if (target / name).is_file()} == small
    assert json.loads((target / "config.json").read_text())["num_attention_heads"] == 6
    assert json.loads((source / "config.json").read_text()) == BERT


def test_a_decoder_takes_its_encoder_along(tmp_path: Path) -> None:
    source = folder(tmp_path, "config.json", "onnx/decoder_model_merged.onnx", "onnx/decoder_model.onnx")
    b = Builder("encoder")
    b.output(b("MatMul", b.input("x", "batch", 8), b.weight("w", 8, 40)), "batch", 40)
    encoder = source / "onnx" / "encoder_model.onnx"
    onnx.save(b.model(), encoder, save_as_external_data=True, location="encoder.bin", size_threshold=0)
    decoder = source / "onnx" / "decoder_model_merged.onnx"
    assert companions(source, decoder) == [source / "config.json", encoder.with_name("encoder.bin"), encoder]
    assert companions(source, encoder) == [source / "config.json"]
    encoder.with_name("encoder.bin").unlink()
    with pytest.raises(ModelError, match=r"encoder\.bin is missing; it holds 'w'"):
        companions(source, decoder)


def test_a_folder_appears_whole_or_not_at_all(tmp_path: Path) -> None:
    with pytest.raises(KeyboardInterrupt), new_folder(tmp_path / "slim") as staging:
        (staging / "half").write_text("")
        raise KeyboardInterrupt
    assert not names(tmp_path)


def test_nothing_is_written_over(tmp_path: Path) -> None:
    source = folder(tmp_path / "source", "model.onnx")
    with pytest.raises(OutputError, match="exists already"), new_folder(source):
        pass
    assert names(tmp_path) == {"source", "source/model.onnx"}


LLAMA = {"num_attention_heads": 8, "num_key_value_heads": 2, "head_dim": 16}
GROUPED = {
    "fewer groups": (
        [Cut("kv_group", 2, 1), Cut("query_head", 4, 4)],
        {"num_key_value_heads": 1, "num_attention_heads": 4},
        {},
    ),
    "fewer queries a group": (
        [Cut("kv_group", 2, 2), Cut("query_head", 4, 3)],
        {"num_attention_heads": 6},
        {},
    ),
    "rotary pairs and values": ([Cut("qk_dim", 8, 4), Cut("v_dim", 16, 8)], {"head_dim": 8}, {}),
    "rotary pairs, and values stay": ([Cut("qk_dim", 8, 4), Cut("v_dim", 16, 16)], {"head_dim": 8}, {"v_dim": 16}),
    "values have no number": ([Cut("qk_dim", 16, 16), Cut("v_dim", 16, 8)], {}, {"v_dim": 8}),
}


@pytest.mark.parametrize("name", GROUPED)
def test_heads_that_share_keys(name: str) -> None:
    cuts, changes, unsaid = GROUPED[name]
    slim = slim_config(LLAMA, [*cuts, *cuts])
    assert slim.config == LLAMA | changes and set(slim.changed) == set(changes) and slim.unsaid == unsaid


def test_heads_with_keys_of_their_own_are_groups_of_keys_too() -> None:
    config = {"num_attention_heads": 8, "num_key_value_heads": 8}
    assert slim_config(config, [Cut("head", 8, 4)] * 2).config == dict.fromkeys(config, 4)


def test_the_card_tells_what_a_config_cannot() -> None:
    card = model_card("it", "facts", SlimConfig({}, (), {"ffn": (768, 512)}, {"v_dim": 4}))
    assert "the layers have 768, 512" in card and "v_dim: every layer has 4" in card


CACHED = {"hidden_size": 32, "num_attention_heads": 8, "num_key_value_heads": 8, "head_dim": 4}
ONE_NUMBER = {"n_embd": 32, "n_head": 8}
CACHE_CASES: dict[str, tuple[dict[str, int], list[Cut], dict[str, int] | str]] = {
    "nothing went": (CACHED, [Cut("head", 8, 8)], CACHED),
    "half of the heads": (CACHED, [Cut("head", 8, 4)], CACHED | {"num_key_value_heads": 4}),
    "an attention less": (CACHED, [Cut("head", 8, 4), Cut("head", 8, 0)], CACHED | {"num_key_value_heads": 4}),
    "half of the dims": (
        CACHED,
        [Cut("head", 8, 8), Cut("qk_dim", 4, 2), Cut("v_dim", 4, 2)],
        CACHED | {"num_attention_heads": 16, "head_dim": 2},
    ),
    "dims of keys alone": (CACHED, [Cut("qk_dim", 4, 2), Cut("v_dim", 4, 4)], "sizes that config.json cannot say"),
    "heads of layers differ": (CACHED, [Cut("head", 8, 4), Cut("head", 8, 2)], "layers keep 2 to 4 of head"),
    "one number for both": (ONE_NUMBER, [Cut("head", 8, 4)], "one number for the heads of a cache"),
    "neurons": (ONE_NUMBER, [Cut("head", 8, 8), Cut("ffn", 9, 3)], ONE_NUMBER),
}


@pytest.mark.parametrize("case", CACHE_CASES)
def test_caches_are_made_from_what_a_configuration_says(case: str) -> None:
    config, cuts, expected = CACHE_CASES[case]
    left = [cut for cut in cuts if cut.after]
    if isinstance(expected, str):
        with pytest.raises(PruneGraphError, match=expected) as caught:
            with_caches(config, slim_config(config, left), cuts)
        assert caught.value.hint
        return
    slim = with_caches(config, slim_config(config, left), cuts)
    assert slim.config == expected
    assert slim.changed == tuple(key for key in config if config[key] != expected[key])
