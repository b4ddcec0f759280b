"""Sums of products: MatMul, Gemm, Einsum, all of them one equation."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import combinations

from prunegraph.analysis.axes import Expr, Ref
from prunegraph.analysis.registry import axis_rule
from prunegraph.analysis.relations import AxisRule, CannotAnalyze, Contraction, NodeView, Reduce, Reduction
from prunegraph.analysis.rules.elementwise import broadcast

Labels = list[str]


def _labels(side: str, rank: int) -> Labels:
    """`... i k` with rank 4 is `[-2, -1, i, k]`: ellipsis axes are numbered from the right, as broadcasting does."""
    names = side.split()
    if "..." not in names:
        return names
    at = names.index("...")
    extra = rank - (len(names) - 1)
    return names[:at] + [str(k - extra) for k in range(extra)] + names[at + 1 :]


def equation(node: NodeView, text: str, inputs: Sequence[int] = (0, 1)) -> AxisRule:
    """Relate axes as `... i k, ... k j -> ... i j` says; labels that the output lacks are summed.

    Raises:
        CannotAnalyze: the equation does not fit the ranks of the operands.
    """
    left, _, right = text.partition("->")
    operands = [node.input(index) for index in inputs]
    labelled = [
        list(zip(_labels(side, len(axes)), axes, strict=True))
        for side, axes in zip(left.split(","), operands, strict=True)
        if len(_labels(side, len(axes))) == len(axes)
    ]
    out = node.output()
    names = _labels(right, len(out))
    if len(labelled) != len(operands) or len(names) != len(out):
        raise CannotAnalyze(f"the equation {text!r} does not fit the ranks")
    target = dict(zip(names, out, strict=True))

    equal: list[tuple[Expr, Expr]] = []
    reduces: list[Reduce] = []
    first: dict[str, Ref] = {}
    for operand in labelled:
        for name, ref in operand:
            if node.one(ref) and not (name in target and node.one(target[name])):
                continue  # broadcasts
            if name in target:
                equal.append((ref, target[name]))
            else:
                reduces.append(Reduce(ref, Reduction.SUM))
                equal.append((ref, first.setdefault(name, ref)))
    rule = AxisRule(equal=tuple((a, b) for a, b in equal if a != b), reduces=tuple(reduces))
    pairs = combinations([(index, dict(operand)) for index, operand in zip(inputs, labelled, strict=True)], 2)
    return rule + AxisRule(contractions=tuple(_contraction(target, *first, *second) for first, second in pairs))


def _contraction(target: dict[str, Ref], i: int, a: dict[str, Ref], j: int, b: dict[str, Ref]) -> Contraction:
    summed = [name for name in a if name in b and name not in target]
    batch = [name for name in a if name in b and name in target]
    return Contraction(
        operands=(i, j),
        batch=tuple(side[name] for name in batch for side in (a, b)),
        summed=tuple(side[name] for name in summed for side in (a, b)),
        left=tuple(ref for name, ref in a.items() if name not in b),
        right=tuple(ref for name, ref in b.items() if name not in a),
        macs=(*target.values(), *(a[name] for name in summed)),
    )


@axis_rule("MatMul", contracts=True, linear=True, parameters=(0, 1))
def matmul(node: NodeView) -> AxisRule:
    """`... i k, ... k j -> ... i j`, with vectors on either side."""
    left = "k" if len(node.input(0)) == 1 else "... i k"
    right = "k" if len(node.input(1)) == 1 else "... k j"
    out = " ".join(["..."] + ["i"] * ("i" in left) + ["j"] * ("j" in right))
    return equation(node, f"{left}, {right} -> {out}")


@axis_rule("Gemm", contracts=True, linear=True, bias=2, parameters=(1, 2))
def gemm(node: NodeView) -> AxisRule:
    """`i k, k j -> i j` with either side transposed; the bias broadcasts to the output."""
    left = "k i" if node.attr("transA", 0) else "i k"
    right = "j k" if node.attr("transB", 0) else "k j"
    rule = equation(node, f"{left}, {right} -> i j")
    bias = node.optional_input(2)
    if bias is None:
        return rule
    return rule + broadcast(bias, node.output())


@axis_rule("Einsum", contracts=True, linear=True)
def einsum(node: NodeView) -> AxisRule:
    """The equation of the node itself."""
    text = str(node.attr("equation")).replace(" ", "")
    if "->" not in text:
        letters = text.replace(",", "").replace(".", "")
        text += (
            "->" + ("..." if "..." in text else "") + "".join(c for c in sorted(set(letters)) if letters.count(c) == 1)
        )
    spaced = " ".join(text.replace("...", "~").replace("->", ">")).replace("~", "...").replace(">", "->")
    return equation(node, spaced, range(len(node.inputs)))
