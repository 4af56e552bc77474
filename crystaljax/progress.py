"""Progress of long work: a bar in a terminal, else a line a minute in the log."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any, Protocol, Self, TypeVar

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TaskID,
    TextColumn,
    TimeRemainingColumn,
)

log = logging.getLogger(__name__)

INTERVAL = 60.0
"""Seconds between two lines."""

T = TypeVar("T")


def progress_bar(transient: bool = False) -> Progress:
    """A bar on stderr with its description, the steps done, and the remaining time.

    Without a terminal (such as in a queued job) the log has a line a minute instead. transient:
    remove the bar at the end.
    """
    console = Console(stderr=True)
    if not console.is_terminal:
        return ProgressLines()
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn())
    return Progress(*columns, TimeRemainingColumn(), console=console, transient=transient)


def tracked(items: Sequence[T], description: str) -> Iterator[T]:
    """The items one by one, with a progress bar that is removed at the end."""
    with progress_bar(transient=True) as progress:
        task = progress.add_task(description, total=len(items))
        for item in items:
            yield item
            progress.advance(task)


_within: ContextVar[Callable[[int], None]] = ContextVar("within", default=lambda n: None)
"""Advances the progress of the batch that is being worked on, by a number of its items."""


class Items(Protocol):
    """Protocol: a list, or a batch of crystals."""

    def __len__(self) -> int: ...

    def __getitem__(self, rows: slice, /) -> Self: ...


B = TypeVar("B", bound=Items)


def tracked_batches(items: B, size: int, description: str) -> Iterator[B]:
    """The items in batches, at least one, with a progress bar that counts items.

    It is removed at the end. Work on a batch in this process may tell of the items that are done by
    `finished`.
    """
    done = end = 0

    def advance(n: int) -> None:
        nonlocal done
        done = min(done + n, end)  # a batch may be tried again, item by item
        progress.update(task, completed=done)

    with progress_bar(transient=True) as progress:
        task = progress.add_task(description, total=len(items))
        outside = _within.set(advance)
        try:
            for start in range(0, max(len(items), 1), size):
                end = min(start + size, len(items))
                yield items[start:end]
                advance(end - done)
        finally:
            _within.reset(outside)


def finished(n: int) -> None:
    """Tell the progress that n more items of a batch are done; see `tracked_batches`."""
    _within.get()(n)


@contextmanager
def working(description: str) -> Iterator[None]:
    """Progress of work without intermediate steps."""
    with progress_bar(transient=True) as progress:
        progress.add_task(description, total=None)
        yield


class ProgressLines(Progress):
    """Progress as lines in the log, also if no step is finished. Short work has no lines.

    A line has the description, the steps done, the time of a step (from those since the last line
    with new steps) and the remaining time. The first step alone tells nothing of the others, as it
    compiles. If there were lines, there is one at the end, too.

    Args:
      interval: seconds between two lines.
      clock: seconds since any moment.
    """

    def __init__(
        self, interval: float = INTERVAL, clock: Callable[[], float] = time.monotonic
    ) -> None:
        super().__init__(disable=True, get_time=clock)
        self.interval, self.clock = interval, clock
        self._pace: dict[TaskID, _Pace] = {}
        self._spoke = False
        self._over = threading.Event()
        self._speaker = threading.Thread(target=self._speak, daemon=True)

    def add_task(self, description: str, *args: Any, **kwargs: Any) -> TaskID:
        """Add a task, as in `rich.progress.Progress`."""
        task = super().add_task(description, *args, **kwargs)
        self._pace[task] = _Pace(self.clock(), self._tasks[task].completed)
        return task

    def start(self) -> None:
        """Start to log."""
        self._speaker.start()

    def stop(self) -> None:
        """Stop to log."""
        self._over.set()
        self._speaker.join()
        if self._spoke:
            self.say()

    def say(self) -> None:
        """Log a line for every task, now."""
        for task in self.tasks:
            now, pace, parts = self.clock(), self._pace[task.id], [task.description]
            if task.total is None:
                parts.append(f"{_duration(now - pace.start)} so far")
            else:
                parts.append(f"{task.completed:g} of {task.total:g}")
                each = pace.seconds(now, task.completed)
                if pace.steps == 1:
                    parts.append(f"{_duration(each)} for the first")
                elif pace.steps:
                    left = (task.total - task.completed) * each
                    parts += [f"{_duration(each)} each", f"{_duration(left)} left"]
            log.info(", ".join(parts))

    def _speak(self) -> None:
        while not self._over.wait(self.interval):
            self._spoke = True
            self.say()


class _Pace:
    """The time of a step, from the steps since the last look."""

    def __init__(self, now: float, done: float) -> None:
        self.start = self._then = now
        self._first = self._before = done
        self._seconds = float("nan")

    @property
    def steps(self) -> float:
        """Number of steps at the last look."""
        return self._before - self._first

    def seconds(self, now: float, done: float) -> float:
        """Seconds of a step, as of now; nan before the first."""
        if done > self._before:
            self._seconds = (now - self._then) / (done - self._before)
            self._then, self._before = now, done
        return self._seconds


def _duration(seconds: float) -> str:
    """Like 0.25 s, 12 s, 5 min, 2.5 h."""
    if seconds < 100:
        return f"{seconds:.2g} s" if seconds < 10 else f"{seconds:.0f} s"
    minutes = seconds / 60
    return f"{minutes:.0f} min" if minutes < 100 else f"{minutes / 60:.1f} h"
