"""Former names of kinds of groups, which amounts, plans and patterns may still use for one release."""

from __future__ import annotations

import re
import warnings
from collections.abc import Mapping
from typing import TypeVar

T = TypeVar("T")

FORMER_KINDS = {"query_slot": "query_head"}
"""From former to present names."""

_FORMER = re.compile(rf"({'|'.join(FORMER_KINDS)})(?![a-z_])")


def present_name(name: str) -> str:
    """A kind, the id of a group, or a pattern of ids, with the kind under its present name.

    >>> present_name("query_head.0"), present_name("head*")
    ('query_head.0', 'head*')
    """
    match = _FORMER.match(name) if isinstance(name, str) else None
    if match is None:
        return name
    present = FORMER_KINDS[match[1]] + name[match.end() :]
    warnings.warn(f"{name!r} is now called {present!r}", DeprecationWarning, stacklevel=4)
    return present


def present_keys(by_name: Mapping[str, T]) -> dict[str, T]:
    """The same by present names; see `present_name`."""
    return {present_name(name): value for name, value in by_name.items()}
