"""Budgets: training steps of each tokenization at equal cost, and the NLL that is reached."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np

from crystaljax.ranges import POSITIVE, Range, at_least, check
from crystaljax.training.optimizer import OptimizerConfig


@dataclass(frozen=True)
class BudgetConfig:
    """Training of every variant."""

    flops: float = 2e12
    """Floating-point operations of each training run, the same for all; see
    `cores.training_flops`."""
    learning_rates: tuple[float, ...] = (3e-4, 1e-3, 3e-3, 1e-2, 3e-2)
    """Learning rates to try in short training runs. The one with the lowest validation NLL is
    used."""
    search: float = 0.1
    """Cost of each of these short runs, as a share of `flops`."""
    batch_size: int = 32
    """Crystals in a training step."""
    warmup: float = 0.05
    """Share of the steps in which the learning rate rises."""
    n_validations: int = 10
    """Points of the curve of validation NLL."""
    min_steps: int = 20
    """Smallest number of training steps; a budget that gives fewer is an error."""

    def __post_init__(self) -> None:
        one = at_least(1)
        check(self, flops=POSITIVE, batch_size=one, n_validations=one, min_steps=one)
        check(self, search=Range(0, 1, with_low=False), warmup=Range(0, 1, with_high=False))
        if not self.learning_rates:
            raise ValueError("no learning rate to try: give at least one")

    def n_steps(self, flops_per_crystal: float, name: str, share: float = 1.0) -> int:
        """Steps for a share of the budget; ValueError naming the variant if they are too few."""
        n = round(share * self.flops / flops_per_crystal / self.batch_size)
        if n < self.min_steps:
            raise ValueError(
                f"{name}: {share * self.flops:.3g} floating-point operations are {n} steps of"
                f" {self.batch_size} crystals, fewer than {self.min_steps}: raise the budget"
                " (flops), or lower the batch size"
            )
        return n

    def optimizer(self, learning_rate: float, n_steps: int) -> OptimizerConfig:
        """The optimiser of a run."""
        return OptimizerConfig(learning_rate, warmup_steps=round(self.warmup * n_steps))


class Reached(NamedTuple):
    """Validation NLL (nats per crystal) of a run within three budgets; nan where it is unknown."""

    equal_flops: float
    equal_crystals: float
    equal_seconds: float


def at_crystals(curve: Sequence[Sequence[float]], crystals: float) -> float:
    """NLL after a number of crystals, by interpolation over the logarithm of that number.

    `curve` is [n] of (crystals, NLL). nan before the first point; beyond the last point its NLL.
    """
    seen, nll = np.asarray(curve, np.float64).reshape(-1, 2).T
    if not len(seen) or crystals < seen[0] * (1 - 1e-9):
        return float("nan")
    return float(np.interp(np.log(crystals), np.log(seen), nll))


def reached(results: Mapping[Any, Mapping[str, Any]]) -> dict[Any, Reached]:
    """NLL within three budgets of runs by key, from the results of their trainings.

    Equal crystals: the number that the run with the fewest crystals saw. Equal seconds: the
    training time of the shortest run, without compilation and validation. Both values are read from
    a run's own curve. At these points its learning rate has not yet decayed, so they are upper
    bounds of the NLL that a run of that length would reach.
    """
    if not results:
        return {}
    fewest = min(result["crystals"] for result in results.values())
    shortest = min(r["crystals"] / r["crystals_per_second"] for r in results.values())
    return {
        key: Reached(
            result["nll"],
            at_crystals(result["curve"], fewest),
            at_crystals(result["curve"], shortest * result["crystals_per_second"]),
        )
        for key, result in results.items()
    }
