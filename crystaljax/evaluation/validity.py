"""Tests for physically possible crystals: distances and volume, and charge balance."""

from __future__ import annotations

from functools import lru_cache, partial
from importlib.metadata import version
from typing import Literal, get_args

import jax
import jax.numpy as jnp
import numpy as np

from crystaljax.composition import formulas
from crystaljax.crystal import Array, Cells, Crystals, wrapped
from crystaljax.evaluation.lattices import minkowski_reduce

MIN_DISTANCE = 0.5
"""Å: atoms closer than this make a structure invalid (CDVAE, Xie et al., ICLR 2022)."""
MIN_VOLUME = 0.1
"""Å³: a smaller cell makes a structure invalid (CDVAE)."""

OxidationTable = Literal["smact14", "icsd24"]
"""SMACT's oxidation states: its 2014 list, which published validities used, or its newer default
(the ICSD's of 2024, filtered)."""

_PAIRS = 1 << 21  # pairs of atoms in one call: some 50 MB of intermediate arrays
_IMAGES = np.array([(i, j, k) for i in (0, -1, 1) for j in (0, -1, 1) for k in (0, -1, 1)])


def is_crystal(crystals: Crystals) -> np.ndarray:
    """Mask of rows that describe a crystal at all: bool [B].

    A space group, sites whose letters exist in it, finite coordinates, and a lattice of finite
    lengths and possible angles. Rows that failed to decode are all zero, and none.
    """
    from crystaljax.symmetry.orbits import lattice_matrix
    from crystaljax.symmetry.tables import tables

    crystals = crystals.to_numpy()
    multiplicity = tables().multiplicity
    group, letter = crystals.space_group, crystals.wyckoff
    known = (group >= 1) & (group <= len(multiplicity))
    in_table = (letter >= 0) & (letter < multiplicity.shape[1])
    rows = np.where(known, group - 1, 0)[:, None]
    exists = in_table & (multiplicity[rows, np.where(in_table, letter, 0)] > 0)
    element = (crystals.species >= 1) & (crystals.species <= 118)
    good = np.where(letter == 0, crystals.species == 0, exists & element).all(axis=1)
    matrix = np.asarray(lattice_matrix(crystals.lattice), np.float64)
    finite = np.isfinite(crystals.frac).all(axis=(1, 2)) & np.isfinite(matrix).all(axis=(1, 2))
    finite &= (crystals.lattice > 0).all(axis=1)
    finite &= np.linalg.det(np.where(finite[:, None, None], matrix, 0)) > 0
    return known & good & finite & (crystals.n_sites > 0)


def structure_valid(
    crystals: Crystals, min_distance: float = MIN_DISTANCE, min_volume: float = MIN_VOLUME
) -> np.ndarray:
    """Mask of crystals without atoms (or images) too close or a collapsed cell: bool [B].

    Thresholds in Å and Å³ (of the primitive cell) as in CDVAE, but an atom's own images count as
    atoms too, so that the choice of cell does not matter.
    """
    distance, volume = closest_distance(crystals)
    return (distance >= min_distance) & (volume >= min_volume)  # nan compares as False


def closest_distance(crystals: Crystals) -> tuple[np.ndarray, np.ndarray]:
    """Shortest distance between atoms, in Å, and the primitive cell's volume, in Å³.

    Both float64 [B], nan for rows that are no crystal.
    """
    from crystaljax.symmetry.orbits import expand, n_atoms

    crystals = crystals.to_numpy()
    distance = np.full(len(crystals), np.nan)
    volume = np.full(len(crystals), np.nan)
    rows = np.flatnonzero(is_crystal(crystals))
    if not len(rows):
        return distance, volume
    atoms = np.asarray(n_atoms(crystals, primitive=True))[rows]
    sizes = 4 ** np.ceil(np.log2(np.maximum(atoms, 16)) / 2).astype(int)  # few to compile for
    for size in np.unique(sizes):
        group = rows[sizes == size]
        batch = max(1, min(32 if len(group) <= 32 else 256, _PAIRS // int(size) ** 2))
        for start in range(0, len(group), batch):
            part = group[start : start + batch]
            padded = np.resize(part, batch)  # repeats rows, so that every call has one shape
            cells = expand(crystals[padded], max_atoms=int(size), primitive=True).to_numpy()
            distance[part] = min_distances(cells)[: len(part)]
            volume[part] = np.abs(np.linalg.det(cells.matrix.astype(np.float64)))[: len(part)]
    return distance, volume


def min_distances(cells: Cells) -> np.ndarray:
    """Shortest distance between any two atoms, periodic images included: float64 [B], in Å.

    Exact for every lattice: in a Minkowski-reduced cell the planes of each family are at least
    λ/sqrt(2) apart, λ the shortest lattice vector, so that images two or more cells from the
    nearest are at least 1.5 λ/sqrt(2) > λ away; and λ, the distance of an atom to its own
    image, is among the distances found. inf without atoms, nan for a cell that is not finite.
    """
    cells = cells.to_numpy()
    matrix, change = minkowski_reduce(cells.matrix)
    with np.errstate(invalid="ignore"):
        frac = np.asarray(cells.frac, np.float64) @ np.linalg.inv(change)
        frac = wrapped(frac.astype(np.float32))
    arrays = (frac, cells.mask, matrix.astype(np.float32))
    return np.asarray(_min_distances(*arrays), np.float64)


@jax.jit
def _min_distances(frac_BxNx3: Array, mask_BxN: Array, matrix_Bx3x3: Array) -> Array:
    n = frac_BxNx3.shape[1]
    delta = frac_BxNx3[:, :, None] - frac_BxNx3[:, None]
    delta = delta - jnp.round(delta)
    highest = jax.lax.Precision.HIGHEST
    delta = jnp.einsum("bijk,bkc->bijc", delta, matrix_Bx3x3, precision=highest)
    shifts = jnp.einsum("mk,bkc->mbc", jnp.float32(_IMAGES), matrix_Bx3x3, precision=highest)
    pairs = mask_BxN[:, :, None] & mask_BxN[:, None]
    apart = pairs & ~jnp.eye(n, dtype=bool)

    def closest(image: Array, nearest: Array) -> Array:
        squares = ((delta + shifts[image][:, None, None]) ** 2).sum(-1)
        squares = jnp.where(jnp.where(image == 0, apart, pairs), squares, jnp.inf)
        return jnp.minimum(nearest, squares.min(axis=(1, 2)))

    nearest = jnp.full(len(frac_BxNx3), jnp.inf)
    return jnp.sqrt(jax.lax.fori_loop(0, len(_IMAGES), closest, nearest))


def composition_valid(crystals: Crystals, table: OxidationTable = "smact14") -> np.ndarray:
    """Mask of compositions that pass SMACT's test: bool [B]; no atoms fail.

    Elements and alloys of metals pass; others need oxidation states of `table` that balance and
    agree with the electronegativities. Each formula is tested once in a process.
    D. W. Davies et al., JOSS 4 (2019), 1361. ValueError for an unknown table.
    """
    if table not in get_args(OxidationTable):
        raise ValueError(f"no table {table!r} of oxidation states: use smact14 or icsd24")
    return np.array(
        [bool(name) and formula_valid(name, table) for name in formulas(crystals)], bool
    )


def smact_description(table: OxidationTable) -> str:
    """Note on the compositional test for tables of results."""
    return f"SMACT {version('smact')}, oxidation states {table}"


@lru_cache(maxsize=1 << 18)
def formula_valid(formula: str, table: OxidationTable, alloys: bool = True) -> bool:
    """SMACT's verdict on a reduced formula; False where it knows nothing of an element.

    `alloys`: whether alloys of metals pass without oxidation states.
    """
    from smact.screening import smact_validity

    test = partial(smact_validity, use_pauling_test=True, include_alloys=alloys)
    try:
        # None is SMACT's own default: its list of 2024 with its default filter.
        return bool(test(formula, oxidation_states_set=None if table == "icsd24" else table))
    except (KeyError, NameError, TypeError, ValueError):
        return False
