"""Spellings of ops that say nothing new to the analysis but compute something of their own, for `to_torch`.

The text of a case says what is special about it.
"""

from __future__ import annotations

import numpy as np
from onnx import TensorProto

from tests.analysis.rule_cases import BOOL, BYTE, FLOAT, INT, arg, case, ints
from tests.torch_twin.torch_cases_fused import ATTENTION, FUSED

IMAGE = arg(2, 6, 8, 9)
SIGNAL = arg(2, 4, 12)
X = arg(3, 5, 4)


def floats(*values: float) -> np.ndarray:
    return np.array(values, np.float32)


SPACE = (
    {"strides": [2, 2], "pads": [1, 0, 2, 1]},
    {"strides": [2, 3], "auto_pad": "SAME_UPPER"},
    {"strides": [3, 2], "auto_pad": "SAME_LOWER"},
    {"auto_pad": "VALID"},
    {"dilations": [2, 3], "pads": [1, 2, 1, 2]},
    {"kernel_shape": [3, 2], "strides": [2, 2]},
)

CONV = [
    *(case("Conv", str(kind), IMAGE, arg(10, 3, 3, 2), arg(10), group=2, **kind) for kind in SPACE),
    case("Conv", "three axes", arg(2, 3, 5, 6, 7), arg(4, 3, 2, 3, 2), pads=[1, 0, 1, 1, 1, 0]),
    *(case("ConvTranspose", str(kind), IMAGE, arg(6, 5, 3, 2), arg(10), group=2, **kind) for kind in SPACE),
    case("ConvTranspose", "added at the end", IMAGE, arg(6, 5, 3, 2), strides=[3, 2], output_padding=[2, 1]),
    case("ConvTranspose", "stated shape", IMAGE, arg(6, 5, 3, 2), strides=[2, 2], output_shape=[16, 17]),
    case(
        "ConvTranspose",
        "stated shape, more at the start",
        *(IMAGE, arg(6, 5, 3, 3)),
        strides=[2, 2],
        output_shape=[16, 18],
        auto_pad="SAME_UPPER",
    ),
    case("ConvTranspose", "one axis", SIGNAL, arg(4, 3, 5), arg(3), dilations=[2], pads=[3, 1], strides=[2]),
]

_POOLS = (
    {"kernel_shape": [3, 2], "strides": [2, 2], "pads": [1, 0, 1, 1]},
    {"kernel_shape": [3, 3], "strides": [2, 2], "ceil_mode": 1},
    {"kernel_shape": [3, 3], "strides": [2, 3], "pads": [1, 1, 1, 1], "ceil_mode": 1},
    {"kernel_shape": [3, 2], "strides": [2, 2], "auto_pad": "SAME_UPPER"},
    {"kernel_shape": [3, 2], "strides": [2, 2], "auto_pad": "SAME_LOWER"},
    {"kernel_shape": [3, 2], "dilations": [2, 3]},
)

POOL = [
    *(case(op, str(kind), IMAGE, **kind) for op in ("MaxPool", "AveragePool", "LpPool") for kind in _POOLS),
    *(case("AveragePool", f"{kind} with margins", IMAGE, count_include_pad=1, **kind) for kind in _POOLS),
    case("MaxPool", "one axis", SIGNAL, kernel_shape=[3]),
    case("AveragePool", "three axes", arg(2, 3, 5, 6, 7), kernel_shape=[2, 3, 2], pads=[0, 1, 0, 1, 1, 1]),
    case("LpPool", "another norm", IMAGE, kernel_shape=[2, 2], p=3),
    case("GlobalLpPool", "another norm", IMAGE, p=3),
    *(
        case("MaxPool", f"positions {order}", IMAGE, storage_order=order, outputs=(FLOAT, INT), **_POOLS[0])
        for order in (0, 1)
    ),
]

_SCALES = floats(1, 1, 1.7, 0.45)
_WHERE = ("half_pixel", "half_pixel_symmetric", "pytorch_half_pixel", "align_corners", "asymmetric")
_NEAREST = ("round_prefer_floor", "round_prefer_ceil", "floor", "ceil")

RESIZE = [
    *(
        case("Resize", f"{mode} {where}", IMAGE, None, _SCALES, mode=mode, coordinate_transformation_mode=where)
        for mode in ("nearest", "linear", "cubic")
        for where in _WHERE
    ),
    *(case("Resize", near, IMAGE, None, _SCALES, mode="nearest", nearest_mode=near) for near in _NEAREST),
    *(
        case("Resize", f"antialias {mode}", IMAGE, None, _SCALES, mode=mode, antialias=1)
        for mode in ("linear", "cubic")
    ),
    case("Resize", "inside alone", IMAGE, None, _SCALES, mode="cubic", exclude_outside=1, cubic_coeff_a=-0.5),
    case("Resize", "one slot", IMAGE, None, None, ints(2, 6, 1, 1), mode="linear"),
    *(
        case("Resize", p, IMAGE, None, None, ints(7, 20), axes=[2, 3], mode="linear", keep_aspect_ratio_policy=p)
        for p in ("not_larger", "not_smaller")
    ),
    case(
        "Resize",
        "a crop",
        *(IMAGE, floats(0, 0, 0.2, 0.3, 1, 1, 0.9, 1.2), None, ints(2, 6, 5, 7)),
        mode="linear",
        coordinate_transformation_mode="tf_crop_and_resize",
        extrapolation_value=7.0,
    ),
    case("Resize", "before opset 11", IMAGE, _SCALES, mode="linear", opset=10),
    case("Resize", "before opset 11, nearest", IMAGE, _SCALES, opset=10),
    case("Upsample", "linear", IMAGE, floats(1, 1, 2, 3), mode="linear", opset=9),
]

_GRID = arg(2, 4, 5, 2, low=-1.3, high=1.3)

SPATIAL = [
    *(
        case("GridSample", f"{mode} {pad} {corners}", IMAGE, _GRID, mode=mode, padding_mode=pad, align_corners=corners)
        for mode in ("linear", "nearest", "cubic")
        for pad in ("zeros", "border", "reflection")
        for corners in (0, 1)
    ),
    case("GridSample", "bilinear", IMAGE, _GRID, opset=16),
    case("AffineGrid", "corners", arg(3, 2, 3), ints(3, 5, 7, 9), align_corners=1),
    case("AffineGrid", "three axes", arg(3, 3, 4), ints(3, 5, 4, 7, 9)),
    case("CenterCropPad", "odd", IMAGE, ints(5, 12), axes=[-2, 3]),
    case("CenterCropPad", "all", arg(5, 6), ints(8, 3)),
    case(
        "Col2Im",
        "overlapping",
        *(arg(2, 18, 12), ints(7, 6), ints(3, 2)),
        dilations=[1, 2],
        pads=[1, 0, 1, 1],
        strides=[2, 2],
    ),
    case("Col2Im", "three axes", arg(2, 16, 12), ints(4, 3, 3), ints(2, 2, 2)),
    case(
        "DeformConv",
        "blocks, mask",
        *(IMAGE, arg(10, 3, 3, 2), arg(2, 24, 5, 4), arg(10), arg(2, 12, 5, 4)),
        group=2,
        offset_group=2,
        strides=[2, 2],
        pads=[1, 0, 2, 1],
        dilations=[1, 2],
    ),
    *(
        case(
            "RoiAlign",
            f"{mode} {where} {ratio}",
            IMAGE,
            floats(0, 0, 6, 5, 1, 2, 9, 11, 3, 3, 3.5, 4).reshape(3, 4),
            ints(0, 1, 1),
            mode=mode,
            coordinate_transformation_mode=where,
            sampling_ratio=ratio,
            output_height=2,
            output_width=3,
            spatial_scale=0.7,
        )
        for mode in ("avg", "max")
        for where in ("half_pixel", "output_half_pixel")
        for ratio in (0, 2)
    ),
    case(
        "MaxRoiPool",
        "scaled",
        *(IMAGE, floats(0, 0, 0, 11, 9, 1, 4, 3, 12, 14, 1, 5, 5, 5, 5).reshape(3, 5)),
        pooled_shape=[3, 2],
        spatial_scale=0.5,
    ),
    case("DFT", "before opset 20", arg(2, 6, 5, 1), opset=17),
    case("DFT", "axis, length", arg(2, 6, 5, 2), np.array(8), axis=2, opset=17, inverse=1),
    case("DFT", "one side", arg(2, 6, 5, 1), None, np.array(1), onesided=1),
    case("DFT", "shorter", arg(2, 6, 5, 2), np.array(4), np.array(-2)),
    case("STFT", "one side", arg(2, 20, 1), np.array(3), arg(8), np.array(8)),
    case("STFT", "no window", arg(2, 20, 1), np.array(3), None, np.array(8), onesided=0),
    case("SpaceToDepth", "three", arg(2, 3, 6, 9), blocksize=3),
]

SELECT = [
    case("Slice", "backwards", X, ints(-1, 3), ints(-99, 0), ints(1, 2), ints(-2, -1)),
    case("Slice", "nothing", X, ints(3), ints(2), ints(1)),
    case("Slice", "steps", X, ints(1, 0), ints(99, 99), ints(1, 0), ints(3, 2)),
    case("Slice", "computed", X, arg(1, dtype=INT, low=1, high=2), ints(4), ints(1)),
    case("Gather", "negative", X, ints(-1, 0, -2).reshape(3, 1), axis=-1),
    case("GatherElements", "negative", X, ints(-1, 0, 2, 1).reshape(2, 2, 1), axis=1),
    case("GatherND", "rows", X, ints(0, -1, 2, 0).reshape(2, 1, 2)),
    case("GatherND", "batches", X, ints(0, 1, 2, 3, 4, 0).reshape(3, 2, 1), batch_dims=1),
    *(
        case(
            op,
            r,
            arg(6, 4),
            indices,
            arg(*updates),
            reduction=r,
            opset=18,
        )
        for op, indices, updates in (
            ("ScatterElements", ints(1, 1, 3, -1, 0, 0, 2, 2).reshape(2, 4), (2, 4)),
            ("ScatterND", ints(1, 4, 1).reshape(3, 1), (3, 4)),
        )
        for r in ("add", "mul", "max", "min")
    ),
    case("ScatterElements", "along rows", arg(3, 5), ints(4, 0, -2, 1, 0, 2).reshape(3, 2), arg(3, 2), axis=1),
    case("ScatterND", "single slots", arg(3, 5), ints(0, 1, 2, 3).reshape(2, 2), arg(2)),
    *(
        case("Pad", mode, X, ints(0, 2, 1, 0, 3, 2), mode=mode, opset=19)
        for mode in ("constant", "reflect", "edge", "wrap")
    ),
    case("Pad", "a number, axes", X, ints(2, -1, 1, 2), np.array(7, np.float32), ints(-1, 1)),
    case("Pad", "before opset 11", X, pads=[0, 1, 2, 0, 0, 1], value=3.0, opset=9),
    case("Pad", "integers", arg(3, 4, dtype=INT, high=9), ints(1, 0, 0, 2), np.array(5), outputs=(INT,)),
    case("OneHot", "out of range", ints(-1, 4, 5, -6, 0), np.array(5), floats(2, 3)),
    case("OneHot", "in front", arg(3, 4, dtype=INT, high=5), np.array(5), floats(0, 1), axis=0),
    case("Split", "three", arg(3, 8), axis=1, num_outputs=3, outputs=(FLOAT,) * 3),
    case("Concat", "three", X, arg(3, 2, 4), arg(3, 1, 4), axis=-2),
    case("Where", "integers", arg(3, 1, dtype=BOOL), arg(4, dtype=INT), arg(3, 4, dtype=INT), outputs=(INT,)),
]

DATA = [
    case("TopK", "smallest", X, ints(3), axis=-2, largest=0, outputs=(FLOAT, INT)),
    case("TopK", "equals", arg(3, 9, dtype=INT, low=0, high=3), ints(4), outputs=(INT, INT)),
    *(case("CumSum", f"{e} {r}", X, np.array(1), exclusive=e, reverse=r) for e in (0, 1) for r in (0, 1)),
    case("ReverseSequence", "batch first", X, ints(4, 1, 5), batch_axis=0, time_axis=1),
    case("Compress", "flat", X, np.array([0, 1, 1, 0, 0, 1], bool)),
    case("Compress", "axis", X, np.array([0, 1, 1], bool), axis=1),
    case("NonZero", "integers", arg(3, 5, dtype=INT, low=0, high=2), outputs=(INT,)),
    *(
        case("Unique", f"{axis} {order}", arg(7, 2, dtype=INT, low=0, high=2), outputs=(INT,) * 4, sorted=order, **axis)
        for axis in ({}, {"axis": 0})
        for order in (0, 1)
    ),
]

_T, _B, _E, _U = 6, 3, 4, 5
_ALL = ("forward", "reverse", "bidirectional")


def _layer(op: str, text: str, gates: int, direction: str, *more: object, **attributes: object) -> object:
    d = 2 if direction == "bidirectional" else 1
    weights = (arg(d, gates * _U, _E), arg(d, gates * _U, _U), arg(d, 2 * gates * _U))
    states = 3 if op == "LSTM" else 2
    return case(
        op,
        f"{text} {direction}",
        *(arg(_T, _B, _E), *weights, *more),
        hidden_size=_U,
        direction=direction,
        outputs=(FLOAT,) * states,
        **attributes,
    )


def _states(direction: str, count: int) -> list[object]:
    return [arg(2 if direction == "bidirectional" else 1, _B, _U)] * count


_LENGTHS = np.array([6, 2, 4], np.int32)

RECURRENT = [
    *(
        _layer(op, "lengths, states", gates, way, _LENGTHS, *_states(way, count))
        for op, gates, count in (("RNN", 1, 1), ("GRU", 3, 1), ("LSTM", 4, 2))
        for way in _ALL
    ),
    *(_layer("GRU", "reset after", 3, way, _LENGTHS, linear_before_reset=1) for way in _ALL),
    _layer("LSTM", "peepholes", 4, "bidirectional", None, None, None, arg(2, 3 * _U)),
    _layer("LSTM", "coupled", 4, "forward", input_forget=1),
    *(_layer(op, "clipped", gates, "forward", clip=0.3) for op, gates in (("RNN", 1), ("GRU", 3), ("LSTM", 4))),
    _layer(
        "LSTM",
        "activations",
        4,
        "forward",
        activations=["HardSigmoid", "Softsign", "LeakyRelu"],
        activation_alpha=[0.3, 0.1],
        activation_beta=[0.4],
    ),
    _layer("RNN", "relu", 1, "reverse", activations=["Relu"]),
    _layer(
        "GRU",
        "activations",
        3,
        "forward",
        activations=["Affine", "ScaledTanh"],
        activation_alpha=[0.2, 0.7],
        activation_beta=[0.1, 0.5],
    ),
]

QUANT = [
    case("DynamicQuantizeLinear", "three outputs", X, outputs=(BYTE, FLOAT, BYTE), opset=11),
    case("QuantizeLinear", "signed", X, floats(0.01), np.array([3], np.int8), outputs=(TensorProto.INT8,)),
    case("QuantizeLinear", "blocks", arg(3, 8), arg(3, 2, low=0.1, high=0.2), block_size=4, outputs=(BYTE,)),
    case("QuantizeLinear", "wide", X, floats(0.001), outputs=(TensorProto.INT16,), output_dtype=TensorProto.INT16),
    case("DequantizeLinear", "blocks", arg(3, 8, dtype=BYTE, high=99), arg(3, 2), block_size=4),
    case(
        "MatMulInteger",
        "zero points",
        *(arg(3, 5, 4, dtype=BYTE, high=200), arg(4, 7, dtype=BYTE, high=200)),
        *(np.array(9, np.uint8), arg(7, dtype=BYTE, high=20)),
        outputs=(TensorProto.INT32,),
    ),
    case(
        "ConvInteger",
        "padded",
        *(arg(2, 4, 7, 7, dtype=BYTE, high=200), arg(6, 2, 3, 3, dtype=BYTE, high=200), np.array(99, np.uint8)),
        np.array(7, np.uint8),
        group=2,
        pads=[1, 1, 1, 1],
        outputs=(TensorProto.INT32,),
    ),
]

CASES = [*CONV, *POOL, *RESIZE, *SPATIAL, *SELECT, *DATA, *RECURRENT, *QUANT, *ATTENTION, *FUSED]
