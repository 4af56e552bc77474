"""The ratio of two elements that each reward of structure prediction prefers.

    python experiments/csp_rewards.py --crystals mp20_bt/train.csv.gz \
        --stability.hull mp_hull.csv.gz

A potential judges known crystals of two elements, without relaxation. For each pair of elements, a
policy that may choose ratios would move to the formula with the largest reward. With the total
energy per atom, this is the formula richest in the element whose atoms have the lowest energy,
whether it is stable or not. Energy above hull and formation energy do not have this preference;
relative to the best known structure of its own formula, every formula is equally good. For 80 pairs
(--n 80, a minute of one core) expect that the total energy prefers the formula richest in that
element for 90 ± 3 % of them, and the hull for 46 ± 6 %; by chance it would be 43 %.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from crystaljax.composition import element_counts, formulas
from crystaljax.data.dataset import load
from crystaljax.evaluation.report import Report
from crystaljax.experiment.csp.preferences import (
    example_table,
    preference_table,
    rows_of_pairs,
    systems_of,
)
from crystaljax.experiment.experiment import Experiment
from crystaljax.experiment.main import run
from crystaljax.progress import working
from crystaljax.rewards.prediction import COLUMNS, Energies, KnownEnergies
from crystaljax.rewards.stability import StabilityConfig, StabilityReward
from crystaljax.tracking import TrackingConfig


@dataclass(frozen=True)
class Config:
    """Compare the rewards of known crystals."""

    crystals: str = "prototypes"
    """Known crystals: a file, a folder or a registered dataset."""
    n: int = 0
    """Number of pairs of elements, drawn by the seed from pairs with several known formulas. 0:
    all."""
    stability: StabilityConfig = field(default_factory=StabilityConfig)
    """Potential and hull."""
    seed: int = 0
    """Random seed for the draw."""
    output: Path = Path("runs/csp_rewards")
    """Folder of the report."""
    tracking: TrackingConfig = field(default_factory=TrackingConfig)
    """Weights & Biases."""


def main(config: Config) -> None:
    with (
        Experiment(config, config.output, config.tracking, "evaluation") as experiment,
        StabilityReward(config.stability) as stability,
    ):
        experiment.use("data", config.crystals)
        crystals = load(config.crystals).crystals
        rows = rows_of_pairs(element_counts(crystals), config.n, config.seed)
        if not len(rows):
            raise ValueError(
                f"no two elements have two formulas in {config.crystals}: give more crystals"
            )
        crystals = crystals[rows]
        with working(f"energies of {len(crystals)} crystals"):
            judged = stability(crystals)
        known = KnownEnergies.least_of(formulas(crystals), judged)
        info = Energies(lambda _: judged, {"relative": 1.0}, known)(crystals).info
        energies: dict[str, np.ndarray] = {
            name: np.asarray(info[column], float) for name, column in COLUMNS.items()
        }
        systems = systems_of(element_counts(crystals), energies, stability.hull.references)
        note = f"{len(crystals)} crystals of two elements; energies by {stability.label}."
        tables = [preference_table(systems), example_table(systems)]
        experiment.finish(Report("Rewards of structure prediction", {}, [], tables, [note]))


if __name__ == "__main__":
    run(main, Config, __doc__)
