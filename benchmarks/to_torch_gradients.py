"""Whether gradients of a model's torch twin are those of the source module.

    python -m benchmarks.to_torch_gradients [NAME …]

A module of the zoo is exported, read back as a torch graph, and both go backward from the same random weighting of
the output.  Parameters are matched by name, or by their numbers where the exporter renamed or transposed them.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

import torch
from torch import Tensor

from benchmarks.harness import study_parser
from benchmarks.zoo.exports import build
from prunegraph.export.torch_module import read_torch
from prunegraph.torch_twin import to_torch

FLOOR = 1e-2
"""Of the largest gradient of all: smaller ones (that of the bias of keys is rounding alone) are compared with this."""

NAMES = ("bert", "llama", "t5_encoder", "convnext", "swin")


class Agreement(NamedTuple):
    """What was found: differences relative to the largest number of the output and of each gradient."""

    output: float
    gradient: float
    matched: int
    parameters: int


def compare(name: str) -> Agreement:
    """Export, read back, and compare."""
    model = build(name)
    given = tuple(model.inputs.values())
    twin = to_torch(read_torch(model.module, given))
    expected, actual = model.module(*given), twin(*given)[0]
    weights = torch.randn(expected.shape, generator=torch.Generator().manual_seed(0))
    (expected * weights).sum().backward()
    (actual * weights).sum().backward()
    twins = dict(twin.named_parameters())
    worst, matched = 0.0, 0
    sources = [(key, p) for key, p in model.module.named_parameters() if p.grad is not None]
    largest = max(float(parameter.grad.abs().max()) for _, parameter in sources)
    for key, parameter in sources:
        gradient = _gradient(key, parameter, twins)
        if gradient is not None:
            matched += 1
            scale = max(float(parameter.grad.abs().max()), FLOOR * largest)
            worst = max(worst, float((gradient - parameter.grad).abs().max()) / scale)
    error = float((expected - actual).abs().max() / expected.abs().max())
    return Agreement(error, worst, matched, len(sources))


def _gradient(name: str, parameter: Tensor, twins: Mapping[str, Tensor]) -> Tensor | None:
    """The gradient of the twin that holds the same numbers, in the source's layout."""
    named = [twins[name]] if name in twins else []
    for twin in (*named, *(t for t in twins.values() if t.numel() == parameter.numel())):
        if twin.grad is None or twin.numel() != parameter.numel():
            continue
        if torch.equal(twin.flatten(), parameter.flatten()):
            return twin.grad.reshape(parameter.shape)
        if twin.dim() == 2 and twin.shape[::-1] == parameter.shape and torch.equal(twin.T, parameter):
            return twin.grad.T
    return None


def main() -> None:
    """Compare all and print a table."""
    parser = study_parser("benchmarks.to_torch_gradients", __doc__)
    parser.add_argument("names", nargs="*", default=NAMES)
    names = parser.parse_args().names
    torch.set_num_threads(1)
    print("| model | output | gradients | parameters matched |\n|---|---:|---:|---:|")
    for name in names:
        agreement = compare(name)
        matched = f"{agreement.matched} of {agreement.parameters}"
        print(f"| {name} | {agreement.output:.1e} | {agreement.gradient:.1e} | {matched} |", flush=True)


if __name__ == "__main__":
    main()
