"""What a program tells its user, in plain lines: for the command and for experiment scripts."""

from __future__ import annotations

import logging
import sys
import warnings
from collections.abc import Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.text import Text

from crystaljax.errors import UserError

USER_ERRORS = (UserError, ValueError, OSError, FloatingPointError, ImportError, MemoryError)
"""Errors that a user can cause: they are shown as one line."""

MISTAKE = 2
"""Exit status after a user's mistake."""

INTERRUPTED = 130
"""Exit status after Ctrl-C, as shells have it."""


@contextmanager
def plain_messages(name: str, debug: bool = False) -> Iterator[None]:
    """Show a user's mistake in the block as one line on stderr, warnings and logs as their text.

    SystemExit with `MISTAKE` for one of `USER_ERRORS` (which are raised as they are with `debug`),
    with `INTERRUPTED` for Ctrl-C. `name`: of the program, at the start of the line.
    """
    console = Console(stderr=True, soft_wrap=True)

    def say(message: str) -> None:
        console.print(Text.assemble((f"{name}: ", "bold red"), message))

    try:
        with _plain_warnings(console), _plain_logs():
            yield
    except USER_ERRORS as error:
        if debug:
            raise
        say(one_line(error))
        sys.exit(MISTAKE)
    except KeyboardInterrupt:
        if debug:
            raise
        say("interrupted")
        sys.exit(INTERRUPTED)


def one_line(error: BaseException) -> str:
    """The message of an error, with the file where the system's own message is meant."""
    if isinstance(error, OSError) and error.strerror and error.filename is not None:
        return f"{error.filename}: {error.strerror}"
    return " ".join(str(error).split()) or type(error).__name__


@contextmanager
def _plain_warnings(console: Console) -> Iterator[None]:
    """Show warnings as their text alone, not with the line of code they come from."""
    with warnings.catch_warnings():
        warnings.showwarning = lambda message, *_, **__: console.print(
            Text.assemble(("warning: ", "yellow"), str(message))
        )
        yield


@contextmanager
def _plain_logs() -> Iterator[None]:
    """Show what this package logs, and what other libraries warn of, as its text alone."""
    root, package = logging.getLogger(), logging.getLogger("crystaljax")
    before = root.handlers[:], root.level, package.level
    root.handlers[:] = [logging.StreamHandler()]  # a library may have set some of its own
    root.setLevel(logging.WARNING)
    package.setLevel(logging.INFO)
    try:
        yield
    finally:
        root.handlers[:] = before[0]
        root.setLevel(before[1])
        package.setLevel(before[2])
