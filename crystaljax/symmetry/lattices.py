"""Geometry of lattices in batches: heights of cells, Minkowski reduction."""

from __future__ import annotations

import numpy as np

from crystaljax.crystal import Array

_MAX_ROUNDS = 200


def heights(matrix: Array) -> Array:
    """Distances [..., 3] of opposite faces of cells with lattice vectors [..., 3, 3] (rows), Å.

    Numpy or jax arrays.
    """
    xp = matrix.__array_namespace__()
    faces = xp.cross(xp.roll(matrix, -1, axis=-2), xp.roll(matrix, -2, axis=-2))
    volume = xp.abs((matrix * faces).sum(-1))
    return volume / xp.linalg.norm(faces, axis=-1)


def minkowski_reduce(matrix: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Minkowski-reduced bases of lattices, shortest vector first, in float64 on the host.

    `matrix` [B, 3, 3] has lattice vectors as rows. Returns the reduced vectors (float64
    [B, 3, 3]) and the integer unimodular `change` [B, 3, 3], reduced = change @ matrix. In three
    dimensions the lengths of a Minkowski basis are the lattice's successive minima. Singular or
    non-finite lattices are returned as they are when no further reduction is possible.

    Greedy reduction: I. Semaev, CaLC 2001; P. Nguyen and D. Stehlé, ACM Trans. Algorithms 5
    (2009), 46.
    """
    basis = np.array(matrix, np.float64)
    change = np.broadcast_to(np.eye(3), basis.shape).copy()
    finite = np.asarray(np.isfinite(basis).all(axis=(1, 2)))
    active = np.flatnonzero(np.linalg.det(np.where(finite[:, None, None], basis, 0)) != 0)
    for _ in range(_MAX_ROUNDS):
        if not len(active):
            break
        before = basis[active]
        now, steps = _round(before)
        shorter = (now**2).sum(axis=(1, 2)) < (before**2).sum(axis=(1, 2)) * (1 - 1e-12)
        rows = active[shorter]
        basis[rows] = now[shorter]
        change[rows] = steps[shorter] @ change[rows]
        active = rows
    order = np.argsort(np.linalg.norm(basis, axis=-1), axis=1, kind="stable")[..., None]
    return np.take_along_axis(basis, order, axis=1), np.take_along_axis(change, order, axis=1)


def _round(basis: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Sort the vectors, reduce the second by the first, then the third by both: once."""
    order = np.argsort(np.linalg.norm(basis, axis=-1), axis=1, kind="stable")[..., None]
    steps = np.take_along_axis(np.broadcast_to(np.eye(3), basis.shape), order, axis=1)
    a, b, c = np.moveaxis(np.take_along_axis(basis, order, axis=1), 1, 0)
    n = np.rint(_dot(a, b) / _dot(a, a))[:, None]
    b = b - n * a
    steps[:, 1] -= n * steps[:, 0]
    # The point of the lattice plane of a and b closest to c is a neighbour of c's projection.
    aa, ab, bb, ac, bc = _dot(a, a), _dot(a, b), _dot(b, b), _dot(a, c), _dot(b, c)
    determinant = np.maximum(aa * bb - ab**2, np.finfo(float).tiny)
    x = np.rint((ac * bb - bc * ab) / determinant)
    y = np.rint((bc * aa - ac * ab) / determinant)
    near = np.array([(i, j) for i in (0, -1, 1) for j in (0, -1, 1)])
    x, y = x[:, None] + near[:, 0], y[:, None] + near[:, 1]
    candidates = c[:, None] - x[..., None] * a[:, None] - y[..., None] * b[:, None]
    best = np.argmin((candidates**2).sum(axis=-1), axis=1)
    rows = np.arange(len(basis))
    c = candidates[rows, best]
    steps[:, 2] -= x[rows, best, None] * steps[:, 0] + y[rows, best, None] * steps[:, 1]
    return np.stack([a, b, c], axis=1), steps


def _dot(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    return (x * y).sum(axis=-1)
