"""Interface of baselines."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np

from crystaljax.conditions import Condition
from crystaljax.crystal import Crystals
from crystaljax.rewards.base import Reasons


@dataclass(frozen=True)
class Proposals:
    """k attempts for each of n conditions, the best of each first; n k rows."""

    crystals: Crystals
    """[n k]; zero where there is no attempt."""
    reasons: Reasons
    """[n k]: why there is none."""
    not_asked: int = 0
    """Number of conditions that could not be asked for."""
    dead_ends: int = 0
    """Number of candidates that came to a dead end (`Rollout.dead_ends`)."""

    @property
    def lost(self) -> Counter[str]:
        """Number of rows without an attempt, by reason."""
        return Counter(reason for reason in self.reasons if reason)

    @staticmethod
    def of(found: Sequence[Crystals], k: int, reasons: Sequence[str]) -> Proposals:
        """Proposals from up to k crystals of each of n conditions.

        `reasons` [n]: why a condition has fewer than k.
        """
        padded = Crystals.concatenate([crystals.padded(k) for crystals in found])
        missing = np.concatenate([np.arange(k) >= len(crystals) for crystals in found])
        said = [reason for reason in reasons for _ in range(k)]
        return Proposals(
            padded, [why if no else None for why, no in zip(said, missing, strict=True)]
        )


class Baseline(Protocol):
    """Structures for formulas."""

    name: str
    """Name in reports."""

    def propose(self, conditions: Sequence[Condition], k: int, seed: int = 0) -> Proposals:
        """k structures for each condition, of which each needs a formula."""
        ...


def content_of(condition: Condition) -> np.ndarray:
    """int [119]: atoms of the condition's formula as written; ValueError if it has none."""
    if condition.content is None:
        raise ValueError("a condition without a formula: structures are proposed for formulas")
    return condition.content


def no_crystals() -> Crystals:
    """An empty batch."""
    return Crystals(
        np.zeros(0, np.int32),
        np.zeros((0, 1), np.int32),
        np.zeros((0, 1), np.int32),
        np.zeros((0, 1, 3), np.float32),
        np.zeros((0, 6), np.float32),
    )
