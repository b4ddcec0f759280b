"""The zoo: every architecture of the coverage table, small, exported by both exporters and checked.

    python -m benchmarks.zoo FOLDER [NAME ...] [--exporter dynamo] [--timeout 120] [--jobs 2]

Needs the extra `[zoo]`. Writes `FOLDER/NAME.onnx` (dynamo) and `FOLDER/NAME_legacy.onnx`; a file that is there already
is not made again. Each export has a process of its own, because exporters crash, hang and keep state.
"""

from __future__ import annotations

from pathlib import Path

from benchmarks.harness import Records, study_parser, warm
from benchmarks.zoo.exports import ZOO, export_missing
from benchmarks.zoo.model import EXPORTERS


def main() -> None:
    """Export what is missing, and print what cannot be made."""
    parser = study_parser("benchmarks.zoo", __doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("names", nargs="*", help="models to export; all without")
    parser.add_argument("--exporter", choices=EXPORTERS, action="append", help="default: both")
    parser.add_argument("--timeout", type=float, default=120, help="seconds for one export (default 120)")
    parser.add_argument("--jobs", type=int, default=2, help="exports at once (default 2)")
    options = parser.parse_intermixed_args()
    if unknown := set(options.names) - set(ZOO):
        parser.error(f"not in the zoo: {', '.join(sorted(unknown))}; it has {', '.join(ZOO)}")
    warm("benchmarks.zoo.exports", "torch._dynamo", "onnxscript")
    failures = export_missing(
        options.folder, options.names or list(ZOO), options.exporter or EXPORTERS,
        Records(options.folder / "results.jsonl"),
        jobs=options.jobs, timeout=options.timeout, again=True,
    )  # fmt: skip
    for file, record in failures.items():
        print(f"{file.stem:26} {record['failure']}")


if __name__ == "__main__":
    main()
