"""What the arguments of a command name: data, scorers, timing, and the files beside a model."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from prunegraph.cli.parse import parse_images, parse_options, parse_scorers, parse_sizes
from prunegraph.errors import UsageError

if TYPE_CHECKING:
    import onnx_ir as ir

    from prunegraph.observe.stream import Data
    from prunegraph.passes.score import KindScorers


def timing_of(batch: int, sequence: int, size: list[str] | None, threads: int, protocol: str) -> dict[str, Any]:
    """How models are timed, for `Amount`.

    Args:
        batch: See `BatchSize`.
        sequence: See `SequenceLength`.
        size: See `Size`.
        threads: See `Threads`.
        protocol: See `Protocol`.
    """
    sizes = parse_sizes(size or ())
    return {"batch": batch, "sequence": sequence, "sizes": sizes, "threads": threads, "protocol": protocol}


def data_of(
    model: Path,
    data: Path | None,
    tokenizer: Path | None,
    text: list[str] | None = None,
    label: str = "",
    samples: int | None = None,
    ep: str = "cpu",
    image: list[str] | None = None,
    jobs: int = 1,
) -> Data | None:
    """The data that the options of a command name; None if none are given."""
    from prunegraph.observe.stream import Data

    if data is None:
        return None
    return Data(
        data,
        tokenizer_for(model, tokenizer),
        text=text or (),
        label=label,
        label2id=classes_of(model),
        limit=samples,
        providers=ep.split(","),
        jobs=jobs,
        images=parse_images(image) if image else beside(model, "preprocessor_config.json"),
    )


def scorers_of(scorer: list[str] | None, options: list[str] | None, noise: float, seed: int) -> KindScorers:
    """The scorers that the options of a command name, with their options and seed.

    Raises:
        UsageError: there is no such scorer or option.
    """
    from prunegraph.passes.choose.request import scorers_by_kind
    from prunegraph.request import with_seed

    named = parse_scorers(scorer) if scorer else None
    return with_seed(scorers_by_kind(named, parse_options(options or (), noise)), seed)


def load_for(model: Path, output: Path) -> ir.Model:
    """The model, after a check that its result can be written: where nothing can be written, nothing is begun.

    Raises:
        OutputError: the output is an input file or a folder, or cannot be written.
        ModelError: the model cannot be read.
    """
    from prunegraph.atomic_write import check_target
    from prunegraph.export.onnx_file import check_outputs, files_of, load

    check_target(output, [model])
    original = load(model)
    check_outputs(output, files_of(original).files, [f"{output.stem}.plan.json"])
    return original


def tokenizer_for(model: Path, given: Path | None) -> Path | None:
    """The tokenizer that is given, else the one that lies beside the model, if one does."""
    return given if given is not None else beside(model, "tokenizer.json")


def classes_of(model: Path) -> dict[str, int]:
    """Numbers of classes by name, as the `config.json` beside a model states them; empty if there is none."""
    from prunegraph.export.folder import class_numbers, read_config

    config = beside(model, "config.json")
    return class_numbers(read_config(config.parent) or {}) if config is not None else {}


def beside(model: Path, name: str) -> Path | None:
    """A file of this name beside a model, in the folder that is the model, or around `onnx/model.onnx`."""
    folder = Path(str(model).removeprefix("hf:"))
    places = [folder] if folder.is_dir() else [model.parent, *([model.parent.parent] * (model.parent.name == "onnx"))]
    return next((place / name for place in places if (place / name).is_file()), None)


def read_json(path: Path, hint: str) -> Any:
    """What a JSON file on the command line states.

    Args:
        path: The file.
        hint: What to do where it is none.

    Raises:
        UsageError: it cannot be read, or is no JSON.
    """
    from prunegraph.strict_json import parse_json

    try:
        return parse_json(path.read_text(encoding="utf-8-sig"))
    except OSError as error:
        raise UsageError(f"{path} cannot be read: {error.strerror}", hint=hint) from error
    except ValueError as error:
        raise UsageError(f"{path} is no JSON: {error}", hint=hint) from error
