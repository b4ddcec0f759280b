"""Models by one exporter, inside of its environment.

python -m benchmarks.exporters.make EXPORTER FOLDER MODEL ...
"""

from __future__ import annotations

import importlib
import importlib.metadata
import json
import os
import re
import shutil
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from benchmarks.exporters.environments import ENVIRONMENTS, EXPORTERS

Maker = Callable[[Path], None]
"""Writes ONNX files into a folder; what it needs it imports itself."""


def models_of(exporter: str) -> Mapping[str, Maker]:
    """The models of an exporter by name; makes nothing."""
    module = importlib.import_module(f"benchmarks.exporters.{EXPORTERS[exporter][0]}")
    makers: Mapping[str, Maker] = module.MODELS[exporter]
    return makers


def versions(exporter: str) -> dict[str, str]:
    """Versions of what the environment was made for."""
    names = [re.split(r"[=<>\[]", each)[0] for each in ENVIRONMENTS[EXPORTERS[exporter][1]].packages] or ["torchvision"]
    return {name: importlib.metadata.version(name) for name in names}


def made(exporter: str, name: str, folder: Path) -> dict[str, Any]:
    """Let the exporter write a model, and name the files that came of it."""
    shutil.rmtree(folder / name, ignore_errors=True)
    (folder / name).mkdir(parents=True)
    os.chdir(folder / name)
    try:
        models_of(exporter)[name](folder / name)
    except Exception as error:
        lines = (line.strip() for line in str(error).splitlines())
        return {"failure": f"{type(error).__name__}: {next(filter(None, lines), '')[:240]}"}
    files = [str(file.relative_to(folder)) for file in sorted((folder / name).rglob("*.onnx"))]
    return {"files": files, "versions": versions(exporter)} if files else {"failure": "wrote no file"}


def main() -> None:
    """Make models one after the other, and tell what came of each in a line."""
    exporter, folder, *names = sys.argv[1:]
    for name in names:
        print("\n" + json.dumps({"model": name, "record": made(exporter, name, Path(folder))}), flush=True)


if __name__ == "__main__":
    main()
