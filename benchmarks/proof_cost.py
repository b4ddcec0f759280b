"""What the proof costs: its processor time over that of comparing the outputs of the same models alone.

    python -m benchmarks.proof_cost

Half of every group of graphs with the widths of real models goes.  Both sides run in one process, by turns.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable, Sequence
from functools import partial

import numpy as np
import onnx_ir as ir

from prunegraph.analysis.kept_positions import Positions
from prunegraph.analysis.lengths import Lengths
from prunegraph.analysis.selection import Selection
from prunegraph.analysis.slots import Keeps
from prunegraph.passes.prove.copies import Copies
from prunegraph.passes.prove.judge import all_gaps
from prunegraph.passes.prove.runs import run_all
from prunegraph.passes.prove.trial_inputs import trial_inputs
from prunegraph.passes.prove.verify import verify
from prunegraph.passes.rewrite.cleanup import cleanup
from prunegraph.passes.rewrite.shrink import shrink
from tests.graphs.skeleton import load_skeleton
from tests.graphs.small import Analysed, analysed_model

MODELS = ("minilm_l6_dynamo", "deit_tiny_dynamo", "resnet18_dynamo")


def halved(analyzed: Analysed) -> tuple[ir.Model, Keeps]:
    """A slim model without half of every group, and what stays."""
    groups, solution = analyzed.analysis.groups, analyzed.analysis.solution
    kept = {group: max(group.least, group.units // 2) for group in groups}
    keeps = Selection({g.id: np.indices(g.shape)[-1] < kept[g] for g in groups if kept[g] < g.units}).keeps(groups)
    return cleanup(shrink(analyzed.normalized, solution, keeps).model, solution, Lengths(solution, keeps)), keeps


def prove(analyzed: Analysed, slim: ir.Model, keeps: Keeps) -> None:
    """The whole proof.

    Raises:
        RuntimeError: it does not hold.
    """
    proof = verify(analyzed.model, analyzed.normalized, slim, analyzed.analysis, keeps)
    if not proof.ok:
        raise RuntimeError(proof.reason)


def compare_outputs(analyzed: Analysed, slim: ir.Model, keeps: Keeps) -> None:
    """What a proof does at least: it runs the original, its normal form, the masked one and the slim model."""
    copies = Copies.of(analyzed.model, analyzed.normalized, slim, analyzed.analysis, keeps)
    outputs = [value.name or "" for value in analyzed.normalized.graph.outputs]
    trial = trial_inputs(copies.given, outputs, None)
    positions = Positions(analyzed.analysis.solution, keeps)
    plain, masked, small = (
        run_all(model, trial.feeds, outputs) for model in (copies.normalized, copies.oracle, copies.slim)
    )
    all_gaps(trial.outputs, plain, [{}] * len(plain))
    all_gaps([positions.cut_all(values) for values in masked], small, [{}] * len(small))


def seconds(work: Callable[[], None]) -> float:
    """Processor time of one call, of all threads."""
    start = time.process_time()
    work()
    return time.process_time() - start


def measure(name: str, rounds: int) -> tuple[float, float]:
    """The least seconds of comparing outputs alone and of the proof."""
    analyzed = analysed_model(load_skeleton(name))
    slim, keeps = halved(analyzed)
    works = [partial(work, analyzed, slim, keeps) for work in (compare_outputs, prove)]
    each = [[seconds(work) for work in works] for _ in range(rounds)]
    return min(outputs for outputs, _ in each), min(proof for _, proof in each)


def main(arguments: Sequence[str] | None = None) -> None:
    """Print a table, one line a model."""
    parser = argparse.ArgumentParser(description="What the proof costs.")
    parser.add_argument("models", nargs="*", default=MODELS)
    parser.add_argument("--rounds", type=int, default=3)
    chosen = parser.parse_args(arguments)
    print("| model | outputs alone, s | the proof, s | times |\n|---|--:|--:|--:|")
    for name in chosen.models:
        outputs, proof = measure(name, chosen.rounds)
        print(f"| {name} | {outputs:.2f} | {proof:.2f} | {proof / outputs:.1f} |", flush=True)


if __name__ == "__main__":
    main()
