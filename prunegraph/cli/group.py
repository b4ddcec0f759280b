"""What all commands share: how errors and interruptions end them."""

from __future__ import annotations

import logging
import sys
import warnings
from typing import Any

import typer
from typer.core import TyperGroup

from prunegraph.cli.console import Warnings, complain
from prunegraph.errors import PruneGraphError

INTERRUPTED = 130
"""The exit code of what Ctrl-C ends: 128 and the number of its signal."""


class Commands(TyperGroup):
    """Commands whose errors are one message and one hint on stderr, never a traceback."""

    def invoke(self, ctx: Any) -> Any:
        """Run a command."""
        logging.getLogger("onnx_ir").setLevel(logging.ERROR)  # it warns of what is none of the caller's business
        try:
            with Warnings(), warnings.catch_warnings():
                if not sys.warnoptions:
                    warnings.simplefilter("ignore")
                return super().invoke(ctx)
        except PruneGraphError as error:
            complain(error.message, error.hint)
            raise typer.Exit(error.exit_code) from error
        except KeyboardInterrupt:
            complain("interrupted; no file was changed")
            raise typer.Exit(INTERRUPTED) from None

    def main(self, args: Any = None, standalone_mode: bool = True, **rest: Any) -> Any:  # type: ignore[override]
        """Run the command line, telling of wrong usage as of any other error."""
        if not standalone_mode:
            return super().main(args, standalone_mode=False, **rest)
        try:
            code = super().main(args, standalone_mode=False, **rest)
        except Exception as error:  # the base class of usage errors has moved between versions of typer
            if not hasattr(error, "format_message"):
                raise
            context = getattr(error, "ctx", None)
            path = context.command_path if context is not None else "prunegraph"
            complain(error.format_message(), f"{path} --help")
            code = getattr(error, "exit_code", 2)
        sys.exit(code if isinstance(code, int) else 0)
