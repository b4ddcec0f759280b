"""`prunegraph vocab`."""

from __future__ import annotations

import json as json_module
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from prunegraph.cli.arguments import DataFile, Json, Limit, Original, Size, TextColumns, Tokenizer
from prunegraph.cli.console import progress, show, show_json
from prunegraph.cli.named import beside, data_of, load_for, tokenizer_for
from prunegraph.cli.parse import parse_sizes
from prunegraph.errors import UsageError

if TYPE_CHECKING:
    from prunegraph.cli.model_folder import ModelFolder
    from prunegraph.vocabulary import SmallTokenizer, SmallVocabulary

OLD_IDS = (
    *("vocab.txt", "vocab.json", "merges.txt", "added_tokens.json", "spiece.model", "tokenizer.model"),
    *("sentencepiece.bpe.model", "source.spm", "target.spm"),
)
"""Files of slow tokenizers, which have the old ids; `tokenizer.json` says all of it."""

MAPPED = ("tokenizer_config.json", "generation_config.json", "genai_config.json")
"""Files beside `config.json` that state ids of tokens."""


def vocab(
    model: Original,
    output: Annotated[
        Path,
        typer.Option(
            "--output",
            "-o",
            metavar="OUT",
            help="Where to write the model, its tokenizer and plan beside it; a new folder where MODEL is one.",
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
    MODEL, NAME.config.json: ids of special tokens have changed. A folder as MODEL becomes a folder that loads as it
    did: tokenizer.json and the configurations are written anew, and files of slow tokenizers are left out.
    `prunegraph verify MODEL OUT` proves it again.

    \b
    Examples
      prunegraph vocab model.onnx -o slim.onnx --keep keep.txt --tokenizer tokenizer.json
      prunegraph vocab model.onnx -o slim.onnx --data texts.txt
      prunegraph vocab folder -o slim-folder --data texts.txt
    """  # noqa: D301 - \b keeps the lines that follow as they are
    tokenizer_path = tokenizer_for(model, tokenizer)
    if tokenizer_path is None:
        raise UsageError("the model's tokenizer is needed", hint="--tokenizer tokenizer.json, or its folder")
    if (keep is None) == (data is None):
        raise UsageError("tokens to keep are needed", hint="--keep FILE with one token a line, or --data FILE of texts")
    with progress() as step, ExitStack() as stack:
        step("load")
        from prunegraph.api import analyze
        from prunegraph.cli.model_folder import opened
        from prunegraph.export.folder import read_config
        from prunegraph.export.onnx_file import load
        from prunegraph.observe.text import read_tokenizer
        from prunegraph.passes.choose.request import Scope
        from prunegraph.vocabulary import VocabularyPlan, cut_tokenizer, cut_vocabulary
        from prunegraph.vocabulary.tokens import tokens_of_file, used_ids

        folder = stack.enter_context(opened(model, output, step))
        original = load_for(model, output) if folder is None else load(folder.model)
        _, text = read_tokenizer(tokenizer_path)
        step("tokenize")
        texts = data_of(model, data, tokenizer_path, text_column, samples=samples)
        ids = used_ids(texts, original) if texts is not None else ()
        tokens = tokens_of_file(keep) if keep is not None else ()
        small = cut_tokenizer(
            text, tokens, [*ids, *_ids_of_configurations(folder.folder if folder is not None else model)]
        )
        graph = analyze(original, scope=Scope(sizes=parse_sizes(size or ())), progress=step)
        step("cut")
        result = cut_vocabulary(graph, small.kept)
        plan = VocabularyPlan(result.kept, result.ids, result.outputs, graph.mark).to_json()
        step("write")
        if folder is None:
            config_path = beside(model, "config.json")
            config = read_config(config_path.parent) if config_path is not None else None
            files = _write_file(output, result, small, plan, config)
        else:
            files = _write_folder(folder, output, result, small, plan)
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


def _ids_of_configurations(model: Path) -> list[int]:
    """The tokens that configurations beside a model name, or in the folder that it is: they must stay."""
    from prunegraph.export.folder import read_json
    from prunegraph.vocabulary import stated_ids

    paths = [path for name in ("config.json", *MAPPED) if (path := beside(model, name)) is not None]
    configs = [config for path in paths if isinstance(config := read_json(path), dict)]
    return [number for config in configs for number in stated_ids(config)]


def _write_file(
    output: Path, result: SmallVocabulary, small: SmallTokenizer, plan: str, config: Mapping[str, Any] | None
) -> Sequence[Path]:
    """A model with its tokenizer, its plan and its configuration beside it."""
    from prunegraph.export.onnx_file import save
    from prunegraph.vocabulary import mapped_config

    companions = {f"{output.stem}.tokenizer.json": small.text, f"{output.stem}.vocab.json": plan}
    if config is not None:
        companions[f"{output.stem}.config.json"] = json_module.dumps(mapped_config(config, small.kept), indent=2)
    return save(result.model, output, companions=companions)


def _write_folder(
    folder: ModelFolder, target: Path, result: SmallVocabulary, small: SmallTokenizer, plan: str
) -> Sequence[Path]:
    """A folder as the one that was given, with the model, the tokenizer and the configurations written anew."""
    from prunegraph.atomic_write import new_folder
    from prunegraph.export.folder import read_config, read_json, write_companions
    from prunegraph.export.onnx_file import save
    from prunegraph.vocabulary import mapped_config

    config = read_config(folder.folder)
    card = f"This is {folder.name} with {len(result.kept):,} of its {result.size:,} tokens.\n"
    with new_folder(target) as staging:
        place = staging / folder.place
        place.parent.mkdir(parents=True, exist_ok=True)
        save(result.model, place, companions={f"{place.stem}.vocab.json": plan})
        mapped = None if config is None else mapped_config(config, small.kept)
        write_companions(folder.folder, folder.model, staging, mapped, card)
        (staging / "tokenizer.json").write_text(small.text, encoding="utf-8")
        for name in OLD_IDS:
            (staging / name).unlink(missing_ok=True)
        for path in (staging / name for name in MAPPED):
            if path.is_file():
                numbers = mapped_config(read_json(path), small.kept)
                path.write_text(json_module.dumps(numbers, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
        return [target / path.relative_to(staging) for path in sorted(staging.rglob("*")) if path.is_file()]
