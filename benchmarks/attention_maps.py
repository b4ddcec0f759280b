"""Attention-score preservation: mean cosine between the attention maps of a model and of what pruning makes of it.

    python -m benchmarks.attention_maps model.onnx slim.onnx slim.plan.json data.jsonl tokenizer.json

SNP is named for it; any pruning can be looked at. One line a layer, and with --plot a heat map of all heads.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from rich.console import Console
from rich.table import Table

from prunegraph.analysis.selection import Selection
from prunegraph.analyzed import load_and_analyze
from prunegraph.export.onnx_file import load
from prunegraph.observe.attention_similarity import attention_similarity, heat_map
from prunegraph.observe.stream import Data


def main() -> None:
    """Compare two files."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for name in ("model", "slim", "plan", "data", "tokenizer"):
        parser.add_argument(name, type=Path)
    parser.add_argument("--samples", type=int, default=256)
    parser.add_argument("--plot", type=Path, help="where to draw the heat map, such as maps.png")
    given = parser.parse_args()
    plan = Selection.from_json(given.plan.read_text(encoding="utf-8"))
    original = load_and_analyze(given.model)
    inputs = Data(given.data, given.tokenizer, limit=given.samples).opened().inputs(original.original)
    found = attention_similarity((original.normalized.model, original.analysis), load(given.slim), plan, inputs)
    table = Table("layer", "heads", "mean cosine", "least", "where", box=None)
    for layer, (label, heads, cosines) in enumerate(zip(found.labels, found.heads, found.cosines, strict=True)):
        table.add_row(str(layer), str(len(heads)), f"{cosines.mean():.3f}", f"{cosines.min():.3f}", label)
    Console().print(table)
    Console().print(f"mean over {sum(map(len, found.heads))} heads: {found.mean:.3f}")
    if given.plot:
        heat_map(found, given.plot)


if __name__ == "__main__":
    main()
