"""User code that is checked with `mypy --strict`: what the face says it takes and returns. It is never run."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import numpy.typing as npt
import onnx

import prunegraph as pg


def prune(path: Path, images: dict[str, npt.NDArray[np.float32]]) -> tuple[int, int]:
    result: pg.PruneResult = pg.prune_graph(
        path,
        pg.Amount({"head": 0.5, "ffn": [0.5, 0.25]}, align=8, rank="global", least=0.2),
        scorer={"head": pg.scorers.Michel(), "ffn": "activation"},
        data=pg.Data(images, limit=16, providers="cpu"),
        scope=pg.Scope(exclude="*layer.1.*", sizes={"batch": 1}),
        after=[pg.Repair("lstsq"), pg.Finetune(epochs=1)],
        progress=print,
    )
    written: tuple[Path, ...] = result.save(path.with_name("slim.onnx"))
    assert written
    proof: pg.Verification | None = result.report.verify
    error: float = proof.max_rel_error if proof is not None else 0.0
    assert error < 1e-3
    return result.report.params


def largest(group: pg.Group, context: pg.Context) -> npt.NDArray[np.float64]:
    return np.arange(group.units, dtype=np.float64)


def step_by_step(model: onnx.ModelProto, data: str) -> list[pg.PruneResult]:
    graph: pg.Graph = pg.analyze(model, scope=pg.Scope(allow_io=["past_*"]))
    scores: pg.Scores = graph.score(largest, data)
    plans: list[pg.Selection] = [graph.select(scores, ratio) for ratio in (0.25, 0.5)]
    results = [graph.apply(plan).repair(data) for plan in plans]
    value: float = results[0].evaluate(data, "agreement").scores[1].value
    assert value <= 1
    return results


def fail() -> None:
    pg.prune_graph("model.onnx", scorer=3)  # type: ignore[arg-type]
    pg.Amount(0.5, algin=8)  # type: ignore[call-arg]
    pg.analyze("model.onnx").select("magnitude")  # type: ignore[arg-type]
