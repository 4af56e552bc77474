"""Conversion of atoms in a cell to `Crystals`: symmetry search and canonical representatives."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import NamedTuple

import moyopy
import numpy as np

from crystaljax.composition import SYMBOLS
from crystaljax.crystal import AtomicCell, Crystals
from crystaljax.symmetry.equivalence import canonicalize, standard_form
from crystaljax.symmetry.lattices import minkowski_reduce
from crystaljax.symmetry.orbits import FIXED_ANGLES, FREE_LATTICE, LENGTH_SOURCE
from crystaljax.symmetry.segments import first_smallest, ragged, snap
from crystaljax.symmetry.tables import letter_index, tables
from crystaljax.validity import search_problem

MAX_RESIDUAL = 1e-3
"""Largest fractional distance of an atom from its Wyckoff position."""


class _Found(NamedTuple):
    """Result of the symmetry search for one structure, in the standard setting."""

    number: int
    letters: list[int]
    species: list[int]
    points: list[list[float]]
    basis: list[list[float]]
    n_atoms: int


def symmetrize(
    cells: Sequence[AtomicCell], symprec: float = 0.01
) -> tuple[Crystals, list[str | None]]:
    """Canonical `Crystals` of B structures, and for each the reason that it failed, or None.

    `symprec`: tolerance of the symmetry search in Å (moyo's). Positions and lattice are those of
    the symmetrised structure. Structures for which the search would not end fail (see
    `search_problem`). Rows that failed are all zero. The number of site slots is that of the
    largest crystal. ValueError only for a `symprec` that is not positive.
    """
    if not symprec > 0:
        raise ValueError(f"symprec is a distance in Å and must be positive, not {symprec}")
    matrices = np.array([cell.matrix for cell in cells], float).reshape(-1, 3, 3)
    periods = np.linalg.norm(minkowski_reduce(matrices)[0], axis=-1)
    with _quiet_moyo():
        results = [
            _unfit(cell) or search_problem(cell, axes, symprec) or _search(cell, symprec)
            for cell, axes in zip(cells, periods, strict=True)
        ]
    reasons = [result if isinstance(result, str) else None for result in results]
    rows = [i for i, result in enumerate(results) if isinstance(result, _Found)]
    found = [result for result in results if isinstance(result, _Found)]
    n_slots = max((len(item.letters) for item in found), default=1)
    crystals = Crystals(
        np.zeros(len(cells), np.int32),
        np.zeros((len(cells), n_slots), np.int32),
        np.zeros((len(cells), n_slots), np.int32),
        np.zeros((len(cells), n_slots, 3), np.float32),
        np.zeros((len(cells), 6), np.float32),
    )
    if not found:
        return crystals, reasons
    row, slot = ragged(np.array([len(item.letters) for item in found]))
    group = np.array([item.number for item in found]) - 1
    letter = np.concatenate([item.letters for item in found])
    points = np.concatenate([item.points for item in found])
    representative, residual = _representatives(group[row], letter, points)
    row = np.array(rows)[row]
    crystals.space_group[rows] = group + 1
    crystals.wyckoff[row, slot] = letter
    crystals.species[row, slot] = np.concatenate([item.species for item in found])
    crystals.frac[row, slot] = representative
    crystals.lattice[rows] = _lattices(group, np.array([item.basis for item in found]))
    misfit = np.zeros(len(cells))
    np.maximum.at(misfit, row, residual)
    for i, item in zip(rows, found, strict=True):
        n_atoms = tables().multiplicity[item.number - 1, item.letters].sum()
        if misfit[i] > MAX_RESIDUAL or n_atoms != item.n_atoms:
            reasons[i] = f"atoms do not lie on their Wyckoff positions of group {item.number}"
    failed = np.array([reason is not None for reason in reasons])
    for field in (crystals.space_group, crystals.wyckoff, crystals.species):
        field[failed] = 0
    crystals.frac[failed] = crystals.lattice[failed] = 0
    return canonicalize(crystals), reasons


def _unfit(cell: AtomicCell) -> str | None:
    """The reason that the symmetry of a structure cannot be searched, or None."""
    species = np.asarray(cell.species)
    if not len(species):
        return "the structure has no atoms"
    if not (np.isfinite(cell.frac).all() and np.isfinite(cell.matrix).all()):
        return "a coordinate or lattice vector is not finite"
    known = ((species >= 1) & (species <= len(SYMBOLS))).all()
    return None if known else "an atom of no known element"


def _search(cell: AtomicCell, symprec: float) -> _Found | str:
    """The symmetry of one structure, or the reason that it was not found."""
    frac, matrix = np.asarray(cell.frac, float), np.asarray(cell.matrix, float)
    species = np.asarray(cell.species)
    try:
        dataset = moyopy.MoyoDataset(
            moyopy.Cell(matrix.tolist(), frac.tolist(), species.tolist()),
            symprec=symprec,
            setting=moyopy.Setting.standard(),
        )
    except Exception as error:  # noqa: BLE001 (one structure must not end the batch)
        return f"no symmetry found at symprec {symprec:g}: {error}"
    except BaseException as error:
        # a panic of the Rust code: its class derives from BaseException and is not importable
        if type(error).__name__ != "PanicException":
            raise
        return f"no symmetry found at symprec {symprec:g}: the search broke off ({error})"
    n_centering = int(tables().n_centering[dataset.number - 1])
    if not _same_content(matrix, species, dataset.std_cell, n_centering):
        return f"atoms coincide: at symprec {symprec:g} the symmetry search merges them"
    firsts = [atom for atom, orbit in enumerate(dataset.orbits) if atom == orbit]
    letters, mapping, standard = dataset.wyckoffs, dataset.mapping_std_prim, dataset.std_cell
    # the standard cell lists each atom of its primitive cell with its centring translates
    places = [mapping[atom] * n_centering for atom in firsts]
    positions, numbers = standard.positions, standard.numbers
    return _Found(
        dataset.number,
        [letter_index(letters[atom]) for atom in firsts],
        [numbers[place] for place in places],
        [positions[place] for place in places],
        standard.basis,
        len(numbers),
    )


def _same_content(
    matrix: np.ndarray, species: np.ndarray, standard: moyopy.Cell, n_centering: int
) -> bool:
    """Whether a standard cell has the same number of atoms of each element per volume."""
    ratio = abs(np.linalg.det(matrix) / np.linalg.det(standard.basis))
    n_primitive = round(ratio * n_centering)  # primitive cells in the cell
    before, after = (
        np.bincount(x, minlength=len(SYMBOLS) + 1) for x in (species, standard.numbers)
    )
    return np.array_equal(before * n_centering, after * n_primitive)


def _representatives(
    group: np.ndarray, letter: np.ndarray, points: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """A point of each orbit that has the form of the position's first operation.

    Takes any point [n, 3] of each orbit. Returns float32 [n, 3] in [0, 1), and [n] the distance of
    the point from that form (the largest difference of a fractional coordinate).
    """
    general = tables().n_letters[group]
    site, rank = ragged(tables().multiplicity[group, general])
    operation = tables().op_start[group, general][site] + rank
    first = tables().op_start[group, letter][site]
    images = _apply(operation, points[site])
    misfit = _apply(first, images) - images
    residual = np.abs(misfit - np.round(misfit)).max(axis=1)
    best = first_smallest(site, [residual])
    return standard_form(group, letter, snap(images[best])), residual[best]


def _apply(operation: np.ndarray, points: np.ndarray) -> np.ndarray:
    """Operations of the tables [n] on points [n, 3]."""
    rotated = (tables().rotation[operation] * points[:, None, :]).sum(-1)
    return rotated + tables().translation[operation]


def _lattices(group: np.ndarray, basis: np.ndarray) -> np.ndarray:
    """Lattice parameters [n, 6] (Å, degrees) of cells [n, 3, 3], exact for the crystal system."""
    system = tables().crystal_system[group]
    lengths = np.linalg.norm(basis, axis=-1)
    unit = basis / lengths[..., None]
    cosines = (unit[:, [1, 2, 0]] * unit[:, [2, 0, 1]]).sum(-1)
    angles = np.degrees(np.arccos(np.clip(cosines, -1, 1)))
    lengths = np.take_along_axis(lengths, LENGTH_SOURCE[system], axis=-1)
    angles = np.where(FREE_LATTICE[system, 3:], angles, FIXED_ANGLES[system])
    return np.concatenate([lengths, angles], axis=-1)


@contextmanager
def _quiet_moyo() -> Iterator[None]:
    """Silence moyo's warning about supercells: the search handles them."""
    logger = logging.getLogger("moyo")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        yield
    finally:
        logger.setLevel(level)
