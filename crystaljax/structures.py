"""The border to pymatgen: `Crystals` to `Structure` and back to atoms in a cell."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from crystaljax.composition import N_SPECIES
from crystaljax.crystal import AtomicCell, Crystals

if TYPE_CHECKING:
    from pymatgen.core import Structure

CHUNK = 512
"""Crystals expanded at a time."""

MIN_VOLUME = 0.1
"""Å³: the smallest unit cell taken for a real one."""


def to_structures(crystals: Crystals, primitive: bool = False) -> list[Structure | None]:
    """The conventional (or primitive) cell of each crystal as a pymatgen `Structure`.

    None for a row that is no crystal: no atoms, a site whose species is no element (1-118), or
    no unit cell.
    """
    from pymatgen.core import Element, Lattice, Structure

    from crystaljax.symmetry.orbits import expand, n_atoms

    batch = crystals.to_numpy()
    structures: list[Structure | None] = []
    for start in range(0, len(batch), CHUNK):
        rows = np.arange(start, min(start + CHUNK, len(batch)))
        # few shapes to compile
        padding = (64 if len(rows) <= 64 else CHUNK) - len(rows)
        chunk = batch[np.pad(rows, (0, padding), mode="edge")]
        counts = np.asarray(n_atoms(chunk, primitive=primitive))
        slots = 4 ** max(int(np.ceil(np.log2(counts.max(initial=1)) / 2)), 2)
        cells = expand(chunk, max_atoms=slots, primitive=primitive).to_numpy()
        for i in range(len(rows)):
            atoms = slice(int(counts[i]))
            frac, species, matrix = cells.frac[i, atoms], cells.species[i, atoms], cells.matrix[i]
            if not _is_crystal(frac, species, matrix):
                structures.append(None)
                continue
            elements = [Element.from_Z(z) for z in species.tolist()]
            structures.append(
                Structure(Lattice(matrix.astype(float)), elements, frac.astype(float))
            )
    return structures


def to_structure(cell: AtomicCell) -> Structure:
    """Atoms in a cell as a pymatgen structure."""
    from pymatgen.core import Element, Lattice, Structure

    elements = [Element.from_Z(z) for z in cell.species.tolist()]
    return Structure(Lattice(np.asarray(cell.matrix, float)), elements, cell.frac)


def from_structure(structure: Structure) -> AtomicCell:
    """A pymatgen structure as atoms in a cell; ValueError if a site is not one element."""
    for site in structure:
        if not site.is_ordered:
            raise ValueError(
                f"site {site.species_string} at {np.round(site.frac_coords, 4).tolist()} is "
                "shared or partly occupied: order the structure first"
            )
        if getattr(site.specie, "Z", 0) not in range(1, N_SPECIES):
            raise ValueError(f"site {site.species_string} is not an element")
    return AtomicCell(
        matrix=np.array(structure.lattice.matrix, float),
        frac=np.array(structure.frac_coords, float),
        species=np.array([site.specie.Z for site in structure], int),
    )


def _is_crystal(frac: np.ndarray, species: np.ndarray, matrix: np.ndarray) -> bool:
    """Whether a cell has atoms of known elements at finite places in a cell with a volume."""
    if not (np.isfinite(matrix).all() and np.isfinite(frac).all()):
        return False
    known = len(species) > 0 and species.min() > 0 and species.max() < N_SPECIES
    return bool(known and abs(np.linalg.det(matrix)) >= MIN_VOLUME)
