"""A part of a data set that is held out for tests."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np


def held_out(formulas: Sequence[str], share: float, seed: int = 0) -> np.ndarray:
    """Mask of crystals that are held out: bool [N], about a share of them, drawn by the seed.

    Crystals of one formula are all held out or all kept: no formula is on both sides. Formulas are
    taken while they do not make the part too large. ValueError if the share is not between 0 and 1,
    or leaves one of the parts empty.
    """
    if not 0 < share < 1:
        raise ValueError(f"the share to hold out must be between 0 and 1, not {share:g}")
    names, formula, counts = np.unique(formulas, return_inverse=True, return_counts=True)
    order = np.random.default_rng(seed).permutation(len(names))
    wanted, chosen, n = round(share * len(formulas)), np.zeros(len(names), bool), 0
    for place in order.tolist():
        if n + counts[place] <= wanted:
            chosen[place] = True
            n += int(counts[place])
    found = chosen[formula]
    if found.all() or not found.any():
        raise ValueError(
            f"{share:g} of {len(formulas)} crystals of {len(names)} formulas, each of which stays"
            " whole, leaves one part without any: give another share"
        )
    return found
