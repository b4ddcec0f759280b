"""The doors: graphsurgeon graphs, torch modules, exported programs and models by address, in and out."""

from __future__ import annotations

import importlib.util
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import numpy as np
import onnx
import onnx_ir as ir
import onnxruntime as ort
import pytest
from typer.testing import CliRunner

from prunegraph import analyze, from_torch, prune_graph
from prunegraph.cli import app
from prunegraph.errors import MissingExtra, ModelError, OutputError, PruneGraphError, UsageError
from prunegraph.export import hub_build
from prunegraph.export.convert import open_source
from prunegraph.export.hub import export_model
from prunegraph.export.hub_inputs import ExampleSizes
from prunegraph.export.torch_dynamic_shapes import fallbacks
from prunegraph.export.torch_names import name_outputs, name_parameters, output_names
from tests.graphs.builder import Builder

pytestmark = pytest.mark.slow

HAS_GRAPHSURGEON = importlib.util.find_spec("onnx_graphsurgeon") is not None
X = np.linspace(-1, 1, 15, dtype=np.float32).reshape(3, 5)

graphsurgeon = pytest.mark.skipif(not HAS_GRAPHSURGEON, reason="onnx_graphsurgeon is not installed")


def mlp(*, gelu: bool = False) -> onnx.ModelProto:
    """Two linear layers with eight neurons between them; x is (batch, 5)."""
    b = Builder("mlp")
    x = b.input("x", "batch", 5)
    h = b("Add", b("MatMul", x, b.weight("up", 5, 8)), b.weight("bias", 8))
    if gelu:
        b.domains["com.microsoft"] = 1
    h = b("Gelu", h, domain="com.microsoft") if gelu else b("Relu", h)
    b.output(b("MatMul", h, b.weight("down", 8, 3)), "batch", 3)
    return b.model()


def output(model: onnx.ModelProto) -> np.ndarray:
    session = ort.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    return np.asarray(session.run(None, {"x": X})[0])


def groups(source: Any, **more: Any) -> list[tuple[str, str, int]]:
    return [(group.id, group.kind, group.units) for group in analyze(source, **more).groups]


# --- what opens no door ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("source", "more", "message"),
    [
        ({"weights": 1}, {}, "from dict"),
        (mlp(), {"inputs": (X,)}, "example_inputs belongs to a torch module, not to ModelProto"),
        ("model.onnx", {"dynamic_shapes": {}}, "dynamic_shapes belongs to a torch module, not to str"),
    ],
)
def test_wrong_sources_and_arguments_are_refused(source: Any, more: dict[str, Any], message: str) -> None:
    with pytest.raises(UsageError, match=message) as caught:
        from_torch(source, **more) if more else prune_graph(source)
    assert caught.value.hint


def test_heavy_packages_are_not_imported_to_look_at_a_model() -> None:
    code = (
        "import sys, prunegraph, onnx; from tests.export.test_doors import mlp\n"
        "prunegraph.prune_graph(mlp())\n"
        "print([name for name in ('torch', 'onnx_graphsurgeon', 'onnxscript', 'transformers') if name in sys.modules])"
    )
    process = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=Path(__file__).parents[2]
    )
    assert process.stdout.strip() == "[]"


class FakeModule:
    """Stands for `torch.nn.Module`."""


@pytest.fixture
def fake_torch(monkeypatch: pytest.MonkeyPatch) -> type[FakeModule]:
    """A torch that has only its types, and no onnxscript beside it."""
    torch = ModuleType("torch")
    torch.nn = SimpleNamespace(Module=FakeModule)  # type: ignore[attr-defined]
    for name, module in {"torch": torch, "torch.onnx": ModuleType("torch.onnx"), "onnxscript": None}.items():
        monkeypatch.setitem(sys.modules, name, module)
    monkeypatch.delitem(sys.modules, "torch.export", raising=False)
    return FakeModule


def test_a_module_without_the_exporter_names_the_extra(fake_torch: type[FakeModule]) -> None:
    with pytest.raises(MissingExtra, match="onnxscript") as caught:
        from_torch(fake_torch(), (X,))
    assert caught.value.hint == 'pip install "prunegraph[torch]"'


# --- graphsurgeon ------------------------------------------------------------------------------------------------


def written(graph: Any) -> tuple[bytes, list[tuple[str, int]]]:
    """What a graph is, told by an export of a copy of it."""
    import onnx_graphsurgeon as gs

    opsets = [(entry.domain, entry.version) for entry in graph.import_domains or ()]
    copied = graph.copy()
    copied.import_domains = list(graph.import_domains or ())
    return gs.export_onnx(copied).SerializeToString(deterministic=True), opsets


@graphsurgeon
def test_a_graph_comes_back_as_a_graph_and_stays_as_it_was() -> None:
    import onnx_graphsurgeon as gs

    proto = mlp()
    graph = gs.import_onnx(proto)
    before = written(graph)
    result = prune_graph(graph, {"ffn": 0.5})
    slim = result.model
    assert isinstance(slim, gs.Graph)
    assert written(graph) == before
    assert tuple(slim.tensors()["up"].shape) == (5, 4)
    expected = prune_graph(proto, {"ffn": 0.5}).model
    assert isinstance(expected, onnx.ModelProto)
    np.testing.assert_array_equal(output(gs.export_onnx(slim)), output(expected))
    assert groups(graph) == groups(proto)


@graphsurgeon
def test_an_edited_graph_needs_no_order_and_keeps_its_names() -> None:
    import onnx_graphsurgeon as gs

    proto = mlp()
    graph = gs.import_onnx(proto)
    graph.nodes.reverse()
    graph.tensors()["up"].name = "rising"
    slim = prune_graph(graph, {"ffn": 0.5}).model
    assert isinstance(slim, gs.Graph)
    assert tuple(slim.tensors()["rising"].shape) == (5, 4)
    assert [node.op for node in graph.nodes] == ["MatMul", "Relu", "Add", "MatMul"]
    assert "up" in [
        tensor.name for tensor in proto.graph.initializer
    ]  # the graph still shares its tensors with the proto


@graphsurgeon
def test_a_domain_that_the_graph_does_not_import_is_imported_in_the_copy_alone() -> None:
    import onnx_graphsurgeon as gs

    graph = gs.import_onnx(mlp(gelu=True))
    graph.import_domains = [entry for entry in graph.import_domains if not entry.domain]
    prune_graph(graph, {"ffn": 0.5})
    assert [entry.domain for entry in graph.import_domains] == [""]


@graphsurgeon
def test_weights_in_a_data_file_come_back_in_the_graph(tmp_path: Path) -> None:
    import onnx_graphsurgeon as gs

    from prunegraph.export.graphsurgeon import to_graph

    path = tmp_path / "model.onnx"
    onnx.save(mlp(), path, save_as_external_data=True, size_threshold=0, location="weights")
    graph = to_graph(open_source(path))
    (tmp_path / "weights").unlink()
    np.testing.assert_array_equal(output(gs.export_onnx(graph)), output(mlp()))


@graphsurgeon
def test_a_graph_that_cannot_be_exported_says_why() -> None:
    import onnx_graphsurgeon as gs

    graph = gs.import_onnx(mlp())
    graph.outputs[0].dtype = None
    with pytest.raises(ModelError, match="dtype") as caught:
        prune_graph(graph)
    assert "export_onnx" in caught.value.hint


# --- names and axes of modules, without torch --------------------------------------------------------------------


def folded(name: str, sources: str, *shape: int) -> ir.Value:
    value = ir.Value(name=name, const_value=ir.tensor(np.zeros(shape, np.float32)), shape=ir.Shape(shape))
    value.metadata_props["pkg.onnxscript.optimizer.folded_from"] = sources
    return value


def test_transposed_parameters_get_their_names_back() -> None:
    model = ir.from_proto(mlp())
    model.graph.initializers.clear()
    values = [
        folded("val_1", "['layer.weight']", 4, 2),  # the parameter, transposed
        folded("val_2", "['layer.weight']", 4, 2),  # and again: one name is taken
        folded("val_3", "['layer.bias']", 4, 1, 2),  # as large as another, but not as this one
        folded("val_4", "['layer.weight', 'val_9']", 4, 2),  # made of two things
        folded("val_5", "['val_9']", 4, 2),  # no parameter
        folded("val_6", "not a list", 4, 2),
    ]
    renamed = ir.Value(name="val_7", const_value=ir.tensor(np.zeros(3, np.float32)))
    renamed.metadata_props["pkg.torch.onnx.original_node_name"] = "p_scale"
    for value in [*values, renamed]:
        model.graph.register_initializer(value)
    name_parameters(model, {"p_scale": "scale"}, {"layer.weight": 8, "layer.bias": 4})
    assert [value.name for value in values] == ["layer.weight", "val_2", "val_3", "val_4", "val_5", "val_6"]
    assert renamed.name == "scale"
    assert all(model.graph.initializers[value.name or ""] is value for value in [*values, renamed])


def spec(context: Any = None, *children: Any) -> SimpleNamespace:
    """Stands for a `TreeSpec`."""
    return SimpleNamespace(context=context, children=lambda: list(children), is_leaf=lambda: not children)


@pytest.mark.parametrize(
    ("result", "names"),
    [
        (spec(), ["output"]),
        (spec(None, spec(), spec()), ["output_0", "output_1"]),
        (spec(["hidden", "pooled"], spec(), spec()), ["hidden", "pooled"]),
        (spec(["hidden", "cache"], spec(), spec(None, spec(), spec())), ["hidden", "cache_0", "cache_1"]),
        (spec(None, spec(), spec(["a"], spec())), ["output_0", "output_1_a"]),
    ],
)
def test_outputs_are_called_as_in_the_result(result: Any, names: list[str]) -> None:
    assert output_names(result) == names


@pytest.mark.parametrize(("names", "after"), [(["y"], "y"), (["x"], "matmul2"), (["a", "b"], "matmul2")])
def test_outputs_are_renamed_only_where_every_value_keeps_a_name_of_its_own(names: list[str], after: str) -> None:
    model = ir.from_proto(mlp())
    name_outputs(model, names)
    assert model.graph.outputs[0].name == after


def test_axes_are_given_up_one_name_after_the_other() -> None:
    axes = {"ids": {0: "batch", 1: "sequence"}, "more": ({0: "batch"}, None)}
    assert list(fallbacks(axes)) == [
        (axes, ""),
        ({"ids": {1: "sequence"}, "more": ({}, None)}, "the batch"),
        ({"ids": {0: "batch"}, "more": ({0: "batch"}, None)}, "the sequence"),
        ({"ids": {}, "more": ({}, None)}, "every axis"),
    ]
    assert [fixed for _, fixed in fallbacks({"x": {0: "batch"}})] == ["", "the batch"]
    assert [fixed for _, fixed in fallbacks({"x": {}})] == [""]


# --- models by address, without torch ----------------------------------------------------------------------------


def config_only(folder: Path) -> str:
    (folder / "config.json").write_text("{}")
    return f"hf:{folder}"


@pytest.mark.parametrize(
    ("address", "error", "message", "hint"),
    [
        (lambda _: "bert", UsageError, "'bert' is no address", "hf:DIR"),
        (lambda _: "hf:", UsageError, "is no address", "timm:NAME"),
        (lambda _: "hf:org/name", UsageError, "org/name is no folder", "hf download org/name --local-dir name"),
        (lambda folder: f"hf:{folder}", UsageError, "no config.json", "save_pretrained"),
        (config_only, ModelError, "no weights", "--random"),
    ],
)
def test_wrong_addresses_are_told_before_anything_is_imported(
    address: Callable[[Path], str], error: type[PruneGraphError], message: str, hint: str, tmp_path: Path
) -> None:
    with pytest.raises(error, match=message) as caught:
        export_model(address(tmp_path), tmp_path / "m.onnx")
    assert hint in caught.value.hint


@pytest.mark.parametrize(("missing", "extra"), [("torch", "torch"), ("onnxscript", "torch"), ("transformers", "zoo")])
def test_what_a_folder_needs_is_named(
    missing: str, extra: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("torch", "onnxscript", "transformers"):
        monkeypatch.setitem(sys.modules, name, ModuleType(name) if name != missing else None)
    with pytest.raises(MissingExtra, match=missing) as caught:
        hub_build.build(config_only(tmp_path), None, pretrained=False, sizes=ExampleSizes())
    assert caught.value.extra == extra


def test_the_command_line_exports_or_says_why_not(tmp_path: Path) -> None:
    out = tmp_path / "m.onnx"
    for arguments, code, message in (
        (["bert", "-o", str(out)], 2, "no address"),
        (["hf:nowhere", "-o", str(out)], 2, "no folder"),
        ([config_only(tmp_path), "-o", str(out)], 1, "no weights"),
        ([config_only(tmp_path), "-o", str(tmp_path / "none" / "m.onnx")], 1, "does not exist"),
        (["timm:vit", "-o", str(out), "--sequence", "0"], 2, "--sequence"),
        (["timm:vit", "-o", str(out), "--task", "fill-mask"], 2, "timm has no models for fill-mask"),
    ):
        result = CliRunner().invoke(app, ["export", *arguments])
        assert (result.exit_code, message in result.stderr, result.stdout) == (code, True, ""), result.stderr
    assert not out.exists()


def test_the_output_is_checked_before_the_model_is_built(tmp_path: Path) -> None:
    with pytest.raises(OutputError, match="is a folder"):
        export_model("hf:nowhere", tmp_path)
