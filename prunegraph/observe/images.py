"""Folders of images, a folder a class, and how an image becomes an input of a model."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from prunegraph.arrays import Array
from prunegraph.errors import UsageError, first_line
from prunegraph.extras import needs_extra
from prunegraph.observe.data import Sample, Samples
from prunegraph.observe.files import open_text
from prunegraph.runtime.inputs import InputSpec
from prunegraph.strict_json import parse_json

if TYPE_CHECKING:
    from PIL.Image import Image

CONFIG = "preprocessor_config.json"
RESAMPLING = ("nearest", "lanczos", "bilinear", "bicubic", "box", "hamming")
"""By the number that Pillow and `preprocessor_config.json` have for each."""

_KNOWN = {"do_resize", "do_center_crop", "do_rescale", "do_normalize", "do_convert_rgb", "do_flip_channel_order"}
_HINT = f"give the {CONFIG} of the model, or size, mean and std"


@dataclass(frozen=True, slots=True)
class Images:
    """How an image becomes an input: resized, cut out in the middle, scaled, normalized.

    >>> Images((224, 224), mean=(0.5, 0.5, 0.5), std=(0.5, 0.5, 0.5)).resize
    (224, 224)

    Attributes:
        size: Height and width of the input.
        resize: What an image is resized to before its middle is cut out: height and width, or the length of its
            shorter side; None: to the input's size.
        mean: Of every channel, of numbers from 0 to 1; or one for all.
        std: Likewise; what is left is divided by it.
        scale: What numbers from 0 to 255 are multiplied with first.
        resampling: One of `RESAMPLING`.
        bgr: Whether blue comes first.
    """

    size: tuple[int, int]
    resize: tuple[int, int] | int | None = None
    mean: Sequence[float] = (0.0,)
    std: Sequence[float] = (1.0,)
    scale: float = 1 / 255
    resampling: str = "bilinear"
    bgr: bool = False

    def __post_init__(self) -> None:
        """Check what can be checked without an image.

        Raises:
            UsageError: a number or a name is wrong.
        """
        if self.resize is None:
            object.__setattr__(self, "resize", self.size)
        sides = (*self.size, *(self.resize if isinstance(self.resize, tuple) else (self.resize,)))
        if not all(isinstance(side, int) and side > 0 for side in sides):
            raise UsageError(f"images cannot be resized to {sides}", hint="give whole numbers of pixels, such as 224")
        if self.resampling not in RESAMPLING:
            raise UsageError(f"there is no resampling {self.resampling!r}", hint=f"choose {', '.join(RESAMPLING)}")
        if 0 in self.std or not self.mean or not self.std:
            raise UsageError("means and deviations of channels are numbers, deviations above 0", hint=_HINT)

    @staticmethod
    def of(given: Images | Mapping[str, Any] | str | os.PathLike[str]) -> Images:
        """From what stands for it: a `preprocessor_config.json`, the folder that holds one, or what one says.

        Raises:
            UsageError: there is none, or it asks for something that is not done here.
        """
        if isinstance(given, Images):
            return given
        if isinstance(given, Mapping):
            return _of_config(given, "the preprocessor")
        path = Path(given) / CONFIG if Path(given).is_dir() else Path(given)
        with open_text(path) as file:
            try:
                config = parse_json(file.read())
            except ValueError as error:
                raise UsageError(f"{path} is no JSON: {error}", hint=_HINT) from error
        if not isinstance(config, dict):
            raise UsageError(f"{path} holds no settings", hint=_HINT)
        return _of_config(config, path.name)

    def array(self, path: Path, channels: int) -> Array:
        """One image as `[channels, height, width]`, in float32.

        Raises:
            UsageError: it cannot be read, or is smaller than what is cut out of it.
        """
        from PIL import Image as pillow

        try:
            with pillow.open(path) as image:
                pixels = np.asarray(self._fitted(image.convert("RGB" if channels == 3 else "L")), dtype=np.float32)
        except (OSError, ValueError, SyntaxError, pillow.DecompressionBombError) as error:
            raise UsageError(f"{path} is no image: {first_line(error)}", hint="take it out of the folder") from error
        pixels = pixels.reshape(*self.size, channels) * np.float32(self.scale)
        pixels = pixels[..., ::-1] if self.bgr else pixels
        return np.asarray(((pixels - self._by_channel(self.mean)) / self._by_channel(self.std)).transpose(2, 0, 1))

    def _by_channel(self, numbers: Sequence[float]) -> Array:
        return np.asarray(numbers, dtype=np.float32)

    def _fitted(self, image: Image) -> Image:
        """Resized, and the middle cut out."""
        width, height = image.size
        if isinstance(self.resize, int):
            shorter = min(width, height)
            width, height = int(self.resize * width / shorter), int(self.resize * height / shorter)
        else:
            assert self.resize is not None
            height, width = self.resize
        image = image.resize((width, height), RESAMPLING.index(self.resampling))
        top, left = (height - self.size[0]) // 2, (width - self.size[1]) // 2
        if min(top, left) < 0:
            problem = f"an input of {self.size} cannot be cut out of an image of {(height, width)}"
            raise UsageError(problem, hint="resize to the size of the input, or to more")
        return image.crop((left, top, left + self.size[1], top + self.size[0]))


def _of_config(config: Mapping[str, Any], name: str) -> Images:
    """What a `preprocessor_config.json` of transformers says."""
    other = [key for key, value in config.items() if key.startswith("do_") and value and key not in _KNOWN]
    if other:
        raise UsageError(f"{name} asks for {other[0]}, which is not done here", hint="give arrays in a .npz instead")
    crops = bool(config.get("do_center_crop"))
    size = _size(config.get("size"), shorter=crops)
    cut = _size(config.get("crop_size"), shorter=False) if crops else None
    if size is None or config.get("do_resize") is False:
        raise UsageError(f"{name} does not say what images are resized to", hint=_HINT)
    if isinstance(size, int) and cut is None:  # of what is not cut, sides would differ from image to image
        share, both = config.get("crop_pct"), (size, size)
        size, cut = (int(size / share), both) if share and size < 384 else (both, both)
    channels = (0.0,), (1.0,)
    if "do_normalize" not in config and config.get("image_mean"):  # classes differ in what they do then
        hint = f'add "do_normalize": true or false to {name}, as the class of the preprocessor has it'
        raise UsageError(f"{name} does not say whether images are normalized", hint=hint)
    if config.get("do_normalize"):
        channels = tuple(config.get("image_mean") or (0.5,)), tuple(config.get("image_std") or (0.5,))
    resampling = config.get("resample", 2)
    if not isinstance(resampling, int) or not 0 <= resampling < len(RESAMPLING):
        raise UsageError(f"{name} has the unknown resampling {resampling!r}", hint=_HINT)
    return Images(
        cut if isinstance(cut, tuple) else size if isinstance(size, tuple) else (size, size),
        size,
        *channels,
        scale=float(config.get("rescale_factor") or 1 / 255) if config.get("do_rescale", True) else 1.0,
        resampling=RESAMPLING[resampling],
        bgr=bool(config.get("do_flip_channel_order")),
    )


def _size(given: Any, shorter: bool) -> tuple[int, int] | int | None:
    """Height and width, or the length of the shorter side."""
    if isinstance(given, int):
        return given if shorter else (given, given)
    if isinstance(given, Mapping) and {"height", "width"} <= set(given):
        return int(given["height"]), int(given["width"])
    return int(given["shortest_edge"]) if isinstance(given, Mapping) and "shortest_edge" in given else None


def as_inputs(source: Samples, images: Images | None, specs: Sequence[InputSpec]) -> Samples:
    """Images of a folder as inputs of a model; what is no folder of images stays as it is.

    Raises:
        UsageError: nobody says how an image becomes an input, or the model reads something else.
        MissingExtra: Pillow is not installed.
    """
    if source.first().image is None:
        return source
    with needs_extra("image", "pillow"):
        import PIL.Image  # noqa: F401
    if images is None:
        raise UsageError(
            f"nobody says how the images of {source.name} become inputs",
            hint=f"keep the {CONFIG} beside the model, or say it: --image size=224, Data(images=Images(…))",
        )
    spec, channels, last = _image_input(specs)
    if {len(images.mean), len(images.std)} - {1, channels}:
        problem = f"{len(images.mean)} means and {len(images.std)} deviations are given for {channels} channels"
        raise UsageError(problem, hint="give one for all channels, or one a channel")
    chosen = images

    def read() -> Iterator[Sample]:
        for sample in source.read():
            assert sample.image is not None
            array = chosen.array(sample.image, channels)
            yield replace(sample, feeds={spec.name: array.transpose(1, 2, 0) if last else array})

    return Samples(read, f"{source.fingerprint}/{images}/{spec.name}", source.name)


def _image_input(specs: Sequence[InputSpec]) -> tuple[InputSpec, int, bool]:
    """The input that takes images, how many channels they have, and whether these come last."""
    pictures = [spec for spec in specs if len(spec.dims) == 4 and spec.dtype.kind == "f"]
    if len(specs) != 1 or not pictures:
        names = ", ".join(f"{spec.name} {list(spec.dims)}" for spec in specs)
        raise UsageError(f"the model reads {names}, no images", hint="give its inputs as arrays in a .npz")
    last = pictures[0].dims[3] in (1, 3) and pictures[0].dims[1] not in (1, 3)
    channels = pictures[0].dims[3 if last else 1]
    return pictures[0], 1 if channels == 1 else 3, last


SUFFIXES = (".png", ".jpg", ".jpeg", ".bmp", ".webp", ".gif", ".tif", ".tiff")


def read_folder(folder: Path, label2id: Mapping[str, int]) -> Samples:
    """Images of a folder: of class folders, with the class as label, or beside each other without.

    Args:
        folder: Where they lie.
        label2id: Numbers of classes by name, as the model has them.

    Raises:
        UsageError: there are none, some lie in class folders and others beside them, or a class is unknown.
    """
    loose = _images_in(folder)
    classes = {each.name: files for each in sorted(folder.iterdir()) if each.is_dir() and (files := _images_in(each))}
    if loose and classes:
        hint = "put every image into the folder of its class"
        raise UsageError(f"{folder} holds images beside class folders: {loose[0].name}", hint=hint)
    if not loose and not classes:
        hint = f"give a folder with a folder a class, of {', '.join(SUFFIXES)}"
        raise UsageError(f"{folder} holds no images", hint=hint)
    numbers = _class_numbers(list(classes), label2id, folder)
    images = [(path, None) for path in loose]
    labelled = [(path, numbers[name]) for name, files in classes.items() for path in files]
    digest = hashlib.sha256()
    for path, number in (*images, *labelled):
        stat = path.stat()
        digest.update(repr((str(path), stat.st_size, stat.st_mtime_ns, number)).encode())

    def read() -> Iterator[Sample]:
        return (Sample(image=path, label=number) for path, number in (*images, *labelled))

    return Samples(read, f"images/{digest.hexdigest()}", folder.resolve().name)


def _images_in(folder: Path) -> list[Path]:
    return sorted(p for p in folder.iterdir() if p.suffix.lower() in SUFFIXES and p.name[0] != "." and p.is_file())


def _class_numbers(names: Sequence[str], label2id: Mapping[str, int], folder: Path) -> dict[str, int]:
    """By name of a class folder its number: the model's, the one that is its name, or its place in the alphabet."""
    if names and all(name in label2id for name in names):
        return {name: label2id[name] for name in names}
    if all(name.isdecimal() for name in names):
        return {name: int(name) for name in names}
    if all(name == f"LABEL_{number}" for name, number in label2id.items()):
        return {name: number for number, name in enumerate(names)}
    unknown = next(name for name in names if name not in label2id)
    known = ", ".join(list(label2id)[:5])
    hint = f"name folders as config.json names classes ({known}, …), or by number"
    raise UsageError(f"{folder.name}: the model knows no class {unknown!r}", hint=hint)
