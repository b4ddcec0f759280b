"""JSON from files that others wrote: what is ambiguous or goes too deep is an error, like what is no JSON at all."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any


def parse_json(text: str) -> Any:
    """The value that a JSON text states.

    >>> parse_json('{"head": 0.5}')
    {'head': 0.5}

    Raises:
        ValueError: it is no JSON, states a key twice, or is nested too deeply.
    """
    try:
        return json.loads(text, object_pairs_hook=_object)
    except RecursionError:
        raise ValueError("it is nested too deeply") from None


def _object(pairs: Sequence[tuple[str, Any]]) -> dict[str, Any]:
    keys = dict(pairs)
    if len(keys) < len(pairs):
        names = [name for name, _ in pairs]
        raise ValueError(f"{next(name for name in keys if names.count(name) > 1)!r} is given twice")
    return keys
