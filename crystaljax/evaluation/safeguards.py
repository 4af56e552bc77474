"""Safeguards: a bad item or a bad folder does not cost a whole evaluation."""

from __future__ import annotations

import os
import signal
import tempfile
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType


@contextmanager
def time_limit(seconds: float) -> Iterator[None]:
    """Raise TimeoutError in the block after `seconds`, for code that offers no limit of its own.

    Works in the main thread on systems with SIGALRM; elsewhere there is no limit.
    """
    usable = hasattr(signal, "SIGALRM") and threading.current_thread() is threading.main_thread()
    if not usable:
        yield
        return

    def expire(_signal: int, _frame: FrameType | None) -> None:
        raise TimeoutError(f"not done after {seconds:g} s")

    previous = signal.signal(signal.SIGALRM, expire)
    signal.setitimer(signal.ITIMER_REAL, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, previous)


def writable_folder(path: str | os.PathLike[str]) -> Path:
    """Make a folder for results and try it, so that hours of work do not end in an error.

    PermissionError, NotADirectoryError or another OSError that names the folder and says what
    to do.
    """
    folder = Path(path).expanduser()
    advice = "choose another output folder, or ask for the permission to write there"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.NamedTemporaryFile(dir=folder, prefix=".writable-"):
            pass
    except FileExistsError:
        raise NotADirectoryError(f"{folder} is a file, not a folder: {advice}") from None
    except OSError as error:
        reason = error.strerror or str(error)
        raise type(error)(f"cannot write results in {folder} ({reason}): {advice}") from None
    return folder
