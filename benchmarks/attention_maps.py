"""Attention-score preservation: mean cosine between the attention maps of a model and of what pruning makes of it.

    python -m benchmarks.attention_maps model.onnx slim.onnx slim.plan.json data.jsonl tokenizer.json

SNP is named for it; any pruning can be looked at. One line a layer, and with --plot a heat map of all heads.
"""

from __future__ import annotations

from pathlib import Path

from benchmarks.harness import Section, study_parser
from prunegraph.analysis.selection import Selection
from prunegraph.analyzed import load_and_analyze
from prunegraph.export.onnx_file import load
from prunegraph.observe.attention_similarity import attention_similarity, heat_map
from prunegraph.observe.stream import Data


def main() -> None:
    """Compare two files."""
    parser = study_parser("benchmarks.attention_maps", __doc__)
    for name in ("model", "slim", "plan", "data", "tokenizer"):
        parser.add_argument(name, type=Path)
    parser.add_argument("--samples", type=int, default=256)
    parser.add_argument("--plot", type=Path, help="where to draw the heat map, such as maps.png")
    given = parser.parse_args()
    plan = Selection.from_json(given.plan.read_text(encoding="utf-8"))
    original = load_and_analyze(given.model)
    inputs = Data(given.data, given.tokenizer, limit=given.samples).opened().inputs(original.original)
    similarity = attention_similarity((original.normalized.model, original.analysis), load(given.slim), plan, inputs)
    rows = [
        (label, str(layer), str(len(heads)), f"{cosines.mean():.3f}", f"{cosines.min():.3f}")
        for layer, (label, heads, cosines) in enumerate(
            zip(similarity.labels, similarity.heads, similarity.cosines, strict=True)
        )
    ]
    note = f"mean over {sum(map(len, similarity.heads))} heads: {similarity.mean:.3f}"
    Section("", ("where", "layer", "heads", "mean cosine", "least"), rows, note).show()
    if given.plot:
        heat_map(similarity, given.plot)


if __name__ == "__main__":
    main()
