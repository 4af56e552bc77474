"""Tests of crystals: possible at all, valid, and physical enough to compute.

Four questions, each with its own thresholds:

- `check_cell`: are the atoms in a cell that a file holds a crystal at all? Readers ask no more.
- `structure_valid`: is a generated crystal valid, as papers count it?
- `search_problem`: can its symmetry be searched?
- `shape_problem`, `overlap_problem`: can a potential take it?
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache

import jax
import jax.numpy as jnp
import numpy as np

from crystaljax.composition import SYMBOLS, covalent_radii
from crystaljax.crystal import MIN_VOLUME, Array, AtomicCell, Cells, Crystals, stack, wrapped
from crystaljax.symmetry.lattices import heights, minkowski_reduce

# Of a crystal at all: readers turn down what does not meet these and `MIN_VOLUME` (0.1 Å³; the
# limit of a valid structure in CDVAE, too), and nothing else.

MAX_VECTOR = 1e4
"""Å: longer lattice vectors are taken for a mistake."""

MAX_ATOMS = 5000
"""Larger cells are turned down: no part of crystaljax is made for them."""

MAX_COORDINATE = 1e6
"""Fractional coordinates beyond this have lost the digits that say where the atom is."""

SAME_POSITION = 1e-3
"""Å: atoms of a cell closer than this are one position listed twice, and the row is in error.
Atoms further apart are kept, however improbable they are: whether a crystal is valid is not for
readers to say."""

# Of a valid structure.

MIN_DISTANCE = 0.5
"""Å: atoms closer than this make a structure invalid (CDVAE, Xie et al., ICLR 2022), and are too
close for any potential."""

# Of a structure whose symmetry can be searched.

MIN_PERIOD = 1.0
"""Å: an atom and its translates are not closer than this in any crystal."""

MIN_PERIOD_TOLERANCES = 15
"""The shortest of the reduced axes is at least as many tolerances of the symmetry search, and the
longest times the tolerance at most the square of the shortest. Of 6,000 random cells that keep to
this none took the search (moyo 0.21) longer than 0.2 s; some beyond it had not ended after 40 s."""

MAX_CLOSE_PAIRS = 20
"""Pairs of atoms closer than the tolerance of the symmetry search: with 100 of them moyo takes
seconds and finds nothing, while it may keep a few apart."""

# Of a structure that a potential can take.

MIN_VOLUME_PER_ATOM = 1.0
"""Å³; the densest solids have about 5."""

MAX_VOLUME_PER_ATOM = 2000.0
"""Å³; a mostly empty box."""

MAX_LENGTH = 150.0
"""Å; longer cells would only fill memory with neighbour bins."""

MIN_HEIGHT = 0.5
"""Å between opposite faces; flatter cells have thousands of images in reach."""

NOT_FINITE = "the cell or the coordinates are not finite"

FEW_ATOMS = 64
"""Up to this many, comparing all pairs is faster than a tree."""

_PAIRS = 1 << 21  # pairs of atoms in one call: some 50 MB of intermediate arrays
_IMAGES = np.array([(i, j, k) for i in (0, -1, 1) for j in (0, -1, 1) for k in (0, -1, 1)])


def check_lattice(matrix: np.ndarray) -> None:
    """ValueError for lattice vectors that make no cell."""
    largest = float(np.abs(matrix).max()) if matrix.shape == (3, 3) else np.nan
    if not largest <= MAX_VECTOR:
        if np.isfinite(largest):
            raise ValueError(f"no plausible unit cell: lattice vectors of {largest:g} Å")
        raise ValueError("no unit cell: the lattice is not three finite vectors")
    if abs(np.linalg.det(matrix)) < MIN_VOLUME:
        raise ValueError(f"no unit cell: its volume is below {MIN_VOLUME} Å³")


def check_cell(cell: AtomicCell) -> AtomicCell:
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
    check_apart(cell, SAME_POSITION)
    return cell


def check_apart(cell: AtomicCell, distance: float) -> None:
    """ValueError if two atoms are closer than a distance in Å."""
    pairs = close_pairs(cell.frac, cell.matrix, distance)
    if len(pairs):
        first, second = pairs[0].tolist()
        raise ValueError(
            f"atoms {first} and {second} (counted from 0) are less than {distance:g} Å apart: a"
            " position is listed twice, or shared by several elements (a disordered site)"
        )


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
    crystals: Crystals,
    min_distance: float = MIN_DISTANCE,
    min_volume: float = MIN_VOLUME,
    cells: Sequence[AtomicCell] | None = None,
) -> np.ndarray:
    """Mask of crystals without atoms (or images) too close or a collapsed cell: bool [B].

    Thresholds in Å and Å³ (of the primitive cell) as in CDVAE, but an atom's own images count as
    atoms too, so that the choice of cell does not matter. `cells`: see `closest_distance`.
    """
    distance, volume = closest_distance(crystals, cells)
    return (distance >= min_distance) & (volume >= min_volume)  # nan compares as False


def closest_distance(
    crystals: Crystals, cells: Sequence[AtomicCell] | None = None
) -> tuple[np.ndarray, np.ndarray]:
    """Shortest distance between atoms, in Å, and the primitive cell's volume, in Å³.

    Both float64 [B], nan for rows that are no crystal. `cells` [B]: the crystals' primitive cells,
    if they have been made already (`structures.to_cells`).
    """
    from crystaljax.structures import to_cells

    distance = np.full(len(crystals), np.nan)
    volume = np.full(len(crystals), np.nan)
    rows = np.flatnonzero(is_crystal(crystals))
    cells = list(to_cells(crystals, primitive=True)) if cells is None else cells
    cells = [cells[row] for row in rows.tolist()]
    distance[rows] = shortest_distances(cells)
    volume[rows] = np.abs([np.linalg.det(cell.matrix) for cell in cells])
    return distance, volume


def apart_by_radii(cells: Sequence[AtomicCell | None]) -> np.ndarray:
    """Mask of cells whose atoms are farther apart than half the sum of their radii: bool [B].

    Covalent radii of Cordero et al., Dalton Trans. 2008, 2832; periodic images count. False for
    None. The structural validity of Hong et al.
    """
    valid = np.zeros(len(cells), bool)
    rows = [row for row, cell in enumerate(cells) if cell is not None]
    given = [cell for cell in cells if cell is not None]
    valid[rows] = shortest_distances(given, covalent_radii()) > 0.5
    return valid


def shortest_distances(cells: Sequence[AtomicCell], radii: np.ndarray | None = None) -> np.ndarray:
    """Shortest distance between two atoms of each cell, periodic images included: float64 [B].

    In Å; or relative to the sum of the two atoms' `radii` [119].
    """
    distance = np.full(len(cells), np.nan)
    atoms = np.array([len(cell.species) for cell in cells], int)
    sizes = 4 ** np.ceil(np.log2(np.maximum(atoms, 16)) / 2).astype(int)  # few to compile for
    for size in np.unique(sizes):
        group = np.flatnonzero(sizes == size)
        batch = max(1, min(32 if len(group) <= 32 else 256, _PAIRS // int(size) ** 2))
        for start in range(0, len(group), batch):
            part = group[start : start + batch]
            padded = np.resize(part, batch)  # repeats rows, so that every call has one shape
            full = stack([cells[row] for row in padded.tolist()], batch, int(size))
            distance[part] = min_distances(full, radii)[: len(part)]
    return distance


def min_distances(cells: Cells, radii: np.ndarray | None = None) -> np.ndarray:
    """Shortest distance between any two atoms, periodic images included: float64 [B], in Å.

    Relative to the sum of the two atoms' radii if `radii` [119] are given.

    Exact for every lattice: in a Minkowski-reduced cell the planes of each family are at least
    λ/sqrt(2) apart, λ the shortest lattice vector, so that images two or more cells from the
    nearest are at least 1.5 λ/sqrt(2) > λ away; and λ, the distance of an atom to its own
    image (of the largest one, with radii), is among the distances found. inf without atoms, nan
    for a cell that is not finite.
    """
    cells = cells.to_numpy()
    matrix, change = minkowski_reduce(cells.matrix)
    with np.errstate(invalid="ignore"):
        frac = np.asarray(cells.frac, np.float64) @ np.linalg.inv(change)
        frac = wrapped(frac.astype(np.float32))
    radius = np.full(cells.species.shape, 0.5) if radii is None else radii[cells.species]
    arrays = (frac, cells.mask, matrix.astype(np.float32), radius.astype(np.float32))
    return np.asarray(_min_distances(*arrays), np.float64)


@jax.jit
def _min_distances(
    frac_BxNx3: Array, mask_BxN: Array, matrix_Bx3x3: Array, radius_BxN: Array
) -> Array:
    n = frac_BxNx3.shape[1]
    delta = frac_BxNx3[:, :, None] - frac_BxNx3[:, None]
    delta = delta - jnp.round(delta)
    highest = jax.lax.Precision.HIGHEST
    delta = jnp.einsum("bijk,bkc->bijc", delta, matrix_Bx3x3, precision=highest)
    shifts = jnp.einsum("mk,bkc->mbc", jnp.float32(_IMAGES), matrix_Bx3x3, precision=highest)
    pairs = mask_BxN[:, :, None] & mask_BxN[:, None]
    apart = pairs & ~jnp.eye(n, dtype=bool)
    unit = jnp.where(pairs, radius_BxN[:, :, None] + radius_BxN[:, None], 1)

    def closest(image: Array, nearest: Array) -> Array:
        squares = ((delta + shifts[image][:, None, None]) ** 2).sum(-1) / unit**2
        squares = jnp.where(jnp.where(image == 0, apart, pairs), squares, jnp.inf)
        return jnp.minimum(nearest, squares.min(axis=(1, 2)))

    nearest = jnp.full(len(frac_BxNx3), jnp.inf)
    return jnp.sqrt(jax.lax.fori_loop(0, len(_IMAGES), closest, nearest))


def search_problem(cell: AtomicCell, periods: np.ndarray, symprec: float) -> str | None:
    """Reason that a search for the symmetry of a cell would fail or hardly end, or None.

    `periods` [3]: lengths of its reduced axes in Å. `symprec`: tolerance of the search in Å.
    """
    shortest, longest = periods.min(), periods.max()
    if shortest < max(MIN_PERIOD, MIN_PERIOD_TOLERANCES * symprec):
        return f"no plausible unit cell: a reduced axis of {shortest:.2g} Å"
    if longest * symprec > shortest**2:
        return f"no plausible unit cell: reduced axes of {shortest:.2g} to {longest:.3g} Å"
    pairs = close_pairs(np.asarray(cell.frac, float), np.asarray(cell.matrix, float), symprec)
    if len(pairs) <= MAX_CLOSE_PAIRS:
        return None
    return (
        f"{len(pairs)} pairs of atoms less than {symprec:g} Å apart, the tolerance of the symmetry"
        " search"
    )


def has_plausible_shape(matrix: Array, n_atoms: Array) -> Array:
    """Mask of cells without a `shape_problem`: bool [B].

    `matrix` [B, 3, 3] in Å, `n_atoms` int [B]; numpy or jax arrays.
    """
    xp = matrix.__array_namespace__()
    per_atom = xp.abs(xp.linalg.det(matrix)) / xp.maximum(n_atoms, 1)
    longest = xp.linalg.norm(matrix, axis=-1).max(-1)
    dense = (per_atom >= MIN_VOLUME_PER_ATOM) & (per_atom <= MAX_VOLUME_PER_ATOM)
    return dense & (longest <= MAX_LENGTH) & (heights(matrix).min(-1) >= MIN_HEIGHT)


def shape_problem(matrix: np.ndarray, n_atoms: int) -> str | None:
    """Reason that a potential cannot take a cell [3, 3] (Å) of n atoms for its shape, or None."""
    longest = np.linalg.norm(matrix, axis=1).max()
    if not np.isfinite(longest):
        return NOT_FINITE
    if longest > MAX_LENGTH:
        return f"a cell edge of {longest:.0f} Å is longer than {MAX_LENGTH:.0f} Å"
    per_atom = abs(float(np.linalg.det(matrix))) / n_atoms
    if per_atom < MIN_VOLUME_PER_ATOM or per_atom > MAX_VOLUME_PER_ATOM:
        return (
            f"{per_atom:.3g} Å³ per atom, outside"
            f" {MIN_VOLUME_PER_ATOM:.0f}-{MAX_VOLUME_PER_ATOM:.0f}"
        )
    height = heights(matrix).min()
    return f"the cell is flat: {height:.2g} Å high" if height < MIN_HEIGHT else None


def overlap_problem(closest: float) -> str | None:
    """Reason that a shortest distance in Å is unphysical, or None."""
    if closest >= MIN_DISTANCE:
        return None
    return f"atoms {closest:.2f} Å apart, closer than {MIN_DISTANCE} Å"
