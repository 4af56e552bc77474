"""The picture at the top of the README: crystals that the shipped model makes when it is asked.

    python experiments/figures/overview.py

For each of four demands the first two samples (seed 0) that meet it and are valid structures, as
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
    "Li-Fe-O": Condition(elements=("Li", "Fe", "O"), required=("Li", "Fe", "O")),
    "CaPd2": Condition(formula="CaPd2"),
    "space group 225": Condition(space_group=225),
}
"""Demands by their captions."""

N_DRAWN, N_SHOWN = 8, 2
"""Samples of each demand, and how many of them are shown."""


def main() -> None:
    policy, params = load_policy(HERE.parents[1] / "checkpoints" / "wyckoff-mp20bt")
    rollout = policy.sample(params, list(ASKED.values()), seed=0, repeat=N_DRAWN)
    good = (rollout.met & structure_valid(rollout.crystals)).reshape(len(ASKED), N_DRAWN)
    rows, captions = [], []
    for i, name in enumerate(ASKED):
        some = i * N_DRAWN + np.flatnonzero(good[i])[:N_SHOWN]
        rows += some.tolist()
        captions += [f"asked for: {name}"] * len(some)
    figure = plots.structure_grid(rollout.crystals[np.array(rows)], captions, n_columns=4)
    plots.save(figure, HERE / "overview.png", dpi=80)


if __name__ == "__main__":
    main()
