"""Rewards made of rewards: weighted sums, products, clipping, penalties and safety."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace

import numpy as np

from crystaljax.crystal import Crystals
from crystaljax.rewards.base import Reasons, Reward, RewardBatch

_DATA_FAILURES = (ArithmeticError, LookupError, ValueError)
# May be of the moment: memory or a disk that is full. PyTorch's and JAX's are RuntimeErrors.
_MACHINE_FAILURES = (MemoryError, OSError, RuntimeError)


@dataclass(frozen=True)
class WeightedSum:
    """Σ weight · reward over named rewards; an item that one of them cannot judge is not ok.

    The parts' values and infos are kept in `info`, as "part" and "part/key".
    """

    parts: Mapping[str, tuple[float, Reward]]
    """Name → (weight, reward)."""

    def __call__(self, crystals: Crystals) -> RewardBatch:
        """Rewards of B crystals."""
        weights = [weight for weight, _ in self.parts.values()]
        return _combine(
            {name: reward for name, (_, reward) in self.parts.items()},
            crystals,
            lambda values: np.tensordot(weights, values, axes=1),
        )


@dataclass(frozen=True)
class Product:
    """The product of named rewards; an item that one of them cannot judge is not ok.

    The parts' values and infos are kept in `info`, as "part" and "part/key".
    """

    parts: Mapping[str, Reward]
    """Name → reward."""

    def __call__(self, crystals: Crystals) -> RewardBatch:
        """Rewards of B crystals."""
        return _combine(self.parts, crystals, lambda values: np.prod(values, axis=0))


def _combine(
    parts: Mapping[str, Reward],
    crystals: Crystals,
    merge: Callable[[np.ndarray], np.ndarray],
) -> RewardBatch:
    """Merge the parts' values [P, B]; the first reason an item failed for is its reason."""
    if not parts:
        raise ValueError("a combined reward needs at least one part")
    batches = {name: reward(crystals) for name, reward in parts.items()}
    info: dict[str, np.ndarray] = {}
    reasons: Reasons = [None] * len(crystals)
    for name, batch in batches.items():
        info[name] = batch.value
        info |= {f"{name}/{key}": column for key, column in batch.info.items()}
        named = [reason and f"{name}: {reason}" for reason in batch.reasons]
        reasons = [old or new for old, new in zip(reasons, named, strict=True)]
    value = merge(np.stack([batch.value for batch in batches.values()]))
    transient = np.any([batch.transient for batch in batches.values()], axis=0)
    return RewardBatch.from_values(value, info, reasons, transient)


@dataclass(frozen=True)
class Clip:
    """A reward kept within [low, high]; the value before is `info["unclipped"]`."""

    reward: Reward
    low: float = -np.inf
    high: float = np.inf

    def __post_init__(self) -> None:
        if not self.low <= self.high:
            raise ValueError(f"cannot clip to [{self.low}, {self.high}]: low is above high")

    def __call__(self, crystals: Crystals) -> RewardBatch:
        """Rewards of B crystals."""
        batch = self.reward(crystals)
        value = np.clip(batch.value, self.low, self.high)
        return replace(batch, value=value, info={**batch.info, "unclipped": batch.value})


@dataclass(frozen=True)
class InvalidPenalty:
    """A reward whose failed items get the value `penalty` (finite); `ok` still tells them apart."""

    reward: Reward
    penalty: float

    def __post_init__(self) -> None:
        if not np.isfinite(self.penalty):
            raise ValueError(f"the penalty of invalid items must be finite, not {self.penalty}")

    def __call__(self, crystals: Crystals) -> RewardBatch:
        """Rewards of B crystals."""
        batch = self.reward(crystals)
        return replace(batch, value=np.where(batch.ok, batch.value, self.penalty))


@dataclass(frozen=True)
class Guarded:
    """A reward that may raise, made safe: an exception costs the items that cause it.

    A batch that raises is halved until the culprits stand alone; they get ok=False and the
    exception as their reason. What is caught are failures of data and numerics (ValueError,
    ArithmeticError, LookupError) and, marked as transient, what may be the machine's
    (RuntimeError, OSError, MemoryError); a TypeError and the like are mistakes in the reward's
    code and pass through. The reward must not depend on the rest of the batch.
    """

    reward: Reward

    def __call__(self, crystals: Crystals) -> RewardBatch:
        """Rewards of B crystals."""
        try:
            return self.reward(crystals)
        except (*_DATA_FAILURES, *_MACHINE_FAILURES) as error:
            if not len(crystals):
                raise
            if len(crystals) == 1:
                transient = np.array([isinstance(error, _MACHINE_FAILURES)])
                reason = f"{type(error).__name__}: {error}"
                return RewardBatch.from_values(np.array([np.nan]), None, [reason], transient)
        half = len(crystals) // 2
        return RewardBatch.concatenate([self(crystals[:half]), self(crystals[half:])])
