"""A model after `onnxruntime.transformers.optimizer`, whose patterns a slim model may no longer match."""

from __future__ import annotations

import logging
import os
from collections.abc import Sequence
from pathlib import Path

from prunegraph.errors import ModelError, first_line


def optimize(source: str | os.PathLike[str], label: str, target: Path, *, model_type: str = "bert") -> dict[str, int]:
    """Write the model with the patterns of transformers fused, by ONNX Runtime's own tool.

    Args:
        source: The ONNX file.
        label: What it is called in errors.
        target: Where the result goes, weights beside it.
        model_type: Which patterns are looked for, see `onnxruntime.transformers`.

    Returns:
        How many nodes of each fused op the result has.

    Raises:
        ModelError: the tool gives up on it.
    """
    from onnxruntime.transformers import optimizer  # takes seconds

    level = logging.root.manager.disable
    logging.disable(logging.CRITICAL)  # it explains every pattern that it does not find
    try:
        model = optimizer.optimize_model(os.fspath(source), model_type, num_heads=0, hidden_size=0)
        model.save_model_to_file(str(target), use_external_data_format=True)
        counts = model.get_fused_operator_statistics()
    except Exception as error:  # whatever it does not expect of a graph
        raise ModelError(
            f"onnxruntime.transformers.optimizer gives up on {label}: {first_line(error)}",
            hint="time it without --optimized",
        ) from error
    finally:
        logging.disable(level)
    return {op: count for op, count in counts.items() if count}


def optimize_all(
    sources: Sequence[str | os.PathLike[str]], labels: Sequence[str], folder: Path
) -> tuple[list[Path], list[str], dict[str, dict[str, int]]]:
    """All models optimized: files in the folder, what to call them, and their fused ops by that."""
    files, names, fused = [], [], {}
    for number, (source, label) in enumerate(zip(sources, labels, strict=True)):
        files.append(folder / f"{number}.onnx")
        names.append(f"{label}, optimized")
        fused[names[-1]] = optimize(source, label, files[-1])
    return files, names, fused
