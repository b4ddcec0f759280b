"""`prunegraph quantize`: store a model in 8 bits, and say how far its outputs move."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from prunegraph.cli.arguments import DataFile, ImageOptions, Json, Limit, Model, RunBy, TextColumns, Tokenizer
from prunegraph.cli.console import progress, show, show_json
from prunegraph.cli.named import data_of

if TYPE_CHECKING:
    from prunegraph.quantization.quantize import QuantizeReport


def quantize(
    model: Model,
    output: Annotated[Path, typer.Option("--output", "-o", metavar="OUT", help="Where to write the quantized model.")],
    method: Annotated[
        str | None,
        typer.Option(
            metavar="NAME",
            help="dynamic (int8 weights, ranges of each run), static (int8 throughout, ranges from --data) or matmul4 "
            "(4-bit weights of matrix products).  [default: dynamic, or none with --fp16]",
            show_default=False,
        ),
    ] = None,
    fp16: Annotated[bool, typer.Option("--fp16", help="Store floats in 16 bits; goes with matmul4.")] = False,
    per_channel: Annotated[bool, typer.Option(help="One scale for each channel of a weight.")] = True,
    max_error: Annotated[
        float | None,
        typer.Option(
            metavar="SHARE",
            help="Refuse outputs that are further from the float model's, relative to their size.  "
            "[default: 0.02 fp16, 0.2 dynamic, 0.3 static and matmul4]",
            show_default=False,
        ),
    ] = None,
    data: DataFile = None,
    tokenizer: Tokenizer = None,
    text_column: TextColumns = None,
    samples: Limit = None,
    image: ImageOptions = None,
    ep: RunBy = "cpu",
    json: Json = False,
) -> None:
    """Store a model in fewer bits, compared with the float model.

    The quantizers are ONNX Runtime's. Both models run on the data, or on random inputs without any; what is further
    from the float model than the limit is refused. The limit catches what is broken: whether the accuracy is still
    good enough, `prunegraph evaluate` tells. Inputs and outputs keep their types, dims and names.

    \b
    Examples
      prunegraph quantize slim.onnx -o int8.onnx
      prunegraph quantize slim.onnx -o int8.onnx --method static --data texts.txt
      prunegraph quantize decoder.onnx -o int4.onnx --method matmul4 --fp16
    """  # noqa: D301 - \b keeps the lines that follow as they are
    with progress() as step:
        step("load")
        from prunegraph.atomic_write import check_target
        from prunegraph.quantization.options import Quantize
        from prunegraph.quantization.quantize import quantize as quantize_source

        options = Quantize(method, fp16, per_channel, max_error=max_error)
        check_target(output, [model])
        examples = data_of(model, data, tokenizer, text_column, samples=samples, ep=ep, image=image)
        result = quantize_source(model, options, data=examples, progress=step)
        result.save(output)
    if json:
        show_json(result.report.to_dict())
    else:
        show(*_lines(result.report, output))


def _lines(report: QuantizeReport, output: Path) -> list[str]:
    before, after = (size / 2**20 for size in report.bytes)
    ops = ", ".join(f"{count} {op}" for op, count in report.ops.items())
    return [
        f"{output}: weights {before:,.2f} -> {after:,.2f} MiB by {report.method} quantization"
        + (f" ({ops})" if ops else ""),
        *(
            f"{name}: {error:.3%} from the float model on {report.on} (refused beyond {report.limit:.1%})"
            for name, error in report.errors.items()
        ),
    ]
