"""Output files that appear whole or not at all."""

from __future__ import annotations

import contextlib
import errno
import hashlib
import os
import shutil
import socket
import stat
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator
from contextvars import ContextVar
from pathlib import Path

from prunegraph.errors import OutputError

_STALE = 24 * 3600.0
"""Seconds after which a temporary folder belongs to nobody, whichever process has its number by then."""

_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
"""What a disk without room answers."""

_OTHER_TEMPORARY = "free some room, or name a folder on another disk: TMPDIR=FOLDER"

_open_here: set[Path] = set()
"""Temporary folders of this process."""

_recorded: ContextVar[list[Path] | None] = ContextVar("recorded", default=None)


@contextlib.contextmanager
def recorded() -> Iterator[list[Path]]:
    """A list that every file is added to as it appears, so that an interruption can tell what it leaves."""
    files: list[Path] = []
    token = _recorded.set(files)
    try:
        yield files
    finally:
        _recorded.reset(token)


def check_target(path: str | os.PathLike[str], inputs: Iterable[str | os.PathLike[str]] = ()) -> None:
    """Refuse a path that cannot or must not be written; ask before the long work starts.

    Args:
        path: Where a file is to be written.
        inputs: Files that must stay as they are, known also through links.

    Raises:
        OutputError: With the way out as its hint.
    """
    path = Path(path)
    try:
        _check(path, inputs)
    except (OSError, ValueError) as error:  # too long, or with a null character
        long = isinstance(error, OSError) and error.errno == errno.ENAMETOOLONG
        hint = "give a shorter name: other files are named after it" if long else "give another name"
        reason = getattr(error, "strerror", None) or str(error)
        raise OutputError(f"{path.name!r} cannot be the name of a file: {reason}", hint=hint) from error


def _check(path: Path, inputs: Iterable[str | os.PathLike[str]]) -> None:
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


def check_room(target: Path, need: int) -> None:
    """Refuse to start writing what the file system has no room for.

    Args:
        target: Where it is to be written; what is there stays until all of the new is.
        need: Bytes.

    Raises:
        OutputError: So many are not free.
    """
    hint = "free some room, or name a place on another disk with -o"
    _check_room(target.parent, need, OutputError(f"no room for {target}", hint=hint))


def _check_room(folder: Path, need: int, refusal: OutputError) -> None:
    """Raise a refusal, with the numbers added to it, where a folder has no room for so many bytes."""
    try:
        usage = shutil.disk_usage(folder)
    except OSError:
        return
    if usage.total and need > usage.free:  # some file systems do not tell how large they are
        numbers = f"it needs {need:,} bytes, and {usage.free:,} are free"
        raise OutputError(f"{refusal.message}: {numbers}", hint=refusal.hint)


@contextlib.contextmanager
def temporary_folder(need: int = 0) -> Iterator[Path]:
    """Give a folder for temporary files, which goes with them when the block ends.

    Args:
        need: Bytes that will lie in it, where that is known.

    Raises:
        OutputError: There is no room for them.
    """
    place = Path(tempfile.gettempdir())
    _check_room(place, need, OutputError(f"no room for temporary files in {place}", hint=_OTHER_TEMPORARY))
    with telling_of_no_room(), tempfile.TemporaryDirectory(prefix="prunegraph-") as folder:
        yield Path(folder)


@contextlib.contextmanager
def telling_of_no_room() -> Iterator[None]:
    """Say of temporary files, whose disk is full, which disk that is.

    Raises:
        OutputError: There is no room for what the block writes.
    """
    try:
        yield
    except OSError as error:
        if error.errno not in _FULL:
            raise
        message = f"no room for temporary files in {tempfile.gettempdir()}: {error.strerror}"
        raise OutputError(message, hint=_OTHER_TEMPORARY) from error


@contextlib.contextmanager
def stage(target: Path, *, outdated: Callable[[], Iterable[Path]] | None = None, need: int = 0) -> Iterator[Path]:
    """Give a temporary folder beside ``target``; what is in it at the end replaces the files of the same names there.

    Being beside the target, it is on the same file system, so each replacement is one atomic rename. Whatever ends the
    block early, Ctrl-C included, leaves all files as they were and no temporary one behind; what a process leaves that
    was killed goes when the next one writes to the same target. The target itself is renamed last. A link at the
    target is replaced, not followed.

    Args:
        target: The file that readers open.
        outdated: Asked for files to remove once the target is there, where no other process is about to write it.
        need: Bytes that will be written, where that is known.

    Raises:
        OutputError: The file system refuses, or has no room.
    """
    try:
        with _aside(target) as (folder, alone):
            yield folder
            _publish(folder, target)
            if outdated is not None and alone:
                with contextlib.suppress(OSError):  # what is new is there; what is old does no harm
                    for path in outdated():
                        path.unlink(missing_ok=True)
    except OSError as error:
        reason = error.strerror or str(error)
        if error.errno in _FULL and need:
            reason += f" while {need:,} bytes were written; nothing of them was kept"
        raise OutputError(f"cannot write {target}: {reason}", hint="name another place with -o") from error


@contextlib.contextmanager
def new_folder(target: Path) -> Iterator[Path]:
    """Give a temporary folder; what is in it at the end is the target, whole or not at all. Missing parents are made.

    Raises:
        OutputError: There is something at the target already, or the file system refuses.
    """
    check_new_folder(target)
    make_folder(target.parent)
    try:
        with _aside(target) as (folder, _):
            yield folder
            folder.chmod(0o777 & ~_umask())
            os.replace(folder, target)
    except OSError as error:
        raise OutputError(f"cannot write {target}: {error.strerror or error}", hint="name another folder") from error


def check_new_folder(target: Path) -> None:
    """Refuse a place where `new_folder` would refuse; ask before the long work starts.

    Raises:
        OutputError: There is something already.
    """
    if target.exists() and (not target.is_dir() or any(target.iterdir())):
        raise OutputError(f"{target} exists already", hint="name a new folder: nothing is changed in place")


@contextlib.contextmanager
def _aside(target: Path) -> Iterator[tuple[Path, bool]]:
    """A temporary folder beside a target, gone at the end; and whether no other process has one for it."""
    alone = _sweep(target)
    folder = Path(tempfile.mkdtemp(prefix=f"{_staging(target)}{_machine()}-{os.getpid()}-", dir=target.parent))
    _open_here.add(folder)
    try:
        yield folder, alone
    finally:
        shutil.rmtree(folder, ignore_errors=True)
        _open_here.discard(folder)


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask


def write_text(path: Path, text: str) -> None:
    """Write a text file that appears whole or not at all.

    Raises:
        OutputError: The file system refuses, or has no room.
    """
    with stage(path) as folder:
        (folder / path.name).write_text(text, encoding="utf-8")


def make_folder(path: Path) -> None:
    """Make a folder, unless it is there.

    Raises:
        OutputError: There is something else, or the file system refuses.
    """
    try:
        path.mkdir(parents=True, exist_ok=True)
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or str(error)
        raise OutputError(f"cannot make the folder {path}: {reason}", hint="name another folder") from error


def _publish(folder: Path, target: Path) -> None:
    """Move the staged files to their places, the target last, and put everything back if that fails midway."""
    staged = sorted(folder.iterdir(), key=lambda path: (path.name == target.name, path.name))
    backups = Path(tempfile.mkdtemp(dir=folder))
    normal = _permissions(folder / target.name)  # a plain open() made it: the user's umask
    done: list[Path] = []
    try:
        for source in staged:
            final = target.parent / source.name
            source.chmod(_permissions(final) if final.exists() else normal)
            if os.path.lexists(final):
                with contextlib.suppress(OSError):  # a file system without hard links: no way back, but still no harm
                    os.link(final, backups / final.name, follow_symlinks=False)
            done.append(final)
            os.replace(source, final)
        files = _recorded.get()
        if files is not None:
            files.extend(reversed(done))
    except BaseException:
        for final in done:
            _restore(final, backups / final.name, folder / final.name)
        raise


def _permissions(path: Path) -> int:
    """Who may read, write and run a file; nobody runs new content as somebody else (setuid, setgid)."""
    return stat.S_IMODE(path.stat().st_mode) & 0o777


def _restore(final: Path, backup: Path, staged: Path) -> None:
    """Undo one replacement, if it happened."""
    if staged.exists():
        return
    if os.path.lexists(backup):
        os.replace(backup, final)
    else:
        final.unlink(missing_ok=True)


def _sweep(target: Path) -> bool:
    """Remove temporary folders for the target that dead processes left; whether no living process has one."""
    alone = True
    for folder in target.parent.glob(f"{_staging(target)}*"):
        machine, _, rest = folder.name.removeprefix(_staging(target)).partition("-")
        if _lives(folder, machine, rest.partition("-")[0]):
            alone = False
        else:
            shutil.rmtree(folder, ignore_errors=True)
    return alone


def _lives(folder: Path, machine: str, process: str) -> bool:
    """Whether the process that made a temporary folder may still be at work."""
    if machine == _machine() and process == str(os.getpid()):
        return folder in _open_here
    try:
        if machine == _machine():
            os.kill(int(process), 0)
        return time.time() - folder.stat().st_mtime < _STALE
    except PermissionError:  # somebody else's process
        return True
    except (OSError, ValueError, OverflowError):
        return False


def _staging(target: Path) -> str:
    """What the names of temporary folders for a target begin with; short, however long its name is."""
    return f".prunegraph-{hashlib.sha256(os.fsencode(target.name)).hexdigest()[:8]}-"


def _machine() -> str:
    return hashlib.sha256(socket.gethostname().encode("utf-8", "replace")).hexdigest()[:8]
