"""Perplexity without training: what fewer parameters cost small decoders, by every scorer that applies, with repair.

    python -m benchmarks.decoder [--model gpt2 llama] [--seed 0] [--markdown docs/decoder.md]

The dense models are those of benchmarks/decoder_models.py. What goes is chosen and repaired on windows of the training
split, which kinds give is chosen on the validation split, and the test split judges. Results are kept in
`build/decoder.jsonl`, so that a run that was stopped goes on where it stopped.
"""

from __future__ import annotations

import itertools
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import onnx_ir as ir

import prunegraph as pg
from benchmarks.accuracy_study import Arm, Dense, Study
from benchmarks.decoder_models import LAYERS, MODELS, VOCABULARY, trained, windows
from benchmarks.harness import Record, Records, Section, publish, reason, study_parser
from prunegraph.analysis.cost import count_parameters
from prunegraph.observe.metric import token_losses
from prunegraph.observe.run_batches import run_batches
from prunegraph.passes.score import resolve_scorers
from prunegraph.request import with_seed

RESULTS = Path("build/decoder.jsonl")
CALIBRATION, BATCH, RESAMPLES = 256, 32, 10_000
JUDGED = {"validation": 128, "test": 512}
"""How many windows of a split judge; all are less than there are."""
SHARES = (0.1, 0.2, 0.3)
"""How much of all parameters goes."""
GOAL_SHARE, GOAL = 0.2, 1.15
PLANS: Mapping[str, tuple[str, ...]] = {
    "heads and neurons": ("head", "kv_group", "ffn"),
    "neurons": ("ffn",),
    "neurons, Q/K and V dims": ("ffn", "qk_dim", "v_dim"),
}
"""Kinds that give, all at one ratio, until enough parameters are gone."""
TURNED = {"qk_dim", "v_dim"}
"""Kinds that are turned by default before they are cut."""
DEFAULT = "activation, as by default"
SCORERS: Mapping[str, Any] = {
    DEFAULT: None,
    "obs": "obs",
    "taylor": "taylor",
    "magnitude": "magnitude",
    "random": "random",
}
WAYS = {"validation": ("auto",), "test": ("none", "auto")}
"""Of repair, by what judges."""
REPAIRED = {"auto": "repaired", "none": "not repaired"}
LAYER = "a layer"
"""In the place of a scorer: a whole decoder layer goes."""

Losses = npt.NDArray[np.float64]


class Case(NamedTuple):
    """One slim model, and the split that judges it."""

    model: str
    seed: int
    split: str
    plan: str
    share: float
    scorer: str
    way: str

    def __str__(self) -> str:
        return " | ".join(map(str, self))


class Ratio(NamedTuple):
    """Perplexity by that of the dense model, with its interval."""

    value: float
    low: float
    high: float

    def __str__(self) -> str:
        return f"{self.value:.3f} [{self.low:.3f}, {self.high:.3f}]"


# ---- measuring -------------------------------------------------------------------------------------------------------


class Measuring:
    """One dense model: what is cut of it is judged by the perplexity of windows that nothing else has seen."""

    def __init__(self, model: str, seed: int, records: Records) -> None:
        self.model, self.seed, self.records = model, seed, records
        splits = windows()
        parts = [splits["train"][:CALIBRATION], *(splits[name][:count] for name, count in JUDGED.items())]
        self.on = Dense(trained(model, seed), *(pg.Data({"input_ids": ids}, batch_size=BATCH) for ids in parts))
        self.study = Study(self.on)

    def losses(self, model: ir.Model, split: str) -> list[float]:
        """By window the mean next-token loss in nats."""
        inputs = self.on.graph.inputs(getattr(self.on, split).opened())
        each = []
        for batch, (logits,) in run_batches(model, inputs.batches(), [model.graph.outputs[0].name or ""]):
            sums, counts = token_losses(logits, batch, batch.feeds["input_ids"]).T
            each += (sums / counts).tolist()
        return each

    def dense(self, split: str) -> None:
        """Record the dense model's losses, and how large its embeddings are."""
        case = Case(self.model, self.seed, split, "dense", 0.0, "", "")
        if self.records.recall(str(case)) is None:
            weights = self.on.graph.original.graph.initializers.values()
            words = sum(int(np.prod(weight.shape)) for weight in weights if VOCABULARY in weight.shape)
            self.keep(
                case, self.on.graph.original, {"params": self.on.graph.params, "words": words / self.on.graph.params}
            )

    def cut(self, plan: str, share: float, scorer: str, split: str) -> None:
        """Record what is left of the model, as it was cut and repaired."""
        todo = [Case(self.model, self.seed, split, plan, share, scorer, way) for way in WAYS[split]]
        if all(self.records.recall(str(case)) is not None for case in todo):
            return
        amount = pg.Amount(params=1 - share, kinds=PLANS[plan])
        turned = None if scorer == DEFAULT and TURNED & {*PLANS[plan]} else False
        scorers = with_seed(resolve_scorers(SCORERS[scorer]), self.seed)
        self._record(todo, amount, Arm(scorer, turned, scorers, WAYS[split]))

    def drop(self, layer: int, split: str) -> None:
        """Record what is left without a layer: its attention and its FFN."""
        todo = [Case(self.model, self.seed, split, f"layer {layer}", 0.0, LAYER, way) for way in WAYS[split]]
        if all(self.records.recall(str(case)) is not None for case in todo):
            return
        amount = pg.Amount(drop=self._layer(layer))
        self._record(todo, amount, Arm(LAYER, False, None, WAYS[split]))

    def _layer(self, layer: int) -> list[str]:
        """The ids of a layer's groups: attentions and FFNs come in turns."""
        kinds = ("head", "kv_group"), ("ffn",)
        return [[group.id for group in self.on.graph.groups if group.kind in each][layer] for each in kinds]

    def _record(self, todo: list[Case], amount: pg.Amount, arm: Arm) -> None:
        try:
            slims = {slim.way: slim for slim in self.study.slims(amount, arm, verify=True)}
        except pg.PruneGraphError as error:
            for case in todo:
                self.records.keep(str(case), {"failure": reason(error)})
            return
        whole = self.on.graph.params
        for case in todo:
            slim = slims[case.way]
            facts = {"error": slim.facts["error"], "params": count_parameters(slim.model.graph) / whole}
            self.keep(case, slim.model, facts)

    def keep(self, case: Case, model: ir.Model, facts: Record) -> None:
        """Judge a model."""
        losses = self.losses(model, case.split)
        self.records.keep(str(case), {"losses": [round(loss, 6) for loss in losses], **facts})
        print(f"{case}: {np.exp(np.mean(losses)):.2f}", file=sys.stderr, flush=True)


def measure(model: str, seed: int, records: Records) -> None:
    """Everything that is missing of one dense model; which kinds give is chosen on the validation split."""
    measuring = Measuring(model, seed, records)
    measuring.dense("validation")
    for plan in PLANS:
        measuring.cut(plan, GOAL_SHARE, DEFAULT, "validation")
    for layer in range(LAYERS):
        measuring.drop(layer, "validation")
    measuring.dense("test")
    plan = chosen_plan(records, model, seed)
    for scorer in SCORERS:
        measuring.cut(plan, GOAL_SHARE, scorer, "test")
    measuring.drop(chosen_layer(records, model, seed), "test")
    for share, scorer in itertools.product(reversed(SHARES), SCORERS):
        measuring.cut(plan, share, scorer, "test")


# ---- what came of it -------------------------------------------------------------------------------------------------


def ratio(records: Records, case: Case) -> Ratio | None:
    """How many times the dense perplexity, windows drawn with repetition, slim and dense the same ones."""
    slim = records.recall(str(case))
    dense = records.recall(str(Case(case.model, case.seed, case.split, "dense", 0.0, "", "")))
    if slim is None or dense is None or "failure" in slim:
        return None
    gaps = np.array(slim["losses"]) - np.array(dense["losses"])
    draws = np.random.default_rng(0).integers(0, len(gaps), (RESAMPLES, len(gaps)))
    low, high = np.quantile(np.exp(gaps[draws].mean(axis=1)), (0.025, 0.975))
    return Ratio(float(np.exp(gaps.mean())), float(low), float(high))


def _least(records: Records, cases: list[Case]) -> Case:
    return min(cases, key=lambda case: times.value if (times := ratio(records, case)) else np.inf)


def chosen_plan(records: Records, model: str, seed: int) -> str:
    """The plan that costs least on the validation split."""
    cases = [Case(model, seed, "validation", plan, GOAL_SHARE, DEFAULT, "auto") for plan in PLANS]
    return _least(records, cases).plan


def chosen_layer(records: Records, model: str, seed: int) -> int:
    """The layer that costs least on the validation split."""
    cases = [Case(model, seed, "validation", f"layer {k}", 0.0, LAYER, "auto") for k in range(LAYERS)]
    return int(_least(records, cases).plan.removeprefix("layer "))


def sections(records: Records, cases: list[tuple[str, int]]) -> Iterator[Section]:
    """The goal, a table a model, and what was chosen on the validation split."""
    yield Section("Goal", ("model", "perplexity, dense", "slim", "goal", "met"), list(_goal_rows(records, cases)))
    for model, seed in cases:
        table = Case(model, seed, "test", chosen_plan(records, model, seed), 0.0, "", "")
        every = itertools.product(SHARES, REPAIRED)
        columns = {each: [_cell(records, table, scorer, *each) for scorer in SCORERS] for each in every}
        columns = {each: cells for each, cells in columns.items() if any(cells)}
        header = ("scorer", *(f"{share:.0%} fewer, {REPAIRED[way]}" for share, way in columns))
        rows = [list(row) for row in zip(SCORERS, *columns.values(), strict=True)]
        note = f"What gives: {table.plan}. Perplexity by that of the dense model, test split, 95 % intervals."
        missing = "" if all(map(all, columns.values())) else " Empty cells were not measured yet."
        yield Section(f"{model}, seed {seed}", header, rows, note + missing)
    header = ("model", "layer", "parameters left", "repaired", "not repaired")
    note = "The layer that costs least on the validation split. What reads its sum was re-fitted, where that helped."
    yield Section("A whole layer", header, [_layer_row(records, *case) for case in cases], note, texts=2)
    rows = [[f"{model}, seed {seed}", *_plan_cells(records, model, seed)] for model, seed in cases]
    note = f"Validation split, {GOAL_SHARE:.0%} fewer parameters, {DEFAULT}, repaired. The least was taken."
    yield Section("Which kinds give", ("model", *PLANS), rows, note)


def _goal_rows(records: Records, cases: list[tuple[str, int]]) -> Iterator[list[str]]:
    for model, seed in cases:
        plan = chosen_plan(records, model, seed)
        times = ratio(records, Case(model, seed, "test", plan, GOAL_SHARE, DEFAULT, "auto"))
        dense = records.recall(str(Case(model, seed, "test", "dense", 0.0, "", "")))
        if times is not None and dense is not None:
            whole = f"{np.exp(np.mean(dense['losses'])):.1f}"
            met = "yes" if times.high <= GOAL else "yes, not its interval" if times.value <= GOAL else "no"
            yield [f"{model}, seed {seed}", whole, f"x {times}", f"x {GOAL}", met]


def _cell(records: Records, table: Case, scorer: str, share: float, way: str) -> str:
    case = table._replace(scorer=scorer, share=share, way=way)
    return str(ratio(records, case) or ("refused" if records.recall(str(case)) else ""))


def _layer_row(records: Records, model: str, seed: int) -> list[str]:
    layer = chosen_layer(records, model, seed)
    case = Case(model, seed, "test", f"layer {layer}", 0.0, LAYER, "auto")
    left = (records.recall(str(case)) or {}).get("params", np.nan)
    times = (_cell(records, case, LAYER, 0.0, way) for way in REPAIRED)
    return [f"{model}, seed {seed}", f"{layer + 1} of {LAYERS}", f"{left:.0%}", *times]


def _plan_cells(records: Records, model: str, seed: int) -> Iterator[str]:
    for plan in PLANS:
        yield _cell(records, Case(model, seed, "validation", plan, 0.0, "", ""), DEFAULT, GOAL_SHARE, "auto")


def facts(records: Records, cases: list[tuple[str, int]]) -> Iterator[str]:
    """How large the models are, and how exact the proofs."""
    for model, seed in cases:
        dense = records.recall(str(Case(model, seed, "test", "dense", 0.0, "", "")))
        if dense is not None:
            words = f"{dense['words']:.0%} of them a row for every token"
            yield f"- {model}, seed {seed}: {dense['params']:,} parameters, {words}."
        plan = chosen_plan(records, model, seed)
        slims = [Case(model, seed, "test", plan, *each, "none") for each in itertools.product(SHARES, SCORERS)]
        errors = [record["error"] for case in slims if (record := records.recall(str(case))) and "error" in record]
        if errors:
            worst = f"the largest relative difference {max(errors):.0e}"
            yield f"- {len(errors)} slim models of it were proven before they were repaired, {worst}."


def main() -> None:
    """Measure what was not measured before, and print or write the tables."""
    parser = study_parser("benchmarks.decoder", __doc__, page=True)
    parser.add_argument("--model", nargs="+", choices=MODELS, default=list(MODELS))
    parser.add_argument("--seed", nargs="+", type=int, default=[0])
    parser.add_argument("--results", type=Path, default=RESULTS, help="one line a slim model")
    parser.add_argument("--no-run", action="store_true", help="show what was measured before")
    options = parser.parse_args()
    records, cases = Records(options.results), list(itertools.product(options.model, options.seed))
    if not options.no_run:
        for model, seed in cases:
            measure(model, seed, records)
    tables = list(sections(records, cases))
    publish("decoder", [Section("", (), (), "\n".join(facts(records, cases))), *tables], options.markdown)


if __name__ == "__main__":
    main()
