"""What is published: a wheel and a source distribution that hold what they should, and install by themselves."""

from __future__ import annotations

import shutil
import subprocess
import sys
import tarfile
import venv
import zipfile
from email import message_from_string
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
SOURCES = ("prunegraph", "examples", "docs", "benchmarks", "tests")
FILES = ("CHANGELOG.md", "CONTRIBUTING.md", "LICENSE", "Makefile", "README.md", "mkdocs.yml", "pyproject.toml")
PARTS = SOURCES + FILES
pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with both distributions, built from a copy of the sources."""
    for module in ("build", "hatchling", "hatch_fancy_pypi_readme"):
        pytest.importorskip(module, reason=f"{module} is not installed")
    folder = tmp_path_factory.mktemp("release")
    (folder / "source").mkdir()
    for part in PARTS:
        copy = shutil.copytree if (ROOT / part).is_dir() else shutil.copy
        copy(ROOT / part, folder / "source" / part)
    places = ["--outdir", str(folder / "dist"), str(folder / "source")]
    command = [sys.executable, "-m", "build", "--no-isolation", *places]
    run = subprocess.run(command, capture_output=True, text=True)
    assert run.returncode == 0, run.stdout + run.stderr
    return folder / "dist"


def test_the_wheel_holds_the_package_alone(built: Path) -> None:
    (wheel,) = built.glob("*.whl")
    with zipfile.ZipFile(wheel) as archive:
        names = archive.namelist()
        (about,) = (name for name in names if name.endswith("/METADATA"))
        metadata = message_from_string(archive.read(about).decode())
    assert {name.split("/")[0].partition("-")[0] for name in names} == {"prunegraph"}
    sources = {str(path.relative_to(ROOT)) for path in (ROOT / "prunegraph").rglob("*.py")}
    assert sources <= set(names) and "prunegraph/py.typed" in names
    assert metadata["Requires-Python"] == ">=3.11"
    assert "](docs/" not in metadata.get_payload(), "links of the README lead nowhere on PyPI"


def test_the_source_distribution_holds_what_the_wheel_is_made_of_and_its_tests(built: Path) -> None:
    (sdist,) = built.glob("*.tar.gz")
    with tarfile.open(sdist) as archive:
        tops = {name.split("/")[1] for name in archive.getnames() if "/" in name}
    assert set(PARTS) <= tops


def test_the_wheel_installs_and_its_command_runs(built: Path, tmp_path: Path) -> None:
    """In a new environment, its dependencies being those of this one."""
    (wheel,) = built.glob("*.whl")
    venv.create(tmp_path / "venv", with_pip=False)
    python = tmp_path / "venv" / "bin" / "python"
    (packages,) = (tmp_path / "venv" / "lib").glob("*/site-packages")
    with zipfile.ZipFile(wheel) as archive:  # what pip does with a pure wheel, and works without a network
        archive.extractall(packages)
    others = [path for path in sys.path if path.endswith("-packages")]
    (packages / "others.pth").write_text("\n".join(others) + "\n")
    code = (
        "import prunegraph, sys; import prunegraph.cli as cli; print(prunegraph.__file__);"
        "print(prunegraph.__version__);"
        "from importlib.metadata import entry_points; print([e.value for e in entry_points(name='prunegraph')][0]);"
        "sys.argv = ['prunegraph', '--help']; cli.main()"
    )
    run = subprocess.run([python, "-c", code], capture_output=True, text=True, cwd=tmp_path)
    assert run.returncode == 0, run.stderr
    where, version, entry, *help_lines = run.stdout.splitlines()
    assert Path(where).is_relative_to(packages) and entry == "prunegraph.cli:main"
    assert version in wheel.name and any("prunegraph prune model.onnx" in line for line in help_lines)
