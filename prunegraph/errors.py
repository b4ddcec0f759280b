"""Errors that prunegraph raises on purpose: what is wrong, and how to put it right."""

from __future__ import annotations


def one_line(error: BaseException) -> str:
    """All that an exception says, its lines joined, at most 300 characters; the name of its type if it says nothing.

    >>> one_line(ValueError("no number:   x")), one_line(KeyError())
    ('no number: x', 'KeyError')
    """
    return " ".join(str(error).split())[:300] or type(error).__name__


def first_line(error: BaseException) -> str:
    """What an exception says in one line, at most 300 characters; the name of its type where it says nothing.

    >>> first_line(ValueError("no number")), first_line(KeyError())
    ('no number', 'KeyError')
    """
    lines = (line.strip() for line in str(error).splitlines())
    return next((line for line in lines if line), type(error).__name__)[:300]


class PruneGraphError(Exception):
    """The caller asked for something that cannot be done.

    >>> error = PruneGraphError("there is no group 'head.9'", hint="`prunegraph explain` lists the groups")
    >>> str(error)
    "there is no group 'head.9'"

    Attributes:
        message: What is wrong, in one sentence; also ``str(error)``.
        hint: What to do about it; empty only where nothing can be done.
        exit_code: What the command line exits with: 1 refused or failed, 2 wrong usage.
    """

    exit_code: int = 1

    def __init__(self, message: str, *, hint: str = "") -> None:
        """Keep the message and the hint apart, so that a terminal can set them apart."""
        super().__init__(message)
        self.message = message
        self.hint = hint
        if hint:
            self.add_note(f"hint: {hint}")  # a traceback shows it


class UsageError(PruneGraphError):
    """A wrong argument: a ratio out of range, an unknown kind, scorer or provider, options that exclude each other."""

    exit_code = 2


class ModelError(PruneGraphError):
    """The model cannot be read, or the ONNX checker rejects it."""


class NothingToPrune(PruneGraphError):
    """No group is left that the selection could make smaller; the message says why."""


REPORT_MODEL = "please report the model; --exclude leaves out the groups at fault meanwhile"
"""The hint where only a change of this package helps."""


class VerificationFailed(PruneGraphError):
    """The pruned model does not compute what the masked original computes; nothing was written."""


class OutputError(PruneGraphError):
    """The result cannot be written there."""


class MissingExtra(PruneGraphError):
    """A feature needs optional packages.

    >>> MissingExtra("syntax,text", "spacy, tokenizers").hint
    'pip install "prunegraph[syntax,text]"'
    """

    def __init__(self, extra: str, package: str, otherwise: str = "") -> None:
        """Name the extras of this distribution, with commas between them, that bring the packages.

        Args:
            extra: The extras.
            package: What they bring and is missing.
            otherwise: What can be done without them.
        """
        plural = "s" if "," in package else ""
        hint = f'pip install "prunegraph[{extra}]"' + (f", or {otherwise}" if otherwise else "")
        super().__init__(f"this needs the package{plural} {package}", hint=hint)
        self.extra = extra
        self.package = package
