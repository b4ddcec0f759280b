"""The plan of a model that knows fewer tokens: which of them, by their old ids, and of which model."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from prunegraph.analysis.selection import ModelMark
from prunegraph.errors import PruneGraphError
from prunegraph.strict_json import parse_json

SCHEMA = 1
_HINT = "name the file that `prunegraph vocab` wrote beside the model: --plan NAME.vocab.json"


@dataclass(frozen=True, slots=True)
class VocabularyPlan:
    """What a plan states.

    Attributes:
        kept: Old ids of the tokens that stay, in the order of their new ones.
        ids: The input that holds the numbers of tokens.
        outputs: Outputs with one number a token.
        made_for: The model that it belongs to, if it knows.
    """

    kept: tuple[int, ...]
    ids: str = ""
    outputs: tuple[str, ...] = ()
    made_for: ModelMark | None = None

    def to_json(self) -> str:
        """The text of its file."""
        mark = {} if self.made_for is None else {"model": asdict(self.made_for)}
        stated = {"prunegraph_vocabulary": SCHEMA, **mark, "ids": self.ids}
        return json.dumps({**stated, "kept": self.kept, "outputs": self.outputs})

    @staticmethod
    def load(path: Path) -> VocabularyPlan:
        """Read its file.

        Raises:
            PruneGraphError: it cannot be read, or is no such plan.
        """
        try:
            stated = parse_json(path.read_text(encoding="utf-8-sig"))
        except (OSError, ValueError) as error:
            raise PruneGraphError(f"the plan {path} cannot be read: {error}", hint=_HINT) from error
        if not isinstance(stated, dict) or stated.get("prunegraph_vocabulary") != SCHEMA:
            raise PruneGraphError(f"{path} is no plan of a vocabulary", hint=_HINT)
        kept: Any = stated.get("kept")
        outputs: Any = stated.get("outputs", [])
        if not _holds(kept, int) or not _holds(outputs, str):
            raise PruneGraphError(f"{path} is no plan of a vocabulary: it does not list ids and outputs", hint=_HINT)
        return VocabularyPlan(tuple(kept), str(stated.get("ids", "")), tuple(outputs), _mark(stated.get("model"), path))


def _holds(entries: Any, kind: type) -> bool:
    return isinstance(entries, list) and all(isinstance(each, kind) and not isinstance(each, bool) for each in entries)


def _mark(entry: Any, path: Path) -> ModelMark | None:
    if entry is None:
        return None
    name, digest = (entry.get("name"), entry.get("digest")) if isinstance(entry, dict) else (None, None)
    if not isinstance(name, str) or not isinstance(digest, str):
        raise PruneGraphError(f"{path} does not state its model by name and digest", hint=_HINT)
    return ModelMark(name, digest)
