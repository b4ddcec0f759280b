"""`prunegraph explain`: list the groups of a model and what holds the rest."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from prunegraph.cli.arguments import AllowIo, Fixed, Json, Model, Size
from prunegraph.cli.console import progress, say, show, show_json, shown_width
from prunegraph.cli.parse import parse_sizes, parse_values


def explain(
    model: Model,
    verbose: Annotated[bool, typer.Option("--verbose", "-v", help="List every group and every pin.")] = False,
    allow_io: AllowIo = None,
    size: Size = None,
    fixed: Fixed = None,
    html: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="Draw the groups on a page that needs no network.", show_default=False),
    ] = None,
    dot: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Draw the groups as a graph for Graphviz.", show_default=False)
    ] = None,
    json: Json = False,
) -> None:
    """Tell what can be removed, what cannot, and why.

    A group is one choice: slots that can only go together, in all the weights that hold them. Its kind follows from
    what the graph does with it:

    \b
      head        attention heads
      kv_group    key and value heads, each with the query heads that share it
      query_head  query heads of one key and value head
      qk_dim      what queries and keys are compared by
      v_dim       what values carry
      ffn         neurons between two linear layers
      dense       outputs of a layer that leads away, such as a pooler
      channel     channels of convolutions
      hidden      the width that all layers add to
      expert      experts of a mixture, ranked by a router
      inner       the inner width of a state space block
      state       what such a block carries on from step to step
      rank        between two weights with nothing but linear ops, narrower than both sides

    Removing a unit of an exact group equals setting it to zero. Where a norm takes the mean over it, or a router
    ranks it, what stays counts for more, and a maximum is that of what stays: such a group is inexact (~). What is
    pinned stays whole.

    Needs for --html: pip install "prunegraph[report]"

    \b
    Examples
      prunegraph explain model.onnx
      prunegraph explain model.onnx -v | less
      prunegraph explain model.onnx --allow-io 'last_hidden_state'
      prunegraph explain model.onnx --html groups.html --dot groups.dot
      prunegraph explain model.onnx --json | jq '.groups[] | {id, units}'
    """  # noqa: D301 - \b keeps the lines that follow as they are
    sizes, values = parse_sizes(size or ()), parse_values(fixed or ())
    with progress() as step:
        step("load")
        from prunegraph.analysis.explain import to_dict
        from prunegraph.api import analyze
        from prunegraph.atomic_write import check_target, write_text
        from prunegraph.cli.explain_view import drawn_blocks, render
        from prunegraph.export.report.explained import draw_dot, draw_html
        from prunegraph.extras import require_extras
        from prunegraph.passes.choose.request import Scope

        for path in filter(None, (html, dot)):
            check_target(path, [model])
        if html is not None:
            require_extras(["report"])
        graph = analyze(model, scope=Scope(allow_io=allow_io or (), sizes=sizes, values=values), progress=step)
        analysis, bases = graph.analysis, graph.bases
        drawings = {}
        if html is not None:
            drawings[html] = draw_html(model.name, to_dict(analysis, bases), drawn_blocks(analysis))
        if dot is not None:
            drawings[dot] = draw_dot(model.name, drawn_blocks(analysis))
    for path, text in drawings.items():
        write_text(path, text)
        say("wrote ", str(path))
    if json:
        show_json(to_dict(analysis, bases))
        return
    show(render(analysis, title=model.name, verbose=verbose, bases=bases, width=shown_width()))
    if analysis.groups:
        say("\nnext: ", (f"prunegraph prune {model} -o slim.onnx", "bold"))
