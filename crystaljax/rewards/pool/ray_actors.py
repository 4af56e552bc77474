"""Workers as actors of a Ray cluster."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from typing import Any

from crystaljax.rewards.inputs import Items
from crystaljax.rewards.pool.workers import (
    Died,
    Event,
    Failed,
    Holder,
    MakeReward,
    worker_environment,
)

LOCAL = "local"


def _import() -> Any:
    """The package ray; ImportError saying how to install it."""
    try:
        import ray
    except ImportError as error:
        raise ImportError('Ray is not installed: run pip install "crystaljax[ray]"') from error
    return ray


class RayWorker:
    """An actor with a reward of its own; `pending` is the future of its current task."""

    def __init__(self, ray: Any, actor: Any, make_reward: Any) -> None:
        self._ray = ray
        self._actor = actor
        self.pending = actor.build.remote(make_reward)

    def submit(self, items: Items) -> None:
        """Have the items judged."""
        self.pending = self._actor.judge.remote(items)

    def report(self) -> Event:
        """The result of the current task, as an event."""
        answer, self.pending = self.pending, None
        try:
            return self._ray.get(answer)
        except self._ray.exceptions.RayTaskError as error:
            return Failed(str(error))
        except self._ray.exceptions.RayError as error:
            return Died(f"worker died ({type(error).__name__})")

    def kill(self) -> None:
        """End the actor."""
        self._ray.kill(self._actor)


class RayCrew:
    """Starts actors on a cluster, or on one that it starts on this machine."""

    def __init__(
        self,
        make_reward: MakeReward,
        n_workers: int | None,
        threads: int,
        gpus: float,
        address: str | None,
    ) -> None:
        """See `PoolConfig`. ImportError without the package ray, ConnectionError: no cluster."""
        self._ray = _import()
        self._owns_cluster = not self._ray.is_initialized()
        environment = worker_environment(threads)
        if self._owns_cluster:
            self._connect(address, n_workers and n_workers * threads)
        if address is None:  # the same machine: find the same modules
            environment["PYTHONPATH"] = os.pathsep.join(filter(None, sys.path))
        self._actors = self._ray.remote(Holder).options(
            num_cpus=threads, num_gpus=gpus, runtime_env={"env_vars": environment}
        )
        self._make_reward = self._ray.put(make_reward)
        self._n_workers = n_workers or self._room(threads, gpus)

    def _connect(self, address: str | None, n_cpus: int | None) -> None:
        self._ray.init(
            address=address or LOCAL,
            num_cpus=None if address else n_cpus,
            include_dashboard=None if address else False,
            log_to_driver=False,
        )

    def _room(self, threads: int, gpus: float) -> int:
        """Number of workers that the cluster's processors and GPUs have room for."""
        resources = self._ray.cluster_resources()
        by_cpus = int(resources.get("CPU", 0) // threads)
        by_gpus = int(resources.get("GPU", 0) // gpus) if gpus else by_cpus
        return max(1, min(by_cpus, by_gpus))

    def size(self) -> int:
        """Largest number of workers."""
        return self._n_workers

    def start(self) -> RayWorker:
        """A new actor; it waits for free resources."""
        return RayWorker(self._ray, self._actors.remote(), self._make_reward)

    def wait(
        self, workers: Sequence[RayWorker], timeout: float | None
    ) -> list[tuple[RayWorker, Event]]:
        """Reports of the workers, after at most `timeout` seconds."""
        waiting = {worker.pending: worker for worker in workers if worker.pending is not None}
        if not waiting:
            return []
        self._ray.wait(list(waiting), num_returns=1, timeout=timeout)
        ready, _ = self._ray.wait(list(waiting), num_returns=len(waiting), timeout=0)
        return [(waiting[answer], waiting[answer].report()) for answer in ready]

    def close(self) -> None:
        """Stop the cluster if it was started, or leave it if it was joined, by this pool."""
        if self._owns_cluster:
            self._ray.shutdown()
