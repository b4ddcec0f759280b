"""Keywords that `prune_graph` and `analyze` took before there were request objects; they work for one release."""

from __future__ import annotations

import warnings
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from prunegraph.errors import UsageError
from prunegraph.observe.data import DataLike
from prunegraph.observe.stream import Data
from prunegraph.passes.choose.amounts import Ratio, check_budget
from prunegraph.passes.choose.request import Amount, Scope, scorers_by_kind
from prunegraph.passes.score import KindScorers, Scorers
from prunegraph.request import Repair, Step, with_seed

NOW = {
    "keep": "amount=pg.Amount(keep=…)",
    "budget": "amount=pg.Amount(macs=…, params=…, bytes=…)",
    "kinds": "amount=pg.Amount(kinds=…)",
    "align": "amount=pg.Amount(align=…)",
    "drop": "amount=pg.Amount(drop=…)",
    "layer_threshold": "amount=pg.Amount(layer_threshold=…)",
    "filtering": "amount=pg.Amount(filtering=…)",
    "include": "scope=pg.Scope(include=…)",
    "exclude": "scope=pg.Scope(exclude=…)",
    "allow_io": "scope=pg.Scope(allow_io=…)",
    "tokenizer": "data=pg.Data(…, tokenizer=…)",
    "providers": "data=pg.Data(…, providers=…)",
    "scorer_options": "the scorer with its options, such as scorer=pg.scorers.Sap(k=…)",
    "seed": "the scorer with its seed, such as scorer=pg.scorers.Random(seed=…)",
    "repair": "after=[pg.Repair(…)]",
    "finetune": "after=[pg.Repair(), pg.Finetune(…)]",
    "example_inputs": "model=pg.from_torch(module, inputs)",
    "dynamic_shapes": "model=pg.from_torch(module, inputs, dynamic_shapes=…)",
}
"""By former keyword, what takes its place."""


@dataclass
class Arguments:
    """The arguments of a call, those under former keywords moved to where they belong now.

    Attributes:
        amount: See `prune_graph`.
        scorer: See there.
        data: See there.
        scope: See there.
        after: See there.
        trace: What a torch module is traced with.
    """

    amount: Amount | Ratio | None = None
    scorer: Scorers | KindScorers | None = None
    data: DataLike | Data | None = None
    scope: Scope | None = None
    after: Step | Iterable[Step] | None = None
    trace: Mapping[str, Any] = field(default_factory=dict)

    def take(self, function: str, former: Mapping[str, Any]) -> Arguments:
        """Move what was given under former keywords, with a warning each.

        Args:
            function: The name of the function that was called.
            former: The keywords; `ratio` is one that stays.

        Raises:
            TypeError: there never was such a keyword.
            UsageError: something is wrong, or is given twice.
        """
        former = dict(former)
        ratio = former.pop("ratio", None)
        if ratio is not None:
            if self.amount is not None:
                raise UsageError("the ratio is given twice", hint="give one of amount and ratio")
            self.amount = ratio
        for name in former:
            if name not in NOW:
                raise TypeError(f"{function}() got an unexpected keyword argument {name!r}")
            warnings.warn(f"{function}({name}=…) is now {NOW[name]}", DeprecationWarning, stacklevel=3)
        given = {name: value for name, value in former.items() if value is not None}
        self._amount({name: given[name] for name in given if "Amount" in NOW[name]})
        self._scope({name: given[name] for name in given if "Scope" in NOW[name]})
        self._data({name: given[name] for name in given if "Data" in NOW[name]})
        self.trace = {name: given[name] for name in given if "from_torch" in NOW[name]}
        if "scorer_options" in given:
            self.scorer = scorers_by_kind(self.scorer, given["scorer_options"])
        if "seed" in given:
            self.scorer = with_seed(scorers_by_kind(self.scorer), given["seed"])
        if "repair" in given or "finetune" in given:
            tuned = (given["finetune"],) if given.get("finetune") is not None else ()
            repairs = (Repair(given["repair"]),) if "repair" in given else (Repair(),) if self.data is not None else ()
            self.after = (*repairs, *tuned)
        return self

    def _amount(self, fields: dict[str, Any]) -> None:
        budget = fields.pop("budget", {})
        check_budget(budget)
        fields |= budget
        if fields:
            self.amount = Amount.of(self.amount, **fields)

    def _scope(self, fields: dict[str, Any]) -> None:
        if fields:
            self.scope = replace(self.scope or Scope(), **fields)

    def _data(self, fields: dict[str, Any]) -> None:
        if fields and self.data is not None:
            self.data = replace(Data.of(self.data), **{name: value for name, value in fields.items() if value})
