"""Optional packages: which extra brings what, and one message for everything that is missing."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from importlib.util import find_spec

from prunegraph.errors import MissingExtra

PACKAGES = {
    "text": ("tokenizers", "joblib"),
    "syntax": ("spacy",),
    "cluster": ("sklearn", "kmedoids", "kneed"),
    "image": ("PIL",),
    "report": ("jinja2", "matplotlib"),
    "torch": ("torch", "onnxscript"),
    "graphsurgeon": ("onnx_graphsurgeon",),
    "pandas": ("pandas",),
    "yaml": ("yaml",),
}
"""By extra the modules that it brings and that are imported where they are used."""


@contextmanager
def needs_extra(extra: str, package: str = "", otherwise: str = "") -> Iterator[None]:
    """Import optional packages within this, so that what is missing is told together with the extra that brings it.

    >>> with needs_extra("report", "matplotlib"):
    ...     pass

    Raises:
        MissingExtra: an import fails; it names `package`, or the module that is missing.
    """
    try:
        yield
    except ImportError as error:
        raise MissingExtra(extra, package or error.name or extra, otherwise) from error


def require_extras(extras: Iterable[str | tuple[str, str]]) -> None:
    """Check that the packages of all these extras can be imported, before work is begun.

    >>> require_extras([])

    Args:
        extras: Extras of which every package is needed, or pairs of an extra and the one module of it that is.

    Raises:
        MissingExtra: some cannot; the message names all of them, and one command that installs all.
    """
    needed: dict[str, dict[str, None]] = {}
    for each in extras:
        extra, names = (each, PACKAGES[each]) if isinstance(each, str) else (each[0], each[1:])
        needed.setdefault(extra, {}).update(dict.fromkeys(names))
    missing = {extra: [name for name in names if not _is_there(name)] for extra, names in needed.items()}
    lacking = [extra for extra, names in missing.items() if names]
    if lacking:
        raise MissingExtra(",".join(sorted(lacking)), ", ".join(name for names in missing.values() for name in names))


def _is_there(module: str) -> bool:
    """Whether a module can be imported."""
    try:
        return find_spec(module) is not None
    except ValueError:  # it is imported, and was put there without a spec
        return True
