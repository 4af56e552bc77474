"""Crystals together with what they were asked to be, for rewards and guards that depend on it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Protocol

import jax
import numpy as np

from crystaljax.conditions import Condition
from crystaljax.crystal import Batch, Crystals
from crystaljax.rewards.base import Reward, RewardBatch, RewardError
from crystaljax.rewards.inputs import Items


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class Asked(Batch):
    """B crystals, the condition of each, and the group of samples that it is compared in.

    A reward or a guard that takes these in place of `Crystals` has an attribute `takes_asked` that
    is true; all others get the crystals alone (`fitting`).
    """

    crystals: Crystals
    condition: np.ndarray
    """object [B]: `Condition` of each."""
    group: np.ndarray
    """int [B]: samples of one prompt that training compares have the same number."""

    @staticmethod
    def of(
        crystals: Crystals, conditions: Sequence[Condition], group: np.ndarray | None = None
    ) -> Asked:
        """B crystals asked to be `conditions` [B]; each is a group of its own by default."""
        n = len(crystals)
        asked = np.empty(n, object)
        for row, condition in enumerate(conditions):
            asked[row] = condition
        return Asked(crystals, asked, np.arange(n) if group is None else np.asarray(group))


class RewardOfAsked(Protocol):
    """A reward that judges crystals by what they were asked to be."""

    takes_asked: ClassVar[bool]
    """True"""

    def __call__(self, asked: Asked, /) -> RewardBatch:
        """Rewards of B crystals."""
        ...


AnyReward = Reward | RewardOfAsked


def takes_asked(judge: Any) -> bool:
    """Whether a reward or a guard judges crystals by what they were asked to be."""
    return bool(getattr(judge, "takes_asked", False))


def fitting(judge: Any, items: Items) -> Items:
    """The items as a reward or a guard takes them: with what was asked, or crystals alone.

    RewardError if it has to know what was asked, and the items do not tell.
    """
    if isinstance(items, Asked):
        return items if takes_asked(judge) else items.crystals
    if takes_asked(judge) and isinstance(items, Crystals):
        raise RewardError(
            f"{type(judge).__name__} judges crystals by what they were asked to be, which is not"
            " known here: take another reward or guard"
        )
    return items
