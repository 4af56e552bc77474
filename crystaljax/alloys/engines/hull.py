"""The lower convex hull of sampled points at one composition: where a solve starts."""

from __future__ import annotations

import numpy as np

_LEVEL = 1e-6  # J/mol: what lies less below a plane ends the search
_PIVOT = 1e-9  # least part that a point may have in one that replaces it
_STEPS = 1000  # at one temperature, where some twenty are usual and a few from a neighbour's


def lowest_simplices(
    x: np.ndarray, compositions: np.ndarray, energy: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Points of least energy that make up a composition x [E]: indices and amounts [T, E].

    The simplex method. It starts at each temperature from the points of the last, which make up
    the composition whatever their energies. Compositions [P, E], the first E of them the pure
    elements; energies [T, P] in J/mol.
    """
    basis = np.arange(len(x))
    inverse = np.linalg.inv(compositions[basis])
    indices = np.empty((len(energy), len(x)), int)
    amounts = np.empty(indices.shape)
    for row, heights in enumerate(energy):
        for _ in range(_STEPS):
            force = compositions @ (inverse @ heights[basis]) - heights
            lowest = int(force.argmax())
            if not force[lowest] > _LEVEL or lowest in basis:
                break
            parts, replaced = x @ inverse, compositions[lowest] @ inverse
            usable = replaced > _PIVOT
            ratio = np.full(len(x), np.inf)
            np.divide(parts, replaced, out=ratio, where=usable)
            basis[int(ratio.argmin())] = lowest
            inverse = np.linalg.inv(compositions[basis])
        indices[row], amounts[row] = basis, x @ inverse
    return indices, amounts
