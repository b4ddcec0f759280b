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


def require_extras(extras: Iterable[str]) -> None:
    """Check that the packages of all these extras can be imported, before work is begun.

    >>> require_extras([])

    Raises:
        MissingExtra: some cannot; the message names all of them, and one command that installs all.
    """
    missing = {extra: [name for name in PACKAGES[extra] if find_spec(name) is None] for extra in dict.fromkeys(extras)}
    lacking = [extra for extra, names in missing.items() if names]
    if lacking:
        raise MissingExtra(",".join(sorted(lacking)), ", ".join(name for names in missing.values() for name in names))
