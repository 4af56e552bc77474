"""Rewards at scale: one reward in many processes, or on many machines."""

from crystaljax.rewards.pool.pool import Pool, PoolConfig
from crystaljax.rewards.pool.workers import WorkerError

__all__ = ["Pool", "PoolConfig", "WorkerError"]
