"""What reaches a terminal, and how a command ends: hostile names, odd widths, full disks, signals."""

from __future__ import annotations

import io
import os
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

import onnx
import pytest
from onnx import TensorProto, helper
from rich.console import Group
from rich.padding import Padding
from rich.table import Table
from rich.text import Text
from typer.testing import CliRunner

from prunegraph.cli import app, console, group
from prunegraph.cli.escape import escape_all, escaped
from tests.cli.test_bad_files import mlp
from tests.cli.test_cli import folder, run

__all__ = ["folder"]

EVIL = "\x1b[31mred\x1b]0;title\x07\n\u202egnp.exe\r\u2028\x9b\udcff"
SHOWN = r"\x1b[31mred\x1b]0;title\x07\n\u202egnp.exe\r\u2028\x9b\udcff"


def hostile() -> onnx.ModelProto:
    """Names of nodes, values, weights and ops that steer a terminal."""
    evil = EVIL.removesuffix("\udcff")  # no protobuf holds that
    model = mlp()
    graph = model.graph
    for value in (*graph.input, *graph.output, *graph.initializer):
        value.name += evil
    for node in graph.node:
        node.name += evil
        node.input[:] = [f"{name}{evil}" for name in node.input]
        node.output[:] = [f"{name}{evil}" for name in node.output]
    graph.node.append(helper.make_node("Foo" + evil, [graph.output[0].name], ["z"], f"foo{evil}", domain="bar"))
    graph.output.append(helper.make_tensor_value_info("z", TensorProto.FLOAT, ["b", 4]))
    model.opset_import.append(helper.make_opsetid("bar", 1))
    return model


@pytest.mark.parametrize(
    "arguments",
    [
        ("explain", "model.onnx"),
        ("explain", "model.onnx", "-v"),
        ("explain", "model.onnx", "--json"),
        ("score", "model.onnx"),
        ("prune", "model.onnx", "-o", "slim.onnx"),
        ("prune", "model.onnx", "-o", "slim.onnx", "--ratio", "hidden=0.5"),
        ("prune", "model.onnx", "-o", "slim.onnx", "--allow-io", "nope"),
        ("bench", "model.onnx"),
        ("explain", EVIL),
        ("explain", "model.onnx", "--evil" + EVIL),
    ],
)
def test_nothing_of_a_name_steers_the_terminal(arguments: Sequence[str], folder: Path) -> None:
    onnx.save(hostile(), "model.onnx")
    result = run(*arguments)
    assert result.exception is None or isinstance(result.exception, SystemExit)
    text = result.stdout + result.stderr
    assert all(character.isprintable() or character == "\n" for character in text)
    assert "\ngnp" not in text and (r"\x1b[31m" in text or r"\u001b[31m" in text or "score" in arguments)


def test_escapes_keep_the_styles_of_the_other_characters() -> None:
    text = Text.assemble(("a\n", "bold"), ("b\x1b", "red"), "c")
    copy = escape_all(text)
    assert isinstance(copy, Text) and copy.plain == r"a\nb\x1bc"
    assert [(copy.plain[s.start : s.end], s.style) for s in copy.spans] == [(r"a\n", "bold"), (r"b\x1b", "red")]
    assert escaped(EVIL) == SHOWN and escaped("größe 層 🙂") == "größe 層 🙂"


def test_escapes_reach_into_everything_that_is_shown(capsys: pytest.CaptureFixture[str]) -> None:
    table = Table("a\x1b", title="b\x1b")
    table.add_row(Text("c\x1b"))
    table.add_row("d\x1b")
    console.show(Group(Padding(Text("e\x1b"), 1), table), "f\x1b [red]g[/red] [/]")
    shown = capsys.readouterr().out
    assert "\x1b" not in shown and all(f"{letter}\\x1b" in shown for letter in "abcdef")
    assert "[red]g[/red] [/]" in shown


@pytest.mark.parametrize("columns", ["0", "1", "-5", "", "x", "²", "99999999999999999999", "1000000", "80.5"])
def test_any_number_of_columns_will_do(columns: str, folder: Path) -> None:
    here = {"COLUMNS": columns, "LINES": columns}  # for the command alone: pytest reads them too
    for arguments in (("explain", "model.onnx", "-v"), ("--help",), ("prune", "model.onnx", "-o", "none/x")):
        result = CliRunner().invoke(app, arguments, prog_name="prunegraph", env=here)
        assert isinstance(result.exception, SystemExit | None) and len(result.output) < 100_000


class Full(io.StringIO):
    """A stream on a full disk."""

    def write(self, _: str) -> int:
        raise OSError(28, "No space left on device")


def test_a_full_disk_under_stdout_is_one_message(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "stdout", Full())
    with pytest.raises(console.OutputError, match="cannot write to stdout: No space left"):
        console.show("a")
    with pytest.raises(console.OutputError, match="cannot write to stdout"):
        console.show_json({})
    monkeypatch.setattr(sys, "stderr", Full())
    console.complain("nobody hears this")
    for stream in ("stdout", "stderr"):
        monkeypatch.setattr(sys, stream, None)
    console.say("nor this")
    with pytest.raises(console.OutputError, match="stdout is closed"):
        console.show("a")


def test_letters_that_the_encoding_lacks_are_escaped(monkeypatch: pytest.MonkeyPatch) -> None:
    raw = io.BytesIO()
    monkeypatch.setattr(sys, "stdout", io.TextIOWrapper(raw, encoding="ascii"))
    console.show("größe")
    assert raw.getvalue() == rb"gr\xf6\xdfe" + b"\n"


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="no /dev/full")
@pytest.mark.parametrize("arguments", [("--help",), ("explain", "model.onnx", "--json")])
def test_the_process_ends_with_one_when_the_disk_is_full(arguments: Sequence[str], folder: Path) -> None:
    with open("/dev/full", "w") as full:
        done = subprocess.run(
            [sys.executable, "-m", "prunegraph", *arguments], stdout=full, stderr=subprocess.PIPE, text=True, timeout=60
        )
    assert done.returncode == 1 and done.stderr.startswith("error: cannot write to stdout: No space left")
    assert "Traceback" not in done.stderr and "Exception" not in done.stderr


WAITING = """
import sys, time
from prunegraph.cli import app, group
from prunegraph import atomic_write
def wait(*_, **__):
    from pathlib import Path
    with atomic_write.stage(Path("slim.onnx")) as folder:
        (folder / "slim.onnx").write_text("new")
        if when == "during":
            print("ready", flush=True)
            time.sleep(60)
    print("ready", flush=True)
    time.sleep(60)
when = sys.argv.pop(1)
import prunegraph.cli.explain, prunegraph.api
prunegraph.api.analyze = wait
app(prog_name="prunegraph")
"""


@pytest.mark.slow
@pytest.mark.parametrize(
    ("when", "number", "code"),
    [
        ("during", signal.SIGTERM, 143),
        ("after", signal.SIGTERM, 143),
        ("during", signal.SIGHUP, 129),
        ("after", signal.SIGINT, 130),
    ],
)
def test_a_signal_leaves_nothing_behind_and_says_what_is_true(
    when: str, number: signal.Signals, code: int, folder: Path
) -> None:
    command = [sys.executable, "-c", WAITING, when, "explain", "model.onnx"]
    child = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    assert child.stdout is not None and child.stdout.readline() == "ready\n"
    time.sleep(0.1)
    child.send_signal(number)
    _, stderr = child.communicate(timeout=60)
    assert child.returncode == code and "Traceback" not in stderr
    assert stderr.startswith("error: interrupted; " if number is signal.SIGINT else f"error: ended by {number.name}; ")
    assert ("no file was changed" in stderr) == (when == "during") == ("slim.onnx" not in stderr)
    assert sorted(os.listdir(folder)) == ["model.onnx", *(["slim.onnx"] if when == "after" else [])]


@pytest.mark.parametrize(
    ("number", "code", "message"),
    [(signal.SIGTERM, 143, "ended by SIGTERM; no file"), (signal.SIGINT, 130, "interrupted; no file")],
)
def test_a_signal_that_an_import_makes_another_error_of_is_a_signal(
    number: signal.Signals, code: int, message: str, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def imported(*_: object, **__: object) -> None:
        try:
            os.kill(os.getpid(), number)
            time.sleep(10)
        except BaseException as error:
            raise ImportError("initialization failed") from error

    monkeypatch.setattr("prunegraph.api.analyze", imported)
    result = run("explain", "model.onnx")
    assert result.exit_code == code and message in result.stderr and "initialization" not in result.stderr


def test_signals_are_as_they_were_afterwards() -> None:
    before = signal.getsignal(signal.SIGTERM)
    with group.ended_by_signals([]):
        assert signal.getsignal(signal.SIGTERM) is not before
    assert signal.getsignal(signal.SIGTERM) is before


def test_a_shell_completes_commands() -> None:
    environment = {"_PRUNEGRAPH_COMPLETE": "complete_bash", "COMP_WORDS": "prunegraph ev", "COMP_CWORD": "1"}
    run = subprocess.run(
        [sys.executable, "-m", "prunegraph"],
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
        check=True,
    )
    assert run.stdout.split() == ["evaluate"]
