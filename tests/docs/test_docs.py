"""What the documents say holds."""

from __future__ import annotations

import re
import shlex
import sys
import tomllib
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

import prunegraph.analysis  # noqa: F401  fills the registry

ROOT = Path(__file__).parents[2]


def test_the_list_of_supported_ops_is_that_of_the_registry(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(ROOT / "docs"))
    sys.modules.pop("supported_ops", None)
    import supported_ops

    assert supported_ops.TARGET.read_text(encoding="utf-8") == supported_ops.render(), "python docs/supported_ops.py"


def test_the_example_of_the_readme_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (example,) = re.findall(r"```python\n(.*?)```", (ROOT / "README.md").read_text(encoding="utf-8"), re.DOTALL)
    onnx.save(attention(), tmp_path / "model.onnx")
    monkeypatch.chdir(tmp_path)
    exec(compile(example, "README.md", "exec"), {})
    before, after = (onnx.load(tmp_path / name) for name in ("model.onnx", "slim.onnx"))
    sizes = [sum(int(np.prod(w.dims)) for w in model.graph.initializer) for model in (before, after)]
    assert sizes[1] < 0.6 * sizes[0]
    assert (tmp_path / "slim.plan.json").exists()


@pytest.mark.parametrize(
    "page", [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))], ids=lambda page: page.name
)
def test_local_links_lead_somewhere(page: Path) -> None:
    links = re.findall(r"\]\(([^)#]+)", page.read_text(encoding="utf-8"))
    for link in links:
        if "://" not in link:
            assert (page.parent / link).exists(), link


def attention(heads: int = 4, head_dim: int = 6, ffn: int = 40) -> onnx.ModelProto:
    """One Transformer block without norms."""
    rng = np.random.default_rng(0)
    width = heads * head_dim
    shapes = {"q": (width, width), "k": (width, width), "v": (width, width), "o": (width, width)}
    shapes |= {"up": (width, ffn), "down": (ffn, width)}
    weights = [numpy_helper.from_array(rng.normal(0, 0.2, s).astype(np.float32), n) for n, s in shapes.items()]
    weights.append(numpy_helper.from_array(np.array([0, 0, heads, head_dim], np.int64), "split"))
    weights.append(numpy_helper.from_array(np.array([0, 0, width], np.int64), "merge"))
    nodes = []
    for name, order in {"q": [0, 2, 1, 3], "k": [0, 2, 3, 1], "v": [0, 2, 1, 3]}.items():
        nodes += [
            helper.make_node("MatMul", ["x", name], [f"{name}1"]),
            helper.make_node("Reshape", [f"{name}1", "split"], [f"{name}2"]),
            helper.make_node("Transpose", [f"{name}2"], [f"{name}3"], perm=order),
        ]
    nodes += [
        helper.make_node("MatMul", ["q3", "k3"], ["scores"]),
        helper.make_node("Softmax", ["scores"], ["map"], axis=-1),
        helper.make_node("MatMul", ["map", "v3"], ["context"]),
        helper.make_node("Transpose", ["context"], ["context1"], perm=[0, 2, 1, 3]),
        helper.make_node("Reshape", ["context1", "merge"], ["context2"]),
        helper.make_node("MatMul", ["context2", "o"], ["attended"]),
        helper.make_node("Add", ["x", "attended"], ["x1"]),
        helper.make_node("MatMul", ["x1", "up"], ["h"]),
        helper.make_node("Relu", ["h"], ["h1"]),
        helper.make_node("MatMul", ["h1", "down"], ["h2"]),
        helper.make_node("Add", ["x1", "h2"], ["y"]),
    ]
    dims = ["batch", "sequence", width]
    x, y = (helper.make_tensor_value_info(name, TensorProto.FLOAT, dims) for name in "xy")
    graph = helper.make_graph(nodes, "block", [x], [y], weights)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)


@pytest.mark.parametrize("name", ["text-classifier", "vision-transformer", "decoder", "own-scorer"])
def test_tutorials_show_sections_of_the_examples(name: str) -> None:
    page = (ROOT / "docs" / "tutorials" / f"{name}.md").read_text(encoding="utf-8")
    shown = re.findall(r'^--8<-- "(examples/.*):(.*)"$', page, re.MULTILINE)
    assert shown
    for path, section in shown:
        code = (ROOT / path).read_text(encoding="utf-8")
        assert all(f"# --8<-- [{end}:{section}]" in code for end in ("start", "end"))


def test_beside_another_runtime_all_dependencies_but_the_runtime_are_installed() -> None:
    page = (ROOT / "docs" / "install.md").read_text(encoding="utf-8")
    (command,) = re.findall(r"pip install onnxruntime-gpu (.*)", page)
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    assert shlex.split(command) == [each for each in project["dependencies"] if not each.startswith("onnxruntime")]


def test_the_scorers_of_the_page_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    page = (ROOT / "docs" / "adding-a-scorer.md").read_text(encoding="utf-8")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PRUNEGRAPH_CACHE", str(tmp_path / "cache"))
    onnx.save(attention(ffn=32), tmp_path / "model.onnx")
    x = np.random.default_rng(1).normal(size=(8, 5, 24)).astype(np.float32)
    x[..., 3] = 0
    np.savez(tmp_path / "data.npz", x=x)
    names: dict[str, object] = {"__name__": "page"}
    kept = []
    for example in re.findall(r"```python\n(.*?)```", page, re.DOTALL):
        exec(compile(example, "adding-a-scorer.md", "exec", dont_inherit=True), names)
        kept.append(names["result"].selection.keep["ffn.0"])  # type: ignore[attr-defined]
    assert kept[0].tolist() == [False] * 16 + [True] * 16
    assert kept[1].sum() == 16 and kept[1].tolist() != kept[0].tolist()
