"""Niggli-reduced primitive cells: a unique choice of axes, without reference to the symmetry."""

from __future__ import annotations

import gemmi
import numpy as np
import spglib

from crystaljax.crystal import AtomicCell, Crystals, wrapped
from crystaljax.structures import to_cells
from crystaljax.symmetry.tables import N_GROUPS, tables

TOLERANCE = 1e-6
"""Scalar products of lattice vectors are equal if they differ by less than this times the longest
vector's square: a small multiple of the rounding error of float32."""


def niggli_cells(crystals: Crystals) -> list[AtomicCell]:
    """The Niggli-reduced primitive cell of each of B crystals, atoms in the order of their sites.

    The origin is that of the standard setting. Angles of such cells are 60° to 120°. ValueError
    naming the first crystal that has no atoms or no cell.
    """
    batch = crystals.to_numpy()
    cells = to_cells(batch, primitive=True)
    return [_reduced(cell, batch, i) for i, cell in enumerate(cells)]


def matrix_of(lattice: np.ndarray) -> np.ndarray:
    """Lattice vectors (float64 [3, 3], Å, rows) of a, b, c, α, β, γ [6]; nan if there is none."""
    return np.array(gemmi.UnitCell(*np.asarray(lattice, float).tolist()).orth.mat.tolist()).T


def reduced_matrix(matrix: np.ndarray) -> np.ndarray | None:
    """Niggli-reduced lattice vectors (float64 [3, 3], Å, rows) of right-handed ones, or None."""
    if not (np.isfinite(matrix).all() and np.linalg.det(matrix) > 0):
        return None
    tolerance = TOLERANCE * float((matrix**2).sum(axis=1).max())
    reduced: np.ndarray | None = spglib.niggli_reduce(matrix, tolerance)
    return reduced


def _reduced(cell: AtomicCell, batch: Crystals, i: int) -> AtomicCell:
    """A primitive cell of crystal i on reduced axes."""
    group, lattice = int(batch.space_group[i]), batch.lattice[i]
    if not len(cell.species) or not 1 <= group <= N_GROUPS:
        raise ValueError(f"crystal {i} has no atoms or no space group")
    # in double precision, so that rounding does not decide between axes equal by symmetry
    matrix = tables().primitive[group - 1] @ matrix_of(lattice)
    reduced = reduced_matrix(matrix)
    if reduced is None:
        raise ValueError(f"crystal {i} has no unit cell that can be reduced: {lattice.tolist()}")
    change = np.rint(np.linalg.solve(matrix.T, reduced.T).T)
    frac = np.asarray(cell.frac, float) @ np.linalg.inv(change)
    return AtomicCell(change @ matrix, wrapped(frac), cell.species)
