"""One node for every op and spelling that matters, and in einops-like text which axes are free and which are one.

`a b 3 -> a 3 b`: letters are free axes, equal letters one and the same; numbers are pinned; `(a·b)` is a product, `a+b`
a sum, `1` an axis without a choice.  Only operands that are no constants of integers are shown.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from onnx import TensorProto

FLOAT, INT, BOOL, BYTE = TensorProto.FLOAT, TensorProto.INT64, TensorProto.BOOL, TensorProto.UINT8

RANDOM = "draws numbers"
NO_KERNEL = "ONNX Runtime has no CPU kernel"


@dataclass(frozen=True)
class Arg:
    """A graph input: its shape, its type, and the range of its values."""

    shape: tuple[int, ...]
    dtype: int = FLOAT
    low: float = -1.0
    high: float = 1.0


@dataclass(frozen=True)
class Case:
    """One node: operands, attributes, what its rule says in text, and why it cannot be run if it cannot."""

    op: str
    text: str
    operands: Sequence[Arg | np.ndarray | None]
    attributes: dict[str, Any] = field(default_factory=dict)
    opset: int = 21
    outputs: Sequence[int] = (FLOAT,)
    not_run: str = ""

    def __str__(self) -> str:
        return f"{self.op}-{self.text}"


def arg(*shape: int, dtype: int = FLOAT, low: float = -1.0, high: float = 1.0) -> Arg:
    return Arg(shape, dtype, low, high)


def ints(*values: int) -> np.ndarray:
    return np.array(values, np.int64)


def case(op: str, text: str, *operands: Any, **settings: Any) -> Case:
    """`arg(…)` is an input, an array a constant, None left out; what is no setting of a Case is an attribute."""
    known = {name: settings.pop(name) for name in ("opset", "outputs", "not_run") if name in settings}
    return Case(op, text, operands, settings, **known)


X = arg(3, 5, 4)
POSITIVE = arg(3, 5, 4, low=0.1, high=0.9)
SAME = "a b c -> a b c"
BYTES = arg(3, 5, dtype=BYTE, high=99)
IMAGE = arg(3, 6, 8, 8)

UNARY = (
    *(
        "Abs",
        "Asin",
        "Asinh",
        "Atan",
        "Atanh",
        "Ceil",
        "Celu",
        "Cos",
        "Cosh",
        "Elu",
        "Erf",
        "Exp",
        "Floor",
        "Gelu",
        "HardSigmoid",
    ),
    *(
        "HardSwish",
        "Identity",
        "LeakyRelu",
        "Mish",
        "Neg",
        "Relu",
        "Round",
        "Selu",
        "Shrink",
        "Sigmoid",
        "Sign",
        "Sin",
        "Sinh",
    ),
    *("Softplus", "Softsign", "Tan", "Tanh", "ThresholdedRelu", "Acos", "Clip"),
)
BINARY = ("Add", "Sub", "Mul", "Div", "Pow", "Max", "Min", "Mean", "Sum")
COMPARE = ("Equal", "Greater", "GreaterOrEqual", "Less", "LessOrEqual")
LOGIC = ("And", "Or", "Xor")
BITS = ("BitwiseAnd", "BitwiseOr", "BitwiseXor")
REDUCE = ("ReduceL1", "ReduceL2", "ReduceSum", "ReduceSumSquare", "ReduceMax", "ReduceMin")
WHOLE = ("ReduceProd", "ReduceLogSum", "ReduceLogSumExp")

ELEMENTWISE = [
    *(case(op, SAME, X) for op in UNARY),
    *(case(op, SAME, POSITIVE) for op in ("Log", "Sqrt", "Reciprocal")),
    case("Acosh", SAME, arg(3, 5, 4, low=1.5, high=2)),
    *(case(op, SAME, X, outputs=(BOOL,)) for op in ("IsInf", "IsNaN")),
    case("Not", SAME, arg(3, 5, 4, dtype=BOOL), outputs=(BOOL,)),
    case("BitwiseNot", SAME, arg(3, 5, 4, dtype=BYTE, high=99), outputs=(BYTE,)),
    case("Cast", SAME, X, to=TensorProto.DOUBLE, outputs=(TensorProto.DOUBLE,)),
    case("BitCast", SAME, X, to=TensorProto.INT32, outputs=(TensorProto.INT32,), opset=26, not_run=NO_KERNEL),
    case("CastLike", "a b c, d -> a b c", X, arg(9, dtype=INT), outputs=(INT,)),
    case("Swish", SAME, X, opset=24),
    case("Dropout", SAME, X),
    case("Bernoulli", SAME, POSITIVE, not_run=RANDOM),
    *(case(op, SAME, X, not_run=RANDOM) for op in ("RandomNormalLike", "RandomUniformLike")),
    *(case(op, "a b c, b c -> a b c", POSITIVE, arg(5, 4, low=0.5, high=2)) for op in BINARY),
    *(case(op, "1 a b, c 1 b -> c a b", arg(1, 5, 4), arg(3, 1, 4)) for op in ("Add", "Mul", "Max")),
    *(case(op, "a b c, b c -> a b c", X, arg(5, 4), outputs=(BOOL,)) for op in COMPARE),
    *(case(op, "a b, a b -> a b", arg(3, 5, dtype=BOOL), arg(3, 5, dtype=BOOL), outputs=(BOOL,)) for op in LOGIC),
    *(case(op, "a b, b -> a b", BYTES, arg(5, dtype=BYTE, high=99), outputs=(BYTE,)) for op in BITS),
    case("BitShift", "a b, b -> a b", BYTES, arg(5, dtype=BYTE, high=3), direction="LEFT", outputs=(BYTE,)),
    case("Mod", "a b, b -> a b", arg(3, 5, dtype=INT, high=99), arg(5, dtype=INT, low=2, high=9), outputs=(INT,)),
    case("PRelu", "a b c, c -> a b c", X, arg(4)),
    case("Where", "a b, a 1, b -> a b", arg(3, 5, dtype=BOOL), arg(3, 1), arg(5)),
    case("Trilu", "a 5 4 -> a 5 4", X),
    case("EyeLike", "5 4 -> 5 4", arg(5, 4)),
    case("QuantizeLinear", "a b c, b -> a b c", X, arg(5, low=0.1, high=0.2), axis=1, outputs=(BYTE,)),
    case(
        "DequantizeLinear",
        "a b c, b, b -> a b c",
        arg(3, 5, 4, dtype=BYTE, high=99),
        arg(5),
        arg(5, dtype=BYTE, high=9),
        axis=1,
    ),
]

CONTRACT = [
    case("MatMul", "a b c, a c d -> a b d", arg(3, 5, 4), arg(3, 4, 7)),
    case("MatMul", "a b c, c d -> a b d", arg(3, 5, 4), arg(4, 7)),
    case("MatMul", "1 a b, c b d -> c a d", arg(1, 5, 4), arg(3, 4, 7)),
    case("MatMul", "a, a b -> b", arg(4), arg(4, 7)),
    case("MatMul", "a b c, c -> a b", arg(3, 5, 4), arg(4)),
    case("MatMul", "a, a ->", arg(4), arg(4)),
    case("Gemm", "a b, c a, c -> b c", arg(4, 3), arg(7, 4), arg(7), transA=1, transB=1),
    case("Gemm", "a b, b c, 1 1 -> a c", arg(3, 4), arg(4, 7), arg(1, 1), alpha=0.5, beta=0.2),
    case("Einsum", "a b c, a d c -> a b d", arg(3, 5, 4), arg(3, 7, 4), equation="bij,bkj->bik"),
    case("Einsum", "a b c -> b", arg(3, 5, 4), equation="i j k -> j"),
    case("Einsum", "a b, b c -> a c", arg(3, 5), arg(5, 4), equation="ij,jk"),
    case("Einsum", "a b c, c d -> a b d", arg(3, 5, 4), arg(4, 7), equation="...j,jk->...k"),
    case("Einsum", "a a -> a", arg(4, 4), equation="ii->i"),
]

CONV = [
    case("Conv", "a b 8 8, c b 3 3, c -> a c 6 6", IMAGE, arg(10, 6, 3, 3), arg(10)),
    case("Conv", "a (b·c) 8 8, (b·d) c 3 3, (b·d) -> a (b·d) 6 6", IMAGE, arg(10, 3, 3, 3), arg(10), group=2),
    case("Conv", "a b 8 8, b 1 3 3 -> a b 6 6", IMAGE, arg(6, 1, 3, 3), group=6),
    case("Conv", "a b 8 8, (b·c) 1 3 3 -> a (b·c) 6 6", IMAGE, arg(12, 1, 3, 3), group=6),
    case("Conv", "a b 9, c b 2 -> a c 8", arg(3, 6, 9), arg(10, 6, 2)),
    case("ConvTranspose", "a b 8 8, b c 2 2, c -> a c 9 9", IMAGE, arg(6, 10, 2, 2), arg(10)),
    case("ConvTranspose", "a (b·c) 8 8, (b·c) d 2 2 -> a (b·d) 9 9", IMAGE, arg(6, 5, 2, 2), group=2),
    case("MaxPool", "a b 8 8 -> a b 4 4", IMAGE, kernel_shape=[2, 2], strides=[2, 2]),
    case("AveragePool", "a b 8 8 -> a b 7 7", IMAGE, kernel_shape=[2, 2]),
    case("LpPool", "a b 8 8 -> a b 7 7", IMAGE, kernel_shape=[2, 2]),
    *(case(op, "a b c d -> a b 1 1", IMAGE) for op in ("GlobalAveragePool", "GlobalMaxPool", "GlobalLpPool")),
    case("Resize", "a b 8 8, 4 -> a b 16 16", IMAGE, None, np.array([1, 1, 2, 2], np.float32), mode="nearest"),
    case("Resize", "a b 8 8 -> a b 5 9", IMAGE, None, None, ints(3, 6, 5, 9), mode="linear"),
    case("Resize", "a b 8 8 -> a b 5 9", IMAGE, None, None, ints(5, 9), axes=[2, 3], mode="linear"),
    case("Upsample", "a b 8 8, 4 -> a b 16 16", IMAGE, np.array([1, 1, 2, 2], np.float32), opset=9),
    case("DepthToSpace", "a (2·2·b) 3 3 -> a b 6 6", arg(3, 20, 3, 3), blocksize=2),
    case("DepthToSpace", "a (b·2·2) 3 3 -> a b 6 6", arg(3, 20, 3, 3), blocksize=2, mode="CRD"),
    case("SpaceToDepth", "a b 8 8 -> a (2·2·b) 4 4", IMAGE, blocksize=2),
    case("AffineGrid", "a 2 3 -> a 7 9 2", arg(3, 2, 3), ints(3, 5, 7, 9)),
    case("CenterCropPad", "a b 8 8 -> a b 5 9", IMAGE, ints(5, 9), axes=[2, 3]),
    case("MaxRoiPool", "3 a 8 8, b 5 -> b a 2 2", IMAGE, arg(4, 5, low=0, high=1), pooled_shape=[2, 2]),
    case("DeformConv", "a b 8 8, c b 3 3, a 18 6 6 -> a c 6 6", IMAGE, arg(10, 6, 3, 3), arg(3, 18, 6, 6)),
    case("STFT", "a 16 1, 8 -> a 3 8 2", arg(3, 16, 1), ints(4), np.ones(8, np.float32)),
]

NORM = [
    case(
        "BatchNormalization",
        "a b c, b, b, b, b -> a b c",
        *(X, arg(5), arg(5), arg(5), arg(5, low=0.5, high=2)),
        opset=15,
    ),
    case("LayerNormalization", "a b c, c, c -> a b c", X, arg(4), arg(4)),
    case("LayerNormalization", "a b c, b c -> a b c", X, arg(5, 4), axis=1),
    case("RMSNormalization", "a b c, c -> a b c", X, arg(4), opset=23),
    case("SimplifiedLayerNormalization", "a b c, c -> a b c", X, arg(4), opset=17),
    case("InstanceNormalization", "a b c, b, b -> a b c", X, arg(5), arg(5)),
    case("GroupNormalization", "a (b·3) 8 8, (b·3), (b·3) -> a (b·3) 8 8", IMAGE, arg(6), arg(6), num_groups=2),
    case("LRN", "a 6 b c -> a 6 b c", IMAGE, size=3),
    *(case(op, "a 5 b -> a 5 b", X, axis=1) for op in ("Softmax", "LogSoftmax", "Hardmax")),
    case("Softmax", "a 5 4 -> a 5 4", X, axis=1, opset=12),
    case("LpNormalization", SAME, X, axis=1),
    case("MeanVarianceNormalization", "3 a 8 8 -> 3 a 8 8", IMAGE),
]

REDUCTION = [
    *(case(op, "a b c -> a 1 c", X, ints(1)) for op in REDUCE),
    *(case(op, "a b c -> b", X, ints(0, 2), keepdims=0) for op in REDUCE),
    *(case(op, "3 5 4 -> 1 1 1", POSITIVE) for op in WHOLE),
    *(case(op, "a 5 b -> a b", POSITIVE, ints(-2), keepdims=0) for op in WHOLE),
    case("ReduceMean", "a b c -> a 1 c", X, ints(1)),
    case("ReduceSum", "a b c ->", X, keepdims=0),
    case("ReduceSum", SAME, X, noop_with_empty_axes=1),
    case("ReduceSum", "a b c -> b c", X, axes=[0], keepdims=0, opset=12),
    *(case(op, "a 5 b -> a b", X, axis=1, keepdims=0, outputs=(INT,)) for op in ("ArgMax", "ArgMin")),
    case("CumSum", "a 5 b -> a 5 b", X, np.array(1)),
    case("CumProd", "a 5 b -> a 5 b", X, np.array(1), opset=26, not_run=NO_KERNEL),
    case("ReverseSequence", "3 a b, a -> 3 a b", X, arg(5, dtype=INT, low=1, high=3), batch_axis=1, time_axis=0),
    case("TopK", "a 5 b -> a 2 b, a 2 b", X, ints(2), axis=1, outputs=(FLOAT, INT)),
]

SELECT = [
    case("Concat", "a b, a c -> a b+c", arg(3, 5), arg(3, 4), axis=1),
    case("Split", "a b+c -> a b, a c", arg(3, 9), ints(5, 4), axis=1, outputs=(FLOAT, FLOAT)),
    case("Split", "a b+c -> a b, a c", arg(3, 8), axis=-1, outputs=(FLOAT, FLOAT), num_outputs=2),
    case("Split", "a b+c -> a b, a c", arg(3, 9), axis=-1, outputs=(FLOAT, FLOAT), num_outputs=2),
    case("Split", "a b+c -> a b, a c", arg(3, 8), axis=1, outputs=(FLOAT, FLOAT), opset=11),
    case("Slice", "a b+c+d -> a c", arg(3, 9), ints(2), ints(-3), ints(1)),
    case("Slice", "a b+c -> a c", arg(3, 9), ints(-4), ints(2**63 - 1), ints(-1)),
    case("Slice", "a b·(1+1) -> a b", arg(3, 8), ints(1), ints(99), ints(1), ints(2)),
    case("Slice", "a b -> a b", arg(3, 8), ints(0, 0), ints(99, 8)),
    case("Slice", "a 8 -> a 8", arg(3, 8), ints(-1), ints(-99), ints(1), ints(-1)),
    case("Slice", "a b+c -> a c", arg(3, 9), starts=[4], ends=[9], axes=[1], opset=9),
    case("Gather", "a b+1+c -> a 1", arg(3, 9), ints(4), axis=1),
    case("Gather", "a b+1+c d -> a d", arg(3, 9, 4), np.array(-3), axis=1),
    case("Gather", "9 a, b c -> b c a", arg(9, 4), arg(3, 5, dtype=INT, low=0, high=9), axis=0, outputs=(FLOAT,)),
    case("GatherElements", "9 4 -> 2 4", arg(9, 4), ints(1, 3, 2, 0, 3, 1, 0, 2).reshape(2, 4), axis=0),
    case("GatherND", "3 5 a -> 2 a", X, ints(0, 1, 2, 3).reshape(2, 2)),
    case("GatherND", "a 5 b, a 1 -> a b", X, arg(3, 1, dtype=INT, low=0, high=5), batch_dims=1),
    case("ScatterND", "9 a, 2 a -> 9 a", arg(9, 4), ints(1, 7).reshape(2, 1), arg(2, 4)),
    case("ScatterElements", "9 4, 2 4 -> 9 4", arg(9, 4), ints(*range(8)).reshape(2, 4), arg(2, 4), axis=0),
    case(
        "ScatterElements",
        "9 a, 2 a, 2 a -> 9 a",
        arg(9, 4),
        arg(2, 4, dtype=INT, low=0, high=9),
        arg(2, 4),
        axis=0,
        reduction="add",
    ),
    case("Pad", "a b -> a c+b+1", arg(3, 5), ints(0, 2, 0, 1)),
    case("Pad", "a b -> a b+c", arg(3, 5), ints(0, 0, 0, 4)),
    case("Pad", "a 5 -> a 8", arg(3, 5), ints(0, 2, 0, 1), mode="reflect"),
    case(
        "OneHot", "a b, 2 -> a 9 b", arg(3, 5, dtype=INT, low=0, high=9), ints(9), np.array([0, 1], np.float32), axis=1
    ),
    case("Det", "a 3 3 -> a", arg(5, 3, 3)),
    case("Multinomial", "a 5 -> a 7", arg(3, 5), sample_size=7, outputs=(TensorProto.INT32,), not_run=RANDOM),
    case("NonZero", "3 5 -> 2 15", arg(3, 5, low=0.1), outputs=(INT,)),
]

SHAPE = [
    case("Reshape", "a (b·c) -> a b c", arg(3, 20), ints(3, 5, 4)),
    case("Reshape", "a b c -> a (b·c)", X, ints(0, -1)),
    case("Reshape", "a b -> a 1 b", arg(3, 5), ints(-1, 1, 5)),
    case("Reshape", "(a·b) c -> a (b·c)", arg(6, 5), ints(2, 15)),
    case("Flatten", "a b c -> a (b·c)", X),
    case("Flatten", "a b c -> (a·b) c", X, axis=2),
    case("Squeeze", "a 1 b -> a b", arg(3, 1, 5), ints(1)),
    case("Unsqueeze", "a b -> a 1 b 1", arg(3, 5), ints(1, 3)),
    case("Transpose", "a b c -> c a b", X, perm=[2, 0, 1]),
    case("Transpose", "a b c -> c b a", X),
    case("Expand", "a 1 -> b a c", arg(3, 1), ints(6, 3, 5)),
    case("Tile", "a 1 -> (b·a) c", arg(3, 1), ints(2, 5)),
    case("Shape", "a b c -> 3", X, outputs=(INT,)),
    case("Size", "3 5 4 ->", X, outputs=(INT,)),
    case("ConstantOfShape", "-> a b", ints(3, 5)),
    case("Range", "-> 5", np.array(0), np.array(5), np.array(1), outputs=(INT,)),
]

CASES = [*ELEMENTWISE, *CONTRACT, *CONV, *NORM, *REDUCTION, *SELECT, *SHAPE]
