"""The command line: one function a command, from `prunegraph explain` to `prunegraph bundle`.

Data goes to stdout, everything else to stderr.  Exit codes: 0 done, 1 refused or verification failed, 2 wrong usage,
130 interrupted, 143 ended by a signal.
"""

from __future__ import annotations

from typing import Annotated

import typer

from prunegraph.cli.bench import bench
from prunegraph.cli.bundle import bundle
from prunegraph.cli.evaluate import evaluate
from prunegraph.cli.explain import explain
from prunegraph.cli.export import export
from prunegraph.cli.finetune import finetune
from prunegraph.cli.group import Commands
from prunegraph.cli.prune import prune
from prunegraph.cli.quantize import quantize
from prunegraph.cli.report import report
from prunegraph.cli.score import score
from prunegraph.cli.sweep import sweep
from prunegraph.cli.table import table
from prunegraph.cli.verify import verify
from prunegraph.cli.vocab import vocab

__all__ = ["app", "main"]

app = typer.Typer(
    cls=Commands,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
)
for command in (
    explain,
    prune,
    verify,
    bench,
    table,
    sweep,
    evaluate,
    report,
    export,
    score,
    finetune,
    quantize,
    vocab,
    bundle,
):
    app.command()(command)


def _print_version(show: bool) -> None:
    if show:
        from prunegraph.installed import installed_version

        number = installed_version(otherwise="")
        typer.echo(f"prunegraph {number}" if number else "prunegraph, run from its sources without being installed")
        raise typer.Exit


@app.callback(invoke_without_command=True)
def prunegraph(
    context: typer.Context,
    version: Annotated[
        bool, typer.Option("--version", callback=_print_version, is_eager=True, help="Print the version and leave.")
    ] = False,
) -> None:
    """Make a neural network physically smaller, and prove that it computes the same minus what was removed.

    Any ONNX file, from any exporter, no hints: what can be removed is found in the graph itself.

    \b
    Start here
      prunegraph explain model.onnx                 what can be removed, what cannot, and why
      prunegraph prune model.onnx -o slim.onnx      half of the heads, neurons and channels
      prunegraph bench model.onnx slim.onnx         how much faster that is

    \b
    Exit codes
      0 done · 1 refused, or verification failed · 2 wrong usage · 130 interrupted · 143 ended
    """  # noqa: D301 - \b keeps the lines that follow as they are
    if context.invoked_subcommand is None:
        typer.echo(context.get_help())


def main() -> None:
    """Run the command line."""
    app(prog_name="prunegraph")
