"""The command line as a user meets it: streams, exit codes, messages, files."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, numpy_helper
from typer.testing import CliRunner, Result

from prunegraph.analysis.roles import KINDS
from prunegraph.bench import PROVIDERS
from prunegraph.cli import app
from prunegraph.cli.console import show_json
from prunegraph.cli.parse import parse_ratio, parse_sizes
from prunegraph.cli.summary import proof
from prunegraph.errors import UsageError
from prunegraph.passes.prove.verify import GroupFacts, Verification
from prunegraph.passes.score import SCORERS
from tests.graphs.cli import averaged, classifier, convolutions, frozen

COMMANDS = ("explain", "prune", "verify", "bench", "evaluate", "report", "score", "export", "finetune")


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The current folder, with a model in it."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "100")
    onnx.save(classifier(), tmp_path / "model.onnx")
    return tmp_path


def run(*arguments: str) -> Result:
    return CliRunner().invoke(app, list(arguments), prog_name="prunegraph")


def done(*arguments: str) -> Result:
    result = run(*arguments)
    assert result.exit_code == 0, result.stderr
    return result


def files(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


# --- bad input ---------------------------------------------------------------------------------------------------


def prepare(folder: Path) -> None:
    """Everything that a bad command names."""
    whole = (folder / "model.onnx").read_bytes()
    (folder / "text.onnx").write_text("hello world")
    (folder / "broken.json").write_text("{}")
    (folder / "cut.onnx").write_bytes(whole[: len(whole) // 2])
    (folder / "sub").mkdir()
    onnx.save(frozen(), folder / "frozen.onnx")
    for name, location in (("no_data.onnx", "gone.bin"), ("outside.onnx", "/etc/hostname")):
        model = frozen()
        model.graph.initializer[0].CopyFrom(TensorProto(name="w", data_type=1, dims=(4, 4), data_location=1))
        model.graph.initializer[0].external_data.add(key="location", value=location)
        (folder / name).write_bytes(model.SerializeToString())
    rejected = frozen()
    rejected.graph.node[0].op_type = "NoSuchOp"
    (folder / "rejected.onnx").write_bytes(rejected.SerializeToString())
    onnx.save(averaged(), folder / "averaged.onnx")
    (folder / "link.onnx").symlink_to("model.onnx")


PRUNE = ("prune", "model.onnx", "-o", "slim.onnx")
BAD: dict[str, tuple[tuple[str, ...], int, str, str]] = {
    # files
    "no such file": (("explain", "none.onnx"), 1, "does not exist", "current folder"),
    "a folder": (("explain", "sub"), 1, "is a folder", ".onnx"),
    "not ONNX": (("explain", "text.onnx"), 1, "not an ONNX model", "export"),
    "not ONNX, as text": (("explain", "broken.json"), 1, "not an ONNX model", "export"),
    "cut short": (("prune", "cut.onnx", "-o", "slim.onnx"), 1, "cut short", "again"),
    "without its data": (("prune", "no_data.onnx", "-o", "slim.onnx"), 1, "gone.bin is missing", "copy"),
    "data elsewhere": (("prune", "outside.onnx", "-o", "slim.onnx"), 1, "outside the model's folder", "refused"),
    "checker": (("explain", "rejected.onnx"), 1, "not valid ONNX", "onnx.checker"),
    "bench, no such file": (("bench", "none.onnx"), 1, "none.onnx", "path"),
    "bench, not ONNX": (("bench", "text.onnx"), 1, "cannot load text.onnx", "onnx.checker"),
    # numbers and names
    "ratio of one": ((*PRUNE, "--ratio", "1"), 2, "[0, 1)", "fraction removed"),
    "ratio below zero": ((*PRUNE, "--ratio", "-0.1"), 2, "[0, 1)", "fraction removed"),
    "ratio NaN": ((*PRUNE, "--ratio", "nan"), 2, "not nan", "fraction removed"),
    "ratio infinite": ((*PRUNE, "--ratio", "head=inf"), 2, "[0, 1)", "fraction removed"),
    "ratio no number": ((*PRUNE, "--ratio", "half"), 2, "'half' is no number", "--ratio 0.5"),
    "ratio empty": ((*PRUNE, "--ratio", "head="), 2, "'head=' is no number", "--ratio 0.5"),
    "ratio without kind": ((*PRUNE, "--ratio", "=0.5"), 2, "names no kind", "--ratio head=0.5"),
    "ratio twice": ((*PRUNE, "--ratio", "ffn=0.5", "--ratio", "ffn=0.3"), 2, "ffn is given twice", "once"),
    "ratio mixed": ((*PRUNE, "--ratio", "0.5", "--ratio", "ffn=0.3"), 2, "beside", "--ratio head=0.5"),
    "unknown kind": ((*PRUNE, "--ratio", "heads=0.5"), 2, "'heads'", "head, "),
    "scorer without data": ((*PRUNE, "--scorer", "sap"), 2, "'sap' needs data", "--data FILE"),
    "no data": ((*PRUNE, "--scorer", "sap", "--data", "none.txt"), 2, "none.txt", ""),
    "unknown scorer": ((*PRUNE, "--scorer", "best"), 2, "no scorer 'best'", "magnitude"),
    "align of zero": ((*PRUNE, "--align", "0"), 2, "align", "8"),
    "align no number": ((*PRUNE, "--align", "x"), 2, "--align", "prunegraph prune --help"),
    "include nothing": ((*PRUNE, "--include", "nope"), 2, "no group matches 'nope'", "explain"),
    "exclude nothing": ((*PRUNE, "--exclude", "nope*"), 2, "no group matches 'nope*'", "explain"),
    "unknown output": ((*PRUNE, "--allow-io", "nope"), 2, "matches 'nope'", "x, logits"),
    "unknown provider": (("bench", "model.onnx", "--ep", "abacus"), 2, "'abacus'", "cpu"),
    "few rounds": (("bench", "model.onnx", "--rounds", "1"), 2, "rounds is 1", "6"),
    "size no number": (("bench", "model.onnx", "--size", "batch"), 2, "no NAME=N", "--size height=224"),
    "size of no dim": (("bench", "model.onnx", "--size", "height=3"), 2, "height", "batch"),
    "other inputs": (("bench", "model.onnx", "frozen.onnx"), 2, "frozen.onnx", "versions of one model"),
    # usage
    "no such command": (("prun", "model.onnx"), 2, "prun", "prunegraph --help"),
    "no such option": ((*PRUNE, "--ratoi", "0.5"), 2, "--ratoi", "prunegraph prune --help"),
    "no output": (("prune", "model.onnx"), 2, "--output", "prunegraph prune --help"),
    "no model": (("explain",), 2, "MODEL", "prunegraph explain --help"),
    # nothing to do
    "nothing prunable": (("prune", "frozen.onnx", "-o", "slim.onnx"), 1, "graph ", "--allow-io"),
    "nothing but inexact": (
        ("prune", "averaged.onnx", "-o", "slim.onnx"),
        1,
        "ffn.0 (16 units, inexact)",
        "--ratio ffn=0.5",
    ),
    "no group of the kind": ((*PRUNE, "--ratio", "channel=0.5"), 1, "no group of kind channel", "explain"),
    "ratio of zero": ((*PRUNE, "--ratio", "0"), 1, "leave every group whole", "explain"),
    # outputs
    "output is input": (("prune", "model.onnx", "-o", "model.onnx"), 1, "is an input file", "another output"),
    "output links to input": (("prune", "model.onnx", "-o", "link.onnx"), 1, "is an input file", "another output"),
    "output is a folder": (("prune", "model.onnx", "-o", "sub"), 1, "sub is a folder", "sub/slim.onnx"),
    "output in no folder": (("prune", "model.onnx", "-o", "none/slim.onnx"), 1, "none does not exist", "mkdir -p none"),
    "output refused": (("prune", "model.onnx", "-o", "/proc/slim.onnx"), 1, "/proc", ""),
    # verify
    "no plan": (("verify", "model.onnx", "model.onnx"), 1, "model.plan.json cannot be read", "--plan"),
    "plan no plan": (("verify", "model.onnx", "model.onnx", "--plan", "text.onnx"), 1, "no plan file", "plan"),
    "plan no text": (("verify", "model.onnx", "model.onnx", "--plan", "model.onnx"), 1, "no plan file", "plan"),
}


@pytest.mark.parametrize("case", BAD)
def test_bad_input_gets_one_message_and_a_hint_and_changes_nothing(case: str, folder: Path) -> None:
    prepare(folder)
    before = files(folder)
    arguments, code, message, hint = BAD[case]
    result = run(*arguments)
    lines = result.stderr.splitlines()
    assert result.exit_code == code, result.stderr
    assert result.stdout == ""
    assert len(lines) == 3 and lines[1] == "", result.stderr
    assert lines[0].startswith("error: ") and message in lines[0]
    assert lines[2].startswith("hint: ") and hint in lines[2]
    assert files(folder) == before


def test_the_output_is_checked_before_the_long_work(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def too_late(*_: object, **__: object) -> None:
        raise AssertionError("normalizing has begun")

    monkeypatch.setattr("prunegraph.analyzed.normalize", too_late)
    assert run("prune", "model.onnx", "-o", "model.onnx").exit_code == 1
    (folder / "slim.plan.json").mkdir()
    assert "slim.plan.json is a folder" in run(*PRUNE).stderr


@pytest.mark.parametrize("moment", ["prunegraph.pipeline.prove", "prunegraph.choice.select_units", "onnx_ir.save"])
def test_an_interruption_leaves_nothing_behind(moment: str, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupt(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(moment, interrupt)
    before = files(folder)
    result = run(*PRUNE)
    assert (result.exit_code, result.stdout) == (130, "")
    assert result.stderr == "error: interrupted; no file was changed\n"
    assert files(folder) == before and not [path for path in folder.iterdir() if path.name.startswith(".")]


def test_a_bug_is_not_hidden(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object, **__: object) -> None:
        raise ZeroDivisionError

    monkeypatch.setattr("prunegraph.choice.select_units", fail)
    assert isinstance(run(*PRUNE).exception, ZeroDivisionError)


# --- the contract ------------------------------------------------------------------------------------------------


def data(result: Result) -> Any:
    return json.loads(result.stdout)


def test_explain_json(folder: Path) -> None:
    report = data(done("explain", "model.onnx", "--json"))
    assert [g["id"] for g in report["groups"]][:2] == ["hidden.0", "head.0"]
    for group in report["groups"]:
        assert group.keys() >= {"id", "kind", "units", "exact", "where"}
    assert {(pin["where"], pin["why"]) for pin in report["pins"]} == {("x", "graph input"), ("logits", "graph output")}
    allowed = data(done("explain", "model.onnx", "--json", "--allow-io", "logits"))
    assert {pin["where"] for pin in allowed["pins"]} == {"x"}


def test_prune_json(folder: Path) -> None:
    report = data(done(*PRUNE, "--ratio", "head=0.5", "--ratio", "ffn=0.25", "--json"))
    weights = [numpy_helper.to_array(tensor) for tensor in onnx.load(folder / "slim.onnx").graph.initializer]
    assert report["params"][1] == sum(w.size for w in weights if w.dtype == np.float32)
    assert report["params"][0] == data(done("explain", "model.onnx", "--json"))["params"]
    assert report["macs"][1] < report["macs"][0]
    assert {(g["id"], g["kind"], g["before"], g["after"]) for g in report["groups"]} == {
        *((f"head.{k}", "head", 2, 1) for k in range(2)),
        *((f"ffn.{k}", "ffn", 12, 9) for k in range(2)),
    }
    assert report["verify"].keys() >= {"exact", "max_abs_error", "max_rel_error"}
    assert report["verify"]["exact"] is True
    assert report["files"] == ["slim.onnx", "slim.plan.json"]


def test_options_reach_the_library(folder: Path) -> None:
    one, other = (
        data(done("prune", "model.onnx", "-o", f"{seed}.onnx", "--scorer", "random", "--seed", seed, "--json"))
        for seed in ("1", "2")
    )
    assert one["groups"] == other["groups"]
    assert (folder / "1.plan.json").read_text() != (folder / "2.plan.json").read_text()
    less = data(done(*PRUNE, "--exclude", "*.0.*", "--align", "8", "--no-verify", "--json"))
    assert [(g["id"], g["after"]) for g in less["groups"]] == [("head.1", 1), ("ffn.1", 8)]
    assert less["verify"] is None
    only = data(done(*PRUNE, "--include", "head.1", "--include", "v_dim.1", "--json"))
    assert [g["id"] for g in only["groups"]] == ["head.1"], "a plain ratio leaves v_dim whole"


def test_an_output_may_shrink_and_its_norm_with_it(folder: Path) -> None:
    onnx.save(classifier(states=True), folder / "states.onnx")
    arguments = ("states.onnx", "-o", "slim.onnx", "--ratio", "hidden=0.5", "--allow-io", "states")
    assert data(done("prune", *arguments, "--json"))["verify"]["exact"] is False
    assert done("verify", "states.onnx", "slim.onnx").stdout.startswith("verified"), "the plan says what may shrink"
    assert done("verify", "states.onnx", "slim.onnx", "--allow-io", "st*").stdout.startswith("verified")
    refused = run("verify", "states.onnx", "slim.onnx", "--allow-io", "x")
    assert refused.exit_code == 1 and "--allow-io" in refused.stderr


def test_data_goes_to_stdout_and_the_rest_to_stderr(folder: Path) -> None:
    explained = done("explain", "model.onnx")
    assert explained.stdout.startswith("model.onnx: 1,139 parameters")
    assert explained.stderr == "\nnext: prunegraph prune model.onnx -o slim.onnx\n"
    pruned = done(*PRUNE)
    assert pruned.stdout.splitlines()[1].split() == ["parameters", "1,139", "655", "-42.5%"]
    assert "wrote slim.onnx (" in pruned.stderr and "prunegraph bench model.onnx slim.onnx" in pruned.stderr
    for line in (explained.stdout + pruned.stdout).splitlines():
        assert line == line.rstrip() and "\x1b" not in line


def test_bench(folder: Path) -> None:
    done(*PRUNE)
    arguments = ("bench", "model.onnx", "slim.onnx", "--rounds", "6", "--batch", "2", "--size", "sequence=5")
    report = data(done(*arguments, "--json"))
    assert [(row["model"], row["rounds"]) for row in report["results"]] == [("model.onnx", 6), ("slim.onnx", 6)]
    assert report["inputs"] == {"x": [2, 5, 5]}
    table = done(*arguments)
    assert "slim.onnx" in table.stdout and "times faster" in table.stdout and table.stderr == ""


# --- verify ------------------------------------------------------------------------------------------------------


def tamper(folder: Path) -> None:
    model = onnx.load(folder / "slim.onnx")
    tensor = next(t for t in model.graph.initializer if t.name == "layer.1.fc2.bias")
    tensor.CopyFrom(
        numpy_helper.from_array(numpy_helper.to_array(tensor) + np.eye(1, 8, dtype=np.float32)[0], tensor.name)
    )
    onnx.save(model, folder / "slim.onnx")


def reorder(folder: Path) -> None:
    """The same numbers in another order, in one weight."""
    model = onnx.load(folder / "slim.onnx")
    tensor = next(t for t in model.graph.initializer if t.name == "onnx::MatMul_106")
    tensor.CopyFrom(numpy_helper.from_array(np.roll(numpy_helper.to_array(tensor), 1, axis=-1), tensor.name))
    onnx.save(model, folder / "slim.onnx")


def another_plan(folder: Path) -> None:
    done("prune", "model.onnx", "-o", "other.onnx", "--scorer", "random", "--seed", "3")
    (folder / "other.plan.json").replace(folder / "slim.plan.json")


def plan_of_less(folder: Path) -> None:
    done("prune", "model.onnx", "-o", "other.onnx", "--ratio", "ffn=0.25")
    (folder / "other.plan.json").replace(folder / "slim.plan.json")


def plan_of_another_model(folder: Path) -> None:
    plan = json.loads((folder / "slim.plan.json").read_text())
    plan["groups"] = {"channel.0": plan["groups"]["ffn.0"]}
    (folder / "slim.plan.json").write_text(json.dumps(plan))


def another_model(folder: Path) -> None:
    onnx.save(frozen(), folder / "slim.onnx")


def test_verify_accepts_what_prune_wrote(folder: Path) -> None:
    done(*PRUNE)
    (folder / "sub").mkdir()
    (folder / "slim.plan.json").replace(folder / "sub" / "p.json")
    report = data(done("verify", "model.onnx", "slim.onnx", "--plan", "sub/p.json", "--json"))
    assert report["equal"] is True and report["vacuous"] is False
    assert report["max_rel_error"] < 1e-5 < report["moved"]


@pytest.mark.parametrize("change", [tamper, reorder, another_plan, plan_of_less, plan_of_another_model, another_model])
def test_verify_refuses_what_is_not_equal(change: Callable[[Path], None], folder: Path) -> None:
    done(*PRUNE)
    change(folder)
    result = run("verify", "model.onnx", "slim.onnx")
    assert result.exit_code == 1
    assert result.stderr.startswith("error: ") and "\n\nhint: " in result.stderr
    shown = run("verify", "model.onnx", "slim.onnx", "--json").stdout
    assert not shown or json.loads(shown)["equal"] is False


SEEN = Verification(True, True, 1e-7, 2e-7, 0.5, False, 0.0, 1)


@pytest.mark.parametrize(
    ("verification", "message"),
    [
        (SEEN, "equal to the masked original; largest error 2.0e-07"),
        (replace(SEEN, exact=False), "equal to the original under masked statistics"),
        (replace(SEEN, moved=0.0, vacuous=True), "the removed units were dead"),
        (
            replace(SEEN, groups=(GroupFacts("head.0", "output", "zero: the sum is that of what stays (in maps)"),)),
            "head.0: removed units are filled with zero: the sum is that of what stays (in maps)",
        ),
        (replace(SEEN, ok=False, max_rel_error=0.1), "NOT equal to the masked original: off by 1.0e-01"),
        (None, "not verified"),
    ],
)
def test_what_the_proof_says(verification: Verification | None, message: str) -> None:
    assert message in " ".join(line.plain for line in proof(verification))


# --- help --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("command", COMMANDS)
def test_help_reads_as_documentation(command: str, folder: Path) -> None:
    shown = done(command, "--help").stdout
    assert "Examples\n" in shown and f"  prunegraph {command} " in shown
    assert "\b" not in shown and max(map(len, shown.splitlines())) <= 100
    assert done(command, "-h").stdout == shown


def test_help_names_all_kinds_scorers_and_providers(folder: Path) -> None:
    kinds = [line.split()[0] for line in done("explain", "--help").stdout.splitlines() if line.startswith("    ")]
    assert set(KINDS) <= set(kinds)
    pruning = " ".join(done("prune", "--help").stdout.split())
    assert all(name in pruning for name in SCORERS)
    timing = " ".join(done("bench", "--help").stdout.split())
    assert all(name in timing for name in PROVIDERS)


def test_without_a_command_the_help_is_shown() -> None:
    assert done().stdout == done("--help").stdout
    assert all(f"  {command} " in done().stdout for command in COMMANDS)


def test_help_and_version_start_without_the_heavy_imports() -> None:
    program = (
        "import sys\n"
        "from prunegraph.cli import main\n"
        "try:\n"
        "    main()\n"
        "finally:\n"
        "    print(sorted({'numpy', 'onnx', 'onnx_ir', 'onnxruntime'} & sys.modules.keys()), file=sys.stderr)\n"
    )
    for argument in ("--help", "--version"):
        ran = subprocess.run([sys.executable, "-c", program, argument], capture_output=True, text=True, check=False)
        assert ran.returncode == 0 and ran.stdout.strip() and ran.stderr == "[]\n", ran.stderr


def test_the_program_itself_exits_as_it_should(folder: Path) -> None:
    program = [sys.executable, "-m", "prunegraph"]
    ran = subprocess.run([*program, "explain", "none.onnx"], capture_output=True, text=True, check=False)
    assert (ran.returncode, ran.stdout) == (1, "")
    assert ran.stderr.startswith("error: none.onnx does not exist\n\nhint: ")


# --- small parts -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("given", [["0.5", "0.3"], ["head=0.5", "head=0.5"], ["=1"], ["a=b"], [""]])
def test_ratios_that_make_no_sense(given: list[str]) -> None:
    with pytest.raises(UsageError):
        parse_ratio(given)


@pytest.mark.parametrize("given", ["", "height", "=3", "height=", "height=-1", "height=2.5"])
def test_sizes_that_make_no_sense(given: str) -> None:
    with pytest.raises(UsageError):
        parse_sizes([given])


def test_json_has_no_word_for_infinity(capsys: pytest.CaptureFixture[str]) -> None:
    show_json({"a": float("inf"), "b": [float("nan"), 1.5]})
    assert json.loads(capsys.readouterr().out) == {"a": None, "b": [None, 1.5]}


def test_slow_widths_are_said(folder: Path) -> None:
    onnx.save(convolutions(64), folder / "wide.onnx")
    arguments = ("prune", "wide.onnx", "-o", "slim.onnx", "--ratio", "0.3")
    assert "slow widths" not in done(*arguments).stdout
    assert "slow widths: channel.0 45 are no multiples of 8; --align 8" in done(*arguments, "--align", "1").stdout


def test_verify_compares_on_data_too(folder: Path) -> None:
    done(*PRUNE, "--ratio", "ffn=0.5")
    np.savez(folder / "data.npz", x=np.random.default_rng(0).normal(size=(8, 5, 5)).astype(np.float32))
    arguments = ("verify", "model.onnx", "slim.onnx", "--data", "data.npz")
    assert done(*arguments).stdout.startswith("verified")
    np.savez(folder / "data.npz", z=np.zeros((8, 5), np.float32))
    refused = run(*arguments)
    assert refused.exit_code == 2 and "hint: " in refused.stderr
