"""From a batch of crystals to full cells that are physical enough for a potential."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import count
from typing import NamedTuple

import numpy as np

from crystaljax.crystal import AtomicCell, Crystals
from crystaljax.rewards.base import Reasons

MIN_DISTANCE = 0.5  # Å; the usual test of a valid structure (CDVAE, Xie et al. 2022)
MIN_VOLUME_PER_ATOM = 1.0  # Å³; the densest solids have about 5
MAX_VOLUME_PER_ATOM = 2000.0  # Å³; a mostly empty box
MAX_LENGTH = 150.0  # Å; longer cells would only fill memory with neighbour bins
MIN_HEIGHT = 0.5  # Å between opposite faces; flatter cells have thousands of images in reach


class UnphysicalError(ValueError):
    """A structure that no potential can take."""


class Screened(NamedTuple):
    """Those items of a batch that are physical enough to compute."""

    cells: list[AtomicCell]
    """Primitive cells of the items that passed."""
    rows: np.ndarray
    """int [n]: which items they are."""
    reasons: Reasons
    """[B]: why the others did not pass; None for those that did."""


def screen(
    crystals: Crystals | Sequence[AtomicCell], *, max_atoms: int, max_atomic_number: int
) -> Screened:
    """Full cells of a batch (primitive ones of `Crystals`), without the unphysical items.

    Left out, with a reason: no atoms or more than `max_atoms`, elements beyond
    `max_atomic_number`, cells that are not finite, nearly flat, too long, too dense or almost
    empty, and atoms closer than 0.5 Å (over all periodic images).
    """
    cells, reasons = _cells(crystals, max_atoms)
    for row, cell in enumerate(cells):
        if cell is not None and reasons[row] is None:
            reasons[row] = _content_problem(cell, max_atoms, max_atomic_number) or geometry_problem(
                cell
            )
    rows = np.array([row for row, reason in enumerate(reasons) if reason is None], np.int64)
    passed = [cell for row in rows if (cell := cells[row]) is not None]
    return Screened(passed, rows, reasons)


def _cells(
    crystals: Crystals | Sequence[AtomicCell], max_atoms: int
) -> tuple[list[AtomicCell | None], Reasons]:
    """One cell an item, or None and a reason where there is none within `max_atoms`."""
    if not isinstance(crystals, Crystals):
        return list(crystals), [None] * len(crystals)
    from crystaljax.symmetry import orbits

    n = len(crystals)
    cells: list[AtomicCell | None] = [None] * n
    if not n:
        return cells, []
    # Batch padded to 16, 32, 64, ... and cells to 32, 128, 512, ...: few shapes to compile for.
    padding = (1 << max(4, (n - 1).bit_length())) - n
    batch = crystals.to_numpy()[np.pad(np.arange(n), (0, padding), mode="edge")]
    n_atoms = np.asarray(orbits.n_atoms(batch, primitive=True))[:n]
    reasons: Reasons = [_size_problem(int(size), max_atoms) for size in n_atoms]
    largest = int(n_atoms[n_atoms <= max_atoms].max(initial=1))
    slots = next(size for k in count() if (size := 32 * 4**k) >= largest)
    full = orbits.expand(batch, slots, primitive=True).to_numpy()
    for row in np.flatnonzero([reason is None for reason in reasons]):
        atoms = slice(int(n_atoms[row]))
        cells[row] = AtomicCell(
            full.matrix[row].astype(np.float64),
            full.frac[row, atoms].astype(np.float64),
            full.species[row, atoms],
        )
    return cells, reasons


def _size_problem(n_atoms: int, max_atoms: int) -> str | None:
    if n_atoms < 1:
        return "no atoms"
    return f"{n_atoms} atoms, more than {max_atoms}" if n_atoms > max_atoms else None


def _content_problem(cell: AtomicCell, max_atoms: int, max_atomic_number: int) -> str | None:
    if problem := _size_problem(len(cell.species), max_atoms):
        return problem
    lowest, highest = int(np.min(cell.species)), int(np.max(cell.species))
    if lowest < 1 or highest > max_atomic_number:
        z = lowest if lowest < 1 else highest
        return f"the potential knows elements 1-{max_atomic_number}, not {z}"
    return None


def geometry_problem(cell: AtomicCell) -> str | None:
    """What makes the cell or the distances in it unphysical, or None."""
    if not (np.isfinite(cell.matrix).all() and np.isfinite(cell.frac).all()):
        return "the cell or the coordinates are not finite"
    return _shape_problem(cell.matrix, len(cell.species)) or _distance_problem(cell)


def _shape_problem(matrix: np.ndarray, n_atoms: int) -> str | None:
    longest = np.linalg.norm(matrix, axis=1).max()
    if longest > MAX_LENGTH:
        return f"a cell edge of {longest:.0f} Å is longer than {MAX_LENGTH:.0f} Å"
    faces = np.cross(matrix[[1, 2, 0]], matrix[[2, 0, 1]])
    volume = abs(float(matrix[0] @ faces[0]))
    per_atom = volume / n_atoms
    if per_atom < MIN_VOLUME_PER_ATOM or per_atom > MAX_VOLUME_PER_ATOM:
        return (
            f"{per_atom:.3g} Å³ per atom, outside"
            f" {MIN_VOLUME_PER_ATOM:.0f}-{MAX_VOLUME_PER_ATOM:.0f}"
        )
    height = volume / np.linalg.norm(faces, axis=1).max()
    return f"the cell is flat: {height:.2g} Å high" if height < MIN_HEIGHT else None


def _distance_problem(cell: AtomicCell) -> str | None:
    distances = neighbors(cell, MIN_DISTANCE).distance
    if not len(distances):
        return None
    return f"atoms {distances.min():.2f} Å apart, closer than {MIN_DISTANCE} Å"


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


def neighbors(cell: AtomicCell, cutoff: float) -> Neighbors:
    """All pairs of atoms up to `cutoff` Å apart, but no atom with itself."""
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
