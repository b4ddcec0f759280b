"""Arguments that several commands take."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

ORIGINAL = "The ONNX file as it was exported, or its folder; it is never changed."


def onnx_file(given: Path | None) -> Path | None:
    """The ONNX file that is meant: in a folder of transformers or Optimum the model, else what is given."""
    if given is None or not given.is_dir():
        return given
    from prunegraph.errors import ModelError
    from prunegraph.export.folder import find_model

    try:
        return find_model(given)
    except ModelError:  # the folder holds none or several: what reads it says so
        return given


def onnx_files(given: list[Path] | None) -> list[Path]:
    """The same of several."""
    return [file for each in given or () if (file := onnx_file(each)) is not None]


Original = Annotated[Path, typer.Argument(metavar="MODEL", help=ORIGINAL)]
"""A file, or a folder that becomes a folder."""
Model = Annotated[Path, typer.Argument(metavar="MODEL", help=ORIGINAL, callback=onnx_file)]
"""A file, or the one in a folder."""
AllowIo = Annotated[
    list[str] | None,
    typer.Option(
        metavar="PATTERN",
        help="Graph inputs and outputs that may shrink with the rest, such as 'last_*'. Repeatable.",
    ),
]
Size = Annotated[
    list[str] | None,
    typer.Option("--size", metavar="NAME=N", help="Size of a dynamic dim of an input by its name. Repeatable."),
]
Fixed = Annotated[
    list[str] | None,
    typer.Option(
        "--set",
        metavar="NAME=VALUE",
        help="An input that has one value for good, such as sr=16000 or use_cache_branch=true: what hangs on it is "
        "computed now, an If inlined. Repeatable.",
    ),
]
Json = Annotated[bool, typer.Option("--json", help="Print JSON for programs.")]

DataFile = Annotated[
    Path | None,
    typer.Option(
        "--data",
        metavar="FILE",
        help="What to run the model on: texts (.txt .csv .tsv .jsonl .conllu), inputs (.npz), or a folder of class "
        "folders of images.",
    ),
]
Tokenizer = Annotated[
    Path | None,
    typer.Option(
        metavar="PATH",
        help="The model's tokenizer.json, or its folder; for texts.  [default: tokenizer.json beside MODEL]",
        show_default=False,
    ),
]
TextColumns = Annotated[
    list[str] | None,
    typer.Option("--text-column", metavar="NAME", help="Column of text; twice for pairs.  [default: usual names]"),
]
LabelColumn = Annotated[
    str,
    typer.Option(
        "--label-column",
        metavar="NAME",
        help="Column of class numbers, or of names that config.json beside MODEL has in label2id.",
        show_default=False,
    ),
]
ImageOptions = Annotated[
    list[str] | None,
    typer.Option(
        "--image",
        metavar="NAME=VALUE",
        help="How images become inputs: size=224, resize=256 (the shorter side), mean=M,M,M, std=S,S,S, "
        "resampling=NAME. Repeatable.  [default: preprocessor_config.json beside MODEL]",
        show_default=False,
    ),
]
Limit = Annotated[
    int | None, typer.Option("--samples", metavar="N", min=1, help="Read only the first N examples of the data.")
]
Jobs = Annotated[
    int,
    typer.Option(
        "--jobs",
        metavar="N",
        help="So many parts of the data are observed at a time, each in a process of its own; -1: one a processor.",
    ),
]
RunBy = Annotated[
    str,
    typer.Option(
        "--ep",
        metavar="NAME,...",
        help="Execution providers that run the data, the first choice first: cpu, cuda, tensorrt, openvino, ...",
    ),
]
ScorerOptions = Annotated[
    list[str] | None,
    typer.Option(
        "--scorer-option", metavar="NAME=VALUE", help="An option of the scorer, such as k=7 of sap. Repeatable."
    ),
]
ParserNoise = Annotated[
    float,
    typer.Option(metavar="P", min=0, max=1, help="Corrupt this fraction of dependency arcs, to see what that does."),
]

BatchSize = Annotated[int, typer.Option("--batch", metavar="N", help="Timing: size of a dynamic batch.")]
SequenceLength = Annotated[int, typer.Option("--sequence", metavar="N", help="Timing: length of a dynamic sequence.")]
Threads = Annotated[int, typer.Option("--threads", metavar="N", help="Timing: threads inside an operator.")]
Protocol = Annotated[
    str,
    typer.Option(
        "--protocol",
        metavar="NAME",
        help="Timing: turns, one run of each model after the other, so that each finds the caches as another left "
        "them; or blocks, several runs of one model before the next, as in a busy server.",
    ),
]
Align = Annotated[
    int | None, typer.Option(metavar="N", help="Round what is kept up to a multiple of this.", show_default=False)
]
KeepForm = Annotated[
    bool, typer.Option("--keep-form", help="By speed: write no equal forms that this runtime runs faster.")
]
