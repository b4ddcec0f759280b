"""The bundle: models that an old runtime reads, and a script that refuses what is not right before it times."""

from __future__ import annotations

import ast
import importlib.util
import itertools
import json
import subprocess
import sys
import zipfile
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnx_ir as ir
import onnxruntime as ort
import pytest
from onnx import TensorProto, helper, numpy_helper
from typer.testing import CliRunner, Result

import prunegraph as pg
from prunegraph.bench import PROVIDERS
from prunegraph.bench.device_table import LatencyTable
from prunegraph.bench.results import Comparison
from prunegraph.bench.stats import paired_ratio
from prunegraph.cli import app
from prunegraph.export.bundle import run as script
from prunegraph.export.bundle.build import SETTINGS, bundle
from prunegraph.export.bundle.stacks import STACKS
from prunegraph.export.bundle.versions import with_patterns
from prunegraph.speed.blocks import blocks_of
from prunegraph.speed.device import versions_of
from prunegraph.speed.times import times_of
from tests.graphs.cli import averaged, classifier

pytestmark = pytest.mark.slow

SCRIPT = Path(script.__file__)


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The current folder, with a model and a slim version of it."""
    monkeypatch.chdir(tmp_path)
    onnx.save(classifier(), "model.onnx")
    pg.prune_graph("model.onnx", 0.5).save("slim.onnx")
    return tmp_path


def unpacked(archive: Path | str) -> Path:
    with zipfile.ZipFile(archive) as file:
        file.extractall("device")
    return Path("device")


def run_script(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "run.py", "--ep", "cpu", "--energy", "0", *arguments]
    return subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)


def show(*arguments: str) -> Result:
    return CliRunner().invoke(app, ["bench", "--results", *arguments])


def test_the_script_is_python_3_6_of_the_standard_library_numpy_and_onnxruntime() -> None:
    tree = ast.parse(SCRIPT.read_text(encoding="utf-8"), feature_version=(3, 6))
    names = {alias.name for node in ast.walk(tree) if isinstance(node, ast.Import) for alias in node.names}
    assert {name.partition(".")[0] for name in names} - {"numpy", "onnxruntime"} <= set(sys.stdlib_module_names)
    assert not any(isinstance(node, ast.ImportFrom) for node in ast.walk(tree))
    later = {"capture_output", "perf_counter_ns", "default_rng", "removeprefix", "removesuffix", "missing_ok"}
    used = {node.attr for node in ast.walk(tree) if isinstance(node, ast.Attribute)}
    used |= {each.arg for node in ast.walk(tree) if isinstance(node, ast.Call) for each in node.keywords if each.arg}
    assert not used & later


def test_a_slim_model_is_timed_beside_its_original_and_read_back(folder: Path) -> None:
    archive = bundle(["model.onnx", "slim.onnx"], "bundle.zip", sequence=7)
    device = unpacked(archive.path)
    process = run_script(device, "--rounds", "6", "--max-seconds", "5")
    assert process.returncode == 0, process.stderr
    results = json.loads((device / "results.json").read_text())
    assert [row["model"] for row in results["results"]] == ["model.onnx", "slim.onnx"]
    for model in ("model.onnx", "slim.onnx"):
        assert results["parity"]["cpu"][model]["logits"] < 1e-5
    assert results["environment"]["onnxruntime"] == ort.__version__
    assert {"before", "after", "peak_memory_kib", "sizes"} <= results.keys()
    comparison = Comparison.from_dict(results)
    again = comparison.results[1].ratio
    assert again is not None and again.low <= again.median <= again.high
    assert comparison.results[0].samples_ms == tuple(results["results"][0]["samples_ms"])
    printed = show(str(device / "results.json"))
    assert printed.exit_code == 0 and "slim.onnx" in printed.stdout and "x 1x7x5" in printed.stdout
    assert json.loads(show(str(device / "results.json"), "--json").stdout)["results"][0]["rounds"] == 6


def test_joules_of_a_run_where_the_device_tells(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    device = unpacked(bundle(["model.onnx", "slim.onnx"], "bundle.zip", sequence=7).path)
    rail = folder / "sys/bus/i2c/drivers/ina3221x/6-0040/iio:device0"  # as on a Jetson Nano
    rail.mkdir(parents=True)
    (rail / "rail_name_0").write_text("POM_5V_IN\n")
    (rail / "in_power0_input").write_text("4120\n")
    monkeypatch.setattr(script, "HERE", str(device))
    part = script.energy()
    monkeypatch.setattr(script, "energy", lambda: part)
    monkeypatch.setattr(part.Meter.__init__, "__defaults__", (str(folder / "sys"),))
    monkeypatch.setattr(part.watts_now, "__defaults__", (str(folder / "sys"),))
    settings = {**SETTINGS, "rounds": 6, "energy_seconds": 0.05, "check": False, "table": False}
    results = script.run(str(device), ["cpu"], settings, child=False)
    assert results["before"]["watts"]["POM_5V_IN"] == results["after"]["watts"]["POM_5V_IN"] == pytest.approx(4.12)
    assert results["idle_watts"]["cpu"]["POM_5V_IN"] == pytest.approx(4.12)
    joules = [row.joules["POM_5V_IN"] for row in Comparison.from_dict(results).results]
    assert len(joules) == 2 and all(0 < each < 0.3 for each in joules)


def test_a_table_that_was_measured_on_a_device_plans_here(folder: Path) -> None:
    outcome = CliRunner().invoke(app, ["bundle", "model.onnx", "-o", "b.zip", "--table", "--sequence", "7"])
    assert outcome.exit_code == 0, outcome.stderr
    device = unpacked("b.zip")
    done_there = run_script(device, "--table", "--in-process", "--rounds", "6", "--blocks")
    assert done_there.returncode == 0, done_there.stderr
    table = LatencyTable.load(device / "results.json")
    graph = pg.analyze("model.onnx")
    versions = versions_of(graph)
    assert table.groups == versions.groups and table.model == versions.model
    assert [(cut.name, cut.kept) for cut in table.cuts] == [(cut.name, cut.kept) for cut, _ in versions.models()]
    results = Comparison.from_dict(json.loads((device / "results.json").read_text()))
    assert table.protocol == results.protocol == "blocks"
    for kinds in (("head", "ffn"), ("head", "ffn", "qk_dim", "v_dim")):  # without data and with it
        blocks = blocks_of(graph, [name for name in table.groups if name.partition(".")[0] in kinds])
        assert set(times_of(table, blocks).blocks) == {
            name for name in table.groups if name.startswith(("head", "ffn"))
        }


def test_results_of_several_devices_name_the_one_whose_table_counts(folder: Path) -> None:
    table = {"schema": 1, "what": "latency table", "model": "", "groups": {"ffn.0": 4}, "cuts": [], "whole_ms": 2.0}
    table |= {"ep": "", "threads": 1, "sizes": {}, "protocol": "turns"}
    results = {"tables": {name: {**table, "provider": name} for name in ("cpu", "cuda")}}
    Path("results.json").write_text(json.dumps(results))
    assert LatencyTable.load("results.json", provider="cuda").provider == "cuda"
    with pytest.raises(pg.UsageError, match="hold the tables of cpu, cuda"):
        LatencyTable.load("results.json", provider="tensorrt")
    with pytest.raises(pg.UsageError, match="hold no latency table") as caught:
        LatencyTable.from_dict({"tables": {}})
    assert "--table" in caught.value.hint


def test_a_bundle_without_versions_measures_no_table(folder: Path) -> None:
    process = run_script(unpacked(bundle(["model.onnx"], "b.zip", sequence=7).path), "--table")
    assert process.returncode == 2 and "prunegraph bundle --table" in process.stderr


def test_weights_of_versions_repeat_and_compress(folder: Path) -> None:
    weight = np.random.default_rng(0).standard_normal((512, 512)).astype(np.float32)
    model = pg.analyze(onnx.load("model.onnx")).original
    name = next(iter(model.graph.initializers))
    model.graph.initializers[name].const_value = ir.tensor(weight, name=name)
    tensor = with_patterns(model).graph.initializers[name].const_value
    assert tensor is not None
    patterned = tensor.numpy()
    assert patterned.shape == weight.shape and not (patterned[0] == patterned[2]).all()
    assert len(zlib.compress(patterned.tobytes())) < weight.nbytes / 50
    assert set(np.ravel(patterned)) <= set(np.ravel(weight))


def test_the_outputs_are_those_of_the_models_that_were_bundled(folder: Path) -> None:
    device = unpacked(bundle(["model.onnx", "slim.onnx"], "bundle.zip", static={"batch": 2, "sequence": 6}).path)
    stated = json.loads((device / "bundle.json").read_text())
    feeds = script.read_inputs(str(device), stated)
    assert feeds["x"].shape == (2, 6, 5)
    for name, model in zip(("model.onnx", "slim.onnx"), stated["models"], strict=True):
        expected = ort.InferenceSession(name, providers=["CPUExecutionProvider"]).run(None, feeds)[0]
        np.testing.assert_array_equal(script.read_expected(str(device), model)["logits"], expected)
        graph = onnx.load(device / model["file"]).graph
        for value in (*graph.input, *graph.output):
            assert all(dim.dim_value > 0 for dim in value.type.tensor_type.shape.dim)


@pytest.mark.parametrize("damage", ["model", "expected"])
def test_what_is_not_right_is_not_timed(folder: Path, damage: str) -> None:
    device = unpacked(bundle(["model.onnx", "slim.onnx"], "bundle.zip", sequence=7).path)
    if damage == "model":
        (device / "models" / "1.onnx").write_bytes((device / "models" / "0.onnx").read_bytes())
    else:
        with np.load(device / "expected.npz") as arrays:
            changed = {name: array * np.float32(1.001) for name, array in arrays.items()}
        np.savez(device / "expected.npz", **changed)
    process = run_script(device, "--rounds", "6", "--in-process")
    assert process.returncode == 1
    if damage == "model":
        assert "models/1.onnx is not the file that was bundled" in process.stderr
        assert not (device / "results.json").exists()
    else:
        assert "the output 'logits' of model.onnx differs by" in process.stderr
        printed = show(str(device / "results.json"))
        assert printed.exit_code == 2 and "nothing was timed" in printed.stderr and "differs by" in printed.stderr


def test_a_provider_that_is_not_there_is_refused_and_the_others_are_timed(folder: Path) -> None:
    device = unpacked(bundle(["model.onnx"], "bundle.zip", sequence=7).path)
    missing = next(name for name, each in PROVIDERS.items() if each.ep not in ort.get_available_providers())
    process = run_script(device, "--ep", f"{missing},abacus,cpu", "--check")
    results = json.loads((device / "results.json").read_text())
    assert process.returncode == 1 and results["refused"].keys() == {missing, "abacus"}
    assert "is not in this onnxruntime" in results["refused"][missing]
    assert results["parity"].keys() == {"cpu"} and results["results"] == []


@pytest.mark.parametrize("stack", STACKS)
def test_every_stack_gets_an_opset_and_format_that_it_reads(folder: Path, stack: str) -> None:
    onnx.save(averaged(), "norm.onnx")  # opset 17, with LayerNormalization, which is new there
    archive = bundle(["norm.onnx"], "bundle.zip", stack=stack, sequence=7)
    proto = onnx.load(unpacked(archive.path) / "models" / "0.onnx")
    assert archive.opsets["norm.onnx"] == proto.opset_import[0].version == min(17, STACKS[stack].opset)
    assert proto.ir_version <= STACKS[stack].ir_version
    assert any(node.op_type == "LayerNormalization" for node in proto.graph.node) == (STACKS[stack].opset >= 17)


def node_model(op: str, opset: int, **attributes: Any) -> onnx.ModelProto:
    x, y = (helper.make_tensor_value_info(name, TensorProto.FLOAT, ["batch", 4]) for name in "xy")
    graph = helper.make_graph([helper.make_node(op, ["x"], ["y"], **attributes)], op, [x], [y])
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=9)


@pytest.mark.parametrize(("op", "opset"), [("Identity", 16), ("Mish", 18), ("HardSwish", 22), ("Gelu", 20)])
def test_ops_that_are_newer_are_written_out_or_relabelled(folder: Path, op: str, opset: int) -> None:
    onnx.save(node_model(op, opset), "node.onnx")
    proto = onnx.load(unpacked(bundle(["node.onnx"], "b.zip", stack="jetpack4.6").path) / "models" / "0.onnx")
    assert proto.opset_import[0].version == 15
    onnx.checker.check_model(proto, full_check=True)


def test_axes_that_are_an_operand_become_an_attribute_again(folder: Path) -> None:
    proto = node_model("LayerNormalization", 18)  # which is written out with a mean over axes that are an operand
    proto.graph.node[0].input.append("scale")
    proto.graph.initializer.append(numpy_helper.from_array(np.linspace(1, 2, 4, dtype=np.float32), "scale"))
    onnx.save(proto, "norm.onnx")
    lowered = onnx.load(unpacked(bundle(["norm.onnx"], "b.zip", stack="jetpack4.6").path) / "models" / "0.onnx")
    means = [node for node in lowered.graph.node if node.op_type == "ReduceMean"]
    assert means and all(len(node.input) == 1 and node.attribute for node in means)
    assert not any(node.op_type == "CastLike" for node in lowered.graph.node)
    onnx.save(node_model("Gelu", 20), "gelu.onnx")  # whose definition adds by Sum
    gelu = onnx.load(unpacked(bundle(["gelu.onnx"], "g.zip", stack="jetpack5.1").path) / "models" / "0.onnx")
    assert not {"Sum", "CastLike"} & {node.op_type for node in gelu.graph.node}
    onnx.checker.check_model(lowered, full_check=True)


def test_a_word_on_zeros_goes_where_there_are_none(folder: Path) -> None:
    proto = node_model("Reshape", 14, allowzero=1)
    proto.graph.node[0].input.append("shape")
    proto.graph.initializer.append(numpy_helper.from_array(np.array([-1, 4]), "shape"))
    onnx.save(proto, "reshape.onnx")
    lowered = onnx.load(unpacked(bundle(["reshape.onnx"], "b.zip", stack="jetpack4.6").path) / "models" / "0.onnx")
    assert not lowered.graph.node[0].attribute


def test_a_static_model_computes_no_lengths(folder: Path) -> None:
    proto = node_model("Identity", 17)
    proto.graph.node[0].op_type = "Reshape"
    proto.graph.node[0].input.append("shape")
    proto.graph.node.insert(0, helper.make_node("Shape", ["x"], ["shape"]))
    onnx.save(proto, "shaped.onnx")
    device = unpacked(bundle(["shaped.onnx"], "b.zip", static={"batch": 3}).path)
    graph = onnx.load(device / "models" / "0.onnx").graph
    assert [node.op_type for node in graph.node] == ["Reshape"]
    assert numpy_helper.to_array(graph.initializer[0]).tolist() == [3, 4]


def test_what_an_older_stack_cannot_read_is_refused_with_the_op(folder: Path) -> None:
    image, grid, y = (
        helper.make_tensor_value_info(name, TensorProto.FLOAT, shape)
        for name, shape in (("image", [1, 2, 4, 4]), ("grid", [1, 3, 3, 2]), ("y", [1, 2, 3, 3]))
    )
    graph = helper.make_graph([helper.make_node("GridSample", ["image", "grid"], ["y"])], "g", [image, grid], [y])
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 16)], ir_version=8), "grid.onnx")
    pg.quantize("model.onnx", "matmul4").save("int4.onnx")
    for model, message in (("grid.onnx", "opset 15 has no GridSample"), ("int4.onnx", "has no MatMulNBits")):
        with pytest.raises(pg.ModelError, match=message) as caught:
            bundle([model], "b.zip", stack="jetpack4.6", sequence=7)
        assert "newer stack" in caught.value.hint
    assert not Path("b.zip").exists()


def test_the_command(folder: Path) -> None:
    arguments = ["bundle", "model.onnx", "slim.onnx", "-o", "b.zip", "--static", "batch=1,sequence=9"]
    outcome = CliRunner().invoke(app, [*arguments, "--stack", "jetpack5.1", "--json"])
    assert outcome.exit_code == 0, outcome.stderr
    assert json.loads(outcome.stdout)["shapes"] == {"x": [1, 9, 5]}
    for more, code, message in (
        (["--stack", "abacus"], 2, "there is no stack 'abacus'"),
        (["-o", "slim.onnx"], 1, "is an input file"),
        (["--size", "depth=3"], 2, "no dynamic dim named depth"),
    ):
        failed = CliRunner().invoke(app, [*arguments, *more])
        assert failed.exit_code == code and message in failed.stderr, failed.stderr


def test_the_script_computes_ratios_as_bench_does() -> None:
    random = np.random.default_rng(0)
    second = random.lognormal(0, 0.3, 60)
    first = second * 1.4 * random.lognormal(0, 0.1, 60)
    own, bench = script.paired_ratio(first, second, 0), paired_ratio(first, second)
    assert own["median"] == bench.median
    assert (own["low"], own["high"]) == pytest.approx((bench.low, bench.high), rel=0.02)


def test_an_onnxruntime_that_does_not_know_an_option_goes_without_it(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    session, given = ort.InferenceSession, []

    def old(path: str, options: Any, providers: list[Any]) -> Any:
        given.append(providers)
        if any(isinstance(each, tuple) and each[1] for each in providers):
            raise RuntimeError('Unknown provider option: "use_tf32".')
        return session(path, options, providers=providers)

    monkeypatch.setattr(ort, "InferenceSession", old)
    provider = {
        "ep": "CPUExecutionProvider",
        "options": {"use_tf32": "0"},
        "after": [],
        "device": "cpu",
        "plugin": None,
    }
    script.open_session(str(folder), {"file": "model.onnx"}, provider, 1)
    assert given == [[("CPUExecutionProvider", {"use_tf32": "0"})], ["CPUExecutionProvider"]]


def test_a_copy_of_the_script_needs_nothing_of_the_package(tmp_path: Path) -> None:
    copy = tmp_path / "copied.py"
    copy.write_bytes(SCRIPT.read_bytes())
    spec = importlib.util.spec_from_file_location("copied", copy)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    samples = module.interleave([lambda: None, lambda: None], 1, 8, 1.0, 0)
    assert samples.shape == (8, 2)


@pytest.mark.parametrize(
    ("lengths", "rounds"),
    [
        (itertools.repeat(1.0), 10),
        (itertools.chain(map(float, range(1, 13)), itertools.repeat(1.0)), 17),
        (itertools.cycle([1.0, 2.0]), 40),
    ],
)
def test_the_script_warms_up_until_times_are_steady(
    lengths: Iterator[float], rounds: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Ten rounds where they are from the first on, later where they change, and four times as many at most."""
    runs: list[float] = []
    monkeypatch.setattr(script.time, "perf_counter", lambda: sum(runs))
    script.warm_up([lambda: runs.append(next(lengths))], 10, 1e9, np.random.RandomState(0))
    assert len(runs) == rounds


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("[]", "holds no results"),
        ("{", "is no JSON"),
        ('{"schema": 2}', "version 2"),
        ('{"schema": 1, "results": [{"model": "m"}]}', "no results with samples"),
    ],
)
def test_other_files_are_no_results(tmp_path: Path, text: str, message: str) -> None:
    path = tmp_path / "results.json"
    path.write_text(text)
    failed = show(str(path))
    assert failed.exit_code == 2 and message in failed.stderr
