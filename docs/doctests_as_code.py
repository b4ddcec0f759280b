"""Shows doctests of docstrings as code: an extension of griffe, which mkdocstrings reads docstrings with."""

from __future__ import annotations

import re
from typing import Any

import griffe

_DOCTEST = re.compile(r"^([ ]*)>>> .*?(?=\n[ ]*\n|\Z)", re.MULTILINE | re.DOTALL)


class DoctestsAsCode(griffe.Extension):
    """Fences every block of lines that begins with a prompt."""

    def on_instance(self, *, obj: griffe.Object, **_: Any) -> None:
        """Called for every object once it is read."""
        if obj.docstring is not None:
            obj.docstring.value = _DOCTEST.sub(
                lambda block: f"{block[1]}```pycon\n{block[0]}\n{block[1]}```", obj.docstring.value
            )
