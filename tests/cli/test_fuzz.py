"""Mutants of everything that a command reads: no traceback, no hang, no crash, and little memory."""

from __future__ import annotations

import multiprocessing
from collections.abc import Iterator
from pathlib import Path

import pytest

from benchmarks import fuzz
from benchmarks.fuzz_files import FILES
from benchmarks.fuzz_models import models

pytestmark = pytest.mark.slow

CASES, SEED = 140, 1


@pytest.fixture(scope="module", autouse=True)
def libraries_are_imported_once() -> Iterator[None]:
    """Workers begin as copies of a process that has the libraries; the package reads its environment at its import."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["onnx", "onnx_ir", "onnxruntime", "rich.console", "typer.testing"])
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(fuzz, "CONTEXT", context)
        yield


@pytest.fixture(scope="module")
def outcomes() -> list[fuzz.Outcome]:
    return list(fuzz.run(range(CASES), SEED, workers=1))


def test_no_case_fails(outcomes: list[fuzz.Outcome]) -> None:
    assert not [outcome for outcome in outcomes if outcome.ending in fuzz.FAILURES]
    assert [outcome.number for outcome in outcomes] == [*range(CASES)]


def test_the_cases_are_of_all_kinds_and_some_get_through(outcomes: list[fuzz.Outcome]) -> None:
    kinds = {outcome.kind for outcome in outcomes}
    assert kinds == {*models(), *(function.__name__ for function in FILES)}
    assert sum(outcome.ending == "done" for outcome in outcomes) > CASES / 10
    assert sum(outcome.ending == "refused" for outcome in outcomes) > CASES / 3


@pytest.mark.parametrize(("limit", "ending"), [("TIMEOUT", "hang"), ("PATIENCE", "hang"), ("MEMORY", "memory")])
def test_what_exceeds_a_limit_is_ended(
    limit: str, ending: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    worker = fuzz.Worker.start(0, tmp_path)
    monkeypatch.setattr(fuzz, limit, -1)
    worker.take(0)
    outcome = worker.ended(0)
    assert outcome is not None and outcome.ending == ending and outcome.number == 0
    worker.process.join(10)
    assert worker.process.exitcode == -9


def test_a_worker_that_dies_is_a_crash_and_another_takes_over(monkeypatch: pytest.MonkeyPatch) -> None:
    numbers = iter(range(3))
    take = fuzz.Worker.take

    def take_and_die(worker: fuzz.Worker, number: int) -> None:
        take(worker, number)
        if number == 1:
            worker.process.kill()

    monkeypatch.setattr(fuzz.Worker, "take", take_and_die)
    endings = [outcome.ending for outcome in fuzz.run(numbers, 0, workers=1)]
    assert endings[1] == "crash" and {endings[0], endings[2]} <= {"done", "refused"}


def test_a_run_goes_on_where_it_was_stopped_and_fills_a_page(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    cases: list[list[int]] = []

    def pretended(numbers: list[int], *_: object, **__: object) -> Iterator[fuzz.Outcome]:
        cases.append(numbers)
        for number in numbers[:2]:
            yield fuzz.Outcome(number, "mlp", "done")

    monkeypatch.setattr(fuzz, "run", pretended)
    page, log = tmp_path / "page.md", tmp_path / "log.jsonl"
    page.write_text("before\n<!-- fuzz -->\nold\n<!-- /fuzz -->\nafter\n")
    for _ in range(2):
        monkeypatch.setattr("sys.argv", ["fuzz", "--cases", "4", "--log", str(log), "--markdown", str(page)])
        with pytest.raises(SystemExit) as ended:
            fuzz.main()
        assert not ended.value.code
    assert cases == [[0, 1, 2, 3], [2, 3]]
    text = page.read_text()
    assert text.startswith("before\n") and text.endswith("after\n") and "old" not in text
    assert "| all | 4 | 4 | 0 | 0 | 0 | 0 | 0 |" in text
