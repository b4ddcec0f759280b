"""Who scores what nobody was asked to score."""

from __future__ import annotations

import numpy as np

import prunegraph as pg
from tests.graphs import attention as graphs_attention
from tests.graphs.builder import Builder, linear

WIDTH, UNITS = 4, 6


def mlp() -> Builder:
    g = Builder("mlp")
    h = g("Relu", linear(g, g.input("x", "B", WIDTH), "up", WIDTH, UNITS))
    g.output(linear(g, h, "down", UNITS, WIDTH), "B", WIDTH)
    return g


def data() -> dict[str, np.ndarray]:
    return {"x": np.random.default_rng(0).normal(size=(20, WIDTH)).astype(np.float32)}


def names_of(model: object, data: object, scorer: object = None) -> dict[str, str]:
    graph = pg.analyze(model)
    return dict(graph.score(scorer, data).names)


def test_with_data_it_is_activation_and_without_magnitude() -> None:
    model = mlp().model()
    assert set(names_of(model, data()).values()) == {"activation"}
    assert set(names_of(model, None).values()) == {"magnitude"}


def test_what_never_fires_goes_first_however_heavy_it_is() -> None:
    g = mlp()
    g.initializers["w_up"][:, 2] = 0
    g.initializers["b_up"][2] = -50
    kept = pg.prune_graph(g.model(), pg.Amount(keep={"ffn": UNITS - 1}), data=data(), after=[]).selection.keep
    assert [bool(stays) for stays in next(iter(kept.values()))] == [unit != 2 for unit in range(UNITS)]


def by_kind(scorer: str | None) -> dict[str, str]:
    graph = pg.analyze(graphs_attention.mha())
    feeds = {"x": np.random.default_rng(1).normal(size=(12, 5, 7)).astype(np.float32)}
    return {graph.group(group).kind: name for group, name in graph.score(scorer, feeds).names.items()}


def test_queries_and_keys_go_by_snp_and_all_else_by_activation() -> None:
    names = by_kind(None)
    assert names.pop("qk_dim") == "snp" and {"head", "v_dim", "hidden"} <= set(names)
    assert set(names.values()) == {"activation"}


def test_kinds_that_a_scorer_is_not_for_go_by_the_same() -> None:
    names = by_kind("obs")
    assert (names["qk_dim"], names["hidden"], names["head"]) == ("snp", "activation", "obs")


def test_a_magnitude_that_is_asked_for_scores() -> None:
    assert set(names_of(mlp().model(), data(), "magnitude").values()) == {"magnitude"}
