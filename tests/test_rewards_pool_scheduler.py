"""The scheduler of the pool, with workers that live and die in this process."""

from dataclasses import dataclass, field
from random import Random

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from crystaljax.rewards import RewardBatch
from crystaljax.rewards.pool import WorkerError
from crystaljax.rewards.pool.scheduler import Scheduler
from crystaljax.rewards.pool.workers import Died, Event, Failed, Ready


class FakeWorker:
    """Answers when the crew says so, in this process."""

    def __init__(self) -> None:
        self.items: list[int] | None = None
        self.built = False
        self.killed = False

    def submit(self, items: list[int]) -> None:
        assert self.built and self.items is None and not self.killed
        self.items = list(items)

    def kill(self) -> None:
        assert not self.killed
        self.killed = True


@dataclass
class FakeCrew:
    """Workers that die at random, while starting, idle or at work; `fatal` items kill for sure."""

    random: Random
    n_workers: int
    death_rate: float
    fatal: set[int]
    deaths: dict[int, int] = field(default_factory=dict)
    """Single items → workers lost over them."""

    def size(self) -> int:
        return self.n_workers

    def start(self) -> FakeWorker:
        return FakeWorker()

    def close(self) -> None:
        """Nothing to release."""

    def wait(
        self, workers: list[FakeWorker], timeout: float | None
    ) -> list[tuple[FakeWorker, Event]]:
        assert not any(worker.killed for worker in workers)
        reporting = self.random.sample(workers, self.random.randint(0, len(workers)))
        events = [(worker, self._event(worker)) for worker in reporting]
        return [(worker, event) for worker, event in events if event is not None]

    def _event(self, worker: FakeWorker) -> Event | None:
        items, worker.items = worker.items, None
        if self.random.random() < self.death_rate or self.fatal & set(items or ()):
            if items and len(items) == 1:
                self.deaths[items[0]] = self.deaths.get(items[0], 0) + 1
            return Died("worker died")
        if not worker.built:
            worker.built = True
            return Ready()
        if items is None:
            return None
        return RewardBatch.from_values(np.array(items, float), {"twice": 2 * np.array(items)})


@given(
    n=st.integers(1, 40),
    chunk=st.integers(1, 9),
    n_workers=st.integers(1, 4),
    attempts=st.integers(1, 3),
    death_rate=st.sampled_from([0.0, 0.1, 0.4]),
    fatal=st.sets(st.integers(0, 39), max_size=4),
    seed=st.integers(0, 2**32),
)
def test_order_and_completeness_whatever_dies(
    n: int,
    chunk: int,
    n_workers: int,
    attempts: int,
    death_rate: float,
    fatal: set[int],
    seed: int,
) -> None:
    crew = FakeCrew(Random(seed), n_workers, death_rate, fatal)
    scheduler = Scheduler(
        crew, chunk=chunk, attempts=attempts, timeout=np.inf, start_timeout=np.inf
    )
    for _ in range(2):
        crew.deaths.clear()
        try:
            batch = scheduler.run(list(range(n)))
        except WorkerError as error:
            assert "before the reward was built" in str(error) and death_rate > 0
            continue
        lost = {row for row, deaths in crew.deaths.items() if deaths >= attempts}
        assert lost >= fatal & set(range(n))
        np.testing.assert_array_equal(np.flatnonzero(~batch.ok), sorted(lost))
        np.testing.assert_array_equal(batch.transient, ~batch.ok)
        np.testing.assert_array_equal(batch.value[batch.ok], np.flatnonzero(batch.ok))
        if batch.ok.any():
            np.testing.assert_array_equal(batch.info["twice"][batch.ok], 2 * batch.value[batch.ok])
        assert max(crew.deaths.values(), default=0) <= attempts


def test_the_pool_goes_on_without_workers_that_cannot_start() -> None:
    class Crowded(FakeCrew):
        """Has memory for one worker."""

        started = 0

        def start(self) -> FakeWorker:
            self.started += 1
            return FakeWorker()

        def _event(self, worker: FakeWorker) -> Event | None:
            if not worker.built and any(other.built for other in self.workers):
                return Failed("out of memory")
            return super()._event(worker)

        def wait(
            self, workers: list[FakeWorker], timeout: float | None
        ) -> list[tuple[FakeWorker, Event]]:
            self.workers = workers
            return [(w, event) for w in workers if (event := self._event(w)) is not None]

    crew = Crowded(Random(0), 4, 0.0, set())
    scheduler = Scheduler(crew, chunk=1, attempts=2, timeout=np.inf, start_timeout=np.inf)
    for _ in range(3):
        np.testing.assert_array_equal(scheduler.run(list(range(9))).value, np.arange(9))
    assert crew.started == 4
