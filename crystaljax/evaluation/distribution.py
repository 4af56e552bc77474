"""Distributions of space groups, elements and densities, and how far apart two of them are."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from crystaljax.composition import SYMBOLS, element_counts
from crystaljax.crystal import Crystals
from crystaljax.evaluation.rates import Measure
from crystaljax.validity import is_crystal

DALTON_PER_CUBIC_ANGSTROM = 1.66053906892
"""g/cm³ in 1 u/Å³ (CODATA 2022)."""


@dataclass(frozen=True)
class Distributions:
    """Distributions of a set of N crystals; rows that are no crystal are left out."""

    n: int
    """Crystals counted."""
    space_group: np.ndarray
    """float64 [230]: fraction of crystals that are declared to be in each group; group g stands at
    g - 1. Symmetry that is found is counted by `space_group_shares`."""
    element: np.ndarray
    """float64 [119]: fraction of crystals that contain each element, by atomic number."""
    n_elements: np.ndarray
    """int [N]: different elements in each crystal."""
    density: np.ndarray
    """float64 [N]: g/cm³."""

    @staticmethod
    def of(crystals: Crystals) -> Distributions:
        """The distributions of a set of crystals."""
        from crystaljax.symmetry.orbits import lattice_matrix

        crystals = crystals.to_numpy()[is_crystal(crystals)]
        counts = element_counts(crystals)
        n = len(crystals)
        groups = space_group_shares(crystals.space_group)
        matrix = np.asarray(lattice_matrix(crystals.lattice), np.float64)
        mass = counts @ atomic_masses()
        density = mass / np.abs(np.linalg.det(matrix)) * DALTON_PER_CUBIC_ANGSTROM
        present = counts > 0
        return Distributions(
            n, groups, present.sum(axis=0) / max(n, 1), present.sum(axis=1), density
        )


def space_group_shares(groups: np.ndarray) -> np.ndarray:
    """float64 [230]: shares of the groups among those of crystals int [N]; 0 (none) is left out."""
    counts = np.bincount(groups, minlength=231)[1:231]
    return counts / max(counts.sum(), 1)


def atomic_masses() -> np.ndarray:
    """Standard atomic weights: float64 [119] in u, by atomic number (pymatgen's table)."""
    from pymatgen.core import Element

    return np.array([0.0] + [float(Element(symbol).atomic_mass) for symbol in SYMBOLS])


def total_variation(p: np.ndarray, q: np.ndarray) -> float:
    """Half the sum of |p - q| of two distributions, each normalised first: 0 same, 1 disjoint."""
    p, q = _normalised(p), _normalised(q)
    return float(np.abs(p - q).sum() / 2)


def jensen_shannon(p: np.ndarray, q: np.ndarray) -> float:
    """Jensen-Shannon divergence in bits, each distribution normalised first: 0 same, 1 disjoint.

    J. Lin, IEEE Trans. Inf. Theory 37 (1991), 145.
    """
    p, q = _normalised(p), _normalised(q)
    middle = (p + q) / 2
    return float((_relative_entropy(p, middle) + _relative_entropy(q, middle)) / 2)


def wasserstein(x: np.ndarray, y: np.ndarray) -> float:
    """First Wasserstein distance between two samples, in their unit; nan if one is empty."""
    from scipy.stats import wasserstein_distance

    if not len(x) or not len(y):
        return float("nan")
    return float(wasserstein_distance(x, y))


def distribution_metrics(
    generated: Distributions, reference: Distributions, reference_name: str
) -> list[Measure]:
    """Distances between the distributions of generated and of reference crystals.

    Total variation and Jensen-Shannon divergence of space groups and elements; Wasserstein
    distances of density and of the number of elements, as in CDVAE (Xie et al., ICLR 2022).
    """

    def measure(name: str, value: float, unit: str, description: str) -> Measure:
        of = "generated crystals"
        return Measure(
            name, value, float("nan"), unit, generated.n, description, of, reference_name
        )

    groups = generated.space_group, reference.space_group
    elements = generated.element, reference.element
    many = "how often elements occur (a crystal counts once for each element in it)"
    return [
        measure("space group TV", total_variation(*groups), "", "total variation of space groups"),
        measure("space group JS", jensen_shannon(*groups), "bit", "Jensen-Shannon, space groups"),
        measure("element TV", total_variation(*elements), "", f"total variation of {many}"),
        measure("element JS", jensen_shannon(*elements), "bit", f"Jensen-Shannon of {many}"),
        measure(
            "density W1",
            wasserstein(generated.density, reference.density),
            "g/cm³",
            "Wasserstein distance of densities",
        ),
        measure(
            "number of elements W1",
            wasserstein(generated.n_elements, reference.n_elements),
            "",
            "Wasserstein distance of the number of different elements",
        ),
    ]


def _normalised(p: np.ndarray) -> np.ndarray:
    p = np.asarray(p, np.float64)
    if (p < 0).any() or not np.isfinite(p).all():
        raise ValueError("a distribution has a negative or non-finite entry")
    total = p.sum()
    return p / total if total > 0 else np.full_like(p, np.nan)


def _relative_entropy(p: np.ndarray, q: np.ndarray) -> float:
    """Kullback-Leibler divergence in bits, where q is positive wherever p is."""
    if np.isnan(p).any() or np.isnan(q).any():
        return float("nan")
    positive = p > 0
    return float((p[positive] * np.log2(p[positive] / q[positive])).sum())
