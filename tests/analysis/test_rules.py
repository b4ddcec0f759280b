"""Law 2, the commuting square: `op(shrink x) == shrink(op x)` for every op with an axis rule, and the rule as text."""

from __future__ import annotations

import string
from collections.abc import Iterator

import numpy as np
import onnx_ir as ir
import pytest
from onnx import checker, helper, numpy_helper, shape_inference

from prunegraph.analysis import rules
from prunegraph.analysis.analyze import Analysis, analyze_graph
from prunegraph.analysis.registry import RULES
from prunegraph.analysis.slots import Keep
from prunegraph.passes.normalize import Normalized, normalize
from prunegraph.passes.prove.verify import verify
from prunegraph.passes.rewrite.shrink import shrink
from tests.analysis.rule_cases import BOOL, CASES, FLOAT, Arg, Case
from tests.graphs import fused as graphs_fused
from tests.graphs import other as graphs_other
from tests.graphs import quant as graphs_quant
from tests.graphs.rules import makers

SEEDS = 3

EXEMPT = {
    "SwiGLU": "newer than the oldest onnx that is supported; it is Sigmoid, Mul and Mul",
    "Unique": "the length of what it makes depends on the data; everything is pinned",
}


def one_node(case: Case) -> ir.Model:
    """A model of the one node."""
    names, inputs, tensors = [], [], []
    for k, operand in enumerate(case.operands):
        names.append("" if operand is None else f"x{k}")
        if isinstance(operand, Arg):
            inputs.append(helper.make_tensor_value_info(f"x{k}", operand.dtype, operand.shape))
        elif operand is not None:
            tensors.append(numpy_helper.from_array(operand, f"x{k}"))
    outputs = [helper.make_tensor_value_info(f"y{k}", dtype, None) for k, dtype in enumerate(case.outputs)]
    node = helper.make_node(case.op, names, [value.name for value in outputs], name="node", **case.attributes)
    graph = helper.make_graph([node], case.op, inputs, outputs, tensors)
    proto = helper.make_model(graph, opset_imports=[helper.make_opsetid("", case.opset)], ir_version=10)
    return ir.from_proto(shape_inference.infer_shapes(proto, data_prop=True))


def analysed(case: Case) -> tuple[ir.Model, Normalized, Analysis]:
    """The node with nothing held fixed but by its own rule."""
    model = one_node(case)
    normal = normalize(model)
    return model, normal, analyze_graph(normal.model.graph, normal.facts, allow_io=("*",))


def free(analysis: Analysis) -> list[int]:
    """Every Dim that has a choice, in the order of the values."""
    space = analysis.solution.space
    leaves = (leaf for dims in analysis.solution.axes.values() for dim in dims for leaf in space.leaves(dim))
    return [leaf for leaf in dict.fromkeys(leaves) if not space.pins(leaf) and space.size(leaf)[0] > 1]


def in_words(case: Case, analysis: Analysis) -> str:
    """The axes of operands and outputs as `rule_cases` writes them."""
    solution = analysis.solution
    letters: dict[int, str] = {}

    def name(dim: int) -> str:
        if dim not in choices:
            return str(solution.dim_size(dim)[0])
        return letters.setdefault(dim, string.ascii_lowercase[len(letters)])

    def words(values: Iterator[str]) -> str:
        return ", ".join(" ".join(_wrapped(axis.render(name)) for axis in solution.resolve(value)) for value in values)

    choices = set(free(analysis))
    shown = [k for k, operand in enumerate(case.operands) if operand is not None and not _is_integers(operand)]
    left = words(f"x{k}" for k in shown)
    right = words(f"y{k}" for k in range(len(case.outputs)))
    return f"{left} -> {right}".strip()


def _is_integers(operand: Arg | np.ndarray) -> bool:
    return isinstance(operand, np.ndarray) and operand.dtype.kind == "i"


def _wrapped(text: str) -> str:
    return f"({text})" if "·" in text and "+" not in text else text.replace(" ", "")


def feeds(case: Case, rng: np.random.Generator) -> dict[str, np.ndarray]:
    outputs = {}
    for k, operand in enumerate(case.operands):
        if isinstance(operand, Arg):
            values = rng.uniform(operand.low, operand.high, operand.shape)
            dtype = helper.tensor_dtype_to_np_dtype(operand.dtype)
            outputs[f"x{k}"] = values > 0 if operand.dtype == BOOL else np.floor(values).astype(dtype)
            if operand.dtype == FLOAT:
                outputs[f"x{k}"] = values.astype(np.float32)
    return outputs


def some(dims: list[int], analysis: Analysis, rng: np.random.Generator) -> dict[int, Keep]:
    """Random slots of every free Dim."""
    keeps = {}
    for dim in dims:
        size = analysis.solution.dim_size(dim)[0]
        count = int(rng.integers(1, size))
        keeps[dim] = Keep((), rng.permutation(size) < count, count)
    return keeps


@pytest.mark.parametrize("case", CASES, ids=str)
def test_square(case: Case) -> None:
    model, normal, analysis = analysed(case)
    assert in_words(case, analysis) == case.text
    if case.not_run:
        return
    for seed in range(SEEDS):
        rng = np.random.default_rng(seed)
        keeps = some(free(analysis), analysis, rng)
        slim = shrink(normal.model, analysis.solution, keeps).model
        if all(value.shape is not None for value in slim.graph.outputs):
            checker.check_model(ir.to_proto(slim), full_check=True)
        result = verify(model, normal.model, slim, analysis, keeps, feeds=[feeds(case, rng)])
        assert result.ok and result.max_rel_error < 1e-5, result


def test_every_op_has_a_case() -> None:
    """An op of ai.onnx with a rule has a case here, or a graph among those of fused, quantized or rarer ops."""
    assert rules
    elsewhere = {
        node.op_type
        for module in (graphs_fused, graphs_other, graphs_quant)
        for make in makers(module).values()
        for node in make().graph.node
        if not node.domain
    }
    ops = {op for domain, op in RULES if not domain}
    assert ops - elsewhere - {case.op for case in CASES} == EXEMPT.keys()
