"""Scheduler: gives chunks of a batch to workers that may die, and returns rewards in order."""

from __future__ import annotations

import logging
import math
import time
from collections import deque
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Generic

import numpy as np

from crystaljax.rewards.base import RewardBatch
from crystaljax.rewards.inputs import Items, take
from crystaljax.rewards.pool.workers import Crew, Died, Failed, Ready, W, WorkerError

log = logging.getLogger(__name__)


@dataclass(eq=False)
class Chunk:
    """Items that are judged in one task."""

    rows: np.ndarray
    """int [n]: which items."""
    lost: int = 0
    """If it is one item: number of workers that died or timed out on it."""


class Work:
    """Pending and finished items of a batch of n."""

    def __init__(self, n: int, chunk: int, attempts: int) -> None:
        self.queue = deque(Chunk(rows) for rows in np.split(np.arange(n), range(chunk, n, chunk)))
        self._attempts = attempts
        self._done: list[tuple[np.ndarray, RewardBatch]] = []

    def finish(self, chunk: Chunk, batch: RewardBatch) -> None:
        """Keep the rewards of a chunk."""
        self._done.append((chunk.rows, batch))

    def lose(self, chunk: Chunk, reason: str) -> None:
        """Handle the loss of a worker: queue the chunk's items one by one, or give an item up.

        One by one because a new worker costs seconds and a small task milliseconds.
        """
        rows = chunk.rows
        log.warning("%s on items %d to %d of its batch", reason, rows[0], rows[-1])
        if len(rows) > 1:
            self.queue.extendleft(Chunk(row) for row in rows[::-1, None])
            return
        chunk.lost += 1
        if chunk.lost < self._attempts:
            self.queue.appendleft(chunk)
        else:
            nan, given_up = np.full(1, np.nan), np.ones(1, bool)
            self.finish(chunk, RewardBatch.from_values(nan, None, [reason], given_up))

    def result(self) -> RewardBatch:
        """The rewards of all items, in their order."""
        rows = np.concatenate([rows for rows, _ in self._done])
        return RewardBatch.concatenate([batch for _, batch in self._done])[np.argsort(rows)]


@dataclass(eq=False)
class Seat(Generic[W]):
    """A worker and what it is doing: building its reward, a chunk, or nothing."""

    worker: W
    deadline: float
    """Time (of time.monotonic) by which it must report."""
    ready: bool = False
    chunk: Chunk | None = None

    @property
    def is_idle(self) -> bool:
        """Whether it waits for a chunk, and so has no deadline."""
        return self.ready and self.chunk is None


class Scheduler(Generic[W]):
    """Runs batches on a crew of workers, which it keeps between batches and replaces when lost.

    One thread, one loop: start the workers that are missing, give each idle one the next chunk,
    wait for the first report or deadline, act on it.
    """

    def __init__(
        self, crew: Crew[W], *, chunk: int, attempts: int, timeout: float, start_timeout: float
    ) -> None:
        """See `PoolConfig`."""
        self._crew = crew
        self._chunk, self._attempts = chunk, attempts
        self._timeout, self._start_timeout = timeout, start_timeout
        self._n_seats = crew.size()
        self._seats: list[Seat[W]] = []
        self._failed_starts = 0  # in a row

    def run(self, items: Items) -> RewardBatch:
        """Rewards of the items (at least one), in their order; see `Pool` for the errors."""
        work = Work(len(items), self._chunk, self._attempts)
        try:
            self._listen(work, 0.0)  # what happened to idle workers since the last batch
            while work.queue or self._busy():
                self._fill_seats(len(work.queue) + len(self._busy()))
                self._assign_chunks(work, items)
                self._listen(work, self._until_deadline())
                self._end_overdue(work)
        except BaseException:  # Ctrl-C included: results of running tasks are not needed
            self._dismiss(seat for seat in self._seats if not seat.is_idle)
            raise
        return work.result()

    def close(self) -> None:
        """End all workers."""
        self._dismiss(self._seats)
        self._crew.close()

    def _busy(self) -> list[Seat[W]]:
        return [seat for seat in self._seats if seat.chunk is not None]

    def _dismiss(self, seats: Iterable[Seat[W]]) -> None:
        for seat in list(seats):
            self._seats.remove(seat)
            seat.worker.kill()

    def _fill_seats(self, n_chunks: int) -> None:
        for _ in range(min(self._n_seats, n_chunks) - len(self._seats)):
            deadline = time.monotonic() + self._start_timeout
            self._seats.append(Seat(self._crew.start(), deadline))

    def _assign_chunks(self, work: Work, items: Items) -> None:
        for seat in self._seats:
            if seat.is_idle and work.queue:
                seat.chunk = work.queue.popleft()
                seat.worker.submit(take(items, seat.chunk.rows))
                seat.deadline = time.monotonic() + self._timeout

    def _until_deadline(self) -> float | None:
        """Seconds until the first deadline, None without any."""
        first = min((seat.deadline for seat in self._seats if not seat.is_idle), default=math.inf)
        return max(0.0, first - time.monotonic()) if first < math.inf else None

    def _listen(self, work: Work, timeout: float | None) -> None:
        """Act on what workers report within `timeout` seconds."""
        seats = {id(seat.worker): seat for seat in self._seats}
        for worker, event in self._crew.wait([seat.worker for seat in self._seats], timeout):
            seat = seats[id(worker)]
            match event:
                case Ready():
                    seat.ready, self._failed_starts = True, 0
                case RewardBatch():
                    if seat.chunk is not None:
                        work.finish(seat.chunk, event)
                    seat.chunk = None
                case Failed(traceback) if seat.ready:
                    seat.chunk = None
                    raise WorkerError(f"the reward raised in a worker:\n{traceback}")
                case Failed(traceback):
                    self._dismiss([seat])
                    self._give_up_seat(f"a worker cannot build the reward:\n{traceback}")
                case Died(reason):
                    self._lose(seat, work, reason)

    def _end_overdue(self, work: Work) -> None:
        now = time.monotonic()
        for seat in list(self._seats):
            if now >= seat.deadline and not seat.is_idle:
                seconds = self._timeout if seat.ready else self._start_timeout
                self._lose(seat, work, f"timed out after {seconds:g} s")

    def _lose(self, seat: Seat[W], work: Work, reason: str) -> None:
        """Remove a worker that died or is overdue: requeue its chunk, count a failed start."""
        self._dismiss([seat])
        if seat.chunk is not None:
            work.lose(seat.chunk, reason)
        elif not seat.ready:
            self._failed_starts += 1
            if self._failed_starts >= self._attempts:
                self._give_up_seat(
                    f"{reason} before the reward was built, {self._failed_starts} times in a row:"
                    " see the worker's output. A script that makes a pool must do so under"
                    ' if __name__ == "__main__"'
                )

    def _give_up_seat(self, problem: str) -> None:
        """Go on with the other workers if one of them has built the reward, else WorkerError."""
        self._failed_starts = 0
        if not any(seat.ready for seat in self._seats):
            raise WorkerError(problem)
        self._n_seats = len(self._seats)
        log.warning("the pool goes on with %d workers: %s", self._n_seats, problem)
