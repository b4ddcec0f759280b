"""A pass for Olive, Microsoft's workflow tool: `prune_graph` between its conversion and its quantization.

    python -m prunegraph.olive > package.json
    olive run --config workflow.json --package-config package.json

with `{"type": "PruneGraph", "ratio": 0.5}` among the passes of `workflow.json`; in Python, `olive.run(workflow,
package_config=prunegraph.olive.package_config())`.  It needs `olive-ai`, which knows its passes from a file alone.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from olive.hardware import AcceleratorSpec
from olive.model import ONNXModelHandler
from olive.model.utils import resolve_onnx_path
from olive.package_config import OlivePackageConfig
from olive.passes import Pass
from olive.passes.pass_config import BasePassConfig, PassConfigParam

from prunegraph.api import prune_graph
from prunegraph.observe.stream import Data
from prunegraph.passes.choose.request import Amount

_OPTIONS: dict[str, tuple[Any, str]] = {
    "ratio": (float | dict[str, float], "Fraction removed: one number, or by kind or pattern of groups."),
    "keep": (dict[str, int], "How many units stay, by kind or pattern."),
    "speedup": (float, "How many times faster the result shall be."),
    "scorer": (str, "Which units go first, such as magnitude, obs or snp."),
    "data": (str, "A file of texts or inputs to score, prove and repair on."),
    "tokenizer": (str, "The tokenizer of texts: tokenizer.json, or its folder."),
}


class PruneGraph(Pass):  # type: ignore[misc]
    """Removes units from an ONNX model, physically and with proof; beside the slim file lies the plan."""

    @classmethod
    def _default_config(cls, accelerator_spec: AcceleratorSpec) -> dict[str, PassConfigParam]:
        return {
            name: PassConfigParam(type_=kind, default_value=None, required=False, description=meaning)
            for name, (kind, meaning) in _OPTIONS.items()
        }

    def _run_for_config(
        self, model: ONNXModelHandler, config: BasePassConfig, output_model_path: str
    ) -> ONNXModelHandler:
        stated = {name: getattr(config, name) for name in _OPTIONS if getattr(config, name) is not None}
        data = Data(stated.pop("data"), tokenizer=stated.pop("tokenizer", None)) if "data" in stated else None
        scorer = stated.pop("scorer", None)
        target = Path(resolve_onnx_path(output_model_path))
        target.parent.mkdir(parents=True, exist_ok=True)
        result = prune_graph(model.model_path, Amount(**stated), scorer=scorer, data=data)
        result.save(target)
        return ONNXModelHandler(model_path=str(target.parent), onnx_file_name=target.name)


def package_config() -> dict[str, Any]:
    """What Olive knows of its passes, and of this one."""
    known: dict[str, Any] = json.loads(Path(OlivePackageConfig.get_default_config_path()).read_text(encoding="utf-8"))
    anything = {f"supported_{what}": ["*"] for what in ("providers", "accelerators", "precisions")}
    nothing: dict[str, Any] = {"supported_algorithms": [], "supported_quantization_encodings": []}
    known["passes"]["PruneGraph"] = {"module_path": "prunegraph.olive.PruneGraph", **anything, **nothing}
    return known


if __name__ == "__main__":
    print(json.dumps(package_config(), indent=1))
