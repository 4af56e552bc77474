"""Text formats without symmetry (P1): all atoms of the Niggli-reduced cells.

Shared parts: the cells to write, the crystals of the cells that were read (by symmetry search),
and the augmentation by order of atoms and origin.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import jax
import numpy as np

from crystaljax.crystal import AtomicCell, Crystals, wrapped
from crystaljax.symmetry.analysis import symmetrize
from crystaljax.symmetry.niggli import matrix_of, niggli_cells
from crystaljax.tokenizations.base import Decoded
from crystaljax.validity import check_apart, check_cell

REDUCED_ANGLES = 60, 120
"""Degrees: the angles of Niggli-reduced cells lie between these."""

TYPICAL_LENGTH = 10.0
"""Å: length of the cell that `rounding_tolerance` assumes."""


class P1Cell(NamedTuple):
    """All atoms of a cell, in the order of a text."""

    lattice: np.ndarray
    """float64 [6]: a, b, c in Å, α, β, γ in degrees."""
    frac: np.ndarray
    """float64 [N, 3]: fractional coordinates in [0, 1)."""
    species: np.ndarray
    """int [N]: atomic numbers."""


def reduced_cells(crystals: Crystals) -> list[P1Cell]:
    """The Niggli-reduced primitive cell of each of B crystals.

    ValueError naming the first that has none.
    """
    cells = niggli_cells(crystals)
    matrix = np.array([cell.matrix for cell in cells]).reshape(-1, 3, 3)
    lengths = np.linalg.norm(matrix, axis=-1)
    unit = matrix / lengths[..., None]
    cosines = (unit[:, [1, 2, 0]] * unit[:, [2, 0, 1]]).sum(-1)
    angles = np.clip(np.degrees(np.arccos(cosines)), *REDUCED_ANGLES)
    lattices = np.concatenate([lengths, angles], axis=1)
    return [P1Cell(x, cell.frac, cell.species) for x, cell in zip(lattices, cells, strict=True)]


def shuffled(cells: Sequence[P1Cell], step: float, rng: np.random.Generator) -> list[P1Cell]:
    """The same crystals with their atoms in random order and their origins at random places.

    Origins move by multiples of `step`, to which fractional coordinates are rounded. So rounding
    displaces the atoms relative to each other no more than without the shift.
    """
    moved = []
    for lattice, frac, species in cells:
        order = rng.permutation(len(species))
        origin = rng.integers(round(1 / step), size=3) * step
        moved.append(P1Cell(lattice, wrapped(frac[order] + origin), species[order]))
    return moved


def rounding_tolerance(coordinate: float, length: float, angle: float) -> float:
    """Å: largest displacement by rounding in a cell of 10 Å, as tolerance of the symmetry search.

    Lengths and angles change by up to half a step, and differences of coordinates by one step.

    Args:
      coordinate: of fractional coordinates.
      length: in Å.
      angle: in degrees.
    """
    return TYPICAL_LENGTH * (coordinate + float(np.deg2rad(angle)) / 2) + length / 2


def crystals_of(cells: Sequence[P1Cell | str], symprec: float) -> Decoded:
    """The crystals of B cells; in place of a cell there may be the reason that it is missing.

    Args:
      symprec: tolerance of the symmetry search in Å; atoms closer than this are an error.
    """
    checked = [_atoms(cell, symprec) for cell in cells]
    rows = [i for i, cell in enumerate(checked) if not isinstance(cell, str)]
    found, faults = symmetrize([c for c in checked if not isinstance(c, str)], symprec)
    reasons: list[str | None] = [cell if isinstance(cell, str) else None for cell in checked]
    for row, fault in zip(rows, faults, strict=True):
        reasons[row] = fault

    def placed(x: np.ndarray) -> np.ndarray:
        whole = np.zeros((len(cells), *x.shape[1:]), x.dtype)
        whole[rows] = x
        return whole

    ok = np.array([reason is None for reason in reasons], bool)
    return Decoded(jax.tree.map(placed, found), ok, reasons)


def _atoms(cell: P1Cell | str, symprec: float) -> AtomicCell | str:
    """Atoms in a cell, or the reason that there are none."""
    if isinstance(cell, str):
        return cell
    try:
        atoms = check_cell(AtomicCell(_matrix(cell.lattice), cell.frac, cell.species))
        check_apart(atoms, symprec)
        return atoms
    except ValueError as error:
        return str(error)


def _matrix(lattice: np.ndarray) -> np.ndarray:
    """Lattice vectors of a, b, c, α, β, γ [6]; ValueError if they are unphysical."""
    if not ((lattice > 0).all() and (lattice[3:] < 180).all()):
        raise ValueError("a cell length or angle out of range")
    cosines = np.cos(np.deg2rad(lattice[3:]))
    if not 1 - (cosines**2).sum() + 2 * cosines.prod() > 0:
        raise ValueError("the lattice parameters do not form a cell")
    return matrix_of(lattice)
