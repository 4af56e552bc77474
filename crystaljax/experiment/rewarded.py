"""Rewards of a user's own in reports: their quantiles, histogram and best samples."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

import numpy as np
from rich.console import Console
from rich.table import Table as ConsoleTable

from crystaljax import plots
from crystaljax.composition import formulas
from crystaljax.evaluation.policies import Assessment
from crystaljax.evaluation.report import Table
from crystaljax.experiment.best import BestStructures, Score
from crystaljax.experiment.crystals import Bench, Setup
from crystaljax.pareto import pareto_plot
from crystaljax.rewards.base import Reward, RewardBatch
from crystaljax.rewards.bounds import Quantity, quantity_of
from crystaljax.training.rollouts import judge
from crystaljax.validity import structure_valid

if TYPE_CHECKING:
    from matplotlib.figure import Figure

QUANTILES = (0.1, 0.25, 0.5, 0.75, 0.9)

N_CHECKED = 5
"""Samples that a reward is tried on."""

MOST_TRIED = 40
"""Samples drawn at most for that, of which as many are taken as are crystals as asked."""


@dataclass(frozen=True)
class Rewarded:
    """Rewards of evaluated samples."""

    quantity: Quantity
    by_label: Mapping[str, RewardBatch]
    """Rewards of the samples of each evaluation."""

    @property
    def values(self) -> dict[str, np.ndarray]:
        """float64 [N] by label: nan where a sample was not judged."""
        return {
            label: np.where(batch.ok, batch.value, np.nan) for label, batch in self.by_label.items()
        }

    def table(self) -> Table:
        """Number of judged samples, quantiles, mean and largest reward by label."""
        rows = [["", "judged", *(f"{100 * q:g} %" for q in QUANTILES), "mean", "largest"]]
        for label, values in self.values.items():
            known = values[np.isfinite(values)]
            numbers = ["–"] * (len(QUANTILES) + 2)
            if len(known):
                found = [*np.quantile(known, QUANTILES), known.mean(), known.max()]
                numbers = [f"{x:.4g}" for x in found]
            rows.append([label, f"{len(known)} / {len(values)}", *numbers])
        return Table(f"{self.quantity.label}: quantiles of the samples that were judged", rows)

    def figures(self, found: Mapping[str, Assessment]) -> dict[str, tuple[Figure, str]]:
        """Histograms by label, and rewards against stability, with captions.

        found: the evaluations of the same samples.
        """
        label, values = self.quantity.label, self.values
        pairs = {name: (found[name].e_above_hull, x) for name, x in values.items()}
        front = pareto_plot(pairs, "energy above hull (eV/atom)", label)
        words = f"{self.quantity.name} and energy above hull of the same samples"
        return {
            "rewards": (plots.histogram(values, label), f"{label} of fresh samples"),
            "pareto": (front, f"{words}; no sample is better than those of the fronts in both"),
        }


def rewarded(bench: Bench, found: Mapping[str, Assessment]) -> Rewarded | None:
    """Rewards of samples; None if the reward is stability, which evaluations tell anyway."""
    if bench.user_reward is None:
        return None
    batches = {
        label: judge(bench.user_reward, each.crystals, np.asarray(each.crystals.n_sites) > 0)
        for label, each in found.items()
    }
    return Rewarded(bench.quantity, batches)


def best_of(
    found: Assessment, label: str, values: Rewarded | None, columns: tuple[str, ...] = ()
) -> BestStructures:
    """The best samples of a label: of largest reward, or of lowest energy above hull.

    columns: those to show (`ReportConfig.columns`).
    """
    if values is None:
        caption = f"Samples ({label}) of lowest energy above hull"
        return BestStructures.of(found, caption, chosen=columns)
    score = values.values[label]
    caption = f"Samples ({label}) of largest {values.quantity.name}"
    rewards = {"reward": Score(values.quantity.label, score)}
    return BestStructures.of(found, caption, score, rewards, columns)


class WithSetup(Protocol):
    """A configuration with a set-up of crystals."""

    @property
    def setup(self) -> Setup:
        """Model, data, judge and reward."""
        ...


def check_reward(config: WithSetup, own: Reward | None = None) -> None:
    """Judge a few samples of the set-up's model by its reward, and say what came of it.

    own: the reward of the script, if it is not that of the set-up. ValueError if no sample can be
    judged.
    """
    setup, console = config.setup, Console()
    with Bench(setup) as bench:
        asked = [setup.condition] * MOST_TRIED
        samples = bench.policy.sample(bench.base, asked, setup.seed, setup.sampling)
        met, valid = np.asarray(samples.met), structure_valid(samples.crystals)
        rows = np.argsort(~(met & valid), kind="stable")  # valid structures first
        rows = rows[met[rows]][:N_CHECKED]
        if not len(rows):
            raise ValueError(
                f"none of {MOST_TRIED} samples is a crystal as asked: nothing to judge"
            )
        crystals = samples.crystals[rows]
        reward, title = own or bench.reward, f"{bench.rewarded_by}: {bench.quantity.label}"
        if own is not None:
            title = quantity_of(own).label
        start = time.perf_counter()
        batch = judge(reward, crystals, np.ones(len(rows), bool))
        seconds = time.perf_counter() - start
        table = ConsoleTable(title=title)
        for name in ("formula", "space group", "reward", "reason"):
            table.add_column(name)
        for formula, group, value, ok, reason in zip(
            *(formulas(crystals), crystals.space_group, batch.value, batch.ok, batch.reasons),
            strict=True,
        ):
            table.add_row(formula, str(group), f"{value:.6g}" if ok else "–", reason or "")
        console.print(table)
        low, high = bench.task(reward).bounds.limits
        kept = f" In training, rewards are kept within [{low:g}, {high:g}]."
        console.print(
            f"{seconds / len(rows):.3g} s a crystal, loading and compiling included."
            + (kept if np.isfinite([low, high]).any() else " In training, they are not bounded.")
        )
        if not batch.ok.any():
            raise ValueError(f"none of {len(rows)} crystals could be judged: see the reasons above")
