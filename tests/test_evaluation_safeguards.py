"""Tests of crystaljax.evaluation.safeguards."""

import contextlib
import os
import signal
import threading
import time
from pathlib import Path

import pytest

from crystaljax.evaluation.safeguards import time_limit, writable_folder


def work(seconds: float = 60.0) -> None:
    """Take so much processor time."""
    end = time.thread_time() + seconds
    while time.thread_time() < end:
        pass


def test_time_limit_stops_what_takes_too_long() -> None:
    with pytest.raises(TimeoutError, match=r"0\.1 s"), time_limit(0.1):
        work()
    assert signal.getitimer(signal.ITIMER_REAL)[0] == 0  # the alarm is off
    with time_limit(600):
        assert signal.getitimer(signal.ITIMER_REAL)[0] > 0
    assert signal.getitimer(signal.ITIMER_REAL)[0] == 0


def test_an_error_of_the_limit_that_is_swallowed_is_raised_again() -> None:
    """JAX's callback at garbage collection, for one, ignores what is raised in it."""
    reached = []
    with pytest.raises(TimeoutError), time_limit(0.1):
        with contextlib.suppress(TimeoutError):
            work()
        reached.append("after the callback")
        work()
        reached.append("the end")
    assert reached == ["after the callback"]


def test_time_of_others_does_not_count() -> None:
    """As on a machine that is busy with other work."""
    with time_limit(0.1):
        time.sleep(0.5)
        work(0.01)


def test_time_limit_in_other_threads_does_nothing() -> None:
    done = []

    def run() -> None:
        with time_limit(0.01):
            work(0.05)
        done.append(True)

    thread = threading.Thread(target=run)
    thread.start()
    thread.join()
    assert done


def test_writable_folder_is_made(tmp_path: Path) -> None:
    folder = writable_folder(tmp_path / "a" / "b")
    assert folder.is_dir()
    assert not list(folder.iterdir())


def test_a_file_in_the_way(tmp_path: Path) -> None:
    (tmp_path / "report").write_text("")
    with pytest.raises(NotADirectoryError, match="is a file, not a folder: choose another"):
        writable_folder(tmp_path / "report")


@pytest.mark.skipif(os.name != "posix", reason="needs a folder that nobody can write in")
def test_no_permission_says_what_to_do(tmp_path: Path) -> None:
    folder = tmp_path / "locked"
    folder.mkdir(mode=0o500)
    if os.access(folder, os.W_OK):  # root may write anywhere but in the kernel's own folders
        folder = Path("/proc/crystaljax")
        if not Path("/proc").is_dir():
            pytest.skip("this user may write everywhere")
    with pytest.raises(OSError, match=r"cannot write results in .*choose another output folder"):
        writable_folder(folder)
