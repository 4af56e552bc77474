"""Believable energies above hull: the hull has enough entries, and the energy is not too low."""

from __future__ import annotations

import numpy as np

MIN_KNOWN = 12
"""Fewest hull entries in a chemical system and its subsystems with which energies above hull are
believed (arXiv 2610.03880)."""

MAX_BELOW = 0.1
"""eV/atom: crystals farther below the hull are not believed."""

BELIEVABLE = (
    f"the hull has at least {MIN_KNOWN} entries in the chemical system and its subsystems, and the"
    f" energy is not more than {MAX_BELOW:g} eV/atom below it"
)


def known_system(n_known: np.ndarray, min_known: int = MIN_KNOWN) -> np.ndarray:
    """Systems of which the hull has enough entries: bool [N].

    In a system with few hull entries everything looks stable.

    Args:
      n_known: int [N], entries of the hull in the chemical system and its subsystems
        (`Hull.n_known`).
    """
    return np.asarray(n_known) >= min_known


def not_too_good(e_above_hull: np.ndarray, max_below: float = MAX_BELOW) -> np.ndarray:
    """Energies above hull [N] (eV/atom) that are not too far below it: bool [N]; nan is not.

    What is far below a hull of many entries is more likely an error of the potential.
    """
    with np.errstate(invalid="ignore"):
        return np.asarray(e_above_hull, np.float64) >= -max_below


def believable(
    e_above_hull: np.ndarray,
    n_known: np.ndarray,
    min_known: int = MIN_KNOWN,
    max_below: float = MAX_BELOW,
) -> np.ndarray:
    """Energies above hull [N] (eV/atom) that are believed: bool [N]; nan is not.

    `known_system` and `not_too_good`.
    """
    return known_system(n_known, min_known) & not_too_good(e_above_hull, max_below)
