"""RMS displacement between structures as pymatgen's StructureMatcher defines it, on whole arrays.

`StructureMatcher.get_rms_dist` goes through the bases of the first lattice that are like the
second's and, in each, through the translations that bring one atom onto a like one; atoms are
assigned to each other by the least sum of squared distances, and the least RMS displacement (in
(V/N)^(1/3), its mean translation taken off) is the answer if it is below stol. Here all of these
are computed at once; the few pairs for which pymatgen's rounding of far atoms could decide are
given to pymatgen.
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

UNLIKE = 1e6
"""Squared distance of atoms of different elements, in a lattice of about volume 1."""

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
    matrix, edge = lattice.matrix, (lattice.volume / n) ** (1 / 3)
    like = second.species[:, None] == first.species
    for basis, away in _candidates(first, second, bases, lattice, like, tolerances):
        vectors = _displacements(away, matrix[basis], like) / edge[basis, None, None]
        squared = (vectors**2).sum(-1)
        drift = (vectors.mean(axis=1) ** 2).sum(-1)
        rms = np.sqrt(np.maximum(squared.mean(axis=1) - drift, 0))
        near = (squared < (2 * tolerances.stol) ** 2).all(axis=1)
        best = min(best, rms[near].min(initial=np.inf))
        doubtful = min(doubtful, rms[~near].min(initial=np.inf))
    if doubtful < best:  # pymatgen may refuse atoms so far apart, depending on the basis
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
    """Vectors [C, N, 3] from atoms of the second structure to those assigned to them.

    `away` [C, N second, N first, 3] fractional, `matrix` [C, 3, 3] lattice vectors. The assignment
    has the least sum of squared distances between like atoms.
    """
    from scipy.optimize import linear_sum_assignment

    n = len(like)
    vectors = _shortest(away[:, like] @ matrix, matrix)
    squared = np.full(away.shape[:3], UNLIKE)
    squared[:, like] = (vectors**2).sum(-1)
    assigned = squared.argmin(-1)  # [C, N]
    for row in np.flatnonzero((np.sort(assigned, axis=1) != np.arange(n)).any(axis=1)):
        assigned[row] = linear_sum_assignment(squared[row])[1]
    place = np.zeros(like.shape, int)  # of a pair among the like ones
    place[like] = np.arange(like.sum())
    return np.take_along_axis(vectors, place[np.arange(n), assigned][..., None], axis=1)


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
