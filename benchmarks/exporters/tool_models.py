"""Files of the torch zoo as graph tools leave them."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

SOURCES = (("bert", "legacy"), ("llama", "dynamo"), ("resnet", "legacy"), ("segformer", "legacy"))
"""Models of the zoo, and who exports them."""
Tool = Callable[[Path, Path], None]


def source(folder: Path, name: str, exporter: str) -> Path:
    """A file of the zoo, exported anew."""
    from benchmarks.zoo.exports import build
    from benchmarks.zoo.model import export

    target = folder / "source"
    export(build(name), exporter, target)
    return target


def _onnxsim(before: Path, after: Path) -> None:
    import onnx
    from onnxsim import simplify

    onnx.save(simplify(onnx.load(before))[0], after)


def _onnxslim(before: Path, after: Path) -> None:
    from onnxslim import slim

    slim(str(before), str(after))


def _polygraphy(before: Path, after: Path) -> None:
    import onnx
    from polygraphy.backend.onnx import fold_constants, infer_shapes

    onnx.save(infer_shapes(fold_constants(onnx.load(before), num_passes=None)), after)


def _graphsurgeon(before: Path, after: Path) -> None:
    import onnx
    import onnx_graphsurgeon as gs

    onnx.save(gs.export_onnx(gs.import_onnx(onnx.load(before)).fold_constants().cleanup().toposort()), after)


def _onnxscript(before: Path, after: Path) -> None:
    import onnx
    from onnxscript.optimizer import optimize

    optimized: Any = optimize(onnx.load(before))
    onnx.save(optimized, after)


def _quantize(before: Path, after: Path) -> None:
    from onnxruntime.quantization import quantize_dynamic

    quantize_dynamic(before, after)


def _preprocess(before: Path, after: Path) -> None:
    from onnxruntime.quantization.shape_inference import quant_pre_process

    quant_pre_process(before, after, skip_symbolic_shape=True)


def _four_bits(before: Path, after: Path) -> None:
    import onnx
    from onnxruntime.quantization.matmul_nbits_quantizer import MatMulNBitsQuantizer

    quantizer = MatMulNBitsQuantizer(onnx.load(before), block_size=16, is_symmetric=True)
    quantizer.process()
    onnx.save(quantizer.model.model, after)


def _static(before: Path, after: Path) -> None:
    """Static int8 with QuantizeLinear and DequantizeLinear, calibrated on random inputs."""
    from onnxruntime.quantization import CalibrationDataReader, quantize_static

    from benchmarks.zoo.exports import build

    class Reader(CalibrationDataReader):  # type: ignore[misc]
        def __init__(self) -> None:
            inputs = build(before.parent.name.split("-")[0]).inputs
            self.feeds = iter([{name: tensor.numpy() for name, tensor in inputs.items()}])

        def get_next(self) -> Any:
            return next(self.feeds, None)

    quantize_static(before, after, Reader(), per_channel=True)


TOOLS: dict[str, dict[str, Tool]] = {
    "onnxsim": {"": _onnxsim},
    "onnxslim": {"": _onnxslim},
    "polygraphy": {"": _polygraphy},
    "graphsurgeon": {"": _graphsurgeon},
    "onnxscript": {"": _onnxscript},
    "ort-quantize": {"-preprocessed": _preprocess, "-int8": _quantize, "-int4": _four_bits, "-qdq": _static},
}


def _maker(tool: Tool, name: str, exporter: str) -> Callable[[Path], None]:
    def make(folder: Path) -> None:
        before = source(folder, name, exporter)
        tool(before, folder / "model.onnx")
        before.unlink()

    return make


MODELS = {
    exporter: {
        f"{name}-{door}{suffix}": _maker(tool, name, door) for name, door in SOURCES for suffix, tool in tools.items()
    }
    for exporter, tools in TOOLS.items()
}
