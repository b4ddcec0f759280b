"""How much disk the package and each of its extras take, for the table in the README.

    python -m benchmarks.install_size [EXTRA ...]

Every extra is installed into an environment of its own; its size is what it adds to that of the core.
"""

from __future__ import annotations

import argparse
import platform
import subprocess
import sys
import tempfile
import venv
from pathlib import Path

EXTRAS = ("text", "syntax", "cluster", "image", "report", "graphsurgeon", "torch")
ROOT = Path(__file__).parents[1]


def installed_bytes(requirement: str, where: Path) -> int:
    """Install a requirement into a new environment and sum the sizes of its files."""
    venv.create(where, with_pip=True)
    subprocess.run([where / "bin" / "python", "-m", "pip", "install", "--quiet", requirement], check=True)
    return sum(path.lstat().st_size for path in where.rglob("*") if path.is_file() or path.is_symlink())


def main() -> None:
    """Print a Markdown table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("extras", nargs="*", default=EXTRAS, metavar="EXTRA", help=f"default: {' '.join(EXTRAS)}")
    extras = parser.parse_args().extras
    print(f"Python {platform.python_version()}, {platform.system()} {platform.machine()}\n\n| | MB |\n|---|---:|")
    with tempfile.TemporaryDirectory() as folder:
        empty = Path(folder) / "empty"
        venv.create(empty, with_pip=True)
        pip = sum(path.lstat().st_size for path in empty.rglob("*") if path.is_file())
        core = installed_bytes(str(ROOT), Path(folder) / "core") - pip
        print(f"| core | {core / 1e6:,.0f} |")
        for extra in extras:
            added = installed_bytes(f"{ROOT}[{extra}]", Path(folder) / extra) - pip - core
            print(f"| `{extra}` | +{added / 1e6:,.0f} |")
            sys.stdout.flush()


if __name__ == "__main__":
    main()
