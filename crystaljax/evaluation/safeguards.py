"""Safeguards: a bad item or a bad folder does not cost a whole evaluation."""

from __future__ import annotations

import os
import signal
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType


@contextmanager
def time_limit(seconds: float) -> Iterator[None]:
    """Raise TimeoutError in the block after `seconds`, for code that offers no limit of its own.

    They are seconds of the thread's processor time, so that results do not depend on what else
    runs on the machine; waiting does not count. The error is raised again and again until the block
    ends: callbacks, such as those of JAX at garbage collection, can swallow it.

    Works in the main thread on systems with SIGALRM; elsewhere there is no limit.
    """
    usable = hasattr(signal, "SIGALRM") and threading.current_thread() is threading.main_thread()
    if not usable:
        yield
        return

    start = time.thread_time()

    def expire(_signal: int, _frame: FrameType | None) -> None:
        if time.thread_time() - start >= seconds:
            raise TimeoutError(f"not done after {seconds:g} s of processor time")

    previous = signal.signal(signal.SIGALRM, expire)
    signal.setitimer(signal.ITIMER_REAL, seconds, seconds / 10)
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
