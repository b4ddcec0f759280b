"""How much goes: ratios by layer and pattern, files, presets, kept numbers, budgets; and what is refused."""

from __future__ import annotations

import builtins
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import onnx
import pytest
from typer.testing import CliRunner

from prunegraph import analyze, prune_graph
from prunegraph.analysis.cost import count_macs, count_parameters
from prunegraph.analysis.lengths import Lengths
from prunegraph.analyzed import Analyzed, load_and_analyze
from prunegraph.cli import app
from prunegraph.errors import MissingExtra, NothingToPrune, UsageError
from prunegraph.passes.choose.amounts import presets
from prunegraph.passes.choose.budget import cost
from prunegraph.passes.choose.head_filter import FilterOptions
from prunegraph.passes.choose.rank import even_counts
from prunegraph.passes.choose.request import Amount, Scope
from prunegraph.passes.choose.select_units import in_scope
from prunegraph.passes.choose.targets import Kept, resolve_targets
from prunegraph.passes.score import resolve_scorers
from tests.graphs import vision
from tests.graphs.cli import classifier
from tests.graphs.skeleton import analyzed_skeleton


@pytest.fixture(scope="module")
def analyzed() -> Analyzed:
    """Two blocks: head (2), qk_dim and v_dim (2, 4), ffn (12) each; hidden (8)."""
    return load_and_analyze(classifier())


def kept(analyzed: Analyzed, *, exclude: tuple[str, ...] = (), **amount: Any) -> dict[str, int]:
    """What stays of everything that gets smaller."""
    groups = analyzed.analysis.groups
    among = {group.id for group in groups if in_scope(group, Scope(exclude=exclude))}
    costs = cost(analyzed.analysis, analyzed.normalized)
    targets = resolve_targets(groups, Amount(**amount), resolve_scorers("magnitude"), costs, among)
    assert all(isinstance(target, Kept) for target in targets.values())
    return {name: target.units for name, target in targets.items() if isinstance(target, Kept)}


AMOUNTS: dict[str, tuple[dict[str, Any], dict[str, int]]] = {
    "nothing said": ({}, {"head.0": 1, "head.1": 1, "ffn.0": 6, "ffn.1": 6}),
    "one number": ({"ratio": 0.25}, {"ffn.0": 9, "ffn.1": 9}),
    "one number for some kinds": ({"ratio": 0.25, "kinds": ["v_dim"]}, {"v_dim.0": 3, "v_dim.1": 3}),
    "a kind": ({"ratio": {"ffn": 0.5}}, {"ffn.0": 6, "ffn.1": 6}),
    "a layer each": ({"ratio": {"ffn": [0.5, 0.25]}}, {"ffn.0": 6, "ffn.1": 9}),
    "a layer left whole": ({"ratio": {"ffn": [0, 0.25]}}, {"ffn.1": 9}),
    "an id": ({"ratio": {"ffn.1": 0.5}}, {"ffn.1": 6}),
    "a pattern wins over a kind": ({"ratio": {"ffn.1": 0.25, "ffn": 0.5}}, {"ffn.0": 6, "ffn.1": 9}),
    "a list for a pattern": ({"ratio": {"ffn.*": [0.25, 0.5]}}, {"ffn.0": 9, "ffn.1": 6}),
    "a number kept": ({"keep": {"ffn": 5}}, {"ffn.0": 5, "ffn.1": 5}),
    "numbers kept": ({"keep": {"ffn": [5, 12]}}, {"ffn.0": 5}),
    "kept beside a ratio": ({"ratio": {"ffn": 0.5}, "keep": {"ffn.0": 7}}, {"ffn.0": 7, "ffn.1": 6}),
    "kept beside one number": (
        {"ratio": 0.25, "keep": {"head": 1}},
        {"head.0": 1, "head.1": 1, "ffn.0": 9, "ffn.1": 9},
    ),
    "rounded up": ({"ratio": {"hidden": 0.4, "ffn": 0.5}, "align": 4}, {"ffn.0": 8, "ffn.1": 8}),
    "kept numbers rounded up": (
        {"keep": {"ffn": 5, "head": 1}, "align": 4},
        {"ffn.0": 8, "ffn.1": 8} | {"head.0": 1, "head.1": 1},
    ),
    "ranked across layers, but uniform": (
        {"ratio": {"ffn": 0.5, "head": 0.5}, "rank": "global", "uniform": True},
        {"head.0": 1, "head.1": 1, "ffn.0": 6, "ffn.1": 6},
    ),
    "in every row": ({"ratio": {"qk_dim": 0.6}, "align": 2}, {"qk_dim.0": 2, "qk_dim.1": 2}),
    "never more than there are": ({"ratio": {"ffn": 0.1}, "align": 8}, {}),
    "patterns exclude": ({"ratio": {"ffn": [0.5, 0.25]}, "exclude": ["ffn.0"]}, {"ffn.1": 9}),
}


@pytest.mark.parametrize("case", AMOUNTS)
def test_amounts(case: str, analyzed: Analyzed) -> None:
    options, expected = AMOUNTS[case]
    assert kept(analyzed, **options) == expected


def test_channels_keep_what_kernels_like() -> None:
    """Many channels that a ratio cuts; not those that would stay whole, not given numbers, no other kind."""
    analyzed = analyzed_skeleton("zoo_resnet")
    units = {g.id: g.units for g in analyzed.analysis.groups if g.kind == "channel" and g.exact}
    assert min(units.values()) < 32 <= max(units.values())
    for ratio in (0.27, 0.55):
        by_default, exact = (kept(analyzed, ratio={"channel": ratio}, **align) for align in ({}, {"align": 1}))
        assert by_default != exact
        for name, count in exact.items():
            rounded = -(-count // 8) * 8
            assert by_default[name] == (rounded if 32 <= units[name] and rounded < units[name] else count)
    few = min(units.values())
    assert set(kept(analyzed, keep={"channel": few - 1}).values()) == {few - 1}
    text = analyzed_skeleton("zoo_bert")
    for kind in ("qk_dim", "ffn"):
        assert kept(text, ratio={kind: 0.3}) == kept(text, ratio={kind: 0.3}, align=1) != {}


BAD: dict[str, tuple[dict[str, Any], str]] = {
    "list too short": (
        {"ratio": {"ffn": [0.5]}},
        "give 2, one for each group in the order of the graph (ffn.0 to ffn.1)",
    ),
    "list too long": ({"keep": {"head": [1, 1, 1]}}, "3 numbers are given for head, and the model has 2"),
    "list for a kind that is not there": ({"ratio": {"channel": [0.5]}}, "the model has 0 such groups"),
    "empty list": ({"ratio": {"ffn": []}}, "empty list"),
    "pattern of nothing": ({"ratio": {"ffn.7": 0.5}}, "no group matches 'ffn.7'"),
    "unknown kind": ({"keep": {"heads": 1}}, "the kinds are head,"),
    "unknown kind to prune": ({"kinds": ["heads"]}, "'heads'"),
    "no fraction in a list": ({"ratio": {"ffn": [0.5, 2]}}, "in [0, 1)"),
    "no number in a list": ({"ratio": {"ffn": [0.5, "x"]}}, "must be a number"),
    "a number for text": ({"ratio": {"ffn": "x"}}, "must be a number"),
    "keeps nothing": ({"keep": {"ffn": 0}}, "at least 1"),
    "keeps a fraction": ({"keep": {"ffn": 0.5}}, "a fraction is a ratio"),
    "keeps more than there is": ({"keep": {"ffn": 13}}, "keep at most 12"),
    "keep without a kind": ({"keep": 5}, "keep must name kinds"),
    "budget in percent": ({"macs": 50}, "in (0, 1]"),
    "budget beside one ratio": ({"macs": 0.5, "ratio": 0.5}, "beside a budget"),
    "budget too small": ({"macs": 0.01}, "let more kinds be pruned"),
    "unknown preset": ({"ratio": "snp-deit-huge"}, "snp-deit-base"),
    "preset of another model": ({"ratio": "snp-deit-tiny"}, "the preset is for hidden groups of 192"),
    "a scorer of another kind": ({"scorer": {"ffn": "sap"}}, "sap does not score ffn"),
    "a scorer of no kind": ({"scorer": {"heads": "sap"}}, "the kinds are"),
}


@pytest.mark.parametrize("case", BAD)
def test_what_cannot_be_is_refused_with_its_fix(case: str, tmp_path: Path) -> None:
    fields, message = BAD[case]
    amount = {name: value for name, value in fields.items() if name != "scorer"}
    with pytest.raises(UsageError) as error:
        prune_graph(classifier(), Amount(**amount), scorer=fields.get("scorer"))
    assert message in f"{error.value} {error.value.hint}"


@pytest.mark.parametrize(
    ("budget", "message"), [({"joules": 0.5}, "macs, params or bytes"), (0.5, 'budget={"macs": 0.5}')]
)
def test_a_budget_under_its_former_keyword_is_checked(budget: Any, message: str) -> None:
    with pytest.warns(DeprecationWarning), pytest.raises(UsageError) as error:
        prune_graph(classifier(), budget=budget)
    assert message in f"{error.value} {error.value.hint}"


# ---- files ---------------------------------------------------------------------------------------------------------

FILES: dict[str, tuple[str, str, dict[str, int]]] = {
    "JSON": ("a.json", '{"ffn": [0.5, 0.25]}', {"ffn.0": 6, "ffn.1": 9}),
    "one number": ("a.json", "0.25", {"ffn.0": 9, "ffn.1": 9}),
    "sections": ("a.json", '{"ratio": {"ffn": 0.5}, "keep": {"ffn.1": 7}}', {"ffn.0": 6, "ffn.1": 7}),
    "YAML": ("a.yaml", "ffn: [0.5, 0.25]\nhead.0: 0.5\n", {"head.0": 1, "ffn.0": 6, "ffn.1": 9}),
}


@pytest.mark.parametrize("case", FILES)
def test_files_say_what_ratio_takes(case: str, analyzed: Analyzed, tmp_path: Path) -> None:
    name, text, expected = FILES[case]
    if name.endswith("yaml"):
        pytest.importorskip("yaml")
    (tmp_path / name).write_text(text)
    assert kept(analyzed, ratio=tmp_path / name) == expected


BROKEN = {
    "missing.json": (None, "cannot be read"),
    "broken.json": ('{"ffn":', "is no JSON"),
    "list.json": ("[0.5]", "must be a number"),
    "kind.json": ('{"fnn": 0.5}', "called 'fnn'"),
    "text.txt": ("0.5", "there is no preset"),
    "broken.yaml": ("ffn: [", "is no YAML"),
}


@pytest.mark.parametrize("name", BROKEN)
def test_broken_files_are_refused(name: str, tmp_path: Path) -> None:
    text, message = BROKEN[name]
    if name.endswith("yaml"):
        pytest.importorskip("yaml")
    if text is not None:
        (tmp_path / name).write_text(text)
    with pytest.raises(UsageError, match=message):
        Amount(tmp_path / name)


def test_yaml_without_its_package_names_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "a.yaml").write_text("ffn: 0.5")
    imported = builtins.__import__

    def without(name: str, *rest: Any) -> Any:
        if name == "yaml":
            raise ImportError(name)
        return imported(name, *rest)

    monkeypatch.setattr(builtins, "__import__", without)
    with pytest.raises(MissingExtra, match="needs the package pyyaml") as error:
        Amount(tmp_path / "a.yaml")
    assert error.value.hint and "JSON" in error.value.hint


# ---- budgets -------------------------------------------------------------------------------------------------------

BUDGETS: dict[str, dict[str, Any]] = {
    "half of the MACs": {"budget": {"macs": 0.5}, "kinds": ["qk_dim", "v_dim", "ffn", "hidden"]},
    "parameters": {"budget": {"params": 0.7}, "kinds": ["ffn", "hidden"]},
    "bytes": {"budget": {"bytes": 0.8}},
    "of two the tighter one": {"budget": {"macs": 0.6, "params": 0.55}, "kinds": ["ffn", "hidden"]},
    "beside a ratio": {"budget": {"macs": 0.6}, "ratio": {"head": 0.5}, "kinds": ["ffn", "hidden"]},
}


@pytest.mark.parametrize("case", BUDGETS)
def test_a_budget_is_met_within_one_unit(case: str) -> None:
    """What is left is no more than asked for, and with one unit more of the last group to give way it would be."""
    analyzed = analyzed_skeleton("zoo_bert")
    budget, kinds = BUDGETS[case]["budget"], BUDGETS[case].get("kinds", ())
    amount = {name: value for name, value in BUDGETS[case].items() if name != "budget"}
    groups = analyzed.analysis.groups
    measure = cost(analyzed.analysis, analyzed.normalized)
    counts = {group.id: group.units for group in groups} | kept(analyzed, **amount, **budget, align=1)
    left = measure(counts)
    assert all(left[name] <= limit for name, limit in budget.items())
    free = [g for g in groups if g.kind in (kinds or ("head", "ffn", "dense"))]
    more = ({**counts, g.id: counts[g.id] + 1} for g in free if counts[g.id] < g.units)
    assert any(measure(each)[name] > limit for each in more for name, limit in budget.items())
    assert len({round(1 - counts[g.id] / g.units, 1) for g in free if g.units > 40}) <= 2  # one ratio for all


def test_a_uniform_budget_is_met_by_equal_layers() -> None:
    analyzed = analyzed_skeleton("zoo_bert")
    measure, counts = cost(analyzed.analysis, analyzed.normalized), {}
    for uniform in (False, True):
        left = kept(analyzed, macs=0.74, uniform=uniform)
        assert measure(left)["macs"] <= 0.74
        counts[uniform] = {count for name, count in left.items() if name.startswith("ffn")}
    assert len(counts[True]) == 1 < len(counts[False])


@pytest.mark.parametrize(
    "uneven", [{"keep": {"ffn": [5, 6]}}, {"layer_threshold": 0.5}, {"filtering": FilterOptions()}]
)
def test_what_makes_layers_differ_does_not_stand_beside_uniform(uneven: dict[str, Any]) -> None:
    with pytest.raises(UsageError, match="beside uniform"):
        Amount(**uneven, uniform=True)


def test_what_scorers_leave_is_evened(analyzed: Analyzed) -> None:
    """The mean of what they leave in equally large groups, rounded, and no less than a group must keep."""
    groups = {group.id: group for group in analyzed.analysis.groups}
    ffn = [groups["ffn.0"], groups["ffn.1"]]
    assert even_counts(ffn, {"ffn.0": 3, "ffn.1": 8}, None) == {"ffn.0": 6, "ffn.1": 6}
    assert even_counts(ffn, {"ffn.0": 3, "ffn.1": 6}, 4) == {"ffn.0": 8, "ffn.1": 8}
    assert even_counts(ffn, {"ffn.0": 0, "ffn.1": 0}, None) == {"ffn.0": 0, "ffn.1": 0}
    large = replace(ffn[1], units=24)
    assert even_counts([ffn[0], large], {"ffn.0": 3, "ffn.1": 8}, None) == {"ffn.0": 3, "ffn.1": 8}
    assert even_counts([replace(ffn[0], least=7), ffn[1]], {"ffn.0": 3, "ffn.1": 8}, None)["ffn.1"] == 7


def test_what_a_budget_foresees_is_what_the_file_costs() -> None:
    model = classifier()
    result = prune_graph(model, Amount(macs=0.9, params=0.5, kinds=["ffn", "hidden"]))
    macs, params = result.report.macs, result.report.params
    assert 0.8 < macs[1] / macs[0] <= 0.9 and 0.4 < params[1] / params[0] <= 0.5
    analyzed = load_and_analyze(model)
    left = cost(analyzed.analysis, analyzed.normalized)({g.id: g.after for g in result.report.groups})
    assert left["macs"] == pytest.approx(macs[1] / macs[0])
    assert left["params"] == pytest.approx(params[1] / params[0], abs=0.01)


# ---- presets -------------------------------------------------------------------------------------------------------


def published(hidden: int, heads: int, qk: list[int], v: list[int], ffn: list[int]) -> tuple[float, float]:
    """GMACs and millions of parameters of a DeiT of these widths at 224 x 224: 197 tokens, patches of 16."""
    n, patch = 197, 3 * 16 * 16
    macs, params = 196 * patch * hidden + hidden * 1000, patch * hidden + hidden + (1 + n) * hidden
    params += 2 * hidden + hidden * 1000 + 1000
    for q, o, f in zip(qk, v, ffn, strict=True):
        projected = heads * (2 * q + o)
        macs += n * hidden * projected + n * n * heads * (q + o) + n * heads * o * hidden + 2 * n * hidden * f
        params += (hidden + 1) * projected + heads * o * hidden + hidden + 2 * hidden * f + f + hidden + 4 * hidden
    return macs / 1e9, params / 1e6


PUBLISHED = {
    "snp-deit-tiny": ("0.64", "3.01"),
    "snp-deit-small-2.0g": ("2.04", "10.06"),
    "snp-deit-small-1.3g": ("1.27", "6.47"),
    "snp-deit-base": ("6.32", "31.59"),
}


@pytest.mark.parametrize("name", PUBLISHED)
def test_presets_cost_what_was_published(name: str) -> None:
    expected = presets()[name]
    keep, heads = expected["keep"], expected["fits"]["head"][0]
    macs, params = published(keep["hidden"], heads, keep["qk_dim"], keep["v_dim"], keep["ffn"])
    assert (f"{macs:.2f}", f"{params:.2f}") == PUBLISHED[name]
    assert "2404.11630" in expected["source"]


def test_all_presets_are_tested() -> None:
    assert set(presets()) == set(PUBLISHED)


def test_a_preset_on_a_real_export_costs_the_same() -> None:
    """The true graph of DeiT-Tiny, by lengths: what its slim file has is a matter of Shrink, tested elsewhere."""
    analyzed = analyzed_skeleton("deit_tiny_dynamo")
    groups = {group.id: group for group in analyzed.analysis.groups}
    keep = kept(analyzed, ratio="snp-deit-tiny")
    assert len(keep) == 1 + 3 * 12
    left = cost(analyzed.analysis, analyzed.normalized)(keep)
    lengths = Lengths(analyzed.analysis.solution, {})
    macs, _ = count_macs(analyzed.analysis.solution, lengths)
    assert f"{left['macs'] * macs / 1e9:.2f}" == "0.64"
    assert f"{left['params'] * count_parameters(analyzed.normalized.model.graph) / 1e6:.2f}" == "3.01"
    aligned = kept(analyzed, ratio="snp-deit-tiny", align=8)
    assert all(n % 8 == 0 and keep[name] <= n < keep[name] + 8 for name, n in aligned.items())
    assert {groups[name].kind for name in aligned} == {"hidden", "qk_dim", "v_dim", "ffn"}


# ---- the command line ----------------------------------------------------------------------------------------------


def pruned(folder: Path, *arguments: str) -> dict[str, int]:
    onnx.save(classifier(), folder / "model.onnx")
    command = ["prune", str(folder / "model.onnx"), "-o", str(folder / "slim.onnx"), *arguments, "--json"]
    ran = CliRunner().invoke(app, command)
    assert ran.exit_code == 0, ran.stderr
    return {group["id"]: group["after"] for group in json.loads(ran.stdout)["groups"]}


COMMANDS: dict[str, tuple[tuple[str, ...], dict[str, int]]] = {
    "by layer": (("--ratio", "ffn=0.5,0.25"), {"ffn.0": 6, "ffn.1": 9}),
    "by pattern": (("--ratio", "ffn.1=0.5"), {"ffn.1": 6}),
    "kept": (("--keep", "ffn=5,12", "--keep", "head=1"), {"head.0": 1, "head.1": 1, "ffn.0": 5}),
    "kinds": (("--ratio", "0.5", "--kind", "v_dim"), {"v_dim.0": 2, "v_dim.1": 2}),
    "scorers": (
        ("--ratio", "ffn=0.5", "--scorer", "ffn=snp", "--scorer-option", "snp.refresh=true"),
        {"ffn.0": 6, "ffn.1": 6},
    ),
}


@pytest.mark.parametrize("case", COMMANDS)
def test_commands(case: str, tmp_path: Path) -> None:
    arguments, expected = COMMANDS[case]
    assert pruned(tmp_path, *arguments) == expected


def test_budget_and_file_on_the_command_line(tmp_path: Path) -> None:
    assert pruned(tmp_path, "--budget", "macs=0.9", "--kind", "ffn", "--kind", "hidden")["hidden.0"] < 8
    (tmp_path / "ratios.json").write_text('{"ffn": [0.5, 0.25]}')
    assert pruned(tmp_path, "--ratio", str(tmp_path / "ratios.json")) == {"ffn.0": 6, "ffn.1": 9}


def test_one_ratio_takes_one_factor_of_a_product(caplog: pytest.LogCaptureFixture) -> None:
    """Groups or widths of a grouped convolution, not both; what is named is taken all the same."""
    model = vision.grouped()
    kept = {g.id: (g.before, g.after) for g in prune_graph(model, 0.5).report.groups}
    left = {group.id for group in analyze(model).groups} - kept.keys()
    assert left and "leaves alone" in caplog.text and all(name in caplog.text for name in left)
    both = prune_graph(model, {"channel": 0.5}).report.groups
    assert left <= {group.id for group in both}


def test_kinds_that_a_model_has_none_of_are_named(caplog: pytest.LogCaptureFixture) -> None:
    """Beside others that it has they are told, once, with those that it has; alone they are refused."""
    there = {group.kind for group in analyze(classifier()).groups}
    prune_graph(classifier(), {"expert": 0.5, "ffn": 0.5, "ffn.*": 0.25}, verify=False)
    assert caplog.text.count("no group of kind expert; it has") == 1 and "ffn" in caplog.text.partition("it has")[2]
    for amount in (Amount(0.5, kinds=["expert"]), Amount({"expert": 0.5}), Amount(keep={"expert": 2})):
        with pytest.raises(NothingToPrune, match="no group of kind expert; it has") as caught:
            prune_graph(classifier(), amount)
        assert all(kind in str(caught.value) for kind in there)
    caplog.clear()
    prune_graph(classifier(), {"ffn": 0.5}, verify=False)
    assert "no group of kind" not in caplog.text
