"""Atoms in a cell from the numbers in a file, and what must hold for them to be a crystal."""

from __future__ import annotations

from functools import cache
from typing import Any

import numpy as np

from crystaljax.composition import SYMBOLS
from crystaljax.crystal import AtomicCell, wrapped
from crystaljax.structures import MIN_VOLUME

COINCIDENCE = 1e-3
"""Å: atoms of a cell closer than this are one position listed twice, and the row is in error.
Atoms further apart are kept, however improbable they are: whether a crystal is valid is not for
readers to say."""

MAX_ATOMS = 5000
"""Larger cells are turned down: no part of crystaljax is made for them."""

MAX_LENGTH = 1e4
"""Å: longer lattice vectors are taken for a mistake."""

MAX_COORDINATE = 1e6
"""Fractional coordinates beyond this have lost the digits that say where the atom is."""


def atomic_cell(matrix: Any, frac: Any, species: Any) -> AtomicCell:
    """An AtomicCell of nested lists; an error where these are no numbers."""
    return AtomicCell(
        np.asarray(matrix, float), np.asarray(frac, float).reshape(-1, 3), np.asarray(species, int)
    )


def cartesian_cell(matrix: Any, positions: Any, species: Any) -> AtomicCell:
    """An AtomicCell of positions in Å; an error where these are no numbers or no unit cell."""
    matrix = np.asarray(matrix, float)
    check_lattice(matrix)
    frac = np.linalg.solve(matrix.T, np.asarray(positions, float).reshape(-1, 3).T).T
    return atomic_cell(matrix, frac, species)


def check_lattice(matrix: np.ndarray) -> None:
    """ValueError for lattice vectors that make no cell."""
    largest = float(np.abs(matrix).max()) if matrix.shape == (3, 3) else np.nan
    if not largest <= MAX_LENGTH:
        if np.isfinite(largest):
            raise ValueError(f"no plausible unit cell: lattice vectors of {largest:g} Å")
        raise ValueError("no unit cell: the lattice is not three finite vectors")
    if abs(np.linalg.det(matrix)) < MIN_VOLUME:
        raise ValueError(f"no unit cell: its volume is below {MIN_VOLUME} Å³")


def check(cell: AtomicCell) -> AtomicCell:
    """The same cell; ValueError for shapes, numbers or elements that make no crystal."""
    check_lattice(cell.matrix)
    if not len(cell.species):
        raise ValueError("no atoms")
    largest = float(np.abs(cell.frac).max(initial=0))
    if len(cell.frac) != len(cell.species) or not largest < np.inf:
        raise ValueError("atoms without a position")
    if largest > MAX_COORDINATE:
        raise ValueError(f"an atom {largest:g} cells away from the origin")
    if cell.species.min() < 1 or cell.species.max() > len(SYMBOLS):
        raise ValueError("an atom of no known element")
    require_few(len(cell.species))
    pairs = close_pairs(cell.frac, cell.matrix, COINCIDENCE)
    if len(pairs):
        first, second = pairs[0].tolist()
        raise ValueError(
            f"atoms {first} and {second} (counted from 0) are less than {COINCIDENCE} Å apart: a"
            " position is listed twice, or shared by several elements (a disordered site)"
        )
    return cell


def require_few(n_atoms: int) -> None:
    """ValueError if a cell announces more atoms than are read: ask before making room for them."""
    if not 0 <= n_atoms <= MAX_ATOMS:
        raise ValueError(f"{n_atoms} atoms in the cell, more than the {MAX_ATOMS} that are read")


def close_pairs(frac: np.ndarray, matrix: np.ndarray, distance: float) -> np.ndarray:
    """Pairs int [P, 2] of atoms [N, 3] of a periodic cell that are closer than `distance` Å."""
    near = _all_pairs(len(frac)) if len(frac) <= FEW_ATOMS else _near(frac, matrix, distance)
    offset = frac[near[:, 0]] - frac[near[:, 1]]
    offset -= np.round(offset)
    return near[((offset @ matrix) ** 2).sum(axis=1) < distance**2]


FEW_ATOMS = 64
"""Up to this many, comparing all pairs is faster than a tree."""


@cache
def _all_pairs(n: int) -> np.ndarray:
    return np.stack(np.triu_indices(n, 1), axis=1)


def _near(frac: np.ndarray, matrix: np.ndarray, distance: float) -> np.ndarray:
    """int [n, 2]: all pairs that may be within the distance, and some more."""
    from scipy.spatial import cKDTree

    # In units of the spacing of lattice planes, no coordinate changes by more than the distance.
    spacing = 1 / np.linalg.norm(np.linalg.inv(matrix), axis=0)
    tree = cKDTree(wrapped(frac) * spacing, boxsize=spacing)
    return tree.query_pairs(distance, p=np.inf, output_type="ndarray")
