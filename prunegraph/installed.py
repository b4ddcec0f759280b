"""The version of this package, as it is installed."""

from __future__ import annotations

from importlib.metadata import PackageNotFoundError, version


def installed_version(otherwise: str = "0+unknown") -> str:
    """The version that is installed.

    Args:
        otherwise: What to call sources that run without being installed.
    """
    try:
        return version("prunegraph")
    except PackageNotFoundError:
        return otherwise
