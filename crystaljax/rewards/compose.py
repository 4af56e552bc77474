"""Rewards composed of rewards: weighted sums, products, clipping, penalties, and safety from
exceptions."""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from crystaljax.rewards.asked import AnyReward, Asked, fitting, takes_asked
from crystaljax.rewards.base import Reasons, RewardBatch, RewardError
from crystaljax.rewards.inputs import Items, take
from crystaljax.rewards.wrapping import Wrapping
from crystaljax.validity import MIN_DISTANCE, MIN_VOLUME, is_crystal, structure_valid

PASSING = (KeyboardInterrupt, RewardError)
"""Exceptions that end the computation; all others only make their item fail."""

_DATA_FAILURES = (ArithmeticError, LookupError, ValueError)
# Others may be of the moment: memory or a disk that is full, code that is not finished.


@dataclass(frozen=True)
class WeightedSum:
    """Σ weight · reward over named rewards; an item that one of them cannot judge is not ok.

    The parts' values and infos are kept in `info`, as "part" and "part/key".
    """

    parts: Mapping[str, tuple[float, AnyReward]]
    """Name → (weight, reward)."""

    @property
    def takes_asked(self) -> bool:
        """Whether one of the parts does."""
        return any(takes_asked(reward) for _, reward in self.parts.values())

    def __call__(self, items: Items) -> RewardBatch:
        """Rewards of B crystals."""
        weights = [weight for weight, _ in self.parts.values()]
        return _combine(
            {name: reward for name, (_, reward) in self.parts.items()},
            items,
            lambda values: np.tensordot(weights, values, axes=1),
        )


@dataclass(frozen=True)
class Product:
    """The product of named rewards; an item that one of them cannot judge is not ok.

    The parts' values and infos are kept in `info`, as "part" and "part/key".
    """

    parts: Mapping[str, AnyReward]
    """Name → reward."""

    @property
    def takes_asked(self) -> bool:
        """One of the parts does."""
        return any(map(takes_asked, self.parts.values()))

    def __call__(self, items: Items) -> RewardBatch:
        """Rewards of B crystals."""
        return _combine(self.parts, items, lambda values: np.prod(values, axis=0))


def _combine(
    parts: Mapping[str, AnyReward],
    items: Items,
    merge: Callable[[np.ndarray], np.ndarray],
) -> RewardBatch:
    """Merge the parts' values [P, B]; the first reason an item failed for is its reason."""
    if not parts:
        raise ValueError("a combined reward needs at least one part")
    batches = {name: reward(fitting(reward, items)) for name, reward in parts.items()}
    info: dict[str, np.ndarray] = {}
    reasons: Reasons = [None] * len(items)
    for name, batch in batches.items():
        info[name] = batch.value
        info |= {f"{name}/{key}": column for key, column in batch.info.items()}
        named = [reason and f"{name}: {reason}" for reason in batch.reasons]
        reasons = [old or new for old, new in zip(reasons, named, strict=True)]
    value = merge(np.stack([batch.value for batch in batches.values()]))
    transient = np.any([batch.transient for batch in batches.values()], axis=0)
    return RewardBatch.from_values(value, info, reasons, transient)


@dataclass(frozen=True)
class Clip(Wrapping):
    """A reward kept within [low, high]; the value before is `info["unclipped"]`."""

    reward: AnyReward
    low: float = -np.inf
    high: float = np.inf

    def __post_init__(self) -> None:
        if not self.low <= self.high:
            raise ValueError(f"cannot clip to [{self.low}, {self.high}]: low is above high")

    def __call__(self, items: Items) -> RewardBatch:
        """Rewards of B crystals."""
        batch = self.reward(fitting(self.reward, items))
        value = np.clip(batch.value, self.low, self.high)
        return replace(batch, value=value, info={**batch.info, "unclipped": batch.value})


@dataclass(frozen=True)
class InvalidPenalty(Wrapping):
    """A reward whose failed items get the value `penalty` (finite); their `ok` remains False."""

    reward: AnyReward
    penalty: float

    def __post_init__(self) -> None:
        if not np.isfinite(self.penalty):
            raise ValueError(f"the penalty of invalid items must be finite, not {self.penalty}")

    def __call__(self, items: Items) -> RewardBatch:
        """Rewards of B crystals."""
        batch = self.reward(fitting(self.reward, items))
        return replace(batch, value=np.where(batch.ok, batch.value, self.penalty))


@dataclass(frozen=True)
class ValidOnly(Wrapping):
    """A reward of valid structures alone (see `structure_valid`); others are not ok."""

    reward: AnyReward

    def __call__(self, items: Items) -> RewardBatch:
        """Rewards of B crystals."""
        crystals = items.crystals if isinstance(items, Asked) else items
        exists, valid = is_crystal(crystals), structure_valid(crystals)
        overlap = f"atoms closer than {MIN_DISTANCE} Å, or a cell below {MIN_VOLUME} Å³"
        reasons: Reasons = [
            None if good else overlap if there else "no structure"
            for good, there in zip(valid, exists, strict=True)
        ]
        rows = np.flatnonzero(valid)
        if not len(rows):
            return RewardBatch.from_values(np.full(len(crystals), np.nan), None, reasons)
        return self.reward(fitting(self.reward, items[rows])).spread(rows, reasons)


@dataclass(frozen=True)
class Guarded(Wrapping):
    """A reward that may raise, made safe: an exception costs the items that cause it.

    A batch that raises is halved until the failing items are found; they get ok=False and the
    exception as their reason. This holds for all exceptions, including `SystemExit`, except an
    interrupt by the user and a `RewardError`. Exceptions other than ValueError, ArithmeticError and
    LookupError are marked as transient, as the data may not be their cause. n items take at most n
    + log2(n) calls: once halving could need more, items are judged one by one. The reward may be of
    any kind of items, but that of an item must not depend on the rest of the batch.
    """

    reward: Any

    def __call__(self, items: Items) -> RewardBatch:
        """Rewards of B items; RewardError if the reward returns no `RewardBatch` of them."""
        n = len(items)
        if n == 0:
            return self._checked(items)
        waiting, done = deque([np.arange(n)]), []
        calls, left, most = 0, n, n + math.log2(n)
        while waiting:
            rows = waiting.popleft()
            if len(rows) > 1 and calls + 1 + left > most:  # were it to fail
                waiting.extendleft(rows[::-1, None])
                continue
            calls += 1
            try:
                batch = self._checked(items if len(rows) == n else take(items, rows))
            except PASSING:
                raise
            except BaseException as error:  # noqa: BLE001 (users' code may raise anything)
                if len(rows) > 1:
                    waiting.extend(np.array_split(rows, 2))
                    continue
                reason, transient = failure(error)
                nan = np.array([np.nan])
                batch = RewardBatch.from_values(nan, None, [reason], np.array([transient]))
            done.append((rows, batch))
            left -= len(rows)
        order = np.argsort(np.concatenate([rows for rows, _ in done]))
        return RewardBatch.concatenate([batch for _, batch in done])[order]

    def _checked(self, items: Items) -> RewardBatch:
        batch = self.reward(fitting(self.reward, items))
        if not isinstance(batch, RewardBatch):
            raise RewardError(f"the reward returned a {type(batch).__name__}, not a RewardBatch")
        if len(batch) != len(items):
            raise RewardError(f"the reward returned {len(batch)} values for {len(items)} items")
        return batch


def failure(error: BaseException) -> tuple[str, bool]:
    """The reason for an item that raised, and whether it is transient."""
    text = " ".join(str(error).split())
    reason = f"{type(error).__name__}: {text}" if text else type(error).__name__
    return reason, not isinstance(error, _DATA_FAILURES)
