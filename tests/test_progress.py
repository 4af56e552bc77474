"""Progress without a terminal: lines of the log."""

import logging
import time

import pytest

from crystaljax.progress import (
    ProgressLines,
    finished,
    progress_bar,
    tracked,
    tracked_batches,
    working,
)

QUIET = 1e9
"""Seconds; no line comes by itself."""


@pytest.fixture(autouse=True)
def messages(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "crystaljax")


def test_a_line_says_how_far_how_fast_and_how_long(caplog: pytest.LogCaptureFixture) -> None:
    now = [0.0]
    progress = ProgressLines(QUIET, lambda: now[0])
    task = progress.add_task("PPO", total=200, completed=100)
    now[0] = 60.0
    progress.update(task, completed=120, description="PPO, reward -0.310")
    progress.say()
    now[0] = 360.0  # nothing moved on
    progress.say()
    now[0] = 660.0
    progress.update(task, completed=121)
    progress.say()
    assert caplog.messages == [
        "PPO, reward -0.310, 120 of 200, 3 s each, 4 min left",
        "PPO, reward -0.310, 120 of 200, 3 s each, 4 min left",
        "PPO, reward -0.310, 121 of 200, 10 min each, 13.2 h left",
    ]


def test_before_the_first_step_nothing_is_guessed(caplog: pytest.LogCaptureFixture) -> None:
    now = [0.0]
    progress = ProgressLines(QUIET, lambda: now[0])
    progress.add_task("PPO", total=20)
    progress.add_task("energies", total=None)
    now[0] = 90.0
    progress.say()
    assert caplog.messages == ["PPO, 0 of 20", "energies, 90 s so far"]


def test_the_first_step_which_compiles_tells_nothing_of_the_others(
    caplog: pytest.LogCaptureFixture,
) -> None:
    now = [0.0]
    progress = ProgressLines(QUIET, lambda: now[0])
    task = progress.add_task("PPO", total=25)
    for seconds, done in ((120.0, 1), (180.0, 1), (190.0, 2)):
        now[0] = seconds
        progress.update(task, completed=done)
        progress.say()
    assert caplog.messages == [
        "PPO, 1 of 25, 2 min for the first",
        "PPO, 1 of 25, 2 min for the first",
        "PPO, 2 of 25, 70 s each, 27 min left",
    ]


def test_lines_come_while_a_step_takes_long(caplog: pytest.LogCaptureFixture) -> None:
    with ProgressLines(interval=0.05) as progress:
        task = progress.add_task("DPO", total=2)
        until = time.monotonic() + 20
        while len(caplog.messages) < 2 and time.monotonic() < until:
            time.sleep(0.01)
        progress.update(task, completed=2)
    assert caplog.messages[:2] == ["DPO, 0 of 2", "DPO, 0 of 2"]
    assert caplog.messages[-1].startswith("DPO, 2 of 2, ")
    n = len(caplog.messages)
    time.sleep(0.15)
    assert len(caplog.messages) == n  # no more after the end


def test_short_work_says_nothing(caplog: pytest.LogCaptureFixture) -> None:
    assert isinstance(progress_bar(), ProgressLines)  # pytest has the terminal
    assert list(tracked([1, 2, 3], "counting")) == [1, 2, 3]
    with working("thinking"):
        pass
    assert caplog.messages == []


def test_an_error_ends_the_lines() -> None:
    progress = ProgressLines(interval=0.01)
    with pytest.raises(KeyError), progress:
        raise KeyError
    assert not progress._speaker.is_alive()


@pytest.fixture
def lines(monkeypatch: pytest.MonkeyPatch) -> ProgressLines:
    """The progress of the next batches, whose clock stands still."""
    found = ProgressLines(QUIET, lambda: 0.0)
    monkeypatch.setattr("crystaljax.progress.progress_bar", lambda transient: found)
    return found


def test_items_of_a_batch_count_as_they_are_done(lines: ProgressLines) -> None:
    done = []
    for batch in tracked_batches([1, 2, 3, 4, 5], 3, "relaxing"):
        finished(1)
        done.append((len(batch), lines.tasks[0].completed))
    assert done == [(3, 1), (2, 4)]
    finished(1)  # outside of any batch
    assert lines.tasks[0].completed == 5


def test_a_batch_that_is_tried_again_counts_once(lines: ProgressLines) -> None:
    done = []
    for _ in tracked_batches([1, 2, 3], 2, "relaxing"):
        finished(2)
        finished(2)
        done.append(lines.tasks[0].completed)
    assert done == [2, 3]


def test_no_items_are_an_empty_batch() -> None:
    assert list(tracked_batches([], 3, "relaxing")) == [[]]
