"""What pruning leaves for people: reports, annotated graphs, and what a slim file says of itself."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import onnx
import pytest

from tests.cli.test_bad_files import mlp, refused
from tests.cli.test_cli import done, folder
from tests.passes import test_dead

pytestmark = pytest.mark.slow

__all__ = ["folder"]

BENCH = [
    {"model": "model.onnx", "provider": "cpu", "median_ms": 2.0, "ratio": None},
    {"model": "slim.onnx", "provider": "cpu", "median_ms": 1.0, "ratio": {"median": 2.0, "low": 1.9, "high": 2.1}},
]
EVALUATION = [
    {"model": "model.onnx", "value": 0.9, "low": 0.8, "high": 1.0, "change": None},
    {"model": "slim.onnx", "value": 0.8, "low": 0.7, "high": 0.9, "change": -0.1},
]
SWEEP = [{"name": "1.5x", "latency_ms": 1.0, "metric": 0.87, "low": 0.86, "high": 0.88}]


def props(holder: onnx.ModelProto | onnx.NodeProto) -> dict[str, str]:
    return {entry.key: entry.value for entry in holder.metadata_props if entry.key.startswith("prunegraph.")}


@pytest.fixture
def slim(folder: Path) -> Path:
    """The folder after one pruning with everything that it can leave."""
    done("prune", "model.onnx", "-o", "slim.onnx", "--report", "report", "--annotate", "seen.onnx")
    return folder


def test_what_a_pruning_leaves(slim: Path) -> None:
    names = {path.name for path in (slim / "report").iterdir()}
    assert names == {"report.html", "report.md", "report.json", "heads.png", "where.png"}
    facts = json.loads((slim / "report/report.json").read_text())
    assert facts["commands"] == ["prunegraph prune model.onnx -o slim.onnx --report report --annotate seen.onnx"]
    assert facts["params"][1] < facts["params"][0] and facts["verify"]["ok"] and facts["scorer"] == "magnitude"
    sizes = [(slim / name).stat().st_size for name in ("model.onnx", "slim.onnx")]
    assert facts["sizes"] == {"file, bytes": sizes}
    assert [sum(row[end] for row in facts["where"]) for end in ("before", "after")] == facts["params"]
    blocks = {row["block"]: row for row in facts["where"]}
    assert all(blocks[f"layer.{k}"]["after"] < blocks[f"layer.{k}"]["before"] for k in (0, 1))
    for name in ("report.html", "report.md"):
        assert facts["commands"][0] in (slim / "report" / name).read_text()

    stated = props(onnx.load(slim / "slim.onnx"))
    assert stated["prunegraph.original"] == "model.onnx" and stated["prunegraph.plan"].startswith("sha256:")
    assert json.loads(stated["prunegraph.removed"]) == {
        group["id"]: [group["before"], group["after"]] for group in facts["groups"]
    }
    annotations = [
        json.loads(text) for node in onnx.load(slim / "seen.onnx").graph.node for text in props(node).values()
    ]
    assert {entry["scorer"] for entry in annotations if "scorer" in entry} == {"magnitude"}
    assert any(entry.get("keeps", 0) < int(entry["units"].split("-")[1]) + 1 for entry in annotations)


def test_strip_leaves_no_trace_in_the_file(folder: Path) -> None:
    done("prune", "model.onnx", "-o", "slim.onnx", "--strip")
    assert not props(onnx.load("slim.onnx"))
    done("verify", "model.onnx", "slim.onnx")


def test_scores_of_a_graph(folder: Path) -> None:
    assert "wrote seen.onnx" in done("score", "model.onnx", "--scorer", "magnitude", "-o", "seen.onnx").stderr
    nodes = onnx.load("seen.onnx").graph.node
    entries = [json.loads(text) for node in nodes for text in props(node).values()]
    assert entries and all("scores" in entry and "keeps" not in entry for entry in entries)


@pytest.mark.parametrize("suffix", [".html", ".md", ".json"])
def test_a_report_of_what_lies_there(slim: Path, suffix: str) -> None:
    (slim / "bench.json").write_text(json.dumps({"results": BENCH}))
    (slim / "eval.json").write_text(json.dumps({"metric": "accuracy", "examples": 10, "models": EVALUATION}))
    (slim / "sweep.json").write_text(json.dumps({"points": SWEEP}))
    (slim / "score.json").write_text(done("score", "model.onnx", "--scorer", "random", "--json").stdout)
    options = ("--bench", "bench.json", "--evaluation", "eval.json", "--scores", "score.json")
    if suffix == ".md":
        options += ("--sweep", "sweep.json", "--no-profile", "--no-verify")
    done("report", "model.onnx", "slim.onnx", "-o", f"out{suffix}", *options)
    text = (slim / f"out{suffix}").read_text()
    assert ("No proof was asked for." in text) == (suffix == ".md")
    assert ("1.5x" in text) == (suffix == ".md") and ("Milliseconds" in text) == (suffix == ".html")
    if suffix != ".json":
        assert "0.8000" in text and "2.00" in text and "random" in text
        return
    facts, before = json.loads(text), json.loads((slim / "report/report.json").read_text())
    assert [point["name"] for point in facts["sweep"]] == ["model.onnx", "slim.onnx"]
    for part in ("params", "macs", "kinds", "sizes", "pins", "groups"):
        assert facts[part] == before[part], part
    assert facts["verify"]["ok"] and facts["verify"]["max_rel_error"] == pytest.approx(
        before["verify"]["max_rel_error"]
    )


def test_what_a_report_refuses(slim: Path) -> None:
    report = ("report", "model.onnx", "slim.onnx", "-o")
    refused((*report, "out.pdf"), 2, "out.pdf is of no known kind", ".html")
    refused((*report, "slim.onnx"), 2, "no known kind")
    refused((*report, "out.md", "--bench", "slim.plan.json"), 2, "has no 'results'", "--json")
    refused((*report, "out.md", "--bench", "gone"), 2, "cannot be read")
    onnx.save(mlp(), "other.onnx")
    refused(("report", "other.onnx", "slim.onnx", "-o", "out.md"), 2, "the plan was made for model.onnx", "")


def test_the_report_of_dead_units_proves_what_their_plan_says(folder: Path) -> None:
    onnx.save(test_dead.mlp("Gelu", test_dead.CONSTANT), "model.onnx")
    done("prune", "model.onnx", "-o", "slim.onnx", "--dead")
    done("report", "model.onnx", "slim.onnx", "-o", "out.json", "--no-profile")
    assert json.loads((folder / "out.json").read_text())["verify"]["ok"]


def test_labelled_data_are_measured_for_the_report(folder: Path) -> None:
    rng = np.random.default_rng(0)
    onnx.save(mlp(), "model.onnx")
    np.savez("data.npz", x=rng.normal(size=(40, 4)).astype("f4"), labels=rng.integers(0, 4, 40))
    np.savez("bare.npz", x=rng.normal(size=(40, 4)).astype("f4"))
    for data, measured in (("data.npz", ["original", "slim"]), ("bare.npz", [])):
        done("prune", "model.onnx", "-o", "slim.onnx", "--data", data, "--report", "report")
        evaluation = json.loads((folder / "report/report.json").read_text())["evaluation"]
        assert [row["model"] for row in (evaluation or {}).get("models", [])] == measured
    shown = done("prune", "model.onnx", "-o", "slim.onnx", "--data", "data.npz").stdout
    assert "40 examples that units were chosen by" in shown and "accuracy" in shown
    printed = json.loads(done("prune", "model.onnx", "-o", "slim.onnx", "--data", "data.npz", "--json").stdout)
    assert [row["model"] for row in printed["evaluation"]["models"]] == ["original", "slim"]
    done("evaluate", "model.onnx", "slim.onnx", "--data", "data.npz")


def test_groups_as_drawings(folder: Path) -> None:
    done("explain", "model.onnx", "--html", "groups.html", "--dot", "groups.dot")
    page, graph = (folder / "groups.html").read_text(), (folder / "groups.dot").read_text()
    groups = json.loads(done("explain", "model.onnx", "--json").stdout)["groups"]
    alike = {group["id"].split(".")[0] for group in groups}
    for kind in alike:
        assert f">{kind}." in page and f":{kind}." in graph
    assert graph.count("{") == graph.count("}") and "2 blocks alike" in graph and "2 blocks alike" in page
    assert graph.count("style=dashed") == sum(not group["exact"] for group in groups)
    refused(("explain", "model.onnx", "--html", "model.onnx"), 1, "is an input file")
