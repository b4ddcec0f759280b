"""The staged object: a model that is analysed once, and scored, selected from and rewritten as often as one likes."""

from __future__ import annotations

import html
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import onnx_ir as ir

from prunegraph.analysis.analyze import Pinned
from prunegraph.analysis.axes import Axis
from prunegraph.analysis.explain import to_text
from prunegraph.analysis.groups import Group
from prunegraph.analysis.selection import Selection
from prunegraph.analysis.solve import Solution
from prunegraph.analyzed import Analyzed, load_and_analyze, turned, with_folded
from prunegraph.clock import Clock
from prunegraph.errors import UsageError
from prunegraph.export.convert import Kind
from prunegraph.observe.data import DataLike
from prunegraph.observe.stream import Data
from prunegraph.passes.annotate import annotate
from prunegraph.passes.choose.amounts import Ratio
from prunegraph.passes.choose.request import Amount, Scope, scorers_by_kind
from prunegraph.passes.choose.scored import Scores
from prunegraph.passes.choose.select_units import Targets
from prunegraph.passes.dead import Folded
from prunegraph.passes.rotate import Rotation, reasons, rotate_as_planned
from prunegraph.passes.score import Context, KindScorers, Scorers
from prunegraph.passes.score.base import Scores as Array
from prunegraph.pipeline import filter_heads, find_targets, rotate, score_units, select_units, without_dead
from prunegraph.result import PruneResult, apply


@dataclass(frozen=True, repr=False, eq=False)
class Graph(Analyzed):
    """A model, normalized and analysed once: its groups, what pins the rest, and the steps that prune it.

    >>> import prunegraph as pg
    >>> graph = pg.analyze("model.onnx")  # doctest: +SKIP
    >>> scores = graph.score("activation", "texts.npz")  # doctest: +SKIP
    >>> for ratio in (0.25, 0.5):  # analysed and observed once  # doctest: +SKIP
    ...     graph.apply(graph.select(scores, ratio)).save(f"slim-{ratio}.onnx")

    It pickles; what comes back has been analysed anew.

    Attributes:
        clock: Told of the steps, and knows how long each took.
    """

    clock: Clock = field(default_factory=Clock)

    @property
    def groups(self) -> tuple[Group, ...]:
        """Every choice there is, in the order of the graph."""
        return self.analysis.groups

    @property
    def pinned(self) -> tuple[Pinned, ...]:
        """Axes of weights that stay whole, and why."""
        return self.analysis.pinned

    @property
    def pins(self) -> tuple[Pinned, ...]:
        """The same as `pinned`."""
        return self.analysis.pinned

    @property
    def solution(self) -> Solution:
        """The settled axes of all values."""
        return self.analysis.solution

    @property
    def params(self) -> int:
        """Numbers in the weights."""
        return self.analysis.params

    @property
    def names(self) -> Mapping[str, str]:
        """Every weight's name for people, in the order of use."""
        return self.analysis.names

    def group(self, name: str) -> Group:
        """The group of this id.

        Raises:
            KeyError: there is none.
        """
        return self.analysis.group(name)

    def render(self, axis: Axis) -> str:
        """An axis printed like einops."""
        return self.analysis.render(axis)

    def explain(self, *, verbose: bool = False) -> str:
        """What can be removed, what cannot and why, as plain text.

        Args:
            verbose: Name every pin with the node to blame, instead of one line a reason.
        """
        return to_text(self.analysis, verbose=verbose, bases=self.bases)

    @property
    def bases(self) -> dict[str, str]:
        """By id of every group of dims inside of heads, and residual width, why it may not turn; "" where it may."""
        return reasons(self.normalized.model.graph, self.analysis)

    def targets(self, amount: Amount | Ratio | None = None, scorer: Scorers | KindScorers | None = None) -> Targets:
        """How much of which group would stay, before anything is scored.

        Args:
            amount: See `prune_graph`.
            scorer: Some scorers decide how much stays, or rank across groups.

        Raises:
            NothingToPrune: no group is left that could get smaller.
            UsageError: an amount does not fit the model.
        """
        return find_targets(self, Amount.of(amount), scorers_by_kind(scorer))

    def rotate(
        self,
        data: DataLike | Data | None = None,
        *,
        groups: Iterable[str] | None = None,
        kept: Mapping[str, int] | None = None,
    ) -> Graph:
        """The same model with the dims inside of its heads turned, such that the last ones contribute least.

        It computes what it did, and has the same groups; `score` gives turned groups what their dims contribute.

        Args:
            data: What they contribute to; without data the weights alone say.
            groups: The ids of `qk_dim`, `v_dim` and `hidden` groups; all if None. Those that may not turn stay as they
                are.
            kept: By group id how many units shall stay: a residual stream is turned for one width, and not without.

        Raises:
            UsageError: the model was turned already, there is no such group, or the data do not fit the model.
        """
        if self.rotated is not None:
            raise UsageError("the model was turned already", hint="turn all groups of the analysed model at once")
        names = [group.id for group in self.groups]
        chosen = names if groups is None else list(groups)
        for name in chosen:
            if name not in names:
                raise UsageError(f"there is no group {name!r}", hint="`Graph.groups` lists them")
        widths = {name: (kept or {}).get(name) for name in chosen}
        return rotate(self, widths, Data.open(data), self.clock)

    def without_dead(self) -> tuple[Graph, Selection]:
        """The same model with constant units moved into biases, and the selection that removes all dead units.

        What `apply` makes of that is proven to compute what the original computes, not the original minus something.

        Raises:
            NothingToPrune: no unit is dead or constant, as far as weights tell.
        """
        return without_dead(self, self.clock)

    def score(
        self,
        scorer: Scorers | KindScorers | None = None,
        data: DataLike | Data | None = None,
        *,
        groups: Iterable[str] | None = None,
        kept: Mapping[str, int] | None = None,
    ) -> Scores:
        """A score for every unit: high for what should stay.

        Args:
            scorer: See `prune_graph`.
            data: What the model is run on, where the scorer needs that.
            groups: The ids of the groups to score; all if None.
            kept: By group id how many units shall stay, for scorers that ask.

        Raises:
            UsageError: the scorer needs data, or these do not suit it, or it can score none of the groups.
        """
        among = None if groups is None else set(groups)
        chosen = [group for group in self.groups if among is None or group.id in among]
        opened = Data.open(data)
        return score_units(self, scorers_by_kind(scorer), chosen, opened, self.clock, kept)

    def select(
        self,
        scores: Scores | Mapping[str, Array],
        amount: Amount | Ratio | Targets | None = None,
        data: DataLike | Data | None = None,
    ) -> Selection:
        """What stays of every group that gets smaller.

        Args:
            scores: What `score` returned, or scores of your own by group id.
            amount: See `prune_graph`; or what `targets` returned.
            data: For an amount with head filtering.

        Raises:
            NothingToPrune: no group is left that could get smaller.
            UsageError: an amount does not fit the model, or there are no scores of a group.
        """
        if not isinstance(scores, Scores):
            context = Context(self.normalized.model, self.analysis)
            scores = Scores(scores, scorers_by_kind("magnitude"), context, {})
        targets = amount if isinstance(amount, Targets) else self.targets(amount, scores.scorers)
        selection = replace(select_units(self, scores, targets, self.clock), made_for=self.mark)
        filtering = targets.amount.filtering
        if filtering is None:
            return selection
        opened = Data.open(data)
        return filter_heads(self, selection, filtering, opened, self.clock).selection

    def apply(
        self,
        selection: Selection,
        *,
        verify: bool = True,
        data: DataLike | Data | None = None,
        forms: tuple[str, ...] = (),
    ) -> PruneResult:
        """Carry out a selection: shrink, clean up, prove.

        Args:
            selection: What stays; groups that it does not name stay whole.
            verify: Prove the result, and refuse to return a wrong one.
            data: What the proof runs on, beside random inputs.
            forms: Equal forms that it is written in, see `passes.rewrite.for_runtime`.

        Raises:
            UsageError: the selection does not fit the model, or a group cannot go whole.
            VerificationFailed: the slim model does not compute what the masked original computes.
        """
        opened = Data.open(data)
        return apply(self, selection, check=verify, data=opened, clock=self.clock.fork(), forms=forms)

    def annotated(self, scores: Scores | None = None, selection: Selection | None = None) -> ir.Model:
        """A copy of the original whose nodes and weights say their groups, and scores and decisions where given.

        Args:
            scores: What `score` returned.
            selection: What stays; groups that it does not name stay whole.
        """
        names = scores.names if scores is not None else {}
        return annotate(self.original, self.normalized.model, self.analysis, scores, names, selection)

    @property
    def _title(self) -> str:
        return self.original.graph.name or "the graph"

    def __repr__(self) -> str:
        kinds = Counter(group.kind for group in self.groups)
        listed = ", ".join(f"{count} {kind}" for kind, count in kinds.items()) or "none"
        return f"Graph({self._title!r}: {len(self.groups)} groups ({listed}), {self.params:,} parameters)"

    def _repr_html_(self) -> str:
        head = "".join(f"<th>{name}</th>" for name in ("group", "units", "exact", "scope"))
        rows = "".join(
            f"<tr><td>{group.id}</td><td>{' x '.join(map(str, group.shape))}</td>"
            f"<td>{'yes' if group.exact else 'no'}</td><td>{html.escape(group.scope)}</td></tr>"
            for group in self.groups
        )
        summary = f"{len(self.groups)} groups, {self.params:,} parameters"
        return f"<p><b>{html.escape(self._title)}</b>: {summary}</p><table><tr>{head}</tr>{rows}</table>"

    def __reduce__(self) -> tuple[Any, ...]:
        model = self.original.clone()
        ir.external_data.load_to_model(model)
        try:
            rotation = self.rotated.rotation if self.rotated is not None else None
            serialized = ir.to_proto(model).SerializeToString()
            settled = self.normalized.settled
            return _analyzed_again, (serialized, self.kind, self.scope, rotation, settled, self.folded)
        except ValueError as error:
            hint = "keep the path of the model instead, and analyse it again where it is needed"
            raise UsageError("a model of more than 2 GB does not pickle", hint=hint) from error


def analyze_source(
    model: Any, scope: Scope, clock: Clock, trace: Mapping[str, Any] | None = None, data: Data | None = None
) -> Graph:
    """A model, normalized and analysed; see `analyzed.load_and_analyze`.

    Args:
        model: What is analysed.
        scope: Which part of it may change.
        clock: Told of the steps.
        trace: What a torch module is traced with.
        data: What it is known to run on.
    """
    analyzed = load_and_analyze(model, scope, clock, trace, data.sizes if data is not None else None)
    return Graph(analyzed.original, analyzed.normalized, analyzed.analysis, analyzed.kind, analyzed.scope, clock=clock)


def _analyzed_again(
    serialized: bytes,
    kind: Kind,
    scope: Scope,
    rotation: Rotation | None,
    sizes: Mapping[str, int],
    folded: tuple[Folded, ...] | None,
) -> Graph:
    analyzed = load_and_analyze(ir.from_proto(_proto(serialized)), scope, likely=lambda _: sizes)
    graph = Graph(analyzed.original, analyzed.normalized, analyzed.analysis, kind, scope)
    if folded is not None:
        graph = with_folded(graph, folded)
    if rotation is None:
        return graph
    return turned(graph, rotate_as_planned(graph.normalized.model, graph.analysis, rotation))


def _proto(serialized: bytes) -> Any:
    import onnx

    return onnx.ModelProto.FromString(serialized)
