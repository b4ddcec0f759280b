"""A slim model as a module again: it runs as the slim model does, and a smaller module of its class loads its state."""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Any

import numpy as np
import onnx_ir as ir
import onnxruntime as ort
import pytest

import prunegraph as pg

torch = pytest.importorskip("torch", reason="torch is not installed")
pytest.importorskip("onnxscript", reason="onnxscript is not installed")

from torch import Tensor, nn  # noqa: E402

from prunegraph.torch_twin import call  # noqa: E402

WIDTH, HEAD_DIM = 12, 3


class Attention(nn.Module):
    """Queries, keys and values of one projection, of each head beside each other, or one behind the other."""

    def __init__(self, heads: int, by_head: bool) -> None:
        super().__init__()
        self.heads, self.by_head = heads, by_head
        self.qkv = nn.Linear(WIDTH, 3 * heads * HEAD_DIM)
        self.out = nn.Linear(heads * HEAD_DIM, WIDTH)

    def forward(self, x: Tensor) -> Tensor:
        batch, length, _ = x.shape
        parts = (self.heads, 3, HEAD_DIM) if self.by_head else (3, self.heads, HEAD_DIM)
        q, k, v = self.qkv(x).view(batch, length, *parts).unbind(3 if self.by_head else 2)
        scores = (q.transpose(1, 2) @ k.transpose(1, 2).transpose(2, 3) * HEAD_DIM**-0.5).softmax(-1)
        return self.out((scores @ v.transpose(1, 2)).transpose(1, 2).reshape(batch, length, -1))


class Classifier(nn.Module):
    """Tied tables, equal biases, a norm, a buffer, and a layer that nobody calls."""

    def __init__(self, heads: int = 4, inner: int = 20, by_head: bool = False) -> None:
        super().__init__()
        self.words = nn.Embedding(30, WIDTH)
        self.attention = Attention(heads, by_head)
        self.up, self.down = nn.Linear(WIDTH, inner), nn.Linear(inner, WIDTH)
        self.norm = nn.LayerNorm(WIDTH)
        self.logits = nn.Linear(WIDTH, 30, bias=False)
        self.spare = nn.Linear(2, 2)
        self.register_buffer("scale", torch.tensor([1.5, 0.5] * (WIDTH // 2)))
        self.logits.weight = self.words.weight
        for bias in (self.attention.out.bias, self.down.bias):
            nn.init.zeros_(bias)  # equal, so that exporters make them one

    def forward(self, ids: Tensor) -> Tensor:
        x = self.words(ids) * self.scale
        x = x + self.attention(x)
        return self.logits(self.norm(x + self.down(torch.relu(self.up(x)))))


def slim_classifier(by_head: bool) -> Callable[..., nn.Module]:
    return lambda **sizes: Classifier(by_head=by_head, **sizes)


def tiny_bert(**sizes: Any) -> nn.Module:
    transformers = pytest.importorskip("transformers")
    config = {
        "vocab_size": 40,
        "hidden_size": 16,
        "num_hidden_layers": 2,
        "num_attention_heads": 2,
        "intermediate_size": 24,
        "max_position_embeddings": 12,
        "num_labels": 3,
        "initializer_range": 0.3,
    }
    return transformers.BertForSequenceClassification(transformers.BertConfig(**{**config, **sizes}))


CASES: dict[str, tuple[Callable[..., nn.Module], str, dict[str, float], dict[str, int]]] = {
    "parts behind each other": (slim_classifier(False), "ids", {"head": 0.5, "ffn": 0.5}, {"heads": 2, "inner": 10}),
    "parts by head": (slim_classifier(True), "ids", {"head": 0.25, "ffn": 0.5}, {"heads": 3, "inner": 10}),
    "bert": (tiny_bert, "input_ids", {"ffn": 0.5}, {"intermediate_size": 12}),
}


@pytest.fixture(scope="module", params=CASES)
def pruned(request: pytest.FixtureRequest) -> tuple[nn.Module, pg.PruneResult, nn.Module, Tensor]:
    """The module, its slim result, an untrained module of the slim size, and ids."""
    make, name, amount, sizes = CASES[request.param]
    torch.manual_seed(0)
    module, ids = make().eval(), torch.randint(0, 30, (2, 7))
    for parameter in module.parameters():
        if parameter.abs().max() == 1:  # norms; biases of zeros, which exporters leave out, stay
            nn.init.normal_(parameter)
    result = pg.prune_graph(pg.from_torch(module, {name: ids}), pg.Amount(amount, rank="local"))
    return module, result, make(**sizes).eval(), ids


def outputs(result: pg.PruneResult, ids: Tensor) -> Any:
    session = ort.InferenceSession(ir.to_proto(result.ir_model).SerializeToString())
    return session.run(None, {session.get_inputs()[0].name: ids.numpy()})[0]


def test_it_runs_as_the_slim_model(pruned: tuple[nn.Module, pg.PruneResult, nn.Module, Tensor]) -> None:
    _, result, _, ids = pruned
    module = pg.to_module(result)
    (y,) = call(module, {result.ir_model.graph.inputs[0].name or "": ids}).values()
    assert not module.training
    np.testing.assert_allclose(y.detach().numpy(), outputs(result, ids), rtol=1e-4, atol=1e-5)


def test_a_smaller_module_of_the_class_loads_it(pruned: tuple[nn.Module, pg.PruneResult, nn.Module, Tensor]) -> None:
    """Strictly; and it computes the same."""
    whole, result, small, ids = pruned
    state = pg.to_module(result).state_dict()
    assert set(state) == set(whole.state_dict())
    small.load_state_dict(state, strict=True)
    y = small(ids)
    y = y if isinstance(y, Tensor) else y.logits
    expected = outputs(result, ids)
    assert np.abs(expected).max() > 1e-2
    np.testing.assert_allclose(y.detach().numpy(), expected, rtol=1e-4, atol=1e-5)


def test_it_trains(pruned: tuple[nn.Module, pg.PruneResult, nn.Module, Tensor]) -> None:
    """Under the names of the module that came in, and with tied weights as one."""
    whole, result, _, ids = pruned
    module = pg.to_module(result)
    names = dict(module.named_parameters(remove_duplicate=False))
    assert set(names) == set(dict(whole.named_parameters(remove_duplicate=False)))
    if isinstance(whole, Classifier):
        assert names["words.weight"] is names["logits.weight"]
    (out,) = module(ids)
    out.square().sum().backward()
    assert all(parameter.grad is not None for name, parameter in names.items() if "spare" not in name)


def test_trained_and_refitted_weights_are_in_it() -> None:
    """What follows the proof changes weights: the module has those of the slim model, not of the one that came in."""
    torch.manual_seed(0)
    data = {"ids": np.random.default_rng(0).integers(0, 30, (64, 7))}
    model = pg.from_torch(Classifier().eval(), {"ids": torch.randint(0, 30, (2, 7))})
    result = pg.prune_graph(model, {"ffn": 0.5}, data=data)
    assert result.report.repair is not None and result.report.repair.written
    small = Classifier(inner=10).eval()
    small.load_state_dict(pg.to_module(result).state_dict(), strict=True)
    ids = torch.randint(0, 30, (3, 5))
    np.testing.assert_allclose(small(ids).detach().numpy(), outputs(result, ids), rtol=1e-4, atol=1e-5)


def test_what_the_exporter_folded_is_told(caplog: pytest.LogCaptureFixture) -> None:
    module = nn.Sequential(nn.Conv2d(3, 8, 1), nn.BatchNorm2d(8), nn.ReLU(), nn.Conv2d(8, 2, 1)).eval()
    module[1].running_mean += 1
    result = pg.prune_graph(pg.from_torch(module, (torch.randn(2, 3, 4, 4),)), 0.5)
    with caplog.at_level(logging.WARNING):
        state = pg.to_module(result).state_dict()
    assert "1.weight" in caplog.text and "1.weight" not in state and state["3.weight"].shape[1] == 4


def test_a_model_from_a_file_keeps_the_names_of_its_initializers(
    pruned: tuple[nn.Module, pg.PruneResult, nn.Module, Tensor],
) -> None:
    result = pg.analyze(ir.to_proto(pruned[1].ir_model)).apply(pg.Selection({}), verify=False)
    names = {name for name, _ in pg.to_module(result).named_parameters()}
    assert names <= set(result.ir_model.graph.initializers)
