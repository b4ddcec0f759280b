"""Output files that appear whole or not at all."""

from __future__ import annotations

import contextlib
import os
import shutil
import stat
import tempfile
from collections.abc import Iterable, Iterator
from pathlib import Path

from prunegraph.errors import OutputError


def check_target(path: str | os.PathLike[str], inputs: Iterable[str | os.PathLike[str]] = ()) -> None:
    """Refuse a path that cannot or must not be written; ask before the long work starts.

    Args:
        path: Where a file is to be written.
        inputs: Files that must stay as they are, known also through links.

    Raises:
        OutputError: With the way out as its hint.
    """
    path = Path(path)
    if path.is_dir():
        raise OutputError(f"{path} is a folder", hint=f"name a file in it, such as {path / 'slim.onnx'}")
    if os.path.lexists(path) and not path.is_file():
        raise OutputError(f"{path} is not a regular file", hint="name a new file")
    if not path.parent.is_dir():
        raise OutputError(f"the folder {path.parent} does not exist", hint=f"mkdir -p {path.parent}")
    if not os.access(path.parent, os.W_OK | os.X_OK):
        raise OutputError(f"the folder {path.parent} cannot be written to", hint="name a folder of your own")
    if path.is_file() and not os.access(path, os.W_OK):
        raise OutputError(f"{path} is read-only", hint="name another file, or make it writable")
    for given in inputs:
        if path.is_file() and os.path.exists(given) and os.path.samefile(path, given):
            raise OutputError(f"{path} is an input file", hint="inputs are never changed; name another output")


@contextlib.contextmanager
def stage(target: Path) -> Iterator[Path]:
    """Give a temporary folder beside ``target``; what is in it at the end replaces the files of the same names there.

    Being beside the target, it is on the same file system, so each replacement is one atomic rename. Whatever ends the
    block early, Ctrl-C included, leaves all files as they were and no temporary one behind. A link at the target is
    replaced, not followed.

    Raises:
        OutputError: The file system refuses, or has no room.
    """
    folder: Path | None = None
    try:
        folder = Path(tempfile.mkdtemp(prefix=f".{target.name}.tmp-", dir=target.parent))
        yield folder
        _publish(folder, target)
    except OSError as error:
        reason = error.strerror or str(error)
        raise OutputError(f"cannot write {target}: {reason}", hint="name another place with -o") from error
    finally:
        if folder is not None:
            shutil.rmtree(folder, ignore_errors=True)


def _publish(folder: Path, target: Path) -> None:
    """Move the staged files to their places, the target last, and put everything back if that fails midway."""
    staged = sorted(folder.iterdir(), key=lambda path: (path.name == target.name, path.name))
    backups = Path(tempfile.mkdtemp(dir=folder))
    normal = stat.S_IMODE((folder / target.name).stat().st_mode)  # a plain open() made it: the user's umask
    done: list[Path] = []
    try:
        for source in staged:
            final = target.parent / source.name
            source.chmod(stat.S_IMODE(final.stat().st_mode) if final.exists() else normal)
            if os.path.lexists(final):
                with contextlib.suppress(OSError):  # a file system without hard links: no way back, but still no harm
                    os.link(final, backups / final.name, follow_symlinks=False)
            done.append(final)
            os.replace(source, final)
    except BaseException:
        for final in done:
            _restore(final, backups / final.name, folder / final.name)
        raise


def _restore(final: Path, backup: Path, staged: Path) -> None:
    """Undo one replacement, if it happened."""
    if staged.exists():
        return
    if os.path.lexists(backup):
        os.replace(backup, final)
    else:
        final.unlink(missing_ok=True)
