"""Detectors and segmentation of torchvision, narrow and with random weights."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

CLASSES = 5


def _pyramid() -> Any:
    from torchvision.models.detection.backbone_utils import resnet_fpn_backbone

    return resnet_fpn_backbone(backbone_name="resnet18", weights=None, trainable_layers=5)


SIZES: dict[str, Any] = {"min_size": 64, "max_size": 96}
FEW: dict[str, Any] = {"rpn_pre_nms_top_n_test": 40, "rpn_post_nms_top_n_test": 20, "box_score_thresh": 0.0}


def _detector(name: str, **options: Any) -> Callable[[], Any]:
    def build() -> Any:
        from torchvision.models import detection

        return getattr(detection, name)(_pyramid(), CLASSES, **SIZES, **options)

    return build


def _named(room: str, name: str, **options: Any) -> Callable[[], Any]:
    def build() -> Any:
        import torchvision

        makers = getattr(torchvision.models, room)
        return getattr(makers, name)(weights=None, weights_backbone=None, num_classes=CLASSES, **options)

    return build


DETECTORS: dict[str, Callable[[], Any]] = {
    "fasterrcnn": _detector("FasterRCNN", **FEW),
    "maskrcnn": _detector("MaskRCNN", **FEW),
    "keypointrcnn": _detector("KeypointRCNN", num_keypoints=6, **FEW),
    "retinanet": _detector("RetinaNet", topk_candidates=20, score_thresh=0.0),
    "fcos": _detector("FCOS", topk_candidates=20, score_thresh=0.0),
    "ssdlite": _named("detection", "ssdlite320_mobilenet_v3_large"),
}
SEGMENTERS: dict[str, Callable[[], Any]] = {
    "lraspp": _named("segmentation", "lraspp_mobilenet_v3_large"),
    "deeplabv3": _named("segmentation", "deeplabv3_mobilenet_v3_large"),
    "fcn": _named("segmentation", "fcn_resnet50"),
}


def _detection(build: Callable[[], Any]) -> Callable[[Path], None]:
    """Detectors take a list of images, and only the older exporter takes them."""

    def make(folder: Path) -> None:
        import torch

        from benchmarks.zoo.model import randomize

        torch.manual_seed(0)
        module = randomize(build()).eval()
        image = torch.rand(3, 64, 80)
        torch.onnx.export(module, ([image],), folder / "model.onnx", dynamo=False, opset_version=17)

    return make


def _segmentation(build: Callable[[], Any], exporter: str) -> Callable[[Path], None]:
    def make(folder: Path) -> None:
        import torch

        from benchmarks.zoo.model import ZooModel, export, randomize

        class First(torch.nn.Module):
            def __init__(self) -> None:
                super().__init__()
                self.model = randomize(build()).eval()

            def forward(self, image: Any) -> Any:
                return self.model(image)["out"]

        torch.manual_seed(0)
        model = ZooModel(First().eval(), {"image": torch.randn(2, 3, 64, 64)}, {"image": {0: "batch"}}, ("mask",))
        export(model, exporter, folder / "model.onnx")

    return make


MODELS = {
    "torchvision": {name: _detection(build) for name, build in DETECTORS.items()}
    | {
        f"{name}-{exporter}": _segmentation(build, exporter)
        for name, build in SEGMENTERS.items()
        for exporter in ("dynamo", "legacy")
    }
}
