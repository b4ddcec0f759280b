"""Networks of Ultralytics with random weights: detectors, and what else it has."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

SPECS: dict[str, tuple[str, dict[str, Any]]] = {
    "yolov8n": ("yolov8n.yaml", {}),
    "yolo11n": ("yolo11n.yaml", {}),
    "yolov8n-nms": ("yolov8n.yaml", {"nms": True}),
    "yolo12n": ("yolo12n.yaml", {}),
    "yolov5n": ("yolov5n.yaml", {}),
    "yolov8n-any_size": ("yolov8n.yaml", {"dynamic": True}),
    "yolov8n-plain": ("yolov8n.yaml", {"simplify": False}),
    "yolov8n-float16": ("yolov8n.yaml", {"half": True}),
    "yolov8n-seg": ("yolov8n-seg.yaml", {}),
    "yolov8n-pose": ("yolov8n-pose.yaml", {}),
    "yolov8n-cls": ("yolov8n-cls.yaml", {}),
    "yolov8n-obb": ("yolov8n-obb.yaml", {}),
    "yolov9t": ("yolov9t.yaml", {}),
    "yolov10n": ("yolov10n.yaml", {}),
    "yolo26n": ("yolo26n.yaml", {}),
}


def _maker(name: str, options: dict[str, Any]) -> Callable[[Path], None]:
    def make(folder: Path) -> None:
        import shutil

        os.environ |= {"YOLO_CONFIG_DIR": str(folder), "YOLO_AUTOINSTALL": "false", "YOLO_OFFLINE": "true"}
        os.chdir(folder)
        import torch
        from ultralytics import YOLO

        from benchmarks.zoo.model import randomize

        torch.manual_seed(0)
        model = YOLO(name)
        randomize(model.model)
        target = folder / "model.onnx"
        shutil.move(model.export(**({"format": "onnx", "imgsz": 64, "device": "cpu"} | options)), target)

    return make


MODELS = {"ultralytics": {name: _maker(*spec) for name, spec in SPECS.items()}}
