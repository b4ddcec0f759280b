"""A part of the zoo, small and from both exporters: the groups of every architecture, and slim equals masked.

`python -m tests.laws.test_zoo` writes `golden_zoo.txt` and `golden_scopes.txt` anew; read what changed before you
commit it.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import onnx
import onnx_ir as ir
import pytest

from prunegraph.analysis.lengths import Lengths
from prunegraph.analysis.selection import Selection
from prunegraph.analyzed import Analyzed, load_and_analyze
from prunegraph.passes.choose.request import Amount, Scope, scorers_by_kind
from prunegraph.passes.choose.select_units import choose_targets
from prunegraph.result import apply
from tests.graphs.selections import part
from tests.graphs.skeleton import load_skeleton, skeleton_names

pytestmark = pytest.mark.slow

ZOO = [name for name in skeleton_names() if name.startswith("zoo_")]
GOLDEN = Path(__file__).with_name("golden_zoo.txt")
SCOPES = Path(__file__).with_name("golden_scopes.txt")
DECODERS = [
    *("zoo_bloom", "zoo_deepseek_v3", "zoo_gemma", "zoo_gpt2", "zoo_gpt_neox", "zoo_gpt_oss", "zoo_gptj", "zoo_llama"),
    *("zoo_llama_legacy", "zoo_mistral", "zoo_mixtral", "zoo_opt", "zoo_phi3", "zoo_t5"),
]


def read(path: Path = GOLDEN) -> dict[str, str]:
    """Model -> its groups."""
    return dict(line.split(": ", 1) for line in path.read_text(encoding="utf-8").splitlines())


@pytest.fixture(scope="module", params=ZOO)
def named_analysis(request: pytest.FixtureRequest) -> tuple[str, Analyzed]:
    return request.param, load_and_analyze(load_skeleton(request.param))


def census(analyzed: Analyzed) -> str:
    """`2 head(4) + 2 qk_dim(12 x 4) + …`, in the order of the graph."""
    counts = Counter(f"{g.kind}({' x '.join(map(str, (g.units, *g.rows)))})" for g in analyzed.analysis.groups)
    return " + ".join(f"{count} {what}" for what, count in counts.items())


def test_the_groups_are_those_of_the_architecture(named_analysis: tuple[str, Analyzed]) -> None:
    name, analyzed = named_analysis
    assert census(analyzed) == read()[name]


def scopes(analyzed: Analyzed) -> str:
    """`head.0=layer.0.attn …`, in the order of the graph."""
    return " ".join(f"{group.id}={group.scope}" for group in analyzed.analysis.groups)


def test_groups_of_decoders_are_numbered_by_layer_and_bear_the_scope_of_what_makes_them(
    named_analysis: tuple[str, Analyzed],
) -> None:
    """Positions that are rotated for all layers at once decide neither the order nor the scope."""
    name, analyzed = named_analysis
    if name in DECODERS:
        assert scopes(analyzed) == read(SCOPES)[name]


def test_half_of_everything_leaves_two_fifths_of_every_axis(named_analysis: tuple[str, Analyzed]) -> None:
    """Groups and widths of a convolution, or key-value groups and their query heads, do not multiply to a quarter."""
    _, analyzed = named_analysis
    assert min(shares_left(analyzed), default=1) >= 0.4


def shares_left(analyzed: Analyzed) -> Iterator[float]:
    """How much a plain 0.5 leaves of every axis of every weight."""
    analysis = analyzed.analysis
    targets = choose_targets(analysis, analyzed.normalized, Amount(0.5), Scope(), scorers_by_kind(None))
    groups = {group.id: group for group in analysis.groups}
    keep = {
        name: np.broadcast_to(np.arange(groups[name].units) < n, groups[name].shape) for name, n in targets.kept.items()
    }
    lengths = Lengths(analysis.solution, Selection(keep).keeps(analysis.groups))
    for name in dict.fromkeys(place.name for group in analysis.groups for place in group.places):
        for axis in analysis.solution.resolve(name):
            before, after = lengths.both(axis)
            yield after[0] / before[0]


@pytest.mark.parametrize("kinds", ["every kind", "half of the groups"])
def test_slim_equals_the_masked_original(named_analysis: tuple[str, Analyzed], kinds: str) -> None:
    name, analyzed = named_analysis
    rng = np.random.default_rng(sum(map(ord, name + kinds)))
    groups = [g for g in analyzed.analysis.groups if kinds == "every kind" or rng.random() < 0.5]
    result = apply(analyzed, Selection({g.id: part(g, rng) for g in groups}))
    proof = result.report.verify
    assert proof is not None and proof.ok and proof.moved > 1e-3
    onnx.checker.check_model(ir.to_proto(result.ir_model), full_check=True)


if __name__ == "__main__":
    analyses = {name: load_and_analyze(load_skeleton(name)) for name in ZOO}
    GOLDEN.write_text("".join(f"{name}: {census(each)}\n" for name, each in analyses.items()), encoding="utf-8")
    SCOPES.write_text("".join(f"{name}: {scopes(analyses[name])}\n" for name in DECODERS), encoding="utf-8")
