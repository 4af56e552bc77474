"""Protocol of workers, and the loop inside one."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol, TypeVar

from crystaljax.rewards.base import Reward, RewardBatch, RewardError
from crystaljax.rewards.compose import Guarded
from crystaljax.rewards.inputs import Items
from crystaljax.runtime import PREALLOCATE

# Read by OpenMP (PyTorch), MKL, OpenBLAS, Apple's Accelerate and XLA, in this order.
_THREAD_VARIABLES = (
    "OMP_NUM_THREADS",
    "MKL_NUM_THREADS",
    "OPENBLAS_NUM_THREADS",
    "VECLIB_MAXIMUM_THREADS",
    "NPROC",
)

MakeReward = Callable[[], Reward]
"""Builds the reward; each worker calls it once and keeps what it returns."""


class WorkerError(RewardError):
    """Error: no worker could build the reward, or it does not return rewards."""


@dataclass(frozen=True)
class Ready:
    """The worker has built its reward."""


@dataclass(frozen=True)
class Failed:
    """The reward could not be built, or raised an error that no single item caused."""

    traceback: str


@dataclass(frozen=True)
class Died:
    """The worker is gone, and the result of its task is lost."""

    reason: str


Event = Ready | RewardBatch | Failed | Died
"""Reports of a worker: Ready once it has its reward, then one event for each task."""


class Worker(Protocol):
    """One process or actor with a reward of its own; it starts building when it is made."""

    def submit(self, items: Items) -> None:
        """Have the items judged; the worker must be ready and idle."""
        ...

    def kill(self) -> None:
        """End the worker now, even during a task; it reports nothing more."""
        ...


W = TypeVar("W", bound=Worker)


class Crew(Protocol[W]):
    """Makes workers of one kind and listens to them."""

    def size(self) -> int:
        """Largest number of workers."""
        ...

    def start(self) -> W:
        """A new worker."""
        ...

    def wait(self, workers: Sequence[W], timeout: float | None) -> list[tuple[W, Event]]:
        """Reports of the workers, after at most `timeout` seconds; may be empty."""
        ...

    def close(self) -> None:
        """Release the crew's own resources; its workers have ended before."""
        ...


class Holder:
    """State inside a worker: its reward, built once."""

    def __init__(self) -> None:
        self._reward: Reward | None = None

    def build(self, make_reward: MakeReward) -> Ready:
        """Build the reward and keep it."""
        self._reward = Guarded(make_reward())
        return Ready()

    def judge(self, items: Items) -> RewardBatch:
        """Rewards of the items; RewardError if the reward returns anything else."""
        if self._reward is None:
            raise TypeError("a worker was given items before it had a reward")
        return self._reward(items)


def worker_environment(threads: int) -> dict[str, str]:
    """Environment of a worker that computes with `threads` threads and shares its accelerator.

    To be set before the libraries are imported.
    """
    limits = dict.fromkeys(_THREAD_VARIABLES, str(threads))
    return limits | {PREALLOCATE: os.environ.get(PREALLOCATE, "false")}
