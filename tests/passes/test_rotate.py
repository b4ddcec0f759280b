"""Rotate: the basis loses the tail of the singular values and nothing else, and a turned model computes what it did."""

from __future__ import annotations

import functools
import json
import re
from collections.abc import Callable
from dataclasses import replace

import numpy as np
import onnx_ir as ir
import pytest

from prunegraph.analysis.selection import Selection
from prunegraph.errors import UsageError
from prunegraph.observe.stream import Data, observe
from prunegraph.observe.text import Batch
from prunegraph.passes.prove.verify import verify
from prunegraph.passes.rewrite.cleanup import cleanup
from prunegraph.passes.rewrite.remove_groups import remove_whole_groups
from prunegraph.passes.rotate import (
    Energy,
    Rotated,
    from_plan,
    reasons,
    rotate_as_planned,
    rotate_groups,
    rotation_error,
    to_plan,
    tolerance,
)
from prunegraph.passes.rotate.basis import (
    centred,
    compared_basis,
    inverse_transposed,
    orthogonal_basis,
    read_basis,
)
from prunegraph.passes.rotate.moments import HeadMoments
from prunegraph.passes.rotate.plan import CONDITION
from prunegraph.passes.rotate.rotate import Turned, places, rotated, rotation
from prunegraph.passes.rotate.sites import Stays, Turn, sites
from prunegraph.passes.score import Context
from prunegraph.runtime.session import open_session, run
from tests.analysis.golden import read
from tests.graphs import fused
from tests.graphs.attention import E, attend, finish, heads, merge, stem
from tests.graphs.builder import Builder, linear
from tests.graphs.skeleton import load_skeleton
from tests.graphs.small import GRAPHS, Analysed, analysed_model

ROUNDING = 1e-5
"""Largest relative difference between a model and what it is when turned, in float32."""

FUSED = {
    make.__name__: make
    for make in (
        fused.attention,
        fused.attention_bias,
        fused.multi_head,
        fused.multi_head_cross,
        fused.onnx_attention,
        fused.onnx_attention_4d,
        fused.onnx_attention_gqa,
        fused.fused_matmul,
        fused.fused_gemm,
    )
}
ZOO = ("bart", "cait", "deberta_v2", "gpt2", "gptj", "longt5", "maxvit", "pvt_v2", "swin_legacy", "xcit")


@functools.cache
def model_named(name: str) -> Analysed:
    if name.startswith("zoo_"):
        return analysed_model(load_skeleton(name))
    return analysed_model({**GRAPHS, **FUSED}[name]())


def turns_of(analyzed: Analysed) -> list[Turn]:
    return [site for site in sites(analyzed.normalized.graph, analyzed.analysis) if isinstance(site, Turn)]


def moments(rng: np.random.Generator, d: int, n: int = 50) -> tuple[np.ndarray, np.ndarray]:
    rows = rng.normal(size=(n, d)) @ rng.normal(size=(d, d))
    return rows, rows.T @ rows


# ---- the basis ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kept", [1, 3, 6])
def test_the_error_of_the_scores_is_the_tail_of_the_singular_values(kept: int) -> None:
    rng = np.random.default_rng(0)
    (q, of_q), (k, of_k) = moments(rng, 6), moments(rng, 6, 40)
    basis = compared_basis(of_q, of_k, ridge=0)
    other = inverse_transposed(basis.matrix)
    scores = (q @ basis.matrix)[:, :kept] @ (k @ other)[:, :kept].T
    lost = np.linalg.norm(q @ k.T - scores) ** 2
    singular = np.linalg.svd(q @ k.T, compute_uv=False)[:6]
    assert np.isclose(lost, np.sum(singular[kept:] ** 2), rtol=1e-8, atol=1e-8 * singular[0] ** 2)
    assert np.allclose(basis.energy, singular**2, rtol=1e-8)


@pytest.mark.parametrize("kept", [1, 3, 6])
def test_the_error_of_what_is_read_is_the_tail_of_the_singular_values(kept: int) -> None:
    rng = np.random.default_rng(1)
    c, of_c = moments(rng, 6)
    w = rng.normal(size=(6, 9))
    basis = read_basis(of_c, w, ridge=0)
    turned = np.linalg.solve(basis.matrix, w)
    lost = np.linalg.norm(c @ w - (c @ basis.matrix)[:, :kept] @ turned[:kept]) ** 2
    singular = np.linalg.svd(c @ w, compute_uv=False)[:6]
    assert np.isclose(lost, np.sum(singular[kept:] ** 2), rtol=1e-8, atol=1e-8 * singular[0] ** 2)


def test_a_basis_that_keeps_lengths_is_the_best_one_where_both_sides_have_the_same_directions() -> None:
    rng = np.random.default_rng(8)
    turn = np.linalg.qr(rng.normal(size=(5, 5)))[0]
    left, right = ((turn * rng.uniform(0.1, 2, 5)) @ turn.T for _ in range(2))
    basis, best = orthogonal_basis(left, right), compared_basis(left, right)
    assert np.allclose(basis.matrix.T @ basis.matrix, np.eye(5), atol=1e-12)
    assert np.allclose(basis.energy, best.energy, rtol=1e-4)
    mixed = orthogonal_basis(moments(rng, 5)[1], moments(rng, 5)[1])
    assert np.allclose(mixed.matrix.T @ mixed.matrix, np.eye(5), atol=1e-12) and (np.diff(mixed.energy) <= 0).all()


def test_a_choice_of_coordinates_never_loses_less() -> None:
    rng = np.random.default_rng(2)
    (q, of_q), (k, of_k) = moments(rng, 5), moments(rng, 5)
    tail = compared_basis(of_q, of_k).energy[3:].sum()
    for _ in range(10):
        keep = rng.permutation(5)[:3]
        assert np.linalg.norm(q @ k.T - q[:, keep] @ k[:, keep].T) ** 2 > tail


@pytest.mark.parametrize("dead", ["queries", "keys", "both", "all", "nothing read"])
def test_dims_that_carry_nothing_go_first_and_stay_invertible(dead: str) -> None:
    rng = np.random.default_rng(3)
    _, of_q = moments(rng, 4)
    _, of_k = moments(rng, 4)
    for name, each in (("queries", of_q), ("keys", of_k)):
        if dead in (name, "both"):
            each[1], each[:, 1] = 0, 0
        if dead == "all":
            each[:] = 0
    basis = read_basis(of_q, np.zeros((4, 2))) if dead == "nothing read" else compared_basis(of_q, of_k)
    assert np.isfinite(basis.matrix).all()
    assert np.allclose(basis.matrix @ inverse_transposed(basis.matrix).T, np.eye(4), atol=1e-9)
    assert (np.diff(basis.energy) <= 1e-9 * basis.energy[0] + 1e-30).all()
    if dead in ("queries", "keys", "both"):
        assert basis.energy[3] < 1e-5 * basis.energy[2]


@pytest.mark.parametrize("span", [1e-3, 1e-8, 1e-16])
def test_whatever_was_seen_gives_matrices_that_a_plan_takes(span: float) -> None:
    rng = np.random.default_rng(7)
    for _ in range(20):
        scales = [np.diag(span ** rng.uniform(0, 1, 8)) for _ in range(2)]
        turns = [np.linalg.qr(rng.normal(size=(8, 8)))[0] for _ in range(2)]
        left, right = (turn @ scale @ turn.T for turn, scale in zip(turns, scales, strict=True))
        for basis in (compared_basis(left, right), read_basis(left, scales[1] @ turns[1])):
            stored = basis.matrix.astype(np.float32).astype(np.float64)
            assert np.linalg.cond(stored) < CONDITION
            assert np.allclose(stored @ inverse_transposed(stored).T, np.eye(8), atol=1e-8)


def test_centring_is_that_of_the_rows() -> None:
    rng = np.random.default_rng(4)
    rows = rng.normal(size=(30, 4)) + 3
    gone = rows - rows.mean(axis=0)
    assert np.allclose(centred(rows.T @ rows, rows.sum(axis=0), 30), gone.T @ gone)


# ---- which groups ---------------------------------------------------------------------------------------------------


def turns_or_why(analyzed: Analysed) -> dict[str, str]:
    """By group "turns", or why not."""
    every = sites(analyzed.normalized.graph, analyzed.analysis)
    return {site.group.id: site.reason if isinstance(site, Stays) else "turns" for site in every}


ROTATED = "scales it by something that varies along it"


@pytest.mark.parametrize(
    ("name", "group", "what"),
    [
        ("mha", "qk_dim.0", "turns"),
        ("fused_qkv", "v_dim.0", "turns"),
        ("packed_h_3d", "qk_dim.0", "turns"),
        ("gqa", "qk_dim.0", "turns"),
        ("einsum_attention", "qk_dim.0", "turns"),
        ("window_attention", "qk_dim.0", "turns"),
        ("shared_layers", "qk_dim.0", "turns"),
        ("padded_to_blocks", "v_dim.0", "turns"),
        ("rope_half", "qk_dim.0", ROTATED),
        ("rope_half", "v_dim.0", "turns"),
        ("rope_partial", "qk_dim.1", "turns"),
        ("gqa_rope", "qk_dim.0", ROTATED),
        ("norm_of_heads", "qk_dim.0", "LayerNormalization"),
        ("norm_after_merging", "v_dim.0", "LayerNormalization"),
        ("channel_attention", "v_dim.0", "Div) scales it by something that varies"),
        ("gram", "v_dim.0", "Relu"),
        ("multi_head_cross", "qk_dim.0", "turns"),
        ("fused_gemm", "qk_dim.0", "turns"),
        ("zoo_levit", "qk_dim.0", "BatchNormalization"),
        ("zoo_deberta_v2", "qk_dim.0", "it is both compared and read by a weight"),
        ("zoo_clip", "qk_dim.2", "Pow"),
    ],
)
def test_whether_a_group_may_turn_follows_from_the_graph(name: str, group: str, what: str) -> None:
    assert what in turns_or_why(model_named(name))[group]


def _layer(change: Callable[[Builder, str, str, str], tuple[str, str, str]], opset: int = 17) -> Analysed:
    g = Builder("changed", opset)
    h = stem(g)
    q, k, v = (heads(g, linear(g, h, part, E, 12)) for part in "qkv")
    return analysed_model(finish(g, g("Add", h, merge(g, attend(g, *change(g, q, k, v)), "o"))))


REFUSED = {
    "a gain": (lambda g, q, k, v: (g("Mul", q, g.weight("gain", 4, scale=1.0)), k, v), "qk_dim.0", ROTATED),
    "a shift of all": (lambda g, q, k, v: (g("Add", q, 0.5), k, v), "qk_dim.0", "brings in something"),
    "a square": (lambda g, q, k, v: (g("Mul", q, q), k, v), "qk_dim.0", ROTATED),
    "a function": (lambda g, q, k, v: (q, k, g("Tanh", v)), "v_dim.0", "Tanh"),
    "integers": (lambda g, q, k, v: (q, k, g("Cast", g("Cast", v, to=6), to=1)), "v_dim.0", "integers"),
    "one side from both": (lambda g, q, k, v: (g("Add", q, k), k, v), "qk_dim.0", "both sides"),
    "values compared": (lambda g, q, k, v: (q, v, v), "qk_dim.0", "both compared and read"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_is_not_linear_along_the_dim_is_refused(name: str) -> None:
    change, group, why = REFUSED[name]
    assert why in turns_or_why(_layer(change))[group]


ALLOWED = {
    "a scale a head": lambda g, q, k, v: (g("Mul", q, g.weight("temperature", 3, 1, 1, scale=1.0)), k, v),
    "a sign": lambda g, q, k, v: (g("Neg", q), k, g("Div", v, 3.0)),
    "a shift along it": lambda g, q, k, v: (q, g("Add", k, g.weight("shift", 3, 1, 4)), v),
    "a gate a token": lambda g, q, k, v: (q, k, g("Mul", v, g("Sigmoid", g("ReduceMax", q, axes=[3], keepdims=1)))),
}


@pytest.mark.parametrize("name", ALLOWED)
def test_what_is_linear_along_the_dim_is_not(name: str) -> None:
    analyzed = _layer(ALLOWED[name])
    if name == "a gate a token":
        assert "ReduceMax" in turns_or_why(analyzed)["qk_dim.0"]
        assert turns_or_why(analyzed)["v_dim.0"] == "turns"
    else:
        assert set(turns_or_why(analyzed).values()) == {"turns"}
    check(analyzed, 0)


def _by_rms(gain: np.ndarray) -> Callable[[Builder, str, str, str], tuple[str, str, str]]:
    def change(g: Builder, q: str, k: str, v: str) -> tuple[str, str, str]:
        q, k = (
            g("RMSNormalization", part, g.const(f"gain_{n}", gain * (n + 1)), axis=-1) for n, part in enumerate((q, k))
        )
        return q, k, v

    return change


def _by_length(g: Builder, q: str, k: str, v: str) -> tuple[str, str, str]:
    q, k = (g("Div", part, g("ReduceL2", part, axes=[3])) for part in (q, k))
    return q, k, v


NORMED = {"one gain": (_by_rms(np.full(4, 0.7, dtype=np.float32)), 23), "no gain": (_by_length, 17)}


@pytest.mark.parametrize("name", NORMED)
def test_a_norm_over_the_dims_of_a_head_leaves_bases_that_keep_lengths(name: str) -> None:
    analyzed = _layer(*NORMED[name])
    turns = {turn.group.kind: turn for turn in turns_of(analyzed)}
    assert [[part.orthogonal for part in turns[kind].parts] for kind in ("qk_dim", "v_dim")] == [[True], [False]]
    check(analyzed, 0)
    for _, moments_model in ((None, None), gathered(analyzed, DATA)):
        how = rotation(analyzed.normalized, list(turns.values()), moments_model)
        (matrices,) = how[turns["qk_dim"].group.id].matrices
        assert np.allclose(matrices @ np.swapaxes(matrices, -1, -2), np.eye(4), atol=1e-6)
    stretched = {name: replace(each, matrices=tuple(1.1 * m for m in each.matrices)) for name, each in how.items()}
    with pytest.raises(UsageError, match="does not keep lengths"):
        rotate_as_planned(analyzed.normalized, analyzed.analysis, stretched)


def test_a_norm_with_a_gain_that_varies_is_refused() -> None:
    gain = np.array([1, 1, 1, 2], dtype=np.float32)
    assert "RMSNormalization) scales it by something that varies" in turns_or_why(_layer(_by_rms(gain), 23))["qk_dim.0"]


def test_lengths_of_other_axes_are_refused() -> None:
    def change(g: Builder, q: str, k: str, v: str) -> tuple[str, str, str]:
        return g("Div", q, g("ReduceL2", q, axes=[2])), k, v

    assert turns_or_why(_layer(change))["qk_dim.0"] != "turns"


def test_one_number_along_the_dim_is_a_scale() -> None:
    analyzed = _layer(lambda g, q, k, v: (g("Mul", q, g.const("gain", np.full(4, 3, dtype=np.float32))), k, v))
    assert turns_or_why(analyzed)["qk_dim.0"] == "turns"
    check(analyzed, 1)


# ---- the law --------------------------------------------------------------------------------------------------------


def random_bases(turns: list[Turn], rng: np.random.Generator) -> dict[str, Turned]:
    """Any matrices at all, not far from orthogonal."""
    outputs_model = {}
    for turn in turns:
        rows, d = int(np.prod(turn.group.rows)), turn.group.units
        drawn = [np.linalg.qr(rng.normal(size=(rows, d, d)))[0] for _ in turn.parts]
        drawn = [
            each if part.orthogonal else each * rng.uniform(0.8, 1.25, d)
            for each, part in zip(drawn, turn.parts, strict=True)
        ]
        energy = np.ones(turn.group.shape)
        outputs_model[turn.group.id] = Turned(tuple(each.astype(np.float32) for each in drawn), energy, by_data=False)
    return outputs_model


def check(analyzed: Analysed, seed: int, tolerance: float = ROUNDING) -> None:
    """Turned by any bases the model is what it was, and slim it is what it is with these dims masked."""
    rng = np.random.default_rng(seed)
    turns = turns_of(analyzed)
    turned = rotated(analyzed.normalized, turns, random_bases(turns, rng))
    keep = {}
    for turn in turns:
        count = int(rng.integers(turn.group.least, turn.group.units))
        drawn = [rng.permutation(turn.group.units) for _ in range(int(np.prod(turn.group.rows)))]
        keep[turn.group.id] = (np.array(drawn) < count).reshape(turn.group.shape)
    solution = analyzed.analysis.solution
    keeps = Selection(keep).keeps(analyzed.analysis.groups)
    emptied = remove_whole_groups(turned, solution, keeps)
    proof = verify(
        analyzed.normalized, turned, cleanup(emptied.model, solution, emptied.lengths), analyzed.analysis, keeps
    )
    assert proof.normalize_error < tolerance
    assert proof.max_rel_error < tolerance
    assert proof.moved > 1e-3
    changed = [name for name, value in analyzed.normalized.graph.initializers.items() if differs(value, turned)]
    assert changed
    for a, b in zip(analyzed.normalized.graph, turned.graph, strict=True):
        assert (a.op_type, [v and v.name for v in a.inputs]) == (b.op_type, [v and v.name for v in b.inputs])


def differs(value: ir.Value, other: ir.Model) -> bool:
    a, b = value.const_value, other.graph.initializers[value.name or ""].const_value
    assert a is not None and b is not None and a.shape == b.shape and a.dtype == b.dtype
    return not np.array_equal(a.numpy(), b.numpy())


STAYING = ("channel_attention", "gram", "rows_multiplied")
TURNING = [
    name
    for name, groups in read().items()
    if re.search(r"^(qk_dim|v_dim)\.", groups, re.MULTILINE) and name not in (*STAYING, "half")
]


@pytest.mark.parametrize("name", STAYING)
def test_what_is_no_head_does_not_turn(name: str) -> None:
    assert not turns_of(model_named(name))


@pytest.mark.slow
@pytest.mark.parametrize("name", [*TURNING, *FUSED, *(f"zoo_{each}" for each in ZOO)])
def test_a_turned_model_is_the_original_and_slim_it_is_the_masked_one(name: str) -> None:
    assert turns_of(model_named(name))
    check(model_named(name), sum(map(ord, name)))


def test_the_table_of_graphs_has_turning_ones() -> None:
    assert len(TURNING) > 30


def test_float16_is_turned_within_its_own_rounding() -> None:
    check(model_named("half"), 0, tolerance=16 * float(np.finfo(np.float16).eps))


def test_all_dims_kept_in_the_basis_of_the_weights_change_nothing() -> None:
    analyzed = model_named("transformer_block")
    turns = turns_of(analyzed)
    how = rotation(analyzed.normalized, turns)
    assert not any(turned.by_data for turned in how.values())
    turned = rotated(analyzed.normalized, turns, how)
    data = {"x": np.random.default_rng(0).normal(size=(2, 9, 7)).astype(np.float32)}
    a, b = (outputs(model, data) for model in (analyzed.normalized, turned))
    assert np.abs(a[0] - b[0]).max() < ROUNDING * np.abs(a[0]).max()


def outputs(model: ir.Model, data: dict[str, np.ndarray], *names: str) -> list[np.ndarray]:
    twin = model.clone()
    if names:
        by_name = {value.name: value for node in twin.graph for value in node.outputs}
        twin.graph.outputs[:] = [by_name[name] for name in names]
    with open_session(twin) as session:
        return run(session, data)


# ---- from data ------------------------------------------------------------------------------------------------------


def gathered(
    analyzed: Analysed, rows: np.ndarray, batch: int = 4, **more: np.ndarray
) -> tuple[list[Turn], HeadMoments]:
    turns = turns_of(analyzed)
    moments_model = HeadMoments(places(turns))
    observe(
        analyzed.normalized,
        Data({"x": rows, **more}, batch_size=batch).opened().inputs(analyzed.model),
        [moments_model],
    )
    return turns, moments_model


DATA = np.random.default_rng(5).normal(size=(10, 6, 7)).astype(np.float32)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["mha", "fused_qkv", "gqa", "folded_heads"])
def test_scores_lose_the_tail_of_their_singular_values(name: str) -> None:
    """The scores of the slim model, before anything is added to them, against those of the original."""
    analyzed = model_named(name)
    turns, moments_model = gathered(analyzed, DATA)
    turn = next(t for t in turns if t.group.kind == "qk_dim")
    (part,) = turn.parts
    (pair,) = part.compared
    assert pair.keys  # the Softmax is found, so that keys are centred
    how = rotation(analyzed.normalized, [turn], moments_model)
    assert how[turn.group.id].by_data
    turned = rotated(analyzed.normalized, [turn], how)
    names = (pair.left.value, pair.right.value)
    d, kept = turn.group.units, turn.group.units // 2
    before, after = (outputs(model, {"x": DATA}, *names) for model in (analyzed.normalized, turned))
    compared = [pair.left, pair.right]
    for row in range(int(np.prod(turn.group.rows))):
        old, new = (
            [rows_of(side, array, row) for side, array in zip(compared, each, strict=True)] for each in (before, after)
        )
        keys = names.index(pair.keys.value)
        shift, turned_shift = old[keys].mean(axis=0), new[keys].mean(axis=0)
        old[keys], new[keys] = old[keys] - shift, new[keys] - turned_shift
        lost = np.linalg.norm(old[0] @ old[1].T - new[0][:, :kept] @ new[1][:, :kept].T)
        singular = np.linalg.svd(old[0] @ old[1].T, compute_uv=False)[:d]
        assert np.isclose(lost, np.linalg.norm(singular[kept:]), rtol=2e-3)
        share = singular**2 / np.sum(singular**2)
        assert np.allclose(how[turn.group.id].energy.reshape(-1, d)[row], share, rtol=1e-3, atol=1e-6)


def rows_of(value: object, array: np.ndarray, row: int) -> np.ndarray:
    return np.concatenate([block for r, block in value.layout.blocks(array) if r == row])  # type: ignore[attr-defined]


def test_moments_of_parts_of_the_data_add_up() -> None:
    analyzed = model_named("gqa")
    _, whole = gathered(analyzed, DATA)
    _, first = gathered(analyzed, DATA[:6], batch=2)
    _, second = gathered(analyzed, DATA[6:], batch=3)
    first.merge(second)
    again = HeadMoments(list(whole.places.values()))
    again.restore(whole.state())
    for name, layout in whole.places.values():
        np.testing.assert_allclose(first.sums(name, layout), whole.sums(name, layout), rtol=1e-5, atol=1e-5)
        np.testing.assert_array_equal(again.sums(name, layout), whole.sums(name, layout))


def test_an_op_that_adds_a_bias_inside_is_judged_with_it() -> None:
    analyzed = model_named("multi_head")
    rows = np.random.default_rng(6).normal(size=(8, 6, 7)).astype(np.float32)
    mask = np.ones((8, 6), dtype=np.int32)
    turns, moments_model = gathered(analyzed, rows, mask=mask)
    turn = next(t for t in turns if t.group.kind == "qk_dim")
    (pair,) = turn.parts[0].compared
    assert pair.biases[0] is not None and pair.biases[1] is not None
    energy = rotation(analyzed.normalized, [turn], moments_model)[turn.group.id].energy
    values = outputs(analyzed.normalized, {"x": rows, "mask": mask}, pair.left.value, pair.right.value)
    initializers = analyzed.normalized.graph.initializers
    bias = [initializers[place.value].const_value.numpy() for place in pair.biases]
    for row in range(turn.group.rows[0]):
        sides = []
        for side, place in enumerate((pair.left, pair.right)):
            (shift,) = (b[0] for r, b in pair.biases[side].layout.blocks(bias[side]) if r == row)
            z = rows_of(place, values[side], row).astype(np.float64) + shift
            sides.append(z - z.mean(axis=0) if place is pair.keys else z)
        singular = np.linalg.svd(sides[0] @ sides[1].T, compute_uv=False)[: turn.group.units]
        np.testing.assert_allclose(energy[row], singular**2 / np.sum(singular**2), rtol=1e-3, atol=1e-6)


@pytest.mark.parametrize("name", ["attention", "attention_bias"])
def test_an_op_that_makes_queries_and_keys_inside_is_judged_by_what_it_is_given(name: str) -> None:
    analyzed = model_named(name)
    rows = np.random.default_rng(6).normal(size=(8, 6, 7)).astype(np.float32)
    others = {"attention": {"mask": np.ones((8, 6), dtype=np.int32)}, "attention_bias": {"far": np.zeros((6, 6), "f4")}}
    turns = turns_of(analyzed)
    moments_model = HeadMoments(places(turns))
    (x,) = {place.value for turn in turns for part in turn.parts for pair in part.compared for place in (pair.left,)}
    (samples,) = outputs(analyzed.normalized, {"x": rows, **others[name]}, x)
    values_read = [place.value for turn in turns for part in turn.parts for place in part.read]
    values = outputs(analyzed.normalized, {"x": rows, **others[name]}, *values_read)
    moments_model.update(
        Batch({"x": rows}, tuple(range(8)), None), {x: samples, **dict(zip(values_read, values, strict=True))}
    )  # type: ignore[arg-type]
    turn = next(t for t in turns if t.group.kind == "qk_dim")
    how = rotation(analyzed.normalized, [turn], moments_model)[turn.group.id]
    assert how.by_data
    packed, bias = (analyzed.normalized.graph.initializers[each].const_value.numpy() for each in ("w_qkv", "b_qkv"))
    product = samples.reshape(-1, E).astype(np.float64) @ packed + bias
    d = turn.group.units
    for row in range(turn.group.rows[0]):
        q, k = (product[:, start + row * d : start + (row + 1) * d] for start in (0, turn.group.rows[0] * d))
        singular = np.linalg.svd(q @ (k - k.mean(axis=0)).T, compute_uv=False)[:d]
        np.testing.assert_allclose(how.energy[row], singular**2 / np.sum(singular**2), rtol=1e-3, atol=1e-6)


def test_padding_does_not_count() -> None:
    analyzed = model_named("mha")
    turns = turns_of(analyzed)
    names = list(dict.fromkeys(name for name, _ in places(turns)))
    values = dict(zip(names, outputs(analyzed.normalized, {"x": DATA}, *names), strict=True))
    mask = np.ones((10, 6), dtype=bool)
    mask[:, 4:] = False
    padded, short = HeadMoments(places(turns)), HeadMoments(places(turns))
    padded.update(Batch({"x": DATA}, tuple(range(10)), mask), values)  # type: ignore[arg-type]
    cut = {
        name: np.delete(array, [4, 5], axis=next(k for k, n in enumerate(array.shape) if n == 6))
        for name, array in values.items()
    }
    short.update(Batch({"x": DATA[:, :4]}, tuple(range(10)), mask[:, :4]), cut)  # type: ignore[arg-type]
    for name, where in padded.places.values():
        np.testing.assert_allclose(padded.sums(name, where), short.sums(name, where), rtol=1e-6, atol=1e-6)


def test_a_graph_without_heads_has_nothing_to_turn() -> None:
    assert sites(model_named("residual_bn").normalized.graph, model_named("residual_bn").analysis) == []


# ---- the pass and its plan ------------------------------------------------------------------------------------------


def planned(analyzed: Analysed) -> tuple[Rotated, dict[str, Turned]]:
    rotated_model = rotate_groups(
        analyzed.normalized, analyzed.analysis, dict.fromkeys(turn.group.id for turn in turns_of(analyzed))
    )
    return rotated_model, from_plan(json.loads(json.dumps({"rotate": to_plan(rotated_model.rotation)})))


@pytest.mark.parametrize("name", ["fused_qkv", "gqa", "multi_head_cross", "half"])
def test_a_plan_gives_the_same_weights_again(name: str) -> None:
    analyzed = model_named(name)
    rotated_model, how = planned(analyzed)
    again = rotate_as_planned(analyzed.normalized, analyzed.analysis, how).model
    for key, value in rotated_model.model.graph.initializers.items():
        assert value.const_value is not None
        np.testing.assert_array_equal(value.const_value.numpy(), again.graph.initializers[key].const_value.numpy())
    assert rotation_error(analyzed.model, again, analyzed.analysis) <= tolerance(analyzed.normalized, again)


def test_sixteen_bits_are_allowed_more() -> None:
    for name, allowed in (("mha", 1e-4), ("half", 16 * 2**-10)):
        analyzed = model_named(name)
        assert tolerance(analyzed.normalized, planned(analyzed)[0].model) == allowed
        assert tolerance(analyzed.normalized, analyzed.normalized) == 1e-4


def test_groups_that_may_not_turn_stay_and_say_why() -> None:
    analyzed = model_named("rope_half")
    rotated_model = rotate_groups(analyzed.normalized, analyzed.analysis, dict.fromkeys(["qk_dim.0", "v_dim.0"]))
    assert list(rotated_model.rotation) == ["v_dim.0"]
    assert ROTATED in rotated_model.reasons["qk_dim.0"]
    assert rotated_model.to_dict()["groups"] == {"v_dim.0": "weights"}
    alone = rotate_groups(analyzed.normalized, analyzed.analysis, {"qk_dim.0": None})
    assert alone.model is analyzed.normalized and not alone.rotation
    assert reasons(analyzed.normalized.graph, analyzed.analysis)["v_dim.0"] == ""


def of_values(change: Callable[[np.ndarray], np.ndarray]) -> Callable[[dict[str, Turned]], dict[str, Turned]]:
    def changed(how: dict[str, Turned]) -> dict[str, Turned]:
        return {"v_dim.0": replace(how["v_dim.0"], matrices=(change(how["v_dim.0"].matrices[0]),))}

    return changed


TAMPERED = {
    "a group that may not": lambda how: {"qk_dim.0": how["v_dim.0"]},
    "a group that is not there": lambda how: {"v_dim.7": how["v_dim.0"]},
    "another shape": of_values(lambda matrices: matrices[:, :4, :4]),
    "no inverse": of_values(lambda matrices: 0 * matrices),
    "not finite": of_values(lambda matrices: matrices + np.inf),
}


@pytest.mark.parametrize("name", TAMPERED)
def test_a_plan_that_cannot_be_is_refused(name: str) -> None:
    analyzed = model_named("rope_half")
    _, how = planned(analyzed)
    with pytest.raises(UsageError, match="plan"):
        rotate_as_planned(analyzed.normalized, analyzed.analysis, TAMPERED[name](how))


@pytest.mark.parametrize("entry", [3, {"a": 3}, {"a": {}}, {"a": {"matrices": [{"shape": [1], "float32": "?"}]}}])
def test_a_plan_that_is_none_is_refused(entry: object) -> None:
    with pytest.raises(UsageError, match="does not say how the model was turned"):
        from_plan({"rotate": entry})
    assert from_plan({}) == {}


def test_dims_of_a_turned_group_go_by_their_energy() -> None:
    analyzed = model_named("mha")
    rotated_model, _ = planned(analyzed)
    group = analyzed.analysis.group("qk_dim.0")
    scores = Energy(rotated_model.rotation).score(group, Context(analyzed.normalized, analyzed.analysis))
    assert scores.shape == group.shape
    assert (np.diff(scores, axis=-1) <= 0).all()
    assert np.allclose(scores.sum(axis=-1), 1)
