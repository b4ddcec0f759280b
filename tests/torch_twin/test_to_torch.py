"""Whole models as torch modules: outputs, names, gradients, modes, and trained weights back in the file."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import numpy as np
import onnx
import onnx_ir as ir
import pytest
from onnx import TensorProto, helper

from prunegraph.errors import ModelError, UsageError
from prunegraph.runtime.feeds import Feeds, random_feeds
from prunegraph.runtime.inputs import input_specs
from prunegraph.runtime.limits import CannotRun
from prunegraph.runtime.session import open_session, run
from prunegraph.runtime.trial_sizes import size_plans
from prunegraph.runtime.widen import widened, widened_feeds
from tests.graphs.builder import Builder, linear
from tests.graphs.skeleton import load_skeleton

torch = pytest.importorskip("torch")

from prunegraph.torch_twin import call, initializers, to_torch, write_back  # noqa: E402

SKELETONS = (
    "llama_cache_dynamo",
    "zoo_bert_legacy",
    "zoo_deberta_v2",
    "zoo_efficientnet",
    "zoo_gpt_neox",
    "zoo_mixtral",
    "zoo_segformer",
    "zoo_swin_legacy",
    "zoo_t5_legacy",
    "zoo_wav2vec2",
    "zoo_xcit",
)
SIZES = ({"batch": 2, "row": 7}, {"batch": 3, "row": 10})


@pytest.fixture(autouse=True)
def _seed(one_torch_thread: None) -> None:
    torch.manual_seed(0)


def tensors(feeds: Feeds) -> dict[str, Any]:
    return {name: torch.tensor(array) for name, array in widened_feeds(feeds).items()}


def outputs(module: Any, feeds: Feeds) -> list[np.ndarray]:
    with torch.no_grad():
        return [value.cpu().numpy() for value in call(module, tensors(feeds)).values()]


def in_runtime(model: ir.Model, feeds: Feeds) -> list[np.ndarray]:
    with open_session(widened(model)) as session:
        return run(session, widened_feeds(feeds))


def accepted(model: ir.Model) -> list[tuple[Feeds, list[np.ndarray]]]:
    """Inputs of two sizes, the first that ONNX Runtime accepts, and what it makes of them."""
    specs = input_specs(model.graph)
    for plan in size_plans(specs, SIZES):
        try:
            feeds = [random_feeds(specs, sizes, seed) for seed, sizes in enumerate(plan)]
            return [(given, in_runtime(model, given)) for given in feeds]
        except CannotRun:
            continue
    raise AssertionError("no inputs")


def assert_equal(arrays: list[np.ndarray], expected: list[np.ndarray], tolerance: float = 1e-4) -> None:
    for a, b in zip(arrays, expected, strict=True):
        assert a.shape == b.shape and np.isfinite(a).all()
        np.testing.assert_allclose(a, b, rtol=0, atol=tolerance * max(1.0, float(np.abs(b).max(initial=0))))


@pytest.mark.parametrize("name", SKELETONS)
def test_real_export(name: str) -> None:
    """One module runs at every batch and length, and computes what ONNX Runtime computes."""
    model = ir.from_proto(load_skeleton(name))
    module = to_torch(model)
    for feeds, expected in accepted(model):
        assert_equal(outputs(module, feeds), expected)


@pytest.mark.parametrize("name", ["zoo_bert_legacy", "zoo_efficientnet", "zoo_llama_legacy"])
def test_lengths_stay_on_the_cpu(name: str) -> None:
    """On a device without numbers it runs all the same: nothing that decides a shape is computed there."""
    model = ir.from_proto(load_skeleton(name))
    feeds, expected = accepted(model)[0]
    module = to_torch(model).to("meta")
    outputs_model = call(module, {name: tensor.to("meta") for name, tensor in tensors(feeds).items()})
    assert [tuple(value.shape) for value in outputs_model.values()] == [array.shape for array in expected]
    assert all(value.device.type == "meta" for value in outputs_model.values())


def mlp(*, half: bool = False, names: tuple[str, str] = ("encoder.0.weight", "head.weight")) -> onnx.ModelProto:
    g = Builder("mlp")
    x = g.input("x", "batch", 6)
    h = g("Relu", g("MatMul", x, g.weight(names[0], 6, 8)))
    g.output(g("Add", g("MatMul", h, g.weight(names[1], 8, 3)), g.weight("head.bias", 3)), "batch", 3)
    model = g.model()
    if half:
        from onnxruntime.transformers.float16 import convert_float_to_float16

        model = convert_float_to_float16(model, keep_io_types=True)
        casts = [node for node in model.graph.node if node.input[0] == "x" and node.op_type == "Cast"]
        for node in casts:  # it writes them last
            model.graph.node.remove(node)
            model.graph.node.insert(0, node)
    return model


def test_parameters_are_called_as_the_initializers() -> None:
    module = to_torch(ir.from_proto(mlp()))
    assert [name for name, _ in module.named_parameters()] == ["encoder.0.weight", "head.weight", "head.bias"]
    assert {"matmul1", "relu1", "matmul2", "add1"} <= {node.name for node in module.graph.nodes}


@pytest.mark.parametrize(
    "names",
    [("a", "a.b"), ("a.b", "a"), ("forward", "graph.x"), (".a", "b."), ("a..b", "a%2E%2Eb"), ("onnx::MatMul_1", "1")],
)
def test_any_name_is_kept(names: tuple[str, str]) -> None:
    """What torch forbids as a path is still found by its name, trained, and written back."""
    model = ir.from_proto(mlp(names=names))
    module = to_torch(model)
    assert set(initializers(module)) == {*names, "head.bias"}
    with torch.no_grad():
        initializers(module)[names[1]].mul_(2)
    result = write_back(model, module).graph.initializers
    for name, factor in zip(names, (1, 2), strict=True):
        before, after = model.graph.initializers[name].const_value, result[name].const_value
        np.testing.assert_array_equal(after.numpy(), factor * before.numpy())


@pytest.mark.parametrize("half", [False, True])
def test_trained_weights_go_back(half: bool) -> None:
    """The new file computes what the module computes; dtypes stay, and so does the model that was given."""
    proto = mlp(half=half)
    model = ir.from_proto(proto)
    before = ir.to_proto(model).SerializeToString(deterministic=True)
    module = to_torch(model)
    assert all(parameter.dtype == torch.float32 for parameter in module.parameters())
    optimizer = torch.optim.SGD(module.parameters(), lr=0.1)
    x = np.random.default_rng(0).normal(size=(4, 6)).astype(np.float32)
    first = outputs(module, {"x": x})
    for _ in range(3):
        optimizer.zero_grad()
        call(module, tensors({"x": x}))[model.graph.outputs[0].name].square().sum().backward()
        optimizer.step()
    result = write_back(model, module)
    serialized = ir.to_proto(result)
    onnx.checker.check_model(serialized, full_check=True)
    assert ir.to_proto(model).SerializeToString(deterministic=True) == before
    assert [(t.name, t.data_type) for t in serialized.graph.initializer] == [
        (t.name, t.data_type) for t in proto.graph.initializer
    ]
    assert serialized.graph.node == ir.to_proto(model).graph.node
    assert np.abs(first[0] - in_runtime(result, {"x": x})[0]).max() > 0.1
    assert_equal(outputs(module, {"x": x}), in_runtime(result, {"x": x}), 2e-3 if half else 1e-6)


def test_an_untrained_module_writes_the_same_file() -> None:
    model = ir.from_proto(load_skeleton("zoo_gemma"))
    same = ir.to_proto(write_back(model, to_torch(model))).SerializeToString(deterministic=True)
    assert same == ir.to_proto(model).SerializeToString(deterministic=True)


def test_another_model_is_refused() -> None:
    with pytest.raises(UsageError, match="lacks"):
        write_back(ir.from_proto(mlp(names=("a", "b"))), to_torch(ir.from_proto(mlp())))


def test_tied_weights_stay_tied() -> None:
    """A table that logits are made with, written into the file twice: one parameter, and both get its values."""
    g = Builder("tied")
    ids = g.input("ids", "batch", "row", dtype=TensorProto.INT64)
    table = g.weight("table", 20, 6)
    twin = g.const("twin", g.initializers[table].copy())
    h = g("Add", g("Gather", table, ids), g("Gather", twin, ids))
    g.output(g("MatMul", h, g.const("turned", g.initializers[table].T.copy())), "batch", "row", 20)
    model = ir.from_proto(g.model())
    module = to_torch(model)
    assert [name for name, _ in module.named_parameters()] == ["table"]
    assert len(list(to_torch(model, tie=False).parameters())) == 3
    feeds, expected = accepted(model)[0]
    assert_equal(outputs(module, feeds), expected, 1e-6)
    with torch.no_grad():
        module.get_parameter("table").add_(1)
    result = write_back(model, module).graph.initializers
    np.testing.assert_array_equal(result["table"].const_value.numpy(), g.initializers["table"] + 1)
    np.testing.assert_array_equal(result["twin"].const_value.numpy(), g.initializers["table"] + 1)
    np.testing.assert_array_equal(result["turned"].const_value.numpy(), g.initializers["table"].T + 1)


def test_dropout_follows_the_module_and_running_statistics_stay() -> None:
    g = Builder("modes")
    x = g.input("x", "batch", 6)
    vectors = [g.const(name, np.full(6, value), np.float32) for name, value in [("s", 2), ("b", 1), ("m", 3), ("v", 4)]]
    y = g("BatchNormalization", x, *vectors)
    g.output(y, "batch", 6)
    g.output(g("Dropout", y, 0.5), "batch", 6)
    module = to_torch(ir.from_proto(g.model()))
    assert not module.training
    assert {name for name, _ in module.named_parameters()} == {"s", "b"}
    given = torch.randn(50, 6)
    plain, same = module(given)
    torch.testing.assert_close(plain, same)
    module.train()
    again, dropped = module(given)
    torch.testing.assert_close(again, plain)
    kept = dropped != 0
    assert 0.3 < kept.float().mean() < 0.7
    torch.testing.assert_close(dropped[kept], 2 * plain[kept])


@pytest.mark.parametrize("domain", ["", "my.ops"])
def test_an_unknown_op_is_named(domain: str) -> None:
    node = helper.make_node("Foo", ["x"], ["y"], name="the_node", domain=domain)
    values = [helper.make_tensor_value_info(name, TensorProto.FLOAT, [2]) for name in "xy"]
    graph = helper.make_graph([node], "g", values[:1], values[1:])
    model = ir.from_proto(helper.make_model(graph, opset_imports=[helper.make_opsetid(d, 1) for d in {"", domain}]))
    with pytest.raises(ModelError, match=f"Foo of domain {domain or 'ai.onnx'} .*the_node") as caught:
        to_torch(model)
    assert "torch_op" in caught.value.hint


def test_functions_are_inlined() -> None:
    g = Builder("function")
    g.domains["local"] = 1
    x = g.input("x", "batch", 4)
    body = [helper.make_node("Mul", ["a", "a"], ["s"]), helper.make_node("Add", ["s", "b"], ["c"])]
    opsets = [helper.make_opsetid("", 17)]
    g.functions.append(helper.make_function("local", "SquarePlus", ["a", "b"], ["c"], body, opsets))
    g.output(g("SquarePlus", x, g.weight("bias", 4), domain="local"), "batch", 4)
    given = torch.randn(3, 4)
    module = to_torch(ir.from_proto(g.model()))
    torch.testing.assert_close(module(given)[0], given**2 + module.get_parameter("bias"))


def test_blocks_share_the_weights_outside() -> None:
    """A weight that only a branch reads is a parameter of the module, with its gradient."""
    branches = {}
    for name, weight in (("then_branch", "w"), ("else_branch", "v")):
        nodes = [helper.make_node("MatMul", ["x", weight], [f"{name}.y"])]
        info = helper.make_tensor_value_info(f"{name}.y", TensorProto.FLOAT, None)
        branches[name] = helper.make_graph(nodes, name, [], [info])
    g = Builder("branches")
    x = g.input("x", "batch", 4)
    flag = g.input("flag", dtype=TensorProto.BOOL)
    g.weight("w", 4, 3)
    g.weight("v", 4, 3)
    g.output(g("If", flag, **branches), "batch", 3)
    assert x == "x"
    module = to_torch(ir.from_proto(g.model()))
    given = torch.randn(2, 4)
    for choice, used, other in ((True, "w", "v"), (False, "v", "w")):
        module.zero_grad()
        (actual,) = module(given, torch.tensor(choice))
        torch.testing.assert_close(actual, given @ module.get_parameter(used))
        actual.sum().backward()
        assert module.get_parameter(used).grad is not None and module.get_parameter(other).grad is None


def test_what_is_a_weight() -> None:
    """Masks, tables, frequencies, slopes and numbers are none; learned positions and scales are."""
    g = Builder("roles", opset=17)
    ids = g.input("ids", "batch", 8, dtype=TensorProto.INT64)
    angles = np.outer(np.arange(8), 0.1 ** np.arange(12))
    h = g("Add", g("Gather", g.weight("tokens", 20, 12), ids), g.weight("places", 1, 8, 12))
    h = g("Mul", linear(g, h, "up", 12, 12), g.weight("layer_scale", 12))
    turned = [g("Mul", h, g.const(name, f(angles), np.float32)) for name, f in (("cos", np.cos), ("sin", np.sin))]
    h = g("Mul", g("Add", *turned), g.const("number", [0.25], np.float32))
    places = g("Cast", g("Range", np.array(0), g("Gather", g("Shape", ids), np.array(1)), np.array(1)), to=1)
    waves = g("Cos", g("Mul", g("Unsqueeze", places, [1]), g.const("frequencies", 0.1 ** np.arange(12), np.float32)))
    scores = g("MatMul", g("Add", h, waves), g("Transpose", h, perm=[0, 2, 1]))
    scores = g("Add", scores, g.const("levels", np.triu(np.full((8, 8), -100.0)), np.float32))
    scores = g("Add", scores, g.const("mask", np.triu(np.full((8, 8), -3e38), 1), np.float32))
    scores = g("Add", scores, g("Mul", places, g.const("slopes", 0.5 ** np.arange(8), np.float32)))
    pooled = g("MatMul", g("Softmax", scores), h)
    g.output(g("Add", g("MatMul", pooled, g.weight("w_one", 12, 1)), g.weight("b_one", 1)), "batch", 8, 1)
    module = to_torch(ir.from_proto(g.model()))
    weights = {"tokens", "places", "w_up", "b_up", "layer_scale", "w_one", "b_one"}
    assert {name for name, _ in module.named_parameters()} == weights


class Attention(torch.nn.Module):  # type: ignore[misc]
    def __init__(self) -> None:
        super().__init__()
        self.table = torch.nn.Embedding(20, 12)
        self.layer = torch.nn.TransformerEncoderLayer(12, 3, 24, 0.1, "gelu", batch_first=True, norm_first=True)
        self.head = torch.nn.Linear(12, 4)

    def forward(self, ids: Any) -> Any:
        return self.head(self.layer(self.table(ids)).mean(1))


class Causal(torch.nn.Module):  # type: ignore[misc]
    """A decoder with tied embeddings, RMS norms and a gated MLP."""

    def __init__(self) -> None:
        super().__init__()
        self.table = torch.nn.Embedding(20, 12)
        self.norm = torch.nn.RMSNorm(12)
        self.qkv = torch.nn.Linear(12, 36, bias=False)
        self.gate = torch.nn.Linear(12, 18)
        self.up = torch.nn.Linear(12, 18)
        self.down = torch.nn.Linear(18, 12)

    def forward(self, ids: Any) -> Any:
        x = self.table(ids)
        q, k, v = (
            t.reshape(*ids.shape, 3, 4).transpose(1, 2) for t in self.qkv(self.norm(x)).split([12, 12, 12], dim=-1)
        )
        y = torch.nn.functional.scaled_dot_product_attention(q, k, v, is_causal=True)
        x = x + y.transpose(1, 2).reshape(*ids.shape, 12)
        x = x + self.down(torch.nn.functional.silu(self.gate(x)) * self.up(x))
        return x @ self.table.weight.T


class Convolutions(torch.nn.Module):  # type: ignore[misc]
    def __init__(self) -> None:
        super().__init__()
        layers = torch.nn
        self.stem = layers.Sequential(layers.Conv2d(3, 8, 3, 2, 1), layers.Hardswish(), layers.BatchNorm2d(8))
        self.depthwise = layers.Conv2d(8, 8, 3, padding=1, groups=8, bias=False)
        self.norm = layers.GroupNorm(2, 8)
        self.squeeze = layers.Sequential(layers.AdaptiveAvgPool2d(1), layers.Conv2d(8, 8, 1), layers.Sigmoid())
        self.head = layers.Sequential(layers.MaxPool2d(2), layers.Flatten(), layers.Linear(8 * 4 * 4, 5))

    def forward(self, x: Any) -> Any:
        x = self.stem(x)
        x = x + self.norm(self.depthwise(x))
        return self.head(x * self.squeeze(x))


class Recurrent(torch.nn.Module):  # type: ignore[misc]
    def __init__(self) -> None:
        super().__init__()
        self.table = torch.nn.Embedding(20, 6)
        self.cell = torch.nn.GRUCell(6, 5)
        self.head = torch.nn.Linear(5, 4)

    def forward(self, ids: Any) -> Any:
        x = self.table(ids)
        h = x.new_zeros(x.shape[0], 5)
        for k in range(4):
            h = self.cell(x[:, k], h)
        return self.head(h)


class Scaler(torch.nn.Module):  # type: ignore[misc]
    """A decoder of images: resizing, transposed convolutions, and instance norms."""

    def __init__(self) -> None:
        super().__init__()
        layers = torch.nn
        self.down = layers.Sequential(layers.Conv2d(3, 6, 3, 2), layers.InstanceNorm2d(6, affine=True), layers.ELU())
        self.up = layers.Sequential(layers.Upsample(scale_factor=2, mode="bilinear"), layers.ConvTranspose2d(6, 4, 2))
        self.last = layers.Conv2d(4, 1, 1)

    def forward(self, x: Any) -> Any:
        return self.last(torch.nn.functional.softplus(self.up(self.down(x))))


def _ids() -> Any:
    return torch.randint(0, 20, (3, 6))


SOURCES: dict[str, tuple[Callable[[], Any], Callable[[], Any]]] = {
    "attention": (Attention, _ids),
    "causal": (Causal, _ids),
    "convolutions": (Convolutions, lambda: torch.randn(2, 3, 16, 16)),
    "recurrent": (Recurrent, _ids),
    "scaler": (Scaler, lambda: torch.randn(2, 3, 9, 9)),
}


@pytest.mark.parametrize("name", SOURCES)
def test_gradients_are_those_of_the_source(name: str) -> None:
    """Outputs and the gradient of every parameter, of the module that was exported and of the one that came back."""
    pytest.importorskip("onnxscript")
    from prunegraph.export.torch_module import read_torch

    make, inputs = SOURCES[name]
    source, given = make().eval(), inputs()
    with torch.no_grad():
        for parameter in source.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))
    module = to_torch(read_torch(source, (given,)))
    expected, actual = source(given), module(given)[0]
    torch.testing.assert_close(actual, expected, rtol=0, atol=1e-5)
    weights = torch.randn_like(expected)
    (expected * weights).sum().backward()
    (actual * weights).sum().backward()
    twins = dict(module.named_parameters())
    for name, parameter in source.named_parameters():
        twin = twins[name] if name in twins else _reshaped(parameter, twins.values())
        straight = twin.numel() == parameter.numel() and torch.equal(twin.flatten(), parameter.flatten())
        gradient = twin.grad.reshape(parameter.shape) if straight else twin.grad.T
        scale = max(1.0, float(parameter.grad.abs().max()))
        torch.testing.assert_close(gradient, parameter.grad, rtol=0, atol=1e-5 * scale)


def _reshaped(parameter: Any, twins: Iterable[Any]) -> Any:
    """The parameter that holds the same numbers: the exporter writes those of some norms under names of its own."""
    return next(twin for twin in twins if torch.equal(twin.flatten(), parameter.flatten()))


def test_narrow_floats_are_computed_in_float32() -> None:
    """bfloat16 throughout: torch computes in float32, and the file stays what it was."""
    node = helper.make_node("MatMul", ["x", "w"], ["y"])
    x, y = (helper.make_tensor_value_info(n, TensorProto.BFLOAT16, [None, k]) for n, k in (("x", 4), ("y", 20)))
    w = helper.make_tensor("w", TensorProto.BFLOAT16, [4, 20], np.linspace(-1, 1, 80))
    graph = helper.make_graph([node], "g", [x], [y], [w])
    model = ir.from_proto(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=10))
    module = to_torch(model)
    weight = module.get_parameter("w")
    given = torch.randn(3, 4).bfloat16()
    torch.testing.assert_close(call(module, {"x": given})["y"], given.float() @ weight)
    with torch.no_grad():
        weight.mul_(2)
    tensor = write_back(model, module).graph.initializers["w"].const_value
    assert tensor.dtype == ir.DataType.BFLOAT16
    np.testing.assert_array_equal(tensor.numpy().astype(np.float32), weight.detach().numpy())
