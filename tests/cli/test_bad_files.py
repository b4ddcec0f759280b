"""Files that are damaged, hostile or simply odd: one message and a hint, never a traceback, and nothing is written."""

from __future__ import annotations

import io
import json
import zipfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from tests.cli.test_cli import done, files, folder, run
from tests.graphs.text import WORDS, word_tokenizer

__all__ = ["folder"]

SLIM = "slim.onnx"
PRUNE = ("prune", "model.onnx", "-o", SLIM)


def refused(arguments: Sequence[str], code: int, message: str, hint: str = "") -> str:
    """The message of a command that ends as it should."""
    result = run(*arguments)
    assert result.exit_code == code, result.stderr or result.output
    assert isinstance(result.exception, SystemExit)
    assert not result.stdout and message in result.stderr and hint in result.stderr
    assert "hint: " in result.stderr
    return result.stderr


# --- models ------------------------------------------------------------------------------------------------------


def mlp(hidden: int = 8, **weights: Any) -> onnx.ModelProto:
    rng = np.random.default_rng(0)
    values = {"w1": rng.standard_normal((4, hidden)), "w2": rng.standard_normal((hidden, 4)), **weights}
    graph = helper.make_graph(
        [
            helper.make_node("MatMul", ["x", "w1"], ["h"], "up"),
            helper.make_node("Relu", ["h"], ["r"], "act"),
            helper.make_node("MatMul", ["r", "w2"], ["y"], "down"),
        ],
        "mlp",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["b", 4])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["b", 4])],
        [numpy_helper.from_array(np.asarray(value, "f4"), name) for name, value in values.items()],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)


def reads_text() -> onnx.ModelProto:
    model = mlp()
    model.graph.input[0].CopyFrom(helper.make_tensor_value_info("input_ids", TensorProto.INT64, ["b", "s"]))
    model.graph.initializer.append(numpy_helper.from_array(np.ones((len(WORDS), 4), "f4"), "words"))
    model.graph.node.insert(0, helper.make_node("Gather", ["words", "input_ids"], ["x"]))
    model.graph.output[0].CopyFrom(helper.make_tensor_value_info("y", TensorProto.FLOAT, ["b", "s", 4]))
    return model


def with_nan() -> onnx.ModelProto:
    weight = np.ones((4, 8))
    weight[1, 2] = np.nan
    return mlp(w1=weight)


def with_texts() -> onnx.ModelProto:
    """Texts as an input, an initializer, an attribute and an output, beside what can be pruned."""
    model = mlp()
    model.graph.input.append(helper.make_tensor_value_info("word", TensorProto.STRING, ["b"]))
    model.graph.initializer.append(helper.make_tensor("table", TensorProto.STRING, [2], ["ä".encode(), b"b"]))
    model.graph.node.append(helper.make_node("Constant", [], ["more"], value_strings=["c", "d"]))
    model.graph.node.append(helper.make_node("Concat", ["table", "more", "word"], ["words"], axis=0))
    model.graph.output.append(helper.make_tensor_value_info("words", TensorProto.STRING, [None]))
    return model


def test_a_weight_that_holds_nan_is_named(folder: Path) -> None:
    onnx.save(with_nan(), folder / "nan.onnx")
    refused(("prune", "nan.onnx", "-o", SLIM), 1, "its weight 'w1' holds NaN", "--exclude ffn.0")


@pytest.mark.parametrize("field", ["name", "doc_string", "location", "key"])
def test_what_a_tensor_says_of_itself_is_text(field: str, folder: Path) -> None:
    model = mlp()
    tensor = model.graph.initializer[0]
    if field in ("name", "doc_string"):
        setattr(tensor, field, "MARK")
    else:
        tensor.ClearField("raw_data")
        tensor.data_location = TensorProto.EXTERNAL
        tensor.external_data.add(key="MARK" if field == "key" else "location", value="MARK")
    (folder / "m.onnx").write_bytes(model.SerializeToString().replace(b"MARK", b"\xff\xfe\xc0a"))
    refused(("explain", "m.onnx"), 1, "no text in UTF-8", "export it again")


DIMS = ("../up", "9**9**9**9", "a%0", "a/0", "a-100", "(" * 3000, "*", "a b", "é+1", "a\nb", "-1", "")


@pytest.mark.parametrize("dim", DIMS)
def test_dims_of_any_name(dim: str, folder: Path) -> None:
    model = mlp()
    model.graph.input[0].type.tensor_type.shape.dim[0].dim_param = dim
    onnx.save(model, folder / "m.onnx")
    done("prune", "m.onnx", "-o", SLIM)
    assert run("bench", "m.onnx", "--rounds", "10", "--max-seconds", "0.1").exit_code in (0, 1, 2)
    assert isinstance(run("bundle", "m.onnx", "-o", "b.zip").exception, SystemExit | None)


BATCHES = {0: "batches of 0 examples", 1 << 20: "exactly 1,048,576 examples", 1 << 62: "exactly 4,611,686,"}


@pytest.mark.parametrize(("rows", "message"), BATCHES.items())
def test_fixed_batches_that_no_data_fill(rows: int, message: str, folder: Path) -> None:
    model = mlp()
    model.graph.input[0].type.tensor_type.shape.dim[0].dim_value = rows
    onnx.save(model, folder / "m.onnx")
    np.savez(folder / "d.npz", x=np.ones((5, 4), "f4"))
    arguments = ("prune", "m.onnx", "-o", SLIM, "--scorer", "activation", "--data", "d.npz")
    refused(arguments, 2, message, "dynamic")


def test_data_of_the_first_model_may_not_fit_another(folder: Path) -> None:
    other = mlp()
    other.graph.input[0].name = other.graph.node[0].input[0] = "pixels"
    onnx.save(mlp(), folder / "one.onnx")
    onnx.save(other, folder / "other.onnx")
    np.savez(folder / "d.npz", x=np.ones((5, 4), "f4"))
    arguments = ("evaluate", "one.onnx", "other.onnx", "--data", "d.npz")
    refused(arguments, 1, "does not run other.onnx on the data: there is nothing for its input 'pixels'", "fit")


@pytest.mark.parametrize("command", ["bench", "bundle"])
def test_inputs_that_fit_into_no_memory_are_not_made(command: str, folder: Path) -> None:
    model = mlp()
    model.graph.input[0].type.tensor_type.shape.dim[0].dim_value = 1 << 40
    onnx.save(model, folder / "m.onnx")
    refused(
        (command, "m.onnx", *(("-o", "b.zip") if command == "bundle" else ())), 1, "its inputs alone take", "--size"
    )


def test_texts_in_a_model_stay(folder: Path) -> None:
    onnx.save(with_texts(), folder / "texts.onnx")
    done("prune", "texts.onnx", "-o", SLIM)
    slim = onnx.load(folder / SLIM)
    assert next(t.string_data for t in slim.graph.initializer if t.name == "table") == ["ä".encode(), b"b"]


# --- plans -------------------------------------------------------------------------------------------------------


def plan(shape: object = (8,), kept: object = (0, 1), **more: object) -> str:
    return json.dumps({"prunegraph_plan": 1, "groups": {"ffn.0": {"shape": shape, "kept": kept}}, **more})


PLANS = {
    "nested deeply": ("[" * 200_000, "nested too deeply"),
    "a list": ("[]", "states no version"),
    "a number": ("1", "states no version"),
    "another version": (plan(prunegraph_plan=2), "version 2, not 1"),
    "true for a version": (plan(prunegraph_plan=True), "version True, not 1"),
    "groups are a list": (plan(groups=[]), "no groups"),
    "a group is a number": (plan(groups={"ffn.0": 1}), "the shape of ffn.0"),
    "no shape": (plan(groups={"ffn.0": {"kept": [0]}}), "the shape of ffn.0"),
    "a shape of nothing": (plan([]), "the shape of ffn.0"),
    "a huge shape": (plan([1 << 40]), "1099511627776 units"),
    "a negative shape": (plan([-8]), "the shape of ffn.0"),
    "a fraction for a shape": (plan([8.0]), "the shape of ffn.0"),
    "2^63": (plan(kept=[1 << 63]), "8 units, and 9223372036854775808 stays"),
    "a fraction": (plan(kept=[0.5]), "not a list of positions"),
    "a whole fraction": (plan(kept=[1.0]), "not a list of positions"),
    "a negative position": (plan(kept=[-1]), "not a list of positions"),
    "a position twice": (plan(kept=[1, 1]), "stays twice"),
    "true for a position": (plan(kept=[True]), "not a list of positions"),
    "a text for positions": (plan(kept="01"), "not a list of positions"),
    "a group twice": ('{"prunegraph_plan": 1, "groups": {"a": {}, "a": {}}}', "'a' is given twice"),
    "a repair of letters": (plan(repair={"changed": "w1"}), "what was repaired"),
    "a repair that is a list": (plan(repair=["w1"]), "what was repaired"),
    "a rotation that is a list": (plan(rotate=["head.0"]), "how the model was turned"),
    "a rotation without end": (
        plan(rotate={"a": {"matrices": [{"shape": [float("inf")], "float32": ""}]}}), "how the model was turned",
    ),
    "a rotation that is no base64": (
        plan(rotate={"a": {"matrices": [{"shape": [1], "float32": "é"}]}}), "how the model was turned",
    ),
    "a model of letters": (plan(model="model.onnx"), "not stated by name and digest"),
    "a model without a digest": (plan(model={"name": "model.onnx"}), "not stated by name and digest"),
    "a model of numbers": (plan(model={"name": 1, "digest": 2}), "not stated by name and digest"),
    "allow_io of letters": (plan(allow_io="x"), "allow_io"),
}  # fmt: skip


@pytest.mark.parametrize("case", PLANS)
def test_plans_that_are_none(case: str, folder: Path) -> None:
    text, message = PLANS[case]
    onnx.save(mlp(), "model.onnx")
    (folder / "plan.json").write_text(text)
    refused(("verify", "model.onnx", "model.onnx", "--plan", "plan.json"), 1, message, "plan")


def test_a_plan_from_a_program_that_marks_utf_8(folder: Path) -> None:
    onnx.save(mlp(), "model.onnx")
    done(*PRUNE)
    plan_file = folder / "slim.plan.json"
    plan_file.write_text(plan_file.read_text(), encoding="utf-8-sig")
    done("verify", "model.onnx", SLIM)


# --- ratios ------------------------------------------------------------------------------------------------------

RATIOS = {
    "nested deeply": ("[" * 200_000, "nested too deeply"),
    "keep is a text": ('{"ratio": 0.5, "keep": "x"}', "keep must name kinds, not 'x'"),
    "keep is a fraction": ('{"keep": {"ffn": 2.5}}', "positive whole number, not 2.5"),
    "keep is negative": ('{"keep": {"ffn": -2}}', "positive whole number, not -2"),
    "fits is a number": ('{"ratio": 0.5, "fits": 3}', "fits must name kinds, not 3"),
    "fits is no shape": ('{"ratio": 0.5, "fits": {"head": "12"}}', "must be a list of lengths"),
    "a ratio is a text": ('{"ffn": "0.5"}', "must be a number, not '0.5'"),
    "a ratio is an object": ('{"ffn": {"a": 1}}', "must be a number"),
    "a ratio is a list of lists": ('{"ffn": [[0.5]]}', "must be a number"),
    "a ratio is huge": ('{"ffn": 1' + "0" * 400 + "}", "in [0, 1)"),
    "a ratio is NaN": ('{"ffn": NaN}', "must be a number"),
    "a kind twice": ('{"ffn": 0.5, "ffn": 0.25}', "'ffn' is given twice"),
    "a list": ("[0.5]", "must be a number"),
    "no UTF-8": (b'{"\xff": 0.5}', "cannot be read"),
}


@pytest.mark.parametrize("case", RATIOS)
def test_ratio_files_that_are_none(case: str, folder: Path) -> None:
    content, message = RATIOS[case]
    (folder / "ratio.json").write_bytes(content if isinstance(content, bytes) else content.encode())
    refused((*PRUNE, "--ratio", "ratio.json"), 2, message)


def test_a_ratio_file_from_a_program_that_marks_utf_8(folder: Path) -> None:
    onnx.save(mlp(), "model.onnx")
    (folder / "ratio.json").write_text('{"ffn": 0.5}', encoding="utf-8-sig")
    done(*PRUNE, "--ratio", "ratio.json")


# --- data --------------------------------------------------------------------------------------------------------


def npz(**arrays: Any) -> bytes:
    target = io.BytesIO()
    np.savez_compressed(target, **arrays)
    return target.getvalue()


X = np.random.default_rng(0).standard_normal((16, 4)).astype("f4")
PLAIN = npz(x=X)


def stored(name: str, content: bytes) -> bytes:
    target = io.BytesIO()
    with zipfile.ZipFile(target, "w") as archive:
        archive.writestr(name, content)
    return target.getvalue()


def stated(shape: str, dtype: str = "<f4", content: bytes = X.tobytes()) -> bytes:
    """An archive whose array says of itself what it likes."""
    header = f"{{'descr': '{dtype}', 'fortran_order': False, 'shape': {shape}, }}".encode()
    header += b" " * (63 - (len(header) + 10) % 64) + b"\n"
    return stored("x.npy", b"\x93NUMPY\x01\x00" + len(header).to_bytes(2, "little") + header + content)


DATA: dict[str, tuple[str, bytes, str]] = {
    "cut short": ("x.npz", PLAIN[: len(PLAIN) // 2], "no whole .npz file"),
    "empty": ("x.npz", b"", "no whole .npz file"),
    "text": ("x.npz", b"hello", "no whole .npz file"),
    "one array": ("x.npz", b"\x93NUMPY\x01\x00", "no whole .npz file"),
    "a bit flipped": ("x.npz", PLAIN[:200] + bytes([PLAIN[200] ^ 255]) + PLAIN[201:], "x.npz"),
    "no arrays": ("x.npz", stored("x.npy", b"hello"), "cannot be read"),
    "nothing in it": ("x.npz", npz(), "unequal lengths"),
    "a lie about the shape": ("x.npz", stated("(1099511627776, 4)"), "is stated to have"),
    "a negative shape": ("x.npz", stated("(-1, 4)"), "is stated to have"),
    "a shape of text": ("x.npz", stated("('a',)"), "cannot be read"),
    "a header that nests": ("x.npz", stated("(" * 3000), "cannot be read"),
    "objects": ("x.npz", stated("(16, 4)", "|O"), "pickled objects"),
    "texts": ("x.npz", npz(x=np.array(["a", "b"])), "not numbers"),
    "a bomb": ("x.npz", npz(x=np.zeros((1 << 24, 4), "f4")), "unpacks to 268,435,"),
    "labels are no numbers": ("x.npz", npz(x=X, labels=np.full(16, np.nan)), "no class number"),
    "no UTF-8": ("x.txt", "schön\n".encode("latin-1"), "no text in UTF-8"),
    "a long field": ("x.csv", b'text,label\n"' + b"x" * 140_000 + b'",1\n', "field larger than"),
    "an endless label": ("x.csv", b"text,label\na,inf\n", "'inf' is no class number"),
    "a row without text": ("x.csv", b"label,text\n1,a\n2\n", "has no text in the column 'text'"),
    "no UTF-8 in a table": ("x.csv", b"text\nsch\xf6n\n", "no text in UTF-8"),
    "a deep line": ("x.jsonl", b"[" * 200_000, "nested too deeply"),
    "a list a line": ("x.jsonl", b"[1]\n", "is no object"),
    "ragged rows": ("x.jsonl", b'{"x": [[1, 2], [3]]}\n', "'x' is no array"),
    "huge numbers": ("x.jsonl", b'{"x": [1' + b"0" * 100 + b"]}\n", "not numbers"),
    "nothing for an input": ("x.jsonl", b'{"x": null}\n', "not numbers"),
    "a huge label": ("x.jsonl", b'{"text": "a", "label": 1e400}\n', "no class number"),
    "text that is a list": ("x.jsonl", b'{"text": "a"}\n{"text": ["a"]}\n', "not text"),
    "text that is missing": ("x.jsonl", b'{"text": "a"}\n{"label": 1}\n', "has no text"),
    "input that is missing": ("x.jsonl", b'{"x": [1.0, 2.0, 3.0, 4.0]}\n{"z": [1.0]}\n', "has no 'x'"),
    "no UTF-8 in a tree": ("x.conllu", b"1\tsch\xf6n\n", "no text in UTF-8"),
    "heads that are words": ("x.conllu", b"1\ta\t_\t_\t_\t_\tx\troot\t_\t_\n", "sentence before line"),
    "a folder": ("x.folder", b"", "of no known kind"),
}  # fmt: skip


@pytest.fixture(autouse=True)
def _cache(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PRUNEGRAPH_CACHE", str(tmp_path_factory.mktemp("cache")))


@pytest.mark.parametrize("case", DATA)
def test_data_that_are_none(case: str, folder: Path) -> None:
    name, content, message = DATA[case]
    onnx.save(mlp() if name == "x.npz" or b'"x"' in content else reads_text(), "model.onnx")
    (folder / name).write_bytes(content)
    word_tokenizer(folder)
    before = files(folder)
    refused((*PRUNE, "--scorer", "activation", "--data", name), 2, message)
    assert files(folder) == before


def test_a_table_from_a_program_that_marks_utf_8(folder: Path) -> None:
    from prunegraph.observe.data import open_data

    for name, content in (("x.csv", "text,label\na,1\n"), ("x.txt", "a\n"), ("x.jsonl", '{"text": "a"}\n')):
        (folder / name).write_text(content, encoding="utf-8-sig")
        assert open_data(folder / name).first().texts == ("a",)


# --- tokenizers --------------------------------------------------------------------------------------------------

TOKENIZERS: dict[str, tuple[str, bytes, str]] = {
    "empty": ("tokenizer.json", b"", "is no tokenizer"),
    "no tokenizer": ("tokenizer.json", b"{}", "is no tokenizer"),
    "nested deeply": ("tokenizer.json", b"[" * 200_000, "is no tokenizer"),
    "no UTF-8": ("tokenizer.json", b"\xff", "no text in UTF-8"),
    "a configuration that is none": ("tokenizer_config.json", b"{", "is no JSON"),
    "a configuration that nests": ("tokenizer_config.json", b"[" * 200_000, "is no JSON"),
    "a configuration of a list": ("tokenizer_config.json", b"[]", "holds no settings"),
    "a configuration that is no UTF-8": ("tokenizer_config.json", b"\xff", "no text in UTF-8"),
}


@pytest.mark.parametrize("case", TOKENIZERS)
def test_tokenizers_that_are_none(case: str, folder: Path) -> None:
    name, content, message = TOKENIZERS[case]
    onnx.save(reads_text(), "model.onnx")
    word_tokenizer(folder)
    (folder / "x.txt").write_text("a\n")
    (folder / name).write_bytes(content)
    refused((*PRUNE, "--scorer", "activation", "--data", "x.txt"), 2, message)


@pytest.mark.parametrize("token", [3, None, ["a"], {"content": 7}, "no such token"])
def test_a_configuration_that_names_no_padding_is_as_good_as_none(token: object, folder: Path) -> None:
    onnx.save(reads_text(), "model.onnx")
    word_tokenizer(folder)
    written = json.loads((folder / "tokenizer.json").read_text())
    (folder / "tokenizer.json").write_text(json.dumps({**written, "padding": None}))
    (folder / "tokenizer_config.json").write_text(json.dumps({"pad_token": token, "padding_side": token}))
    (folder / "x.txt").write_text("a\n")
    done(*PRUNE, "--scorer", "activation", "--data", "x.txt")


# --- outputs -----------------------------------------------------------------------------------------------------


def test_a_name_that_leaves_no_room_for_others(folder: Path) -> None:
    onnx.save(mlp(), "model.onnx")
    for name in ("x" * 250 + ".onnx", "x" * 300 + ".onnx"):
        refused(("prune", "model.onnx", "-o", name), 1, "File name too long", "a shorter name")


def test_a_report_folder_that_is_a_file(folder: Path) -> None:
    onnx.save(mlp(), "model.onnx")
    (folder / "report").touch()
    refused((*PRUNE, "--report", "report"), 1, "cannot make the folder report: File exists", "another folder")


def test_a_planted_link_is_not_followed(folder: Path) -> None:
    onnx.save(mlp(), "model.onnx")
    (folder / "report").mkdir()
    (folder / "kept").write_text("kept")
    for name in ("report.json.part", "report.json"):
        (folder / "report" / name).symlink_to("../kept")
    done(*PRUNE, "--report", "report")
    assert (folder / "kept").read_text() == "kept"
    assert json.loads((folder / "report" / "report.json").read_text())["params"]
