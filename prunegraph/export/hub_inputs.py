"""Example inputs to trace models of transformers and timm with, made from their configurations."""

from __future__ import annotations

import inspect
import json
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from prunegraph.errors import ModelError, UsageError
from prunegraph.export.torch_dynamic_shapes import BATCH, SEQUENCE, AxisNames

if TYPE_CHECKING:
    import torch

_IMAGE_SIDE, _SAMPLES = 224, 16_000
_SPECIAL = 3
"""Ids below this are padding and the like in most vocabularies."""

_SPARE = 8
"""Positions left free: for the longer run of the comparison, and for tables that start with padding."""


@dataclass(frozen=True, slots=True)
class ExampleSizes:
    """How large an example is.

    Attributes:
        batch: Rows; a single one is traced as two, since a trace takes a length of one for a broadcast.
        sequence: Tokens in a row.
    """

    batch: int = 2
    sequence: int = 16

    def __post_init__(self) -> None:
        """Refuse what is no size."""
        for name, size in (("batch", self.batch), ("sequence", self.sequence)):
            if size < 1:
                raise UsageError(f"--{name}: {size} is no size", hint="give at least 1")


@dataclass(frozen=True, slots=True)
class Example:
    """Arguments of one call by keyword, in the order of the parameters, and which of their axes vary."""

    inputs: dict[str, torch.Tensor] = field(default_factory=dict)
    axes: dict[str, AxisNames] = field(default_factory=dict)

    def add(self, name: str, tensor: torch.Tensor, *axes: str) -> None:
        """Add an argument; its first axes vary and are called so."""
        self.inputs[name] = tensor
        self.axes[name] = dict(enumerate(axes))

    def ordered(self, parameters: Collection[str]) -> Example:
        """The same in the order of the parameters."""
        names = [name for name in parameters if name in self.inputs]
        return Example({name: self.inputs[name] for name in names}, {name: self.axes[name] for name in names})

    def grown(self, dynamic: Mapping[str, Collection[int]]) -> dict[str, torch.Tensor]:
        """Larger arguments: one more row, three more tokens or samples.

        Args:
            dynamic: The axes that may grow, by input.
        """
        import torch

        larger = {}
        for name, tensor in self.inputs.items():
            for axis in dynamic.get(name, ()):
                more = torch.arange(tensor.shape[axis] + (1 if axis == 0 else 3)) % tensor.shape[axis]
                tensor = tensor.index_select(axis, more)
            larger[name] = tensor
        return larger


def timm_example(module: torch.nn.Module, sizes: ExampleSizes) -> Example:
    """Images as the model's own configuration says."""
    import torch

    example = Example()
    (name, *_) = inspect.signature(module.forward).parameters
    example.add(name, torch.randn(sizes.batch, *module.pretrained_cfg["input_size"]), BATCH)
    return example


def transformers_example(module: Any, folder: Path, sizes: ExampleSizes) -> Example:
    """Tokens, images or sound, whichever the model takes, at the sizes that its configuration says.

    Args:
        module: A `PreTrainedModel`.
        folder: Where its tokenizer and its image processor may lie.
        sizes: The numbers of rows and tokens.

    Raises:
        ModelError: It takes something else.
    """
    import torch

    config, example = module.config, Example()
    takes = inspect.signature(module.forward).parameters
    if "input_ids" in takes:
        _add_tokens(example, config, folder, sizes, takes)
    if "pixel_values" in takes:
        frames = (config.num_frames,) if hasattr(config, "num_frames") else ()
        images = torch.randn(sizes.batch, *frames, *_image_shape(config, folder))
        example.add("pixel_values", images, BATCH)
    if "input_values" in takes:  # samples, or a spectrogram
        spectrogram = (getattr(config, "max_length", 0), getattr(config, "num_mel_bins", 0))
        shape, names = (spectrogram, (BATCH,)) if all(spectrogram) else ((_SAMPLES,), (BATCH, "samples"))
        example.add("input_values", torch.randn(sizes.batch, *shape), *names)
    if "input_features" in takes and hasattr(config, "max_source_positions"):
        frames = 2 * config.max_source_positions  # whisper halves them
        example.add("input_features", torch.randn(sizes.batch, config.num_mel_bins, frames), BATCH)
    if "decoder_input_ids" in takes:
        ids = _ids(config.get_text_config(decoder=True), sizes.batch, sizes.sequence // 2 + 1)
        example.add("decoder_input_ids", ids, BATCH, f"decoder_{SEQUENCE}")
    if module.main_input_name not in example.inputs:
        raise ModelError(
            f"no example is known for the input {module.main_input_name!r} of {type(module).__name__}",
            hint="load it yourself and give it as a module: prune_graph(module, example_inputs={...})",
        )
    return example.ordered(takes)


def _add_tokens(example: Example, config: Any, folder: Path, sizes: ExampleSizes, takes: Collection[str]) -> None:
    """Ids, a mask whose last row ends early, and segments where the tokenizer makes them."""
    import torch

    text = config.get_text_config()
    positions = getattr(text, "max_position_embeddings", None) or 0
    length = max(1, min(sizes.sequence, positions - _SPARE)) if positions > 0 else sizes.sequence
    example.add("input_ids", _ids(text, sizes.batch, length), BATCH, SEQUENCE)
    if "attention_mask" in takes:
        mask = torch.ones(sizes.batch, length, dtype=torch.int64)
        mask[-1, -(length // 3) :] = 0 if length >= 3 else 1
        example.add("attention_mask", mask, BATCH, SEQUENCE)
    if "token_type_ids" in takes and "token_type_ids" in _tokenizer_makes(folder):
        example.add("token_type_ids", torch.zeros(sizes.batch, length, dtype=torch.int64), BATCH, SEQUENCE)


def _ids(config: Any, rows: int, length: int) -> torch.Tensor:
    import torch

    vocabulary = int(config.vocab_size)
    return torch.randint(min(_SPECIAL, vocabulary - 1), vocabulary, (rows, length))


def _tokenizer_makes(folder: Path) -> list[str]:
    """What the folder's tokenizer hands to the model; nothing where it has none."""
    from transformers import AutoTokenizer

    if not any(folder.glob("tokenizer*")):
        return []
    try:
        tokenizer = AutoTokenizer.from_pretrained(folder, local_files_only=True, trust_remote_code=False)
    except Exception:  # a model whose tokenizer does not load here is still a model
        return []
    return list(tokenizer.model_input_names)


def _image_shape(config: Any, folder: Path) -> tuple[int, int, int]:
    """Channels, height and width, from the configuration or else from the image processor's."""
    vision = getattr(config, "vision_config", config)
    sides = next(_sides(getattr(vision, "image_size", None), folder), (_IMAGE_SIDE, _IMAGE_SIDE))
    return (getattr(vision, "num_channels", 3), *sides)


def _sides(image_size: Any, folder: Path) -> Iterator[tuple[int, int]]:
    settings = _preprocessor(folder / "preprocessor_config.json")
    for size in (image_size, settings.get("crop_size"), settings.get("size")):
        if isinstance(size, int):
            yield size, size
        elif isinstance(size, (list, tuple)) and len(size) == 2:
            yield size[0], size[1]
        elif isinstance(size, dict) and {"height", "width"} <= set(size):
            yield size["height"], size["width"]
        elif isinstance(size, dict) and "shortest_edge" in size:
            yield size["shortest_edge"], size["shortest_edge"]


def _preprocessor(file: Path) -> dict[str, Any]:
    """What an image processor's configuration says; nothing where there is none.

    Raises:
        ModelError: It is no JSON object.
    """
    if not file.is_file():
        return {}
    hint = "download it again, or leave it out"
    try:
        settings = json.loads(file.read_text(encoding="utf-8"))
    except (ValueError, RecursionError) as error:
        raise ModelError(f"{file} is no JSON: {error}", hint=hint) from error
    if not isinstance(settings, dict):
        raise ModelError(f"{file} holds no settings", hint=hint)
    return settings
