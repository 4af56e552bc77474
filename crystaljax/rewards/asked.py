"""Crystals with their conditions, for rewards and guards that depend on the conditions."""

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
    """B crystals, the condition of each, and the group of samples that each is compared in.

    A reward or a guard that takes these instead of `Crystals` has an attribute `takes_asked` that
    is true. All others get only the crystals (`fitting`).
    """

    crystals: Crystals
    condition: np.ndarray
    """object [B]: `Condition` of each."""
    group: np.ndarray
    """int [B]: number of the group; samples of one prompt that training compares share it."""

    @staticmethod
    def of(
        crystals: Crystals, conditions: Sequence[Condition], group: np.ndarray | None = None
    ) -> Asked:
        """B crystals with their `conditions` [B]; by default each is a group of its own."""
        n = len(crystals)
        asked = np.empty(n, object)
        for row, condition in enumerate(conditions):
            asked[row] = condition
        return Asked(crystals, asked, np.arange(n) if group is None else np.asarray(group))


class RewardOfAsked(Protocol):
    """A reward of crystals that depends on their conditions."""

    takes_asked: ClassVar[bool]
    """True"""

    def __call__(self, asked: Asked, /) -> RewardBatch:
        """Rewards of B crystals."""
        ...


AnyReward = Reward | RewardOfAsked


def takes_asked(judge: Any) -> bool:
    """Whether a reward or a guard depends on the conditions of crystals."""
    return bool(getattr(judge, "takes_asked", False))


def fitting(judge: Any, items: Items) -> Items:
    """The items in the form that a reward or a guard takes: with conditions, or only the crystals.

    RewardError if it needs the conditions, and the items have none.
    """
    if isinstance(items, Asked):
        return items if takes_asked(judge) else items.crystals
    if takes_asked(judge) and isinstance(items, Crystals):
        raise RewardError(
            f"{type(judge).__name__} judges crystals by what they were asked to be, which is not"
            " known here: take another reward or guard"
        )
    return items
