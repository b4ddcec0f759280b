"""Folders of images: classes, and pixels as the model's own preprocessor makes them."""

from __future__ import annotations

import json
import logging
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnx_ir as ir
import pytest
import typer
from typer.testing import CliRunner

import prunegraph as pg
from prunegraph.cli import app
from prunegraph.errors import MissingExtra, UsageError
from prunegraph.observe.images import Images, read_folder
from tests.graphs.builder import Builder

pillow = pytest.importorskip("PIL.Image")
SIDE = 8


def classifier(channels: int = 3, last: bool = False) -> onnx.ModelProto:
    """The class is the brightest channel, once more for the two behind."""
    g = Builder("brightest")
    shape = (SIDE, SIDE, channels) if last else (channels, SIDE, SIDE)
    x = g.input("pixel_values", "batch", *shape)
    axes = [1, 2] if last else [2, 3]
    mean = g("ReduceMean", x, axes=axes, keepdims=0)
    weight = np.eye(channels, 5, dtype=np.float32)
    g.output(g("MatMul", mean, g.const("w", weight)), "batch", 5)
    return g.model()


def vision() -> onnx.ModelProto:
    """Two convolutions and a class: channels that can go."""
    g = Builder("vision")
    x = g.input("pixel_values", "batch", 3, SIDE, SIDE)
    x = g("Relu", g("Conv", x, g.weight("w0", 16, 3, 3, 3)))
    x = g("Relu", g("Conv", x, g.weight("w1", 16, 16, 3, 3)))
    mean = g("ReduceMean", x, axes=[2, 3], keepdims=0)
    g.output(g("MatMul", mean, g.weight("w2", 16, 3)), "batch", 3)
    return g.model()


def save(path: Path, colour: tuple[int, ...], size: tuple[int, int] = (20, 10)) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    pillow.new("RGB", size, colour).save(path)


COLOURS = {"blue": (0, 0, 200), "green": (0, 200, 0), "red": (200, 0, 0)}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Three images a class, of several kinds of file; and what is none."""
    for name, colour in COLOURS.items():
        for k, suffix in enumerate(("png", "jpg", "bmp")):
            save(tmp_path / "images" / name / f"{k}.{suffix}", colour)
        (tmp_path / "images" / name / "notes.txt").write_text("no image")
    return tmp_path / "images"


def config(**more: Any) -> dict[str, Any]:
    normalized = {"do_normalize": True, "image_mean": [0.5] * 3, "image_std": [0.5] * 3}
    return {"size": {"height": SIDE, "width": SIDE}, **normalized, **more}


def labels(source: Any) -> list[int | None]:
    return [sample.label for sample in source.read()]


def test_classes_are_numbered_as_the_model_numbers_them(folder: Path) -> None:
    assert labels(read_folder(folder, {})) == [0, 0, 0, 1, 1, 1, 2, 2, 2]
    assert labels(read_folder(folder, {"LABEL_0": 0, "LABEL_1": 1, "LABEL_2": 2})) == [0, 0, 0, 1, 1, 1, 2, 2, 2]
    assert labels(read_folder(folder, {"red": 0, "green": 1, "blue": 2})) == [2, 2, 2, 1, 1, 1, 0, 0, 0]
    for number, name in enumerate(COLOURS):
        (folder / name).rename(folder / str(10 - number))
    assert set(labels(read_folder(folder, {}))) == {8, 9, 10}
    save(folder.parent / "flat" / "a.png", (1, 2, 3))
    assert labels(read_folder(folder.parent / "flat", {})) == [None]


def test_what_is_no_folder_of_classes_is_refused(folder: Path, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="no class 'blue'"):
        read_folder(folder, {"cat": 0})
    (tmp_path / "empty").mkdir()
    with pytest.raises(UsageError, match="holds no images"):
        read_folder(tmp_path / "empty", {})
    save(folder / "loose.png", (0, 0, 0))
    with pytest.raises(UsageError, match="beside class folders"):
        read_folder(folder, {})


PREPROCESSORS: dict[str, tuple[str, dict[str, Any]]] = {
    "both sides": ("ViTImageProcessorPil", {"size": {"height": 24, "width": 16}, "resample": 3}),
    "shorter side and middle": (
        "CLIPImageProcessorPil",
        {"size": {"shortest_edge": 24}, "crop_size": {"height": 20, "width": 16}, "do_center_crop": True},
    ),
    "share that is cut out": ("ConvNextImageProcessorPil", {"size": {"shortest_edge": 28}, "crop_pct": 0.875}),
    "blue first, not normalized": (
        "MobileViTImageProcessorPil",
        {
            "size": {"shortest_edge": 30},
            "crop_size": {"height": 24, "width": 24},
            "do_flip_channel_order": True,
            "do_normalize": False,
        },
    ),
}


@pytest.mark.parametrize("case", PREPROCESSORS)
def test_pixels_are_those_of_transformers(case: str, tmp_path: Path) -> None:
    transformers = pytest.importorskip("transformers")
    name, options = PREPROCESSORS[case]
    if not hasattr(transformers, name):
        pytest.skip(f"this transformers has no {name}")
    processor = getattr(transformers, name)(**options)
    processor.save_pretrained(tmp_path)
    pixels = np.random.default_rng(0).integers(0, 256, (37, 51, 3)).astype(np.uint8)
    pillow.fromarray(pixels).save(tmp_path / "a.png")
    expected = processor(pillow.open(tmp_path / "a.png"), return_tensors="np")["pixel_values"][0]
    images = Images.of(tmp_path)
    assert images.size == expected.shape[1:]
    np.testing.assert_allclose(images.array(tmp_path / "a.png", 3), expected, atol=1e-5)


BAD: dict[str, tuple[dict[str, Any], str]] = {
    "padding": (config(do_pad=True), "asks for do_pad"),
    "no size": ({"image_mean": [0.5]}, "does not say what images are resized to"),
    "not resized": (config(do_resize=False), "does not say"),
    "normalized or not": (
        {"size": 4, "image_mean": [0.5], "image_std": [0.5]},
        "does not say whether images are normalized",
    ),
    "unknown resampling": (config(resample=9), "unknown resampling"),
    "no deviation": (config(image_std=[0.0]), "deviations above 0"),
    "no pixels": (config(size=0), "whole numbers of pixels"),
}


@pytest.mark.parametrize("case", BAD)
def test_what_a_preprocessor_may_not_ask_for(case: str) -> None:
    settings, problem = BAD[case]
    with pytest.raises(UsageError, match=problem):
        Images.of(settings)


@pytest.mark.parametrize(("channels", "last"), [(3, False), (3, True), (1, False)])
def test_a_folder_is_evaluated(folder: Path, channels: int, last: bool) -> None:
    """Of three channels the brightest is the class, as `label2id` names it; of grey images all are one."""
    model = ir.from_proto(classifier(channels, last))
    normalized = config(image_mean=[0.5], image_std=[0.5])
    data = pg.Data(folder, images=normalized, label2id={"red": 0, "green": 1, "blue": 2})
    evaluate = pg.analyze(model).apply(pg.Selection({}), verify=False).evaluate
    accuracy = evaluate(data).scores[0].value
    assert accuracy == (1.0 if channels == 3 else pytest.approx(1 / 3))
    assert evaluate(data, f"top{6 - channels}").scores[0].value == 1.0


def test_the_command_line_reads_the_preprocessor_beside_the_model(folder: Path, tmp_path: Path) -> None:
    onnx.save(classifier(), tmp_path / "model.onnx")
    command = ["evaluate", str(tmp_path / "model.onnx"), "--data", str(folder), "--json"]
    refused = CliRunner().invoke(app, command)
    assert refused.exit_code == 2 and "--image size=224" in " ".join(refused.stderr.split())
    (tmp_path / "preprocessor_config.json").write_text(json.dumps(config()))
    (tmp_path / "config.json").write_text(json.dumps({"label2id": {"red": 0, "green": 1, "blue": 2}}))
    for more in ([], ["--image", f"size={SIDE}", "--image", "mean=0.5", "--image", "std=0.5,0.5,0.5"]):
        ran = CliRunner().invoke(app, [*command, *more])
        assert ran.exit_code == 0, ran.stderr
        assert json.loads(ran.stdout)["models"][0]["value"] == 1.0
    for wrong, problem in {"size=x": "is no number", "colour=1": "there is no 'colour'", "mean=0": "size"}.items():
        ran = CliRunner().invoke(app, [*command, "--image", wrong])
        assert ran.exit_code == 2 and problem in ran.stderr


def test_a_folder_is_data_for_every_command(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    onnx.save(vision(), "model.onnx")
    options = ("--data", "images", "--image", f"size={SIDE}", "--image", "mean=0.5", "--image", "std=0.5")
    for command in (
        ("prune", "model.onnx", "-o", "slim.onnx", "--ratio", "0.5", "--align", "1", *options),
        ("verify", "model.onnx", "slim.onnx", *options, "--samples", "4"),
        ("score", "model.onnx", "--scorer", "activation", *options),
        ("evaluate", "model.onnx", "slim.onnx", *options),
        ("quantize", "slim.onnx", "-o", "int8.onnx", "--method", "static", "--max-error", "1", *options),
    ):
        ran = CliRunner().invoke(app, list(command))
        assert ran.exit_code == 0, (command, ran.stderr)
    without = CliRunner().invoke(app, ["verify", "model.onnx", "slim.onnx", "--data", "images"])
    assert without.exit_code == 2 and "--image size=224" in " ".join(without.stderr.split())


@pytest.mark.parametrize("name", ["prune", "verify", "score", "evaluate", "finetune", "sweep", "quantize"])
def test_every_command_that_takes_data_takes_what_says_how_to_read_them(name: str) -> None:
    command = typer.main.get_command(app).commands[name]  # type: ignore[attr-defined]
    options = {option for each in command.params for option in each.opts}
    assert options >= {"--data", "--tokenizer", "--text-column", "--samples", "--image"}


def test_what_cannot_be_read_is_named(folder: Path) -> None:
    (folder / "red" / "0.png").write_bytes(b"no image at all")
    model = ir.from_proto(classifier())
    result = pg.analyze(model).apply(pg.Selection({}), verify=False)
    with pytest.raises(UsageError, match=r"0\.png is no image"):
        result.evaluate(pg.Data(folder, images=config()))
    with pytest.raises(UsageError, match="3 means and 3 deviations are given for 1 channels"):
        pg.Data(folder, images=config()).inputs(ir.from_proto(classifier(1)))
    with pytest.raises(UsageError, match="cannot be cut out"):
        result.evaluate(pg.Data(folder, images=Images((SIDE, SIDE), resize=4)))


def test_without_pillow_the_extra_is_named(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "PIL", None)
    monkeypatch.setitem(__import__("sys").modules, "PIL.Image", None)
    with pytest.raises(MissingExtra) as error:
        pg.Data(folder, images=config()).inputs(ir.from_proto(classifier()))
    assert error.value.hint == 'pip install "prunegraph[image]"'


logging.getLogger("PIL").setLevel(logging.WARNING)
