"""The quantity that a reward measures, and its bounds and penalty in training."""

from __future__ import annotations

from dataclasses import dataclass, fields, replace
from typing import Any, Literal

import numpy as np

from crystaljax.ranges import FINITE, Range, check
from crystaljax.rewards.base import RewardBatch

_NUMBER = Range(-np.inf)


@dataclass(frozen=True)
class RewardBounds:
    """Clipping and scaling of rewards for training. A bound that is not given is the reward's own.

    Rewards are clipped to [low, high], then scaled. After that, samples that cannot be judged get
    their penalty, so that no bound makes them as good as a judged sample. The default penalty
    scales with the rewards, whatever their unit. So it is neither negligible beside them, nor does
    it dominate PPO's gradient (where the same baseline is subtracted from all samples). In GRPO all
    groups have the same penalty, and a group in which nothing could be judged has no advantage.
    """

    invalid: float | None = None
    """Reward of samples that cannot be judged: sequences that are no crystal, atoms too close. If
    neither this nor the reward gives it: one standard deviation of the rollout's rewards (1 if they
    are all equal) below the lower bound, or below the lowest reward if there is no bound."""
    low: float | None = None
    """Lower rewards are raised to this bound, so that single bad samples do not dominate the
    gradient."""
    high: float | None = None
    """Higher rewards are lowered to this bound: the highest ones are often errors of the
    potential."""
    scale: Literal["linear", "log"] | None = None
    """log: −log10(1 + high − reward), for rewards over many decades, whose worst would dominate."""

    def __post_init__(self) -> None:
        check(self, invalid=FINITE, low=_NUMBER, high=_NUMBER)
        low, high = self.limits
        if not low < high:
            raise ValueError(f"no reward lies within [{low:g}, {high:g}]: low must be below high")
        if self.invalid is not None and np.isfinite(low) and self.invalid > low:
            raise ValueError(
                f"samples that cannot be judged would get {self.invalid:g}, more than the lowest"
                f" reward, {low:g}: lower `invalid`, or raise `low`"
            )

    def over(self, own: RewardBounds) -> RewardBounds:
        """These bounds, completed by a reward's own."""
        given = {f.name: getattr(self, f.name) for f in fields(self)}
        given = {name: value for name, value in given.items() if value is not None}
        result = replace(own, **given)
        if result.scale == "log" and not np.isfinite(result.limits[1]):
            raise ValueError("the scale log needs an upper bound, from which decades are counted")
        return result

    @property
    def limits(self) -> tuple[float, float]:
        """The lowest and the highest reward; infinite where there is no bound."""
        low = -np.inf if self.low is None else self.low
        return low, np.inf if self.high is None else self.high

    def clips(self, judged: RewardBatch) -> np.ndarray:
        """bool [B]: rewards that are outside the bounds."""
        low, high = self.limits
        return judged.ok & ((judged.value < low) | (judged.value > high))

    def __call__(self, judged: RewardBatch, share: np.ndarray | None = None) -> np.ndarray:
        """Rewards to train on, float64 [B].

        `share` [B] in [0, 1]: the share of its distance to the penalty that guards leave to each
        reward. Rewards below the penalty are not changed.
        """
        low, high = self.limits
        value = self._scaled(np.clip(judged.value, low, high))
        penalty = self._penalty(value[judged.ok])
        if share is not None:
            with np.errstate(invalid="ignore"):
                less = (share < 1) & (value > penalty)
            value = np.where(less, penalty + share * (value - penalty), value)
        return np.where(judged.ok, value, penalty)

    def _penalty(self, known: np.ndarray) -> float:
        """Reward of what cannot be judged, from the scaled rewards of what can be."""
        if self.invalid is not None:
            return float(self._scaled(self.invalid))
        low = self.limits[0]
        if np.isfinite(low):
            lowest = float(self._scaled(low))
        else:
            lowest = float(known.min()) if len(known) else 0.0
        differ = len(known) > 0 and np.ptp(known) > 0
        return lowest - (float(known.std()) if differ else 1.0)

    def _scaled(self, value: Any) -> Any:
        if self.scale != "log":
            return value
        return -np.log10(1 + self.limits[1] - value)


UNBOUNDED = RewardBounds()
"""No bounds."""


@dataclass(frozen=True)
class Quantity:
    """The quantity that a reward measures; rewards may carry one as their `quantity`."""

    name: str = "reward"
    """Name in words, for reports."""
    unit: str = ""
    """Unit, such as eV/atom; empty for pure numbers."""
    bounds: RewardBounds = UNBOUNDED
    """Bounds within which its values are meaningful; none by default."""

    @property
    def label(self) -> str:
        """Name and unit, for axes and tables."""
        return f"{self.name} ({self.unit})" if self.unit else self.name

    def of(self, number: float) -> str:
        """A number with the unit."""
        return f"{number:g} {self.unit}".rstrip()


UNNAMED = Quantity()
"""The quantity of rewards that do not declare one."""


def quantity_of(reward: Any) -> Quantity:
    """The quantity that a reward declares; `UNNAMED` if it declares none."""
    return getattr(reward, "quantity", None) or UNNAMED
