"""The exporters, and the environment that each of them lives in: they want versions that exclude each other."""

from __future__ import annotations

import subprocess
import sys
import venv
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True, slots=True)
class Environment:
    """What is installed for some exporters.

    Attributes:
        packages: Requirements, pinned.
        shared: Whether packages of the environment that runs the study are seen behind its own: torch is large.
    """

    packages: Sequence[str]
    shared: bool = False


ENVIRONMENTS: Mapping[str, Environment] = {
    "tensorflow": Environment(("tensorflow-cpu==2.21.0", "keras==3.15.1", "tf2onnx==1.17.0")),
    "keras": Environment(("keras==3.15.1",), shared=True),
    "jax": Environment(("jax2onnx==0.17.1", "flax==0.12.8", "equinox==0.13.8")),
    "paddle": Environment(("paddlepaddle==3.3.1", "paddle2onnx==2.1.0", "packaging==26.4")),
    "sklearn": Environment(("skl2onnx==1.20.0", "scikit-learn==1.9.1"), shared=True),
    "spox": Environment(("spox==0.18.2",), shared=True),
    "optimum": Environment(("optimum-onnx==0.1.0", "transformers==4.57.6"), shared=True),
    "genai": Environment(("onnxruntime-genai==0.18.0",), shared=True),
    "olive": Environment(("olive-ai==0.13.0",), shared=True),
    "tools": Environment(("onnxsim==0.8.1", "onnxslim==0.1.98", "polygraphy==0.53.6"), shared=True),
    "ultralytics": Environment(("ultralytics==8.4.190", "onnxslim==0.1.98"), shared=True),
    "diffusers": Environment(("diffusers==0.42.1",), shared=True),
    "torchvision": Environment((), shared=True),
}

EXPORTERS: Mapping[str, tuple[str, str]] = {
    "tf2onnx": ("keras_models", "tensorflow"),
    "keras": ("keras_models", "tensorflow"),
    "keras-torch": ("keras_models", "keras"),
    "jax2onnx": ("jax_models", "jax"),
    "paddle2onnx": ("paddle_models", "paddle"),
    "skl2onnx": ("sklearn_models", "sklearn"),
    "spox": ("spox_models", "spox"),
    "optimum": ("optimum_models", "optimum"),
    "genai": ("genai_models", "genai"),
    "olive": ("olive_models", "olive"),
    "onnxsim": ("tool_models", "tools"),
    "onnxslim": ("tool_models", "tools"),
    "polygraphy": ("tool_models", "tools"),
    "graphsurgeon": ("tool_models", "tools"),
    "onnxscript": ("tool_models", "tools"),
    "ort-quantize": ("tool_models", "tools"),
    "ultralytics": ("ultralytics_models", "ultralytics"),
    "diffusers": ("diffusers_models", "diffusers"),
    "torchvision": ("torchvision_models", "torchvision"),
}
"""By exporter the module of its models, and its environment."""


def python_of(folder: Path, name: str) -> Path:
    """The interpreter of an environment."""
    return (folder / name / "bin" / "python").absolute()


def install(folder: Path, name: str) -> str:
    """Make an environment; one that is there is taken as it is. Why that failed, empty where it did not."""
    python = python_of(folder, name)
    environment = ENVIRONMENTS[name]
    unfinished = folder / name / ".unfinished"
    if python.exists() and not unfinished.exists():
        return ""
    unfinished.parent.mkdir(parents=True, exist_ok=True)
    unfinished.touch()
    venv.create(folder / name, with_pip=True)
    if environment.shared:
        (site,) = (folder / name / "lib").glob("python*/site-packages")
        shared = [path for path in sys.path if path.endswith("site-packages")]
        (site / "zz_shared.pth").write_text("\n".join(shared) + "\n", encoding="utf-8")
    if environment.packages:
        command = [str(python), "-m", "pip", "install", "--quiet", "--no-cache-dir", "--no-compile"]
        result = subprocess.run([*command, *environment.packages], capture_output=True, text=True, check=False)
        if result.returncode:
            errors = [line for line in result.stderr.splitlines() if line.startswith("ERROR")]
            return f"does not install: {(errors or ['pip failed'])[-1].removeprefix('ERROR: ')[:160]}"
    unfinished.unlink()
    return ""
