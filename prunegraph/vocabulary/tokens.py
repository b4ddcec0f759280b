"""Which tokens stay: those of a list, or those that texts use."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx_ir as ir

from prunegraph.errors import UsageError
from prunegraph.observe.stream import Data
from prunegraph.runtime.inputs import input_specs


def tokens_of_file(path: Path) -> list[str]:
    """The tokens of a file, one a line.

    Raises:
        UsageError: it cannot be read.
    """
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise UsageError(f"the tokens {path} cannot be read: {error}", hint="one token a line, in UTF-8") from error
    return [line for line in lines if line]


def used_ids(data: Data, model: ir.Model) -> list[int]:
    """The numbers of the tokens that data use, in the input that looks up the longest table."""
    bounds = {spec.name: spec.bound or 0 for spec in input_specs(model.graph)}
    ids = max(bounds, key=lambda name: bounds[name])
    used: set[int] = set()
    for batch in data.opened().inputs(model).batches():
        used |= set(np.unique(batch.feeds[ids]).tolist())
    return sorted(used)
