"""`prunegraph vocab`."""

from __future__ import annotations

import json as json_module
from pathlib import Path
from typing import Annotated

import typer

from prunegraph.cli.arguments import (
    DataFile,
    Json,
    Limit,
    Model,
    Size,
    TextColumns,
    Tokenizer,
    beside,
    data_of,
    load_for,
    parse_sizes,
    tokenizer_for,
)
from prunegraph.cli.console import progress, show, show_json
from prunegraph.errors import UsageError


def vocab(
    model: Model,
    output: Annotated[
        Path,
        typer.Option(
            "--output", "-o", metavar="OUT", help="Where to write the model; its tokenizer and plan lie beside it."
        ),
    ],
    keep: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="The tokens that stay, one a line, as they stand in the vocabulary."),
    ] = None,
    data: DataFile = None,
    tokenizer: Tokenizer = None,
    text_column: TextColumns = None,
    samples: Limit = None,
    size: Size = None,
    json: Json = False,
) -> None:
    """Leave out tokens that nobody uses: rows of the embedding and of what makes logits, and the tokenizer with them.

    What stays are the tokens of --keep, or those that --data use, and those without which the tokenizer does not work:
    special ones, single characters of BPE and what kept tokens are merged from. Tied and separate output layers lose
    the same rows. The logits of kept tokens are compared with the original's before anything is written.

    Beside OUT lie NAME.tokenizer.json, NAME.vocab.json (the old id of every token) and, where config.json lies beside
    MODEL, NAME.config.json: ids of special tokens have changed.

    \b
    Examples
      prunegraph vocab model.onnx -o slim.onnx --keep keep.txt --tokenizer tokenizer.json
      prunegraph vocab model.onnx -o slim.onnx --data texts.txt
    """  # noqa: D301 - \b keeps the lines that follow as they are
    tokenizer_path = tokenizer_for(model, tokenizer)
    if tokenizer_path is None:
        raise UsageError("the model's tokenizer is needed", hint="--tokenizer tokenizer.json, or its folder")
    if (keep is None) == (data is None):
        raise UsageError("tokens to keep are needed", hint="--keep FILE with one token a line, or --data FILE of texts")
    with progress() as step:
        step("load")
        from prunegraph.api import analyze
        from prunegraph.export.folder import read_config
        from prunegraph.export.onnx_file import save
        from prunegraph.observe.text import read_tokenizer
        from prunegraph.passes.choose.request import Scope
        from prunegraph.vocabulary import cut_tokenizer, cut_vocabulary, mapped_config
        from prunegraph.vocabulary.tokens import tokens_of_file, used_ids

        original = load_for(model, output)
        _, text = read_tokenizer(tokenizer_path)
        step("tokenize")
        texts = data_of(model, data, tokenizer_path, text_column, samples=samples)
        ids = used_ids(texts, original) if texts is not None else ()
        small = cut_tokenizer(text, tokens_of_file(keep) if keep is not None else (), ids)
        graph = analyze(original, scope=Scope(sizes=parse_sizes(size or ())), progress=step)
        step("cut")
        result = cut_vocabulary(graph, small.kept)
        config_path = beside(model, "config.json")
        config = read_config(config_path.parent) if config_path is not None else None
        plan = {"prunegraph_vocabulary": 1, "ids": result.ids, "kept": result.kept, "outputs": result.outputs}
        companions = {
            f"{output.stem}.tokenizer.json": small.text,
            f"{output.stem}.vocab.json": json_module.dumps(plan),
        }
        if config is not None:
            companions[f"{output.stem}.config.json"] = json_module.dumps(mapped_config(config, small.kept), indent=2)
        files = save(result.model, output, companions=companions)
    if json:
        facts = {"tokens": [result.size, len(result.kept)], "max_rel_error": result.error, "outputs": result.outputs}
        show_json({**facts, "files": [str(path) for path in files]})
        return
    logits = f"logits of kept tokens in {', '.join(result.outputs)}" if result.outputs else "all outputs"
    show(
        f"{result.size:,} -> {len(result.kept):,} tokens in {result.ids}",
        f"verified: {logits} are those of the original; largest error {result.error:.1e} of the output's scale",
        f"wrote {', '.join(str(path) for path in files)}",
    )
