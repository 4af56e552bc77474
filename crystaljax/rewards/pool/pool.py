"""A reward in this process, in many, or on a cluster, by one setting."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal, Self

import numpy as np

from crystaljax.ranges import NOT_NEGATIVE, POSITIVE, at_least, check
from crystaljax.rewards.base import RewardBatch
from crystaljax.rewards.inputs import Items, on_host
from crystaljax.rewards.pool.processes import ProcessCrew
from crystaljax.rewards.pool.ray_actors import RayCrew
from crystaljax.rewards.pool.scheduler import Scheduler
from crystaljax.rewards.pool.workers import Holder, MakeReward, WorkerError


@dataclass(frozen=True)
class PoolConfig:
    """Workers that compute rewards, their time limits and retries."""

    kind: Literal["inline", "processes", "ray"] = "inline"
    """Where rewards are computed: in this process (inline), in worker processes of this machine, or
    in actors of a Ray cluster."""
    n_workers: int | None = None
    """Number of workers. By default one per core (and per GPU, on a cluster)."""
    chunk: int = 16
    """Items per task. Small chunks balance the load, large ones have less overhead. Inline, a batch
    is one task."""
    timeout: float | None = 600.0
    """Seconds for one task, after which its worker is ended. None: no limit."""
    start_timeout: float = 600.0
    """Seconds for a worker to start and to build its reward."""
    attempts: int = 2
    """Attempts per item: an item that has lost this number of workers counts as failed. Also the
    number of failed starts in a row after which a worker is given up. When a worker is lost, the
    items of its chunk are tried one by one."""
    threads: int = 1
    """Processor threads of each worker (PyTorch, JAX, BLAS)."""
    gpus: float = 0.0
    """GPUs that each Ray actor reserves; fractions are allowed. 0: the actor sees no GPU."""
    address: str | None = None
    """Ray cluster: "auto" or host:port; None: one on this machine for the life of the pool."""

    def __post_init__(self) -> None:
        one = at_least(1)
        check(self, n_workers=one, chunk=one, attempts=one, threads=one, gpus=NOT_NEGATIVE)
        check(self, timeout=POSITIVE, start_timeout=POSITIVE)


class Pool:
    """A reward that is computed by workers, each of which builds it once and keeps it.

    Works on crystals and on any items that `take` can select. Workers start when the first batch
    comes, stay for the next ones, and are replaced when they die or exceed the time limit; results
    come in the order of the items. When a worker is lost, the items of its chunk are tried again
    one by one; one that keeps losing workers is not ok, with a reason such as "worker died
    (signal 9)" or "timed out after 600 s", and marked as transient. Exceptions cost their items,
    as in `Guarded`.

    Errors: WorkerError with the traceback when no worker can build the reward, or if it returns
    something else than rewards. In the kind "inline" both come as they are.

    Use it as a context manager or call `close`; workers also end with the process that made them,
    however it ends. Not for several threads at once.
    """

    def __init__(self, make_reward: MakeReward, config: PoolConfig = PoolConfig()) -> None:
        """`make_reward` builds the reward; for processes it must be possible to pickle it.

        An example: `functools.partial(create, "e_above_hull", potential="nequix")`. TypeError if
        it cannot be pickled; ImportError for the kind "ray" without the package.
        """
        self._inline: Holder | None = None
        self._scheduler: Scheduler | None = None
        self._closed = False
        if config.kind == "inline":
            self._inline = Holder()
            self._inline.build(make_reward)
            return
        crew: ProcessCrew | RayCrew
        if config.kind == "processes":
            crew = ProcessCrew(make_reward, config.n_workers, config.threads)
        else:
            crew = RayCrew(
                make_reward, config.n_workers, config.threads, config.gpus, config.address
            )
        self._scheduler = Scheduler(
            crew,
            chunk=config.chunk,
            attempts=config.attempts,
            timeout=math.inf if config.timeout is None else config.timeout,
            start_timeout=config.start_timeout,
        )

    def __call__(self, items: Items, /) -> RewardBatch:
        """Rewards of B items."""
        if self._closed:
            raise WorkerError("the pool is closed: make a new one")
        if not len(items):
            return RewardBatch.from_values(np.zeros(0))
        if self._inline is not None:
            return self._inline.judge(items)
        assert self._scheduler is not None
        return self._scheduler.run(on_host(items))

    def close(self) -> None:
        """End the workers; the pool cannot be used again."""
        self._closed = True
        if self._scheduler is not None:
            self._scheduler.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()
