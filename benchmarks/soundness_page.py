"""The page docs/verification.md: what the proof does in plain words, and the figures of `benchmarks.soundness`."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field


@dataclass
class Tally:
    """What came of the models of one kind."""

    models: int = 0
    selections: int = 0
    right: int = 0
    wrong: list[str] = field(default_factory=list)
    refused: list[str] = field(default_factory=list)
    unmoved: int = 0
    worst: float = 0.0
    kinds: Counter[str] = field(default_factory=Counter)


PROSE = """# Verification

Every slim model is proven before it is returned; `--no-verify` (`verify=False`) leaves that out, and `prunegraph
verify MODEL SLIM --plan PLAN` does it again for files, whoever made them. The plan holds a hash of the original, its
graph and every weight, wherever they lie: another original is refused, and both are named. This page says what the
proof does, what it cannot do, and how often pruning is right without it.

## What is compared

1. **The original and what was analysed.** Before anything is removed the graph is made analysable. Both forms run on
   the same inputs, and all outputs agree.
2. **The slim model and the masked original.** In the original a multiplier of zeros and ones stands before whatever
   sums over a removed unit. No constant is cut for that and no length rewritten: the oracle shares nothing with the
   rewrite but the list of what stays. Under a norm the mean and the variance are those of what stays; under a maximum
   what is removed is filled with the lowest number, under a minimum with the highest. Which group was filled with
   what stands in the report (`verify.groups[].fill`).
3. **Every weight that was rewritten.** A wrong weight may leave all outputs as they are, where a sigmoid is saturated
   or another branch is a hundred times larger. So both graphs put out the first values that depend on each rewritten
   weight, and these are compared, too: values are found by name, and where a name is gone, what is computed from it
   is followed to the next value that both graphs have. Then every rewritten weight is given other numbers (what stays
   of it in another order), and one of these values must show that. Where none does, the weight stands in
   `verify.unseen`: units that nothing depends on. Weights that kept their names must hold exactly the numbers that
   stay of them.

The report says of every group where a wrong weight would have been seen: `output`; `inside NAME`; or `dead`. Whether
an output shows it is tried for up to 8 groups, spread over the graph; for the others the value inside is named.

## What counts as rounding

A difference has to be small beside **every slice that it lies in**: one image of a batch, one position, one channel,
one class, along every axis of every output. Small is 1e-4 of the largest number of the slice. Boxes of hundreds of
pixels do not hide scores of hundredths in the same tensor. Where something differs by more, what rounding does to
this very model is measured: the masked original runs again, optimized, with the last bits of all its weights and
inputs changed, up to three times. Eight times what that does to a slice is allowed, and never more than 1e-4 of the
whole tensor. `max_abs_error` and `max_rel_error` are those of whole outputs. Equal NaN and equal infinities are
equal.

Both models run in float32, whatever their format; the activations of quantized ones are clipped but not rounded,
since rounding to bytes turns a difference in the last bit into one of a step. Noise that the graph draws is the same
in all copies, and dropout drops nothing.

## On which inputs

The caller's data, where there are any (`--data`); else random ones at sizes that the analysis has not seen, a short
sequence and one of 130. Where the original makes NaN or Inf of them, other fills are tried: masks inverted, all ones,
every second one; positive, negative and small numbers; counts. If some numbers are still none, that is said, and the
slim model must make the same. If all are none, the model is refused with that reason.

## When the runtime disagrees with itself

- ONNX Runtime's optimizer sometimes computes something else than the graph says. Where the slim model differs, it is
  run once more as it is written. If that agrees, the slim model is accepted, and a note names the runtime and its
  version.
- A TopK, a threshold or a suppression of boxes turns rounding into another choice. Where everything that differs lies
  behind such a node, everything before it agrees, and each rewritten weight was seen before it, the slim model is
  accepted; `compared_before` names the nodes.

## What it costs

Processor time of the proof, over that of comparing the outputs of the same models alone (`python -m
benchmarks.proof_cost`, on a shared machine with two cores): 1.6 for a MiniLM of six layers, 1.5 for a DeiT-tiny, 1.6
for a ResNet-18. Values inside are compared in parts of about 256 MB, in further runs where there are more; other
numbers in large weights are made within a run and dropped again.

## What it cannot do

It compares on some inputs, not on all. It trusts ONNX Runtime's kernels, names of values (a slim file of which
another tool renamed everything is compared at its outputs and at whatever it still shares), and the plan's list of
what stays. A group that is not exact is proven equal to the original *under masked statistics*: that is another
function than the original with zeroed weights.
"""


def page(tallies: Mapping[str, Tally], each: int, seed: int, minutes: float, machine: str) -> str:
    """The page, its figures from one run."""
    models, count = sum(t.models for t in tallies.values()), sum(t.selections for t in tallies.values())
    wrong, refused = sum(len(t.wrong) for t in tallies.values()), sum(len(t.refused) for t in tallies.values())
    unmoved = sum(t.unmoved for t in tallies.values())
    kinds: Counter[str] = sum((t.kinds for t in tallies.values()), Counter())
    rows = [
        f"| {family} | {t.models} | {t.selections} | {len(t.wrong)} | {len(t.refused)} | {t.worst:.1e} |"
        for family, t in tallies.items()
    ]
    groups = ", ".join(f"{count} of {kind}" for kind, count in kinds.most_common())
    return f"""{PROSE}
## How often pruning is right without a proof

`python -m benchmarks.soundness` prunes random models by random selections **with the proof off**, and compares each
slim file with a second oracle, which shares no code with the package: it looks up every number of the slim file's
weights in the original, sets to zero what is missing there, and runs that. Groups that a norm or a choice of experts
makes inexact are left out, everything else goes: one group alone, some, and all of them.

| models | files | selections | wrong | refused | largest error |
|---|--:|--:|--:|--:|--:|
{chr(10).join(rows)}

**Wrong: {wrong} of {count}** selections of {models} models ({refused} refused; in {unmoved} what went moved no output
by more than a thousandth, so that these tell little). Groups: {groups}. Errors are shares of the largest number of an
output; up to 1e-4 is right, up to 3e-2 where activations are rounded to bytes, of which a step may tip over. Models
of float16 are compared in float32. Seeds from {seed}, {minutes:.0f} minutes on a shared machine: {machine}.

    python -m benchmarks.soundness --models {each} --seed {seed} --write docs/verification.md
"""
