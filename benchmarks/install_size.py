"""How much disk the package and each of its extras take, for the table in the README.

    python -m benchmarks.install_size [EXTRA ...]

Every extra is installed into an environment of its own; its size is what it adds to that of the core.
"""

from __future__ import annotations

import platform
import subprocess
import tempfile
import venv
from pathlib import Path

from benchmarks.harness import Section, study_parser

EXTRAS = ("text", "syntax", "cluster", "image", "report", "graphsurgeon", "torch")
ROOT = Path(__file__).parents[1]


def installed_bytes(where: Path, *requirements: str) -> int:
    """Install requirements into a new environment and sum the sizes of its files."""
    venv.create(where, with_pip=True)
    if requirements:
        subprocess.run([where / "bin" / "python", "-m", "pip", "install", "--quiet", *requirements], check=True)
    return sum(path.lstat().st_size for path in where.rglob("*") if path.is_file() or path.is_symlink())


def main() -> None:
    """Install, and print one table."""
    parser = study_parser("benchmarks.install_size", __doc__)
    parser.add_argument("extras", nargs="*", default=EXTRAS, metavar="EXTRA", help=f"default: {' '.join(EXTRAS)}")
    extras = parser.parse_args().extras
    with tempfile.TemporaryDirectory() as folder:
        pip = installed_bytes(Path(folder) / "empty")
        core = installed_bytes(Path(folder) / "core", str(ROOT)) - pip
        rows = [("core", f"{core / 1e6:,.0f}")]
        for extra in extras:
            added = installed_bytes(Path(folder) / extra, f"{ROOT}[{extra}]") - pip - core
            rows.append((f"`{extra}`", f"+{added / 1e6:,.0f}"))
    note = f"Python {platform.python_version()}, {platform.system()} {platform.machine()}"
    Section("", ("", "MB"), rows, note).show()


if __name__ == "__main__":
    main()
