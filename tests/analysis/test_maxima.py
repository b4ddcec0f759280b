"""A maximum over units is exact only where a zero among them cannot be the largest."""

from __future__ import annotations

import io

import pytest
from rich.console import Console

from prunegraph.analysis.analyze import Analysis
from prunegraph.cli.explain_view import render
from tests.graphs.builder import Builder
from tests.graphs.small import analysed_model


def extreme(op: str, *before: str) -> Analysis:
    """`op` over seven units, after elementwise ops (and a Transpose) on what a weight makes."""
    g = Builder("extreme")
    x = g.input("x", "batch", 5)
    h = g("MatMul", x, g.weight("w", 5, 7))
    for each in before:
        h = g(each, h, perm=[1, 0]) if each == "Transpose" else g(each, h)
    units = 0 if before.count("Transpose") % 2 else 1
    y = g(op, h, axes=[units], keepdims=0)
    g.output(g("Add", g("MatMul", x, g.weight("v", 5, 1)), g("Unsqueeze", y, [1])), None, 1)
    return analysed_model(g.model()).analysis


@pytest.mark.parametrize(
    ("op", "before", "exact"),
    [
        ("ReduceMax", (), False),
        ("ReduceMax", ("Tanh",), False),
        ("ReduceMax", ("Sigmoid",), False),  # above zero, but zeroing a weight makes a half of it
        ("ReduceMax", ("Relu",), True),
        ("ReduceMax", ("Abs", "Transpose"), True),
        ("ReduceMax", ("Relu", "Neg"), False),
        ("ReduceMin", (), False),
        ("ReduceMin", ("Relu",), False),
        ("ReduceL1", (), True),
    ],
)
def test_a_maximum_is_exact_where_zero_cannot_win(op: str, before: tuple[str, ...], exact: bool) -> None:
    [group] = extreme(op, *before).groups
    assert (group.units, group.exact) == (7, exact)


def test_explain_says_which_node_takes_the_maximum() -> None:
    console = Console(file=io.StringIO(), width=400, highlight=False)
    console.print(render(extreme("ReduceMax")))
    text = console.file.getvalue()  # type: ignore[attr-defined]
    assert "~ inexact: the maximum over this axis is that of what stays, while zeroed units might be larger" in text
    assert "n_reducemax1" in text
