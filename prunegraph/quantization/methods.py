"""The quantizers of ONNX Runtime, each as a function from a model file to a model."""

from __future__ import annotations

import contextlib
import logging
import warnings
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import onnx

from prunegraph.errors import ModelError, PruneGraphError, one_line
from prunegraph.observe.stream import Inputs
from prunegraph.quantization.options import Quantize

LARGE = 1 << 30
"""Models of more bytes keep their weights in a file of their own while they are quantized."""

DYNAMIC_OPS = ("MatMul", "Gemm", "Attention", "LSTM", "Gather", "EmbedLayerNormalization")
"""All that the dynamic quantizer knows but Conv: ONNX Runtime has no kernel for what it makes of that in int8."""


class _Calibration:
    """What the static quantizer runs the model on: the batches of the data, one after the other."""

    def __init__(self, inputs: Inputs) -> None:
        self._batches: Iterator[Mapping[str, Any]] = (batch.feeds for batch in inputs.batches())

    def get_next(self) -> Mapping[str, Any] | None:
        """The next batch, None after the last."""
        return next(self._batches, None)


def quantized(method: str, source: Path, target: Path, options: Quantize, inputs: Inputs | None) -> None:
    """Write to `target` what one method makes of the model in `source`.

    Raises:
        ModelError: the quantizer cannot, with its own reason.
    """
    work: Callable[[Path, Path, Quantize, Inputs | None], None] = _METHODS[method]
    try:
        with _quiet():
            work(source, target, options, inputs)
    except (PruneGraphError, MemoryError):
        raise
    except Exception as error:  # it raises whatever its parts raise
        hint = f"try another method: {', '.join(name for name in _METHODS if name != method)}"
        raise ModelError(f"ONNX Runtime's {method} quantizer cannot do it: {one_line(error)}", hint=hint) from error


def _dynamic(source: Path, target: Path, options: Quantize, inputs: Inputs | None) -> None:
    from onnxruntime.quantization import QuantType, quantize_dynamic

    quantize_dynamic(
        source,
        target,
        op_types_to_quantize=list(DYNAMIC_OPS),
        per_channel=options.per_channel,
        weight_type=QuantType.QInt8,
        use_external_data_format=_large(source),
    )


def _static(source: Path, target: Path, options: Quantize, inputs: Inputs | None) -> None:
    from onnxruntime.quantization import QuantFormat, QuantType, quantize_static

    assert inputs is not None
    quantize_static(
        source,
        target,
        _Calibration(inputs),
        quant_format=QuantFormat.QDQ,
        per_channel=options.per_channel,
        activation_type=QuantType.QInt8,
        weight_type=QuantType.QInt8,
        use_external_data_format=_large(source),
        calibration_providers=list(inputs.providers),
    )


def _matmul4(source: Path, target: Path, options: Quantize, inputs: Inputs | None) -> None:
    from onnxruntime.quantization.matmul_nbits_quantizer import MatMulNBitsQuantizer

    quantizer = MatMulNBitsQuantizer(onnx.load(source), bits=4, block_size=options.block_size, is_symmetric=True)
    quantizer.process()
    quantizer.model.save_model_to_file(str(target), _large(source))


def _float16(source: Path, target: Path, options: Quantize, inputs: Inputs | None) -> None:
    from onnxruntime.transformers.float16 import convert_float_to_float16

    model = convert_float_to_float16(onnx.load(source), keep_io_types=True)
    onnx.save(model, target, save_as_external_data=_large(source), location=f"{target.name}.data")


_METHODS = {"dynamic": _dynamic, "static": _static, "matmul4": _matmul4, "float16": _float16}


def _large(source: Path) -> bool:
    """Whether the model is too large for one message."""
    return sum(path.stat().st_size for path in source.parent.iterdir()) > LARGE


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """The quantizers tell the root logger of every node; what they fail of comes back as an exception."""
    before = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(before)
