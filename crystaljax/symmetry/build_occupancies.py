"""Make `occupancies.npz`, the frequencies of occupied Wyckoff positions in a dataset.

    python -m crystaljax.symmetry.build_occupancies mp20_bt/train.csv.gz

The table guides sampling under conditions (`occupations`); it affects the efficiency, not the
distribution of the samples. The file in this folder is from the 11,443 training crystals of the
unary to ternary subset of MP-20 (Materials Project, CC BY 4.0), symmetrised at 0.01 Å.
"""

from __future__ import annotations

import sys

import numpy as np

from crystaljax.crystal import Crystals
from crystaljax.symmetry.placements import PATH
from crystaljax.symmetry.tables import N_GROUPS, N_LETTERS, tables

PRIOR = 2.0
"""Weight, in crystals, of the average over positions with the same number of free coordinates."""


def occupancies(crystals: Crystals) -> dict[str, np.ndarray]:
    """float32 [230, 28] each: P(a position is `occupied`), P(it is once more, `again`)."""
    sites = np.zeros((len(crystals), N_LETTERS), int)
    rows = np.arange(len(crystals))[:, None]
    np.add.at(sites, (rows, np.asarray(crystals.wyckoff)), 1)
    group = np.asarray(crystals.space_group) - 1
    exists = tables().multiplicity > 0

    def by_group(values: np.ndarray) -> np.ndarray:
        total = np.zeros((N_GROUPS, N_LETTERS))
        np.add.at(total, group, values)
        return total

    counts = {
        "occupied": (by_group(sites > 0), by_group(np.ones(sites.shape))),
        "again": (by_group(np.maximum(sites - 1, 0)), by_group(sites)),
    }
    found = {}
    for name, (true, every) in counts.items():
        share = np.zeros(exists.shape)
        for n_free in range(4):
            alike = exists & (tables().n_free == n_free)
            mean = true[alike].sum() / max(every[alike].sum(), 1)
            share[alike] = (true[alike] + PRIOR * mean) / (every[alike] + PRIOR)
        found[name] = share.astype(np.float32)
    return found


if __name__ == "__main__":
    from crystaljax.data.dataset import load

    np.savez_compressed(PATH, **occupancies(load(sys.argv[1]).crystals.to_numpy()))  # type: ignore[arg-type]
