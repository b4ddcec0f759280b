"""The zoo: every architecture of the coverage table, small, exported by both exporters and checked.

    python -m benchmarks.zoo FOLDER [NAME ...] [--exporter dynamo] [--timeout 120] [--jobs 2]

Needs the extra `[zoo]`. Writes `FOLDER/NAME.onnx` (dynamo) and `FOLDER/NAME_legacy.onnx`; a file that is there already
is not made again. Each export has a process of its own, because exporters crash, hang and keep state.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from benchmarks.harness import warm
from benchmarks.zoo.exports import ZOO, make
from benchmarks.zoo.model import EXPORTERS


def main() -> int:
    """Run the command line."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.zoo", description=__doc__.split("\n")[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("names", nargs="*", help="models to export; all without")
    parser.add_argument("--exporter", choices=EXPORTERS, action="append", help="default: both")
    parser.add_argument("--timeout", type=float, default=120, help="seconds for one export (default 120)")
    parser.add_argument("--jobs", type=int, default=2, help="exports at once (default 2)")
    options = parser.parse_intermixed_args()
    if unknown := set(options.names) - set(ZOO):
        parser.error(f"not in the zoo: {', '.join(sorted(unknown))}; it has {', '.join(ZOO)}")
    warm("benchmarks.zoo.transformers_models", "benchmarks.zoo.timm_models", "torch._dynamo", "onnxscript")
    exporters = options.exporter or list(EXPORTERS)
    for outcome in make(options.folder, options.names or list(ZOO), exporters, options.timeout, options.jobs):
        print(f"{outcome.name:18} {outcome.exporter:7} {outcome.seconds:5.1f} s  {outcome.failure or 'ok'}", flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
