"""Rewards computed in this process or in workers, with or without a cache on disk."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Self

from crystaljax.rewards.base import Reward
from crystaljax.rewards.cache import SAVE_EVERY, Cached
from crystaljax.rewards.compose import Guarded
from crystaljax.rewards.pool import Pool, PoolConfig


class ServedReward:
    """Base class of objects with a reward, `served`, that may use workers and a cache.

    Use it as a context manager, or `close` it, so that workers end.

    Args:
      here: makes the reward in this process; called only if the pool is inline.
      make: makes the reward in a worker.
      cache: file that keeps results for later runs; none are kept if not given.
      identity: describes everything but the item that results depend on; called only for a cache.
      save_every: number of new items after which results are written: few where an item takes long.
    """

    served: Reward
    """The reward, computed in this process or in workers."""

    def __init__(
        self,
        here: Callable[[], Reward],
        make: Callable[[], Reward],
        pool: PoolConfig,
        cache: Path | None,
        identity: Callable[[], str],
        save_every: int = SAVE_EVERY,
    ) -> None:
        self._pool: Pool | None = None
        self._cached: Cached | None = None
        if pool.kind == "inline":
            self.served = Guarded(here())
        else:
            self.served = self._pool = Pool(make, pool)
        if cache is not None:
            self.served = self._cached = Cached(
                self.served, cache, identity(), save_every=save_every
            )

    def close(self) -> None:
        """End the workers and close the cache."""
        if self._pool is not None:
            self._pool.close()
        if self._cached is not None:
            self._cached.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()
