"""The border to pymatgen: `Crystals` to `Structure` and back to atoms in a cell."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING

import numpy as np

from crystaljax.composition import N_SPECIES
from crystaljax.crystal import MIN_VOLUME, AtomicCell, Crystals
from crystaljax.symmetry.tables import tables

if TYPE_CHECKING:
    from pymatgen.core import Structure

CHUNK = 512
"""Crystals expanded at a time."""

CHUNK_ELEMENTS = 1 << 27
"""Crystals times atoms times site slots expanded at a time: fewer crystals where some are large."""


def to_structures(crystals: Crystals, primitive: bool = False) -> list[Structure | None]:
    """The conventional (or primitive) cell of each crystal as a pymatgen `Structure`.

    None for a row that is no crystal: see `structures_of`.
    """
    return structures_of(to_cells(crystals, primitive))


def structures_of(cells: Iterable[AtomicCell]) -> list[Structure | None]:
    """Pymatgen structures of cells.

    None for one that is no crystal: no atoms, a site whose species is no element (1-118), or no
    unit cell.
    """
    return [to_structure(cell) if _is_crystal(*cell) else None for cell in cells]


def to_cells(crystals: Crystals, primitive: bool = False) -> Iterator[AtomicCell]:
    """The conventional (or primitive) cell of each crystal, all its atoms listed."""
    from crystaljax.symmetry.orbits import expand

    batch = crystals.to_numpy()
    counts = _n_atoms(batch, primitive)
    start = 0
    while start < len(batch):
        n = CHUNK
        while n > 1 and n * _slots(counts[start : start + n]) * batch.n_slots > CHUNK_ELEMENTS:
            n //= 8
        rows = np.arange(start, min(start + n, len(batch)))
        # few shapes to compile
        padding = (min(n, 64) if len(rows) <= 64 else n) - len(rows)
        chunk = batch[np.pad(rows, (0, padding), mode="edge")]
        cells = expand(chunk, max_atoms=_slots(counts[rows]), primitive=primitive).to_numpy()
        for i, row in enumerate(rows):
            atoms = slice(int(counts[row]))
            yield AtomicCell(cells.matrix[i], cells.frac[i, atoms], cells.species[i, atoms])
        start += len(rows)


def _n_atoms(batch: Crystals, primitive: bool) -> np.ndarray:
    """The same as `orbits.n_atoms`, on the host, without compilation for each batch size."""
    group = np.clip(batch.space_group, 1, 230)[:, None] - 1
    letter = np.clip(batch.wyckoff, 0, tables().multiplicity.shape[1] - 1)
    counts = tables().multiplicity[group, letter].astype(int).sum(axis=1)
    return counts // tables().n_centering[group[:, 0]] if primitive else counts


def _slots(counts: np.ndarray) -> int:
    """A power of four that the largest cell fits in."""
    return 4 ** max(int(np.ceil(np.log2(counts.max(initial=1)) / 2)), 2)


def to_structure(cell: AtomicCell) -> Structure:
    """Atoms in a cell as a pymatgen structure."""
    from pymatgen.core import Element, Lattice, Structure

    elements = [Element.from_Z(z) for z in cell.species.tolist()]
    return Structure(Lattice(np.asarray(cell.matrix, float)), elements, cell.frac.astype(float))


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


def _is_crystal(matrix: np.ndarray, frac: np.ndarray, species: np.ndarray) -> bool:
    """Whether a cell has atoms of known elements at finite places in a cell with a volume."""
    if not (np.isfinite(matrix).all() and np.isfinite(frac).all()):
        return False
    known = len(species) > 0 and species.min() > 0 and species.max() < N_SPECIES
    return bool(known and abs(np.linalg.det(matrix)) >= MIN_VOLUME)
