"""Other tools at the same measured speed: Torch-Pruning with every hint that it takes, and onnxsim's pruning.

Neither takes a speed, so that their one ratio is found as ours is: cut, export, time beside the dense model, correct.
Every version is written in the equal forms that are faster here, as ours are.  Torch-Pruning gets the module, rebuilt
from the file that was exported from it, with the heads named and the classifier left alone.  "width too" lets it narrow
the residual width, which it does where nobody forbids it; else the layers that write to it are ignored, the other way
that its examples show.  The same ratio gives the same shapes whatever chooses, so that speed is tuned once a task.
"""

from __future__ import annotations

import inspect
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnx_ir as ir

from benchmarks import fashion, movie
from benchmarks.harness import Record
from benchmarks.judge import right
from benchmarks.speed_tasks import BUILD, TASK_SPEEDS, bits, slim_path, task_files, timing, training
from prunegraph.analysis.read_weight import read_initializer
from prunegraph.errors import PruneGraphError
from prunegraph.export.onnx_file import load
from prunegraph.passes.choose.meet_time import meet_speedup
from prunegraph.passes.rewrite.for_runtime import suit_runtime, write_forms
from prunegraph.runtime.session import open_session
from prunegraph.speed.timer import TABLE_ROUNDS, Timer
from prunegraph.strict_json import parse_json

MOST = 0.95
"""The largest ratio."""

TAYLOR_BATCHES = 16
"""Batches that gradients are summed over: 512 examples, as many as ours look at, and with labels."""

OURS = "prunegraph prune model.onnx -o slim.onnx --speedup 2 --data train.jsonl --tokenizer tokenizer.json"
"""The user code of this package: one line."""


# ---- user code, as the examples of Torch-Pruning have it -----------------------------------------------------------


def prune_bert(model: Any, example: Any, ratio: float, importance: Any, width: bool, batches: Any) -> None:
    """Prune heads and channels of a BERT classifier, in place."""
    import torch_pruning as tp
    from transformers.models.bert.modeling_bert import BertSelfAttention

    heads, ignored = {}, [model.classifier]
    attentions = [m for m in model.modules() if isinstance(m, BertSelfAttention)]
    for m in attentions:
        heads |= dict.fromkeys((m.query, m.key, m.value), m.num_attention_heads)
    if not width:
        ignored += [layer.attention.output.dense for layer in model.bert.encoder.layer]
        ignored += [layer.output.dense for layer in model.bert.encoder.layer]
    pruner = tp.pruner.BasePruner(
        model, example, importance, pruning_ratio=ratio, ignored_layers=ignored, num_heads=heads, prune_num_heads=True,
        prune_head_dims=False, head_pruning_ratio=ratio, output_transform=lambda out: out["logits"].sum(),
    )  # fmt: skip
    _prune(pruner, batches)
    for m in attentions:
        m.num_attention_heads = pruner.num_heads[m.query]
        m.attention_head_size = m.query.out_features // m.num_attention_heads
        m.all_head_size = m.query.out_features
    model.bert.config.hidden_size = model.classifier.in_features


def _prune(pruner: Any, batches: Any) -> None:
    """Let a tool prune, by the gradients of these losses where it looks at any."""
    for loss in batches:
        loss.backward()
    for group in pruner.step(interactive=True):
        group.prune()


def prune_vit(model: Any, example: Any, ratio: float, importance: Any, width: bool, batches: Any) -> None:
    """Prune heads and channels of a ViT of timm, in place."""
    import torch.nn.functional as F
    import torch_pruning as tp

    def forward(self: Any, x: Any, *args: Any, **kwargs: Any) -> Any:
        batch, tokens, _ = x.shape
        qkv = self.qkv(x).reshape(batch, tokens, 3, self.num_heads, self.head_dim).permute(2, 0, 3, 1, 4)
        x = F.scaled_dot_product_attention(*qkv.unbind(0)).transpose(1, 2).reshape(batch, tokens, -1)
        return self.proj(x)

    ignored = [model.head]
    attentions = [block.attn for block in model.blocks]
    for attention in attentions:
        attention.forward = forward.__get__(attention)
    if not width:
        ignored += [layer for block in model.blocks for layer in (block.attn.proj, block.mlp.fc2)]
    pruner = tp.pruner.BasePruner(
        model, example, importance, pruning_ratio=ratio, ignored_layers=ignored, prune_num_heads=True,
        num_heads={attention.qkv: attention.num_heads for attention in attentions}, prune_head_dims=False,
        head_pruning_ratio=ratio,
    )  # fmt: skip
    _prune(pruner, batches)
    for attention in attentions:
        attention.num_heads = pruner.num_heads[attention.qkv]
        attention.head_dim = attention.qkv.out_features // (3 * attention.num_heads)


def prune_file(model: onnx.ModelProto, ratio: float) -> onnx.ModelProto:
    """Prune channels and heads of a file."""
    from onnxsim import pruning, simplify

    simple, _ = simplify(model)
    slim = pruning.apply_structured_pruning(simple, ratio)
    return pruning.apply_attention_head_pruning(slim, ratio)


# ---- the tools -----------------------------------------------------------------------------------------------------


def torch_pruning(task: str, seed: int, ratio: float, *, taylor: bool, width: bool) -> ir.Model:
    """What Torch-Pruning leaves of a task's module, exported as the dense one was.

    Args:
        task: One of `TASKS`.
        seed: Of the dense model.
        ratio: What goes of heads and of channels.
        taylor: By gradients on labels, else by magnitude.
        width: Whether the residual width may go, too.
    """
    import torch
    import torch_pruning as tp

    module = dense_module(task, seed)
    importance = tp.importance.GroupTaylorImportance() if taylor else tp.importance.GroupMagnitudeImportance(p=2)
    losses = _losses(module, task, seed) if taylor else ()
    prune = prune_vit if task == "fashion" else prune_bert
    prune(module, _example(task), ratio, importance, width, losses)
    module.zero_grad()
    with torch.no_grad():
        return exported(task, module.eval())


def onnxsim(task: str, seed: int, ratio: float) -> ir.Model:
    """What onnxsim's structured and head pruning leave of a task's file; arguments as for `torch_pruning`."""
    return ir.serde.deserialize_model(prune_file(onnx.load(task_files(task, seed)[0]), ratio))


TOOLS: dict[str, Callable[[str, int, float], ir.Model]] = {
    "tp-magnitude": partial(torch_pruning, taylor=False, width=False),
    "tp-taylor": partial(torch_pruning, taylor=True, width=False),
    "tp-magnitude-width": partial(torch_pruning, taylor=False, width=True),
    "tp-taylor-width": partial(torch_pruning, taylor=True, width=True),
    "onnxsim": onnxsim,
}
"""By name in cases what makes a version from a task, a seed and a ratio."""

TITLES = {
    "tp-magnitude": "Torch-Pruning, magnitude",
    "tp-taylor": "Torch-Pruning, Taylor (labels)",
    "tp-magnitude-width": "Torch-Pruning, magnitude, width too",
    "tp-taylor-width": "Torch-Pruning, Taylor (labels), width too",
    "onnxsim": "onnxsim, structured and heads",
}


def lines_of_code(tool: str, task: str) -> int:
    """Lines of user code that a tool takes, without signature, docstring, comments and blank lines."""
    function = prune_file if tool == "onnxsim" else prune_vit if task == "fashion" else prune_bert
    lines = (line.strip() for line in inspect.getsource(function).splitlines()[2:])
    return sum(bool(line) and not line.startswith("#") for line in lines)


# ---- cases ---------------------------------------------------------------------------------------------------------


def peer_ratio(task: str, tool: str, speedup: float) -> Record:
    """The ratio at which a tool's version is so many times faster than the dense model, on the first seed."""
    timer, original = Timer("cpu", timing(task)), load(task_files(task, 0)[0])
    forms: tuple[str, ...] | None = None
    made: dict[float, ir.Model] = {}

    def make(ratio: float) -> float:
        nonlocal forms
        slim = TOOLS[tool](task, 0, ratio)
        if forms is None:
            trials = suit_runtime(slim, lambda first, second: timer.ratio(first, second, rounds=TABLE_ROUNDS))[1]
            forms = tuple(trial.name for trial in trials if trial.kept)
        made.clear()
        made[ratio] = write_forms(slim, forms)
        return ratio

    start = time.perf_counter()
    try:
        met = meet_speedup(speedup, make, lambda ratio: timer.sure_pair(original, made[ratio]).results[1].ratio, MOST)
    except PruneGraphError as error:
        return {"refused": str(error)}
    seconds = time.perf_counter() - start
    return {"ratio": met.best.plan, "measured": asdict(met.best.ratio), "forms": list(forms or ()), "seconds": seconds}


def peer_accuracy(task: str, seed: int, tool: str) -> Record:
    """How often a tool's versions are right, at the ratios that were found; they are kept for a fine-tune."""
    inputs = task_files(task, seed)[2].opened()
    rows, seconds = dict[str, Any](), dict[str, float]()
    for speedup, ratio in _ratios(task, tool):
        start = time.perf_counter()
        slim = TOOLS[tool](task, seed, ratio)
        seconds[f"{speedup:g}"] = time.perf_counter() - start
        path = slim_path(task, seed, tool, speedup)
        path.parent.mkdir(parents=True, exist_ok=True)
        ir.save(slim, path)
        rows[f"{speedup:g}"] = right(slim, inputs)
    return {"right": bits(rows), "seconds": seconds, "lines": lines_of_code(tool, task)}


def _ratios(task: str, tool: str) -> Iterator[tuple[float, float]]:
    """By speed the ratio that was found, from the records of the study."""
    records = {}
    for line in (BUILD / "records.jsonl").read_text(encoding="utf-8").splitlines():
        entry = parse_json(line)
        records[entry["case"]] = entry["record"]
    for speedup in TASK_SPEEDS:
        record = records.get(f"tune-peer:{task}:{tool}:{speedup:g}", {})
        if "ratio" in record:
            yield speedup, record["ratio"]


# ---- modules -------------------------------------------------------------------------------------------------------


def dense_module(task: str, seed: int) -> Any:
    """The module that a task's file was exported from, with the weights that the file holds."""
    module = fashion.network() if task == "fashion" else movie.Classifier(movie.TASKS[task], dropout=0.0)
    return with_weights(module.eval(), load(task_files(task, seed)[0]), _example(task))


def with_weights(module: Any, model: ir.Model, example: Any) -> Any:
    """A module with the weights of the file that was exported from it.

    Weights of linear layers lie there as products read them, turned or not, under this name or that; the bias beside a
    weight keeps its name, and tells which it is.

    Args:
        module: Of the architecture; it is changed.
        model: What was exported.
        example: Arguments of the module, to compare with.

    Raises:
        ValueError: the module does not compute what the file does.
    """
    import torch

    linear = {f"{name}.weight": f"{name}.bias" for name, m in module.named_modules() if isinstance(m, torch.nn.Linear)}
    with torch.no_grad():
        for name, parameter in module.named_parameters():
            array = weight_beside(model, linear[name]) if name in linear else read_initializer(model, name)
            parameter.copy_(torch.from_numpy(np.array(array)))
        output = module(**example) if isinstance(example, dict) else module(example)
    expected = output["logits"] if isinstance(output, dict) else output
    feeds = example if isinstance(example, dict) else {"x": example}
    with open_session(model) as session:
        (given,) = session.run(None, {name: value.numpy() for name, value in feeds.items()})
    if not np.allclose(given, expected.numpy(), rtol=1e-3, atol=1e-3):
        raise ValueError("the module does not compute what the file does")
    return module


def weight_beside(model: ir.Model, bias: str) -> Any:
    """The weight of the product that a bias is added to, `[out, in]`."""
    ((node, _),) = model.graph.initializers[bias].uses()
    if node.op_type == "Gemm":
        weight, turned = node.inputs[1], node.attributes.get_int("transB", 0)
    else:
        products = [value.producer() for value in node.inputs if value is not None and value.producer() is not None]
        weight, turned = products[0].inputs[1], 0
    array = read_initializer(model, weight.name)
    return array if turned else array.T


def _example(task: str) -> Any:
    import torch

    if task == "fashion":
        return torch.zeros(2, 1, 28, 28)
    return {name: torch.ones(2, 9, dtype=torch.int64) for name in ("input_ids", "attention_mask")}


def exported(task: str, module: Any) -> ir.Model:
    """A module of a task as a graph."""
    with tempfile.TemporaryDirectory() as folder:  # as a file, as others get it
        path = Path(folder) / "model.onnx"
        ir.save((fashion if task == "fashion" else movie).exported(module), path)
        return ir.serde.deserialize_model(onnx.load(path))


def _losses(module: Any, task: str, seed: int) -> Iterator[Any]:
    """The loss of a few labelled batches."""
    import torch

    model = load(task_files(task, seed)[0])
    inputs = training(task, seed).opened().inputs(model).first(32 * TAYLOR_BATCHES)
    for batch in inputs.batches():
        feeds = {name: torch.from_numpy(np.array(value)) for name, value in batch.feeds.items()}
        logits = module(feeds["x"]) if task == "fashion" else module(**feeds)["logits"]
        labels = torch.tensor([sample.label for sample in batch.samples])
        yield torch.nn.functional.cross_entropy(logits[: len(labels)], labels)
