"""Scores of all units of a model, with what is needed to choose by them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from prunegraph.extras import needs_extra
from prunegraph.passes.score import Context, KindScorers, ScoringReport
from prunegraph.passes.score.base import Scores as Array

if TYPE_CHECKING:
    import pandas as pd


@dataclass(frozen=True, eq=False)
class Scores(Mapping[str, Array]):
    """By group id an array of the group's shape `(*rows, units)`: high for what should stay.

    Attributes:
        arrays: The scores.
        scorers: Who gave them.
        context: What the scorers were given.
        reports: By name of a scorer what it has to say of how it judged.
    """

    arrays: Mapping[str, Array]
    scorers: KindScorers
    context: Context
    reports: Mapping[str, ScoringReport]

    def __getitem__(self, group: str) -> Array:
        return self.arrays[group]

    def __iter__(self) -> Iterator[str]:
        return iter(self.arrays)

    def __len__(self) -> int:
        return len(self.arrays)

    def __repr__(self) -> str:
        return f"Scores({', '.join(f'{name}: {list(array.shape)}' for name, array in self.arrays.items())})"

    @property
    def names(self) -> dict[str, str]:
        """By group id the name of the scorer that scored it."""
        groups = {group.id: group for group in self.context.analysis.groups}
        return {name: self.scorers.of_group(groups[name]).name for name in self.arrays}

    def to_pandas(self) -> pd.DataFrame:
        """A row a unit: its group, row (of groups that are chosen row by row), number and score.

        Raises:
            MissingExtra: pandas is not installed.
        """
        with needs_extra("pandas", "pandas"):
            import pandas as pd
        parts = []
        for name, array in self.arrays.items():
            rows, units = np.indices((array.size // max(array.shape[-1], 1), array.shape[-1]))
            columns = {"row": rows.reshape(-1), "unit": units.reshape(-1), "score": array.reshape(-1)}
            parts.append(pd.DataFrame({"group": name, **columns}))
        return pd.concat(parts, ignore_index=True) if parts else pd.DataFrame()
