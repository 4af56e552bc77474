"""Full cells of a batch of crystals, without those too unphysical for a potential."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import count
from typing import NamedTuple

import numpy as np

from crystaljax.composition import SYMBOLS
from crystaljax.crystal import AtomicCell, Cells, Crystals, stack
from crystaljax.rewards.base import Reasons
from crystaljax.validity import NOT_FINITE, overlap_problem, shape_problem

SEARCH_DISTANCE = 2.0  # Å; a shorter one makes the search for close atoms slower


class Screened(NamedTuple):
    """Items of a batch that are physical enough to compute."""

    cells: list[AtomicCell]
    """Primitive cells of the items that passed."""
    rows: np.ndarray
    """int [n]: numbers of these items in the batch."""
    reasons: Reasons
    """[B]: reason that an item did not pass; None if it did."""


def screen(
    crystals: Crystals | Sequence[AtomicCell], *, max_atoms: int, elements: np.ndarray
) -> Screened:
    """Full cells of a batch (primitive ones of `Crystals`), without the unphysical items.

    Left out, with a reason: no atoms or more than `max_atoms`, elements that are not among
    `elements` (atomic numbers), cells that are not finite, nearly flat, too long, too dense or
    almost empty, and atoms closer than 0.5 Å (over all periodic images).
    """
    cells, reasons = primitive_cells(crystals, max_atoms)
    for row, cell in enumerate(cells):
        if cell is not None and reasons[row] is None:
            reasons[row] = _content_problem(cell, max_atoms, elements) or geometry_problem(cell)
    rows = np.array([row for row, reason in enumerate(reasons) if reason is None], np.int64)
    passed = [cell for row in rows if (cell := cells[row]) is not None]
    return Screened(passed, rows, reasons)


def primitive_cells(
    crystals: Crystals | Sequence[AtomicCell], max_atoms: int
) -> tuple[list[AtomicCell | None], Reasons]:
    """One cell per item, or None and a reason if it has more than `max_atoms` atoms.

    Primitive cells of `Crystals`; cells that are given are taken as they are.
    """
    if not isinstance(crystals, Crystals):
        return list(crystals), [None] * len(crystals)
    cells: list[AtomicCell | None] = [None] * len(crystals)
    full, n_atoms = _expand(crystals, max_atoms)
    full = full.to_numpy()
    reasons: Reasons = [_size_problem(int(size), max_atoms) for size in n_atoms]
    for row in np.flatnonzero([reason is None for reason in reasons]):
        atoms = slice(int(n_atoms[row]))
        cells[row] = AtomicCell(
            full.matrix[row].astype(np.float64),
            full.frac[row, atoms].astype(np.float64),
            full.species[row, atoms],
        )
    return cells, reasons


def stack_cells(
    crystals: Crystals | Sequence[AtomicCell], *, max_atoms: int, elements: np.ndarray
) -> tuple[Cells, Reasons]:
    """The cells of B items as arrays, and reasons for those that a potential cannot take.

    `elements` int: atomic numbers that the potential knows. Reasons are those of `screen`, except
    for distances of atoms. Cells beyond the B items (padding) and of items with a reason are
    meaningless.
    """
    if isinstance(crystals, Crystals):
        cells, n_atoms = _expand(crystals, max_atoms)
    else:
        n_atoms = np.array([len(cell.species) for cell in crystals], int)
        double = stack(crystals, rows_for(len(crystals)), _slots(n_atoms, max_atoms))
        cells = Cells(
            double.frac.astype(np.float32), double.species, double.matrix.astype(np.float32)
        )
    host = cells.to_numpy()
    unknown = ~np.isin(host.species, [0, *elements])
    matrix = host.matrix[: len(n_atoms)].astype(np.float64)
    finite = np.isfinite(host.matrix).all((1, 2)) & np.isfinite(host.frac).all((1, 2))
    reasons: Reasons = [_size_problem(int(size), max_atoms) for size in n_atoms]
    for row in range(len(reasons)):
        if reasons[row] is not None:
            continue
        if unknown[row].any():
            z = int(host.species[row][unknown[row]][0])
            reasons[row] = _untrained(z)
        elif not finite[row]:
            reasons[row] = NOT_FINITE
        else:
            reasons[row] = shape_problem(matrix[row], int(n_atoms[row]))
    return cells, reasons


def _expand(crystals: Crystals, max_atoms: int) -> tuple[Cells, np.ndarray]:
    """Primitive cells of the padded batch, on the device, and numbers of atoms of its B crystals.

    The batch is padded to 16, 32, 64, ... and the cells' slots are 32, 128, 512, ...: few shapes
    to compile for.
    """
    from crystaljax.symmetry import orbits

    n = len(crystals)
    batch = crystals.padded(rows_for(n))
    n_atoms = np.asarray(orbits.n_atoms(batch, primitive=True))[:n]
    return orbits.expand(batch, _slots(n_atoms, max_atoms), primitive=True), n_atoms


def rows_for(n: int) -> int:
    """The smallest of 16, 32, 64, ... that is at least n."""
    return 1 << max(4, (n - 1).bit_length())


def _slots(n_atoms: np.ndarray, max_atoms: int) -> int:
    """`slots_for` the largest cell that has at most `max_atoms` atoms."""
    return slots_for(int(n_atoms[n_atoms <= max_atoms].max(initial=1)))


def slots_for(n_atoms: int) -> int:
    """The smallest of 32, 128, 512, ... that is at least n atoms."""
    return next(size for k in count() if (size := 32 * 4**k) >= n_atoms)


def _size_problem(n_atoms: int, max_atoms: int) -> str | None:
    if n_atoms < 1:
        return "no atoms"
    return f"{n_atoms} atoms, more than {max_atoms}" if n_atoms > max_atoms else None


def _content_problem(cell: AtomicCell, max_atoms: int, elements: np.ndarray) -> str | None:
    if problem := _size_problem(len(cell.species), max_atoms):
        return problem
    unknown = cell.species[~np.isin(cell.species, elements)]
    return _untrained(int(unknown[0])) if len(unknown) else None


def _untrained(z: int) -> str:
    name = SYMBOLS[z - 1] if 1 <= z <= len(SYMBOLS) else f"element {z}"
    return f"the potential was not trained on {name}"


def geometry_problem(cell: AtomicCell) -> str | None:
    """Reason that the cell or a distance in it is unphysical, or None."""
    if not np.isfinite(cell.frac).all():
        return NOT_FINITE
    return shape_problem(cell.matrix, len(cell.species)) or overlap_problem(
        neighbors(cell, SEARCH_DISTANCE).closest
    )


class Neighbors(NamedTuple):
    """Directed pairs of atoms within a cutoff, periodic images included."""

    center: np.ndarray
    """int64 [E]"""
    neighbor: np.ndarray
    """int64 [E]"""
    image: np.ndarray
    """int64 [E, 3]: the lattice translation of the neighbour."""
    distance: np.ndarray
    """float64 [E]: Å."""

    @property
    def closest(self) -> float:
        """Shortest distance in Å; inf where there is no pair."""
        return float(self.distance.min(initial=np.inf))


def neighbors(cell: AtomicCell, cutoff: float) -> Neighbors:
    """All pairs of atoms up to `cutoff` Å apart, except an atom with itself."""
    from pymatgen.optimization.neighbors import find_points_in_spheres

    matrix = np.ascontiguousarray(cell.matrix, np.float64)
    positions = np.ascontiguousarray(cell.frac @ matrix)
    periodic = np.ones(3, np.int64)
    center, neighbor, image, distance = find_points_in_spheres(
        positions, positions, r=float(cutoff), pbc=periodic, lattice=matrix, tol=1e-8
    )
    image = image.astype(np.int64)
    other = (center != neighbor) | image.any(axis=1)
    return Neighbors(center[other], neighbor[other], image[other], distance[other])
