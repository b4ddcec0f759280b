"""`prunegraph report`: what was removed and what it costs, as HTML, Markdown and JSON."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from prunegraph.cli.arguments import Model, onnx_file
from prunegraph.cli.console import progress, say
from prunegraph.cli.named import read_json

if TYPE_CHECKING:
    from prunegraph.bench.profile import NodeTime
    from prunegraph.cli.plan_file import Plan
    from prunegraph.clock import Progress
    from prunegraph.result import PruneResult

SUFFIXES = (".html", ".md", ".json")


def report(
    context: typer.Context,
    model: Model,
    slim: Annotated[Path, typer.Argument(metavar="SLIM", help="What was made of it.", callback=onnx_file)],
    output: Annotated[
        Path, typer.Option("--output", "-o", metavar="OUT", help="What to write: a .html, .md or .json file.")
    ],
    plan: Annotated[
        Path | None,
        typer.Option(
            metavar="PLAN", help="What was removed. [default: NAME.plan.json beside SLIM]", show_default=False
        ),
    ] = None,
    bench: Annotated[
        Path | None, typer.Option(metavar="FILE", help="What `prunegraph bench --json` printed.", show_default=False)
    ] = None,
    evaluation: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="What `prunegraph evaluate --json` printed.", show_default=False),
    ] = None,
    sweep: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE", help="The sweep.json of `prunegraph sweep`: accuracy over latency.", show_default=False
        ),
    ] = None,
    scores: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE", help="What `prunegraph score --json` printed: it shades the heads.", show_default=False
        ),
    ] = None,
    no_verify: Annotated[bool, typer.Option("--no-verify", help="Report without proving anew.")] = False,
    no_profile: Annotated[
        bool, typer.Option("--no-profile", help="Report without the time that every block takes.")
    ] = False,
) -> None:
    """Write a report of one pruning: what was saved, what went, what the proof saw, what cannot go and why.

    The page is one file that needs no network: charts and their numbers, light and dark, for screens, phones and
    paper. The same as Markdown for a pull request, and as JSON. The proof is made anew from the plan. A sweep makes a
    chart of accuracy over latency, as do models that were both timed and evaluated under one name.

    Needs for .html: pip install "prunegraph[report]"

    \b
    Examples
      prunegraph report model.onnx slim.onnx -o report.html
      prunegraph bench model.onnx slim.onnx --json > bench.json
      prunegraph report model.onnx slim.onnx --bench bench.json -o report.md
    """  # noqa: D301 - \b keeps the lines that follow as they are
    with progress() as step:
        step("load")
        from prunegraph.atomic_write import check_target, write_text
        from prunegraph.cli.plan_file import plan_beside, read_plan
        from prunegraph.export.report import render

        _check_suffix(output)
        check_target(output, [model, slim])
        latency, evaluated = _read(bench, "results"), _read(evaluation, "models")
        versions = _read(sweep, "points") or {"points": ()}
        scored = _read(scores, "scores")
        result = _result(model, slim, read_plan(plan or plan_beside(slim)), scored, not no_verify, step)
        facts = result.facts(
            latency=latency,
            evaluation=evaluated,
            commands=commands_of(context),
            sizes=result.file_sizes(slim),
            sweep=versions["points"],
            times=None if no_profile else profiled(result, step),
        )
        write_text(output, render(facts, output.suffix))
    say("wrote ", str(output))


def profiled(result: PruneResult, step: Progress) -> tuple[Sequence[NodeTime], Sequence[NodeTime]] | None:
    """What every node takes, before and after; None where the runtime cannot tell, which is said."""
    from prunegraph.errors import ModelError

    step("profile")
    try:
        return result.profile()
    except ModelError as error:
        say(f"no milliseconds of blocks: {error.message}")
        return None


def commands_of(context: typer.Context) -> list[str]:
    """The command line that is running, as it was given."""
    import shlex

    given = context.find_root().obj
    return [shlex.join(["prunegraph", *given])] if given else []


def _check_suffix(output: Path) -> None:
    from prunegraph.errors import UsageError
    from prunegraph.extras import require_extras

    if output.suffix not in SUFFIXES:
        raise UsageError(f"{output.name} is of no known kind", hint=f"name it as what it is: {', '.join(SUFFIXES)}")
    if output.suffix == ".html":
        require_extras(["report"])


def _read(path: Path | None, part: str) -> dict[str, Any] | None:
    """What a command printed as JSON.

    Raises:
        UsageError: it cannot be read, or is something else.
    """
    from prunegraph.errors import UsageError

    if path is None:
        return None
    data = read_json(path, hint="check the path, and write it with --json > FILE")
    if not isinstance(data, dict) or part not in data:
        raise UsageError(f"{path} has no {part!r}", hint="give what the command printed with --json")
    return data


def _result(
    model: Path, slim: Path, plan: Plan, scored: dict[str, Any] | None, check: bool, step: Progress
) -> PruneResult:
    """The pruning that a plan states, with the slim model as it lies there."""
    from dataclasses import replace

    from prunegraph.analysis.cost import count_parameters
    from prunegraph.api import analyze
    from prunegraph.export.onnx_file import load
    from prunegraph.passes.choose.request import Scope
    from prunegraph.proof import compare

    graph = analyze(model, scope=Scope(allow_io=tuple(plan.allow_io), values=plan.values), progress=step)
    result = graph.apply(plan.selection, verify=False)
    small = load(slim)
    proof = None
    if check and not plan.trained and not plan.quantized:
        proof = compare(
            graph,
            small,
            plan.selection,
            repair=plan.repair,
            rotation=plan.rotation,
            dead=plan.dead,
            clock=graph.clock,
        )
    params = (result.report.params[0], count_parameters(small.graph))
    scores = None if scored is None else _scores(graph, scored)
    return replace(result, ir_model=small, scores=scores, report=replace(result.report, params=params, verify=proof))


def _scores(graph: Any, scored: dict[str, Any]) -> Any:
    import numpy as np

    from prunegraph.errors import UsageError
    from prunegraph.passes.choose.request import scorers_by_kind
    from prunegraph.passes.choose.scored import Scores
    from prunegraph.passes.score import Context

    arrays = {name: np.asarray(values, dtype=np.float64) for name, values in scored["scores"].items()}
    shapes = {group.id: group.shape for group in graph.groups}
    for name, array in arrays.items():
        if array.shape != shapes.get(name):
            raise UsageError(f"the scores of {name} do not fit the model", hint="give those of the same MODEL")
    return Scores(
        arrays, scorers_by_kind(scored.get("scorer", "magnitude")), Context(graph.normalized.model, graph.analysis), {}
    )
