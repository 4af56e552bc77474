"""RMS displacement between structures as pymatgen's StructureMatcher defines it, on whole arrays.

`StructureMatcher.get_rms_dist` goes through the bases of the first lattice that are like the
second's and, in each, through the translations that bring one atom onto a like one; atoms are
assigned to each other by the least sum of squared distances, and the least RMS displacement (in
(V/N)^(1/3), its mean translation taken off) is the answer if it is below stol. Atoms outside a box
that stol sets are not assigned to each other; the box follows the axes of the LLL-reduced lattice.
Here all of these are computed at once. The box is looked at only where the assignment without it
has atoms so far apart that they may be outside; if such a superposition is the best, pymatgen
itself decides, since rounding may choose another reduced lattice.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np

from crystaljax.evaluation.rejection import (
    SLACK,
    MeanLattice,
    Reduced,
    Tolerances,
    like_bases,
    mean_lattice,
)

Structure = Any  # pymatgen's, imported only where used

FORBIDDEN = 1e6
"""Squared distance, in (V/N)^(2/3), of atoms that must not be assigned to each other."""

_HALF = (np.indices((3, 3, 3)).reshape(3, -1).T - 1)[14:]  # one of each two opposite neighbours
_CHUNK = 1 << 19  # distances between atoms and images computed at a time: some 20 MB


def rms_displacement(first: Reduced, second: Reduced, tolerances: Tolerances) -> float:
    """RMS displacement in (V/N)^(1/3) of two structures that match; nan if they do not.

    As `StructureMatcher(...).get_rms_dist(first, second)`: it matches if that is not None.
    """
    n = len(second.species)
    if not np.array_equal(np.sort(first.species), np.sort(second.species)):
        return np.nan
    limit = second.sorted_lengths * ((1 + tolerances.ltol) * (1 + SLACK))
    if (first.minima > limit).any():
        return np.nan
    bases = like_bases(first, second, tolerances)
    if bases is None:
        return plain_rms(first.structure, second.structure, tolerances)
    best, doubtful = tolerances.stol, np.inf
    lattice = mean_lattice(first, second, bases)
    edge = (lattice.volume / n) ** (1 / 3)
    matrix = lattice.matrix / edge[:, None, None]
    like = second.species[:, None] == first.species
    for basis, away in _candidates(first, second, bases, lattice, like, tolerances):
        vectors = _displacements(away, matrix[basis], like)
        squared = np.where(like, (vectors**2).sum(-1), FORBIDDEN)
        rms, farthest = _assign(vectors, squared)
        far = np.flatnonzero(farthest >= 2 * tolerances.stol)
        best = min(best, np.delete(rms, far).min(initial=np.inf))
        if len(far):
            inside = _in_box(away[far], basis[far], matrix, tolerances.stol)
            squared = np.where(inside, squared[far], FORBIDDEN)
            rms, farthest = _assign(vectors[far], squared)
            doubtful = min(doubtful, rms[farthest**2 < FORBIDDEN].min(initial=np.inf))
    if doubtful < best:
        return plain_rms(first.structure, second.structure, tolerances)
    return best if best < tolerances.stol else np.nan


def plain_rms(first: Structure, second: Structure, tolerances: Tolerances) -> float:
    """`StructureMatcher.get_rms_dist` of two structures; nan if they do not match."""
    from pymatgen.analysis.structure_matcher import StructureMatcher

    found = StructureMatcher(**tolerances._asdict()).get_rms_dist(first, second)
    return np.nan if found is None else float(found[0])


def _candidates(
    first: Reduced,
    second: Reduced,
    bases: np.ndarray,
    lattice: MeanLattice,
    like: np.ndarray,
    tolerances: Tolerances,
) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Bases int [C] and differences of fractional coordinates [C, N second, N first, 3].

    Of those superpositions, at most some at a time, in which every atom of the second structure
    has a like one of the first in the box that stol allows. `like` bool [N second, N first].
    """
    frac = first.frac @ np.linalg.inv(bases)  # [M, N, 3]
    box = lattice.box(len(like), tolerances.stol)[:, None, None]
    anchor = np.argmin(like.sum(1))
    moved = (second.frac - second.frac[anchor])[:, None]
    n_bases = max(1, _CHUNK // (len(_HALF) * like.size))
    for target in np.flatnonzero(like[anchor]):
        for start in range(0, len(bases), n_bases):
            part = slice(start, start + n_bases)
            away = (frac[part] - frac[part, target, None])[:, None] - moved
            away -= np.rint(away)
            near = (np.abs(away) <= box[part]).all(-1) & like
            kept = np.flatnonzero(near.any(axis=2).all(axis=1))
            if len(kept):
                yield start + kept, away[kept]


def _displacements(away: np.ndarray, matrix: np.ndarray, like: np.ndarray) -> np.ndarray:
    """Shortest vectors [C, N second, N first, 3] between like atoms; others are zero.

    `away` [C, N second, N first, 3] fractional, `matrix` [C, 3, 3] lattice vectors.
    """
    vectors = np.zeros(away.shape)
    vectors[:, like] = _shortest(away[:, like] @ matrix, matrix)
    return vectors


def _assign(vectors: np.ndarray, squared: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """RMS length [C] of displacements, less their mean vector, and the largest length [C] with it.

    Atoms are assigned to each other with the least sum of `squared` [C, N, N], the squared lengths
    of `vectors` [C, N, N, 3].
    """
    from scipy.optimize import linear_sum_assignment

    assigned = squared.argmin(-1)  # [C, N]
    for i in np.flatnonzero((np.sort(assigned, axis=1) != np.arange(squared.shape[1])).any(axis=1)):
        assigned[i] = linear_sum_assignment(squared[i])[1]
    chosen = np.take_along_axis(squared, assigned[..., None], axis=2)[..., 0]
    moved = np.take_along_axis(vectors, assigned[..., None, None], axis=2)[:, :, 0]
    variance = chosen.mean(axis=1) - (moved.mean(axis=1) ** 2).sum(-1)
    return np.sqrt(np.maximum(variance, 0)), np.sqrt(chosen.max(axis=1))


def _in_box(away: np.ndarray, basis: np.ndarray, matrix: np.ndarray, stol: float) -> np.ndarray:
    """Mask of pairs of atoms near enough to be assigned to each other: bool [C, N, N].

    `away` [C, N, N, 3] fractional in the bases [C], `matrix` [M, 3, 3] in (V/N)^(1/3). A pair is
    near enough if it is less than 2 stol apart along the normal of each face of the LLL-reduced
    cell, as `StructureMatcher._strict_match` has it.
    """
    from pymatgen.core import Lattice

    inside = np.empty(away.shape[:3], bool)
    for one in np.unique(basis):
        reduced = Lattice(matrix[one]).get_lll_reduced_lattice().matrix
        inverse = np.linalg.inv(reduced)
        rows = basis == one
        apart = away[rows] @ (matrix[one] @ inverse)
        apart -= np.rint(apart)
        inside[rows] = (np.abs(apart) <= 2 * stol * np.linalg.norm(inverse, axis=0)).all(-1)
    return inside


def _shortest(vectors: np.ndarray, matrix: np.ndarray) -> np.ndarray:
    """Vectors [C, L, 3] less the lattice vector that makes each shortest, of the next ones.

    Of an image and its opposite the one is nearer that lies in the vector's direction.
    """
    shifts = _HALF @ matrix  # [C, 13, 3]
    along = vectors @ np.swapaxes(shifts, 1, 2)
    gain = 2 * np.abs(along) - (shifts**2).sum(-1)[:, None]  # of squared length
    image = gain.argmax(-1)[..., None]
    step = np.sign(np.take_along_axis(along, image, -1))
    step *= np.take_along_axis(gain, image, -1) > 0
    return vectors - step * np.take_along_axis(shifts, image, 1)
