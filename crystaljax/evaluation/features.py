"""Features of compositions and structures, and how varied and how new crystals are among them.

Compositions: statistics over the atoms of properties of the elements, as in Magpie (Ward et al.,
npj Comput. Mater. 2, 16028 (2016)), from pymatgen's tables. Structures: the radial distribution
function as a fingerprint (Oganov and Valle, J. Chem. Phys. 130, 104504 (2009)), here of all atoms
alike and at one density, so that it tells structures and not elements apart. Papers take similar
features from Matminer (132 of Magpie, 61 of CrystalNN), so that numbers can be compared within
this package only.
"""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any

import numpy as np

from crystaljax.composition import SYMBOLS, covalent_radii
from crystaljax.crystal import AtomicCell
from crystaljax.evaluation.safeguards import time_limit
from crystaljax.structures import structures_of

RANGE = 3.0
"""Distances of the radial distribution function, in (V/N)^(1/3)."""

N_BINS = 48
"""Distances at which it is taken."""

WIDTH = 0.08
"""Standard deviation of the Gaussian that it is smeared with, in (V/N)^(1/3)."""

SECONDS = 5.0
"""Time for the neighbours of one crystal, after which it has no features."""

MAX_PAIRED = 2000
"""Crystals of which all pairs are compared at most; of more, as many are drawn."""

_TAIL = 4 * WIDTH


@cache
def element_properties() -> np.ndarray:
    """Properties of the elements by atomic number: float64 [119, P], gaps filled by the means.

    Atomic number, Pettifor's Mendeleev number, mass, group, period, electronegativity, covalent
    radius, melting point, and electrons in the outer s, p, d and f shells.
    """
    from pymatgen.core import Element

    rows = np.full((len(SYMBOLS) + 1, 12), np.nan)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of values that the tables lack
        for z, symbol in enumerate(SYMBOLS, 1):
            element = Element(symbol)
            scale, melting = element.mendeleev_no, element.melting_point
            numbers = (z, scale, element.atomic_mass, element.group, element.row, element.X)
            known = [*numbers, covalent_radii()[z], melting, *_outer_electrons(element)]
            rows[z] = [np.nan if x is None else float(x) for x in known]
    return np.where(np.isnan(rows), np.nanmean(rows, axis=0), rows)


def _outer_electrons(element: Any) -> list[int | None]:
    """Electrons in the outermost s, p, d and f shells that there are; None if not tabulated."""
    try:
        shells = element.full_electronic_structure
    except KeyError:
        return [None] * 4
    last = {kind: n for _, kind, n in shells}
    return [last.get(kind, 0) for kind in "spdf"]


def composition_features(counts: np.ndarray) -> np.ndarray:
    """Statistics of the properties of the elements over atoms [B, 119]: float64 [B, 5 P].

    Mean, mean absolute deviation, least, largest, and that of the most frequent element. nan of
    no atoms.
    """
    properties = element_properties()
    total = counts.sum(axis=1, keepdims=True)
    share = np.where(total > 0, counts / np.maximum(total, 1), np.nan)
    mean = share @ np.nan_to_num(properties)
    deviation = np.stack(
        [(share * np.abs(column - mean[:, [i]])).sum(1) for i, column in enumerate(properties.T)], 1
    )
    present = (counts > 0)[:, :, None]
    least = np.where(present, properties, np.inf).min(axis=1)
    most = np.where(present, properties, -np.inf).max(axis=1)
    frequent = properties[counts.argmax(axis=1)]
    found = np.concatenate([mean, deviation, least, most, frequent], axis=1)
    return np.where(total > 0, found, np.nan)


def structure_features(cells: Sequence[AtomicCell | None]) -> np.ndarray:
    """Fingerprints of structures: float64 [B, `N_BINS`]; nan of None and of what took too long.

    The radial distribution function less 1, at volume 1 per atom, whatever the elements and
    whatever the cell.
    """
    found = np.full((len(cells), N_BINS), np.nan)
    rows = [row for row, cell in enumerate(cells) if cell is not None]
    structures = structures_of(cell for cell in cells if cell is not None)
    for row, structure in zip(rows, structures, strict=True):
        if structure is None:
            continue
        edge = (structure.volume / len(structure)) ** (1 / 3)
        try:
            with time_limit(SECONDS):
                distances = structure.get_neighbor_list((RANGE + _TAIL) * edge)[3] / edge
        except (ArithmeticError, MemoryError, RuntimeError, TimeoutError, ValueError):
            continue
        found[row] = _radial(distances, len(structure))
    return found


def _radial(distances: np.ndarray, n_atoms: int) -> np.ndarray:
    """The smeared radial distribution function less 1 of the neighbours of n atoms."""
    at = (np.arange(N_BINS) + 0.5) * RANGE / N_BINS
    # There are thousands of distances: each is shared between the two nearest points of a grid.
    spacing = RANGE / N_BINS / 8
    grid = np.arange(spacing, RANGE + _TAIL, spacing)
    place = np.clip(distances / spacing - 1, 0, len(grid) - 1.001)
    below = place.astype(int)
    weight = place - below
    counts = np.bincount(below, 1 - weight, len(grid)) + np.bincount(below + 1, weight, len(grid))
    kernel = np.exp(-0.5 * ((at[:, None] - grid) / WIDTH) ** 2) / (WIDTH * np.sqrt(2 * np.pi))
    return kernel @ (counts / (4 * np.pi * grid**2)) / n_atoms - 1


@dataclass(frozen=True)
class FeatureSpace:
    """Features of a reference set of R crystals, scaled to a variance of 1.

    Each feature of compositions has a variance of 1. Those of structures, which have the same
    unit, share one scale, so that their mean variance is 1: distances that no reference crystal
    has would otherwise be counted by the thousand.
    """

    name: str
    """Of the reference set."""
    composition: np.ndarray
    """float64 [R, 5 P]"""
    structure: np.ndarray
    """float64 [R, N_BINS]; rows without features are left out."""
    scales: tuple[np.ndarray, np.ndarray]
    """Standard deviations of the features, of compositions and structures."""

    @staticmethod
    def of(name: str, counts: np.ndarray, cells: Sequence[AtomicCell | None]) -> FeatureSpace:
        """The features of crystals: `counts` [R, 119], `cells` [R]."""
        features = composition_features(counts), structure_features(cells)
        features = tuple(x[np.isfinite(x).all(axis=1)] for x in features)
        apart, together = (x.std(axis=0) for x in features)
        together = np.full_like(together, np.sqrt(np.mean(together**2)))
        scales = np.maximum(apart, 1e-6), np.maximum(together, 1e-6)
        composition, structure = (x / s for x, s in zip(features, scales, strict=True))
        return FeatureSpace(name, composition, structure, scales)

    def compositions(self, counts: np.ndarray) -> np.ndarray:
        """Scaled features [B, 5 P] of compositions [B, 119]."""
        return composition_features(counts) / self.scales[0]

    def structures(self, cells: Sequence[AtomicCell | None]) -> np.ndarray:
        """Scaled features [B, N_BINS] of structures."""
        return structure_features(cells) / self.scales[1]


def diversity(features: np.ndarray, seed: int = 0) -> np.ndarray:
    """Mean distance of each crystal from the others: float64 [B]; nan where it is not known.

    Of all rows [B, F] that are finite, or of `MAX_PAIRED` drawn from them.
    """
    rows = np.flatnonzero(np.isfinite(features).all(axis=1))
    if len(rows) > MAX_PAIRED:
        rows = np.random.default_rng(seed).choice(rows, MAX_PAIRED, replace=False)
    found = np.full(len(features), np.nan)
    if len(rows) > 1:
        found[rows] = _distances(features[rows], features[rows]).sum(axis=1) / (len(rows) - 1)
    return found


def novelty(features: np.ndarray, reference: np.ndarray) -> np.ndarray:
    """Distance of each of the rows [B, F] from the nearest of the reference [R, F]: float64 [B].

    nan where it is not known.
    """
    from scipy.spatial import cKDTree

    found = np.full(len(features), np.nan)
    rows = np.isfinite(features).all(axis=1)
    if rows.any() and len(reference):
        found[rows] = cKDTree(reference).query(features[rows])[0]
    return found


def _distances(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    from scipy.spatial.distance import cdist

    return cdist(x, y)
