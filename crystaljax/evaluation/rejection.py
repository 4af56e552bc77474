"""Cheap and exact rejection of pairs that pymatgen's StructureMatcher would not match.

Without supercells, StructureMatcher looks for bases of the first lattice with about the lengths
and angles of the second's, and in each for a translation that brings every atom of the second
structure near one of the first. The same tests are made here on whole arrays, with tolerances
wider by rounding errors: a pair turned down here is turned down there. Nearly all pairs of
different crystals are, at a tenth of the time or less.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import Any, NamedTuple

import numpy as np

Structure = Any  # pymatgen's, imported only where used


class Tolerances(NamedTuple):
    """StructureMatcher's tolerances; the defaults are its own."""

    ltol: float = 0.2
    """Relative difference of lengths."""
    stol: float = 0.3
    """Distance of sites, in (V/N)^(1/3)."""
    angle_tol: float = 5.0
    """Degrees."""

    def __str__(self) -> str:
        return f"stol {self.stol:g}, ltol {self.ltol:g}, angle_tol {self.angle_tol:g}°"


DEFAULT = Tolerances()

SLACK = 1e-6
"""Relative increase of tolerances over the matcher's, far above rounding errors."""

_REACH = 3
_POINTS = np.indices(3 * (2 * _REACH + 1,)).reshape(3, -1).T - _REACH
_POINTS = _POINTS[np.abs(_POINTS).sum(1) > 0]


class LatticeVectors(NamedTuple):
    """Lattice vectors with coefficients up to 3, shortest first, of a cell of volume 1."""

    points: np.ndarray
    """int [K, 3]: coefficients."""
    directions: np.ndarray
    """float64 [K, 3]: unit vectors."""
    lengths: np.ndarray
    """float64 [K]"""


@dataclass(frozen=True)
class Reduced:
    """A primitive, Niggli-reduced structure of N atoms, as StructureMatcher compares it."""

    structure: Structure
    minima: np.ndarray
    """[3] successive minima of its lattice, at volume 1."""

    @cached_property
    def order(self) -> tuple[float, ...]:
        """Key that sorts structures, whatever set they are in."""
        lattice = self.structure.lattice
        return (lattice.volume, *lattice.abc, *lattice.angles, *self.frac.ravel())

    @cached_property
    def matrix(self) -> np.ndarray:
        """[3, 3] lattice vectors, scaled to a volume of 1."""
        return np.asarray(self.structure.lattice.matrix) * self.structure.volume ** (-1 / 3)

    @cached_property
    def lengths(self) -> np.ndarray:
        """[3] lengths of the lattice vectors, at volume 1."""
        return np.linalg.norm(self.matrix, axis=1)

    @cached_property
    def sorted_lengths(self) -> np.ndarray:
        """[3] the same, ascending."""
        return np.sort(self.lengths)

    @cached_property
    def angles(self) -> np.ndarray:
        """[3] α, β, γ in degrees."""
        return np.array(self.structure.lattice.angles)

    @cached_property
    def reach(self) -> float:
        """Length up to which all lattice vectors are among `vectors`."""
        planes = 1 / np.linalg.norm(np.linalg.inv(self.matrix), axis=0)
        return float((_REACH + 1) * planes.min())

    @cached_property
    def vectors(self) -> LatticeVectors:
        """The shorter lattice vectors."""
        cart = _POINTS @ self.matrix
        lengths = np.linalg.norm(cart, axis=1)
        order = np.argsort(lengths, kind="stable")
        order = order[lengths[order] < self.reach]
        lengths = lengths[order]
        return LatticeVectors(_POINTS[order], cart[order] / lengths[:, None], lengths)

    @cached_property
    def frac(self) -> np.ndarray:
        """[N, 3] fractional coordinates."""
        return np.asarray(self.structure.frac_coords)

    @cached_property
    def species(self) -> np.ndarray:
        """[N] atomic numbers."""
        return np.array([site.specie.Z for site in self.structure])


class Pool:
    """Structures of one reduced formula, by row, to find those that a sample may match."""

    def __init__(self, capacity: int) -> None:
        self.rows: list[int] = []
        self.items: list[Reduced] = []
        self._minima = np.empty((capacity, 3))
        self._sizes = np.empty(capacity, int)

    def add(self, row: int, item: Reduced) -> None:
        """One more structure; no more than the capacity."""
        n = len(self.rows)
        self._minima[n], self._sizes[n] = item.minima, len(item.structure)
        self.rows.append(row)
        self.items.append(item)

    def candidates(self, sample: Reduced) -> Iterator[tuple[int, Reduced]]:
        """Rows and structures, in order, that `StructureMatcher().fit(item, sample)` may match.

        It needs equal numbers of atoms, and three vectors of the item's lattice at most 1 + ltol
        times as long as the sample's; sorted, they are no shorter than the successive minima.
        """
        n = len(self.rows)
        fits = self._sizes[:n] == len(sample.structure)
        limit = sample.sorted_lengths * ((1 + DEFAULT.ltol) * (1 + SLACK))
        fits &= (self._minima[:n] <= limit).all(axis=1)
        for i in np.flatnonzero(fits):
            if may_match(self.items[i], sample):
                yield self.rows[i], self.items[i]


def may_match(first: Reduced, second: Reduced) -> bool:
    """False only where `StructureMatcher().fit(first, second)` is sure to be False.

    Both have the same reduced formula and the same number of atoms.
    """
    bases = like_bases(first, second)
    if bases is None:
        return True
    return len(bases) > 0 and _sites_may_match(first, second, bases)


def like_bases(
    first: Reduced, second: Reduced, tolerances: Tolerances = DEFAULT
) -> np.ndarray | None:
    """Bases [M, 3, 3] of the first lattice, as coefficients, that are like the second's.

    None if some of the vectors that they may need are not among `Reduced.vectors`.
    """
    points, directions, lengths = first.vectors
    factor = (1 + tolerances.ltol) * (1 + SLACK)
    if second.lengths.max() * factor >= first.reach:
        return None
    a, b, c = (
        np.arange(*np.searchsorted(lengths, [length / factor, length * factor]))
        for length in second.lengths
    )
    if not (len(a) and len(b) and len(c)):
        return np.empty((0, 3, 3), int)
    alpha, beta, gamma = second.angles
    tolerance = tolerances.angle_tol * (1 + SLACK)
    ab = _angle_fits(directions[a], directions[b], gamma, tolerance)
    if not ab.any():
        return np.empty((0, 3, 3), int)
    bc = _angle_fits(directions[b], directions[c], alpha, tolerance)
    ac = _angle_fits(directions[a], directions[c], beta, tolerance)
    i, j, k = np.nonzero(ab[:, :, None] & bc[None] & ac[:, None])
    bases = points[np.stack([a[i], b[j], c[k]], axis=1)]
    return bases[np.abs(np.abs(np.linalg.det(bases)) - 1) < 0.5]


def _angle_fits(x: np.ndarray, y: np.ndarray, angle: float, tolerance: float) -> np.ndarray:
    """Mask of pairs of unit vectors [n, 3], [m, 3] at about an angle (degrees): bool [n, m]."""
    low, high = np.cos(np.radians([min(angle + tolerance, 180), max(angle - tolerance, 0)]))
    cosine = x @ y.T
    return (cosine >= low - SLACK) & (cosine <= high + SLACK)


def _sites_may_match(first: Reduced, second: Reduced, bases: np.ndarray) -> bool:
    """Whether in one of the bases some translation brings all atoms near like ones.

    As `StructureMatcher._strict_match`: the first atom of the second structure's rarest element is
    moved onto each like atom of the first, and then every atom has to have a like one within a
    box that `stol` sets, in the lattice of mean lengths and angles.
    """
    frac = first.frac @ np.linalg.inv(bases)  # [M, N, 3]
    box = _box(first, second, bases)[:, None, None]
    like = second.species[:, None] == first.species
    anchor = np.argmin(like.sum(1))
    moved = (second.frac - second.frac[anchor])[:, None]
    for target in np.flatnonzero(like[anchor]):
        away = (frac - frac[:, target, None])[:, None] - moved  # [M, N second, N first, 3]
        near = (np.abs(away - np.rint(away)) <= box).all(-1) & like
        if near.any(axis=2).all(axis=1).any():
            return True
    return False


def _box(first: Reduced, second: Reduced, bases: np.ndarray) -> np.ndarray:
    """Largest differences of fractional coordinates along each axis: [M, 3]."""
    lattice = mean_lattice(first, second, bases)
    return lattice.box(len(second.frac), DEFAULT.stol * (1 + SLACK)) + SLACK


class MeanLattice(NamedTuple):
    """Lattices of the mean lengths and angles of two, in which StructureMatcher compares sites."""

    lengths: np.ndarray
    """[M, 3]"""
    angles: np.ndarray
    """[M, 3] radians."""
    volume: np.ndarray
    """[M]"""

    def box(self, n_atoms: int, stol: float) -> np.ndarray:
        """Differences of fractional coordinates [M, 3] that stol, in (V/N)^(1/3), allows."""
        shape = self.volume / self.lengths.prod(1)
        planes = self.lengths * shape[:, None] / np.sin(self.angles)
        edge = (self.volume / n_atoms) ** (1 / 3)
        return 2 * stol * edge[:, None] / planes

    @property
    def matrix(self) -> np.ndarray:
        """Lattice vectors [M, 3, 3], one a row: c along z, a in the plane of x and z."""
        cos, sin = np.cos(self.angles), np.sin(self.angles)
        a, b, c = self.lengths.T
        height = self.volume / (self.lengths.prod(1) * sin[:, 0])  # of a over the plane of b, c
        zero = np.zeros_like(a)
        along = (cos[:, 2] - cos[:, 0] * cos[:, 1]) / sin[:, 0]
        rows = [
            [a * height, a * along, a * cos[:, 1]],
            [zero, b * sin[:, 0], b * cos[:, 0]],
            [zero, zero, c],
        ]
        return np.stack([np.stack(row, 1) for row in rows], 1)


def mean_lattice(first: Reduced, second: Reduced, bases: np.ndarray) -> MeanLattice:
    """Means of the second lattice and the bases [M, 3, 3] (coefficients) of the first."""
    vectors = bases @ first.matrix
    lengths = np.linalg.norm(vectors, axis=2)
    unit = vectors / lengths[..., None]
    cosines = np.stack([(unit[:, i] * unit[:, j]).sum(1) for i, j in ((1, 2), (0, 2), (0, 1))], 1)
    angles = np.radians((np.degrees(np.arccos(np.clip(cosines, -1, 1))) + second.angles) / 2)
    lengths = (lengths + second.lengths) / 2
    x, y, z = np.cos(angles).T
    shape = np.sqrt(np.maximum(1 - x * x - y * y - z * z + 2 * x * y * z, 1e-12))
    return MeanLattice(lengths, angles, lengths.prod(1) * shape)
