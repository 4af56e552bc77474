"""The picture at the top of the README: crystals that the shipped model makes when it is asked.

    python experiments/figures/overview.py

For each of eight demands the first sample (seed 0) that meets it and is a valid structure, as
generated. A minute on two cores.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np

from crystaljax import plots
from crystaljax.conditions import Condition
from crystaljax.policies.loading import load_policy
from crystaljax.validity import structure_valid

HERE = Path(__file__).parent

ASKED = {
    "anything": Condition(),
    "some oxide": Condition(required=("O",)),
    "Li, Fe and O only": Condition(elements=("Li", "Fe", "O")),
    "NaCl": Condition(formula="NaCl"),
    "CaPd2": Condition(formula="CaPd2"),
    "SrTiO3, space group 221": Condition(formula="SrTiO3", space_group=221),
    "space group 62": Condition(space_group=62),
    "space group 225": Condition(space_group=225),
}
"""Demands by their captions."""

N_DRAWN = 8
"""Samples of each demand, of which the first good one is shown."""


def main() -> None:
    policy, params = load_policy(HERE.parents[1] / "checkpoints" / "wyckoff-mp20bt")
    rollout = policy.sample(params, list(ASKED.values()), seed=0, repeat=N_DRAWN)
    good = (rollout.met & structure_valid(rollout.crystals)).reshape(len(ASKED), N_DRAWN)
    rows = np.arange(len(ASKED)) * N_DRAWN + good.argmax(axis=1)
    captions = [f"asked for: {name}" for name in ASKED]
    figure = plots.structure_grid(rollout.crystals[rows], captions, n_columns=4)
    plots.save(figure, HERE / "overview.png", dpi=72)


if __name__ == "__main__":
    main()
