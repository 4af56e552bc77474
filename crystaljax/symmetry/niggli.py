"""Niggli-reduced primitive cells: a unique choice of axes, without reference to the symmetry."""

from __future__ import annotations

import numpy as np
import spglib

from crystaljax.crystal import AtomicCell, Crystals
from crystaljax.structures import to_cells

TOLERANCE = 1e-4
"""Tolerance of spglib's reduction. Lattices in float32 need more than its default of 1e-5, with
which noise decides between axes that are equivalent by symmetry, and some reductions fail."""


def niggli_cells(crystals: Crystals) -> list[AtomicCell]:
    """The Niggli-reduced primitive cell of each of B crystals, atoms in the order of their sites.

    The origin is that of the standard setting. Angles of such cells are 60° to 120°. ValueError
    naming the first crystal that has no atoms or no cell.
    """
    return [_reduced(cell, i) for i, cell in enumerate(to_cells(crystals, primitive=True))]


def _reduced(cell: AtomicCell, number: int) -> AtomicCell:
    """The same crystal on reduced axes."""
    matrix, frac = np.asarray(cell.matrix, float), np.asarray(cell.frac, float)
    if not len(frac):
        raise ValueError(f"crystal {number} has no atoms")
    whole = np.isfinite(matrix).all() and np.linalg.det(matrix) > 0
    reduced = spglib.niggli_reduce(matrix, TOLERANCE) if whole else None
    if reduced is None:
        raise ValueError(f"crystal {number} has no unit cell that can be reduced")
    change = np.rint(np.linalg.solve(matrix.T, reduced.T).T)
    moved = frac @ np.linalg.inv(change)
    return AtomicCell(change @ matrix, moved - np.floor(moved), cell.species)
