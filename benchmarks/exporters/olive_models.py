"""Files of the torch zoo as passes of Olive leave them."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from benchmarks.exporters.tool_models import source

PASSES: dict[str, list[dict[str, Any]]] = {
    "peephole": [{"type": "OnnxPeepholeOptimizer"}],
    "transformers": [{"type": "OrtTransformersOptimization", "model_type": "bert", "num_heads": 4, "hidden_size": 48}],
    "int8": [{"type": "OnnxDynamicQuantization"}],
    "float16": [{"type": "OnnxFloatToFloat16", "keep_io_types": True}],
    "int4": [{"type": "OnnxBlockWiseRtnQuantization", "block_size": 16}],
}


def _maker(passes: list[dict[str, Any]], name: str, exporter: str) -> Callable[[Path], None]:
    def make(folder: Path) -> None:
        import shutil

        from olive.workflows import run

        before = source(folder, name, exporter)
        given = before.rename(folder / "source.bin")
        work = folder / "work"
        work.mkdir()
        shutil.move(given, work / "source.onnx")
        run({
            "input_model": {"type": "ONNXModel", "model_path": str(work / "source.onnx")},
            "passes": {f"pass{k}": each for k, each in enumerate(passes)},
            "output_dir": str(work / "out"),
            "cache_dir": str(work / "cache"),
            "evaluate_input_model": False,
        })  # fmt: skip
        (result,) = (work / "out").rglob("*.onnx")
        for file in result.parent.iterdir():
            if file.suffix in (".onnx", ".data"):
                shutil.copy(file, folder / file.name)
        shutil.rmtree(work)

    return make


MODELS = {
    "olive": {
        f"{name}-{what}": _maker(passes, name, exporter)
        for what, passes in PASSES.items()
        for name, exporter in (("bert", "legacy"), ("vit", "legacy"))
        if what != "transformers" or name == "bert"
    }
}
