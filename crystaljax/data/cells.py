"""Atomic cells from the numbers in a file."""

from __future__ import annotations

from typing import Any

import numpy as np

from crystaljax.crystal import AtomicCell
from crystaljax.validity import check_lattice


def atomic_cell(matrix: Any, frac: Any, species: Any) -> AtomicCell:
    """An AtomicCell from nested lists; an error if they are not numbers."""
    return AtomicCell(
        np.asarray(matrix, float), np.asarray(frac, float).reshape(-1, 3), np.asarray(species, int)
    )


def cartesian_cell(matrix: Any, positions: Any, species: Any) -> AtomicCell:
    """An AtomicCell from positions in Å; an error for anything but numbers, or for no unit cell."""
    matrix = np.asarray(matrix, float)
    check_lattice(matrix)
    frac = np.linalg.solve(matrix.T, np.asarray(positions, float).reshape(-1, 3).T).T
    return atomic_cell(matrix, frac, species)
