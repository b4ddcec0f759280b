"""One call's request, put together and checked before a model is read."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace

from prunegraph.analysis.roles import KINDS
from prunegraph.errors import UsageError
from prunegraph.extras import require_extras
from prunegraph.observe.data import DataLike, Sample
from prunegraph.observe.evaluation import check_metric
from prunegraph.observe.stream import Data
from prunegraph.passes.choose.amounts import Ratio
from prunegraph.passes.choose.request import Amount, Scope, scorers_by_kind
from prunegraph.passes.score import Activation, KindScorers, Scorers, needs_data
from prunegraph.quantization.options import Quantize, check_data
from prunegraph.train.options import Finetune

METHODS = ("none", "bias", "lstsq", "auto", "sweep")


@dataclass(frozen=True, slots=True)
class Repair:
    """Re-fit weights that read removed units on the data, after the proof, without gradients and labels.

    Only where the error on held-out samples falls.

    Attributes:
        method: "lstsq" (weight and bias), "bias" (the mean of what went), "auto" (the better one of each weight; then
            all front to back, where outputs come nearer that way), "sweep" (the same, whatever that takes) or "none".
    """

    method: str = "auto"

    def __post_init__(self) -> None:
        """Check the method.

        Raises:
            UsageError: there is no such method.
        """
        if self.method not in METHODS:
            raise UsageError(f"there is no repair {self.method!r}", hint=f"choose one of {', '.join(METHODS)}")


Step = Repair | Finetune | Quantize
"""What can follow the proof."""


@dataclass(frozen=True, slots=True)
class Request:
    """Everything that a call asks for.

    Attributes:
        amount: How much goes.
        scorers: Which units go first.
        data: What the model is run on.
        scope: Which part of the model may change.
        after: What follows the proof, in order.
        verify: Whether to prove the result.
    """

    amount: Amount
    scorers: KindScorers
    data: Data | None
    scope: Scope
    after: tuple[Step, ...]
    verify: bool

    @staticmethod
    def of(
        amount: Amount | Ratio | None,
        scorer: Scorers | KindScorers | None,
        data: DataLike | Data | None,
        scope: Scope | None,
        after: Step | Iterable[Step] | None,
        verify: bool,
        more_extras: Iterable[str] = (),
    ) -> Request:
        """A request from what stands for its parts, checked, with the data opened.

        Args:
            amount: See `prune_graph`, as what follows.
            scorer: See there.
            data: See there.
            scope: See there.
            after: See there.
            verify: See there.
            more_extras: Extras that are needed besides; all that is missing is told at once.

        Raises:
            UsageError: a part is wrong, or needs data and there are none, or there is something wrong with them.
            MissingExtra: packages are missing; the message names all of them.
        """
        amount, scorers = Amount.of(amount), scorers_by_kind(scorer)
        if amount.max_drop is not None:
            check_metric(amount.metric)
        if after is None:
            after = () if data is None else (Repair(),)
        steps = (after,) if isinstance(after, Step) else tuple(after)
        for step in steps:
            if not isinstance(step, Step):
                hint = "give pg.Repair(), pg.Finetune() or pg.Quantize(), or a list of them"
                raise UsageError(f"{step!r} is nothing that can follow the proof", hint=hint)
        if any(isinstance(step, Quantize) for step in steps[:-1]):
            hint = "give pg.Quantize() last: what follows it works on floats"
            raise UsageError("something follows the quantization", hint=hint)
        opened = Data.open(data)
        if amount.by_speed and opened is not None and scorers == KindScorers():
            scorers = KindScorers(Activation())  # what is seen of units says more of their harm than their weights do
        request = Request(amount, scorers, opened, scope or Scope(), steps, verify)
        if opened is None:
            request._check_without_data()
        require_extras([*request.extras(), *more_extras])
        return request

    @property
    def steps(self) -> tuple[Step, ...]:
        """What follows the proof of this amount: where nothing but dead units goes, nothing needs repair."""
        return tuple(step for step in self.after if not (self.amount.dead and isinstance(step, Repair)))

    def extras(self) -> list[str | tuple[str, str]]:
        """The extras that the data, the scorers and the steps need, those that are installed among them."""
        sample = self.data.first() if self.data is not None else Sample()
        needed: list[str | tuple[str, str]] = [("text", "tokenizers")] if sample.texts else []
        needed += ["image"] if sample.image is not None else []
        scorers = dict.fromkeys(self.scorers.of(kind) for kind in filter(self.amount.may_prune, KINDS))
        for scorer in scorers:
            needed += scorer.extras
            needed += scorer.parsing_extras if sample.texts and not sample.parses else ()
        if self.amount.filtering is not None and sample.texts:
            needed.append("text")
        needed += [("torch", "torch") for step in self.after if isinstance(step, Finetune)]
        return needed

    def _check_without_data(self) -> None:
        for kind in filter(self.amount.may_prune, KINDS):
            scorer = self.scorers.of(kind)
            if needs_data(scorer, kind):
                hint = "give texts with the model's tokenizer: data=…, tokenizer=… (--data FILE --tokenizer FOLDER)"
                raise UsageError(f"the scorer {scorer.name!r} needs data to run the model on", hint=hint)
        for step in self.after:
            if isinstance(step, Finetune):
                raise UsageError("fine-tuning needs data", hint="give examples with labels: data=…, --data FILE")
            if isinstance(step, Quantize):
                check_data(step, None)
            elif step.method != "none":
                hint = "give some (data=…, --data FILE), labels are not needed; without data there is no repair"
                raise UsageError(f"the repair {step.method!r} needs data to run the model on", hint=hint)
        filtering = self.amount.filtering
        if filtering is not None and not callable(filtering.metric):
            hint = "give validation data (data=…, --data FILE), or a function as metric"
            raise UsageError("filtering needs data", hint=hint)
        if self.amount.max_drop is not None:
            hint = "give examples: --data FILE, data=…"
            raise UsageError("how much is lost can only be measured on data", hint=hint)


def with_seed(scorers: KindScorers, seed: int) -> KindScorers:
    """The same scorers, those that draw and have no seed of their own with this one."""

    def seeded(scorer: object) -> object:
        own = getattr(scorer, "seed", 0)
        return replace(scorer, seed=seed) if own is None else scorer  # type: ignore[type-var]

    every = None if scorers.every is None else seeded(scorers.every)
    return KindScorers(every, {kind: seeded(scorer) for kind, scorer in scorers.by_kind.items()})  # type: ignore[arg-type, misc]
