"""Equivalent descriptions of a crystal: cosets of a space group in its Euclidean normaliser.

Used by `build_tables.py` only. The elements found for a group are affine maps x -> P x + q
with G = n G n^-1. P runs over the rotations of the crystal system's lattice, for orthorhombic
groups over the permutations of axes too (the lattice is permuted with them) and for monoclinic
ones over the exchange of a and c; other choices of monoclinic and triclinic cells are left to
the reduction of the cell. Continuous shifts along polar directions are not listed: q takes
only those polar values that operations of the group have.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import permutations, product

import numpy as np

UNIT = 24  # translations are integers, in units of 1/24 of a lattice vector


@dataclass(frozen=True)
class Position:
    """One Wyckoff position: its operations, translations in 24ths."""

    letter: str
    site_symmetry: str
    rotation: np.ndarray
    translation: np.ndarray

    @property
    def n_free(self) -> int:
        """Independent coordinates of the first operation."""
        return int(np.linalg.matrix_rank(self.rotation[0]))


@dataclass(frozen=True)
class Element:
    """The action of one coset on each Wyckoff position and on the lattice.

    Position w becomes position `letter[w]`; `rotation[w]` and `translation[w]` (24ths) map
    representatives of w to representatives of it. Index 0 stands for no position. The new lattice
    lengths are lengths[axes].
    """

    letter: np.ndarray
    rotation: np.ndarray
    translation: np.ndarray
    axes: np.ndarray


def polar_axes(general: Position) -> np.ndarray:
    """bool [3]: axes along which the origin is free, as every operation only shifts them."""
    identity = np.eye(3)
    rows = (general.rotation == identity).all(axis=(0, 2))
    columns = (general.rotation == identity).all(axis=(0, 1))
    return rows & columns


def normalizer(positions: list[Position], lattice_rotations: np.ndarray) -> list[Element]:
    """Coset representatives, the identity first; `positions` from the most special on."""
    general = positions[-1]
    is_centring = (general.rotation == np.eye(3)).all(axis=(1, 2))
    centring = general.translation[is_centring].astype(int)
    elements = []
    for linear in _linear_parts(general, centring, lattice_rotations):
        for shift in _shifts(general, centring, linear):
            elements.append(_element(positions, linear, shift))
    return elements


def lattice_rotations(system: str, hexagonal: np.ndarray) -> np.ndarray:
    """int [n, 3, 3]: candidates for the linear part of a normaliser's elements.

    `hexagonal` are the 24 rotations of the hexagonal lattice.
    """
    signed = np.array(
        [
            np.diag(signs)[list(axes)]
            for axes in permutations(range(3))
            for signs in product([1, -1], repeat=3)
        ]
    )
    if system in ("orthorhombic", "cubic"):
        return signed
    if system == "tetragonal":
        return signed[signed[:, 2, 2] != 0]
    if system in ("trigonal", "hexagonal"):
        return hexagonal
    inversion = np.stack([np.eye(3, dtype=int), -np.eye(3, dtype=int)])
    if system == "triclinic":
        return inversion
    exchange = np.array([[0, 0, 1], [0, -1, 0], [1, 0, 0]])
    return np.concatenate([inversion, inversion @ exchange])


def _contains(centring: np.ndarray, shifts: np.ndarray) -> np.ndarray:
    """bool [n]: which shifts [n, 3] are lattice translations."""
    return ((shifts[:, None] - centring) % UNIT == 0).all(axis=-1).any(axis=-1)


def _same(rotation: np.ndarray, rotations: np.ndarray) -> np.ndarray:
    """bool [n]: which of rotations [n, 3, 3] equal this one."""
    return (rotations == rotation).all(axis=(1, 2))


def _linear_parts(
    general: Position, centring: np.ndarray, candidates: np.ndarray
) -> list[np.ndarray]:
    """Rotations that map lattice and point group to themselves, modulo the point group."""
    point_group = general.rotation.astype(int)
    chosen: list[np.ndarray] = []
    identity_first = sorted(candidates, key=lambda p: not (p == np.eye(3)).all())
    for linear in identity_first:
        inverse = np.round(np.linalg.inv(linear)).astype(int)
        conjugates = linear @ point_group @ inverse
        if not _contains(centring, centring @ linear.T).all():
            continue
        if not all(_same(r, point_group).any() for r in conjugates):
            continue
        if any(_same(np.round(c @ inverse).astype(int), point_group).any() for c in chosen):
            continue
        chosen.append(linear)
    return chosen


def _shifts(general: Position, centring: np.ndarray, linear: np.ndarray) -> np.ndarray:
    """int [n, 3]: translations q that make (linear, q) normalise the group, modulo lattice."""
    polar = polar_axes(general)
    values = [
        np.unique(general.translation[:, axis]) if polar[axis] else np.arange(UNIT)
        for axis in range(3)
    ]
    shifts = np.stack(np.meshgrid(*values, indexing="ij"), axis=-1).reshape(-1, 3)
    inverse = np.round(np.linalg.inv(linear)).astype(int)
    for rotation, translation in zip(
        general.rotation.astype(int), general.translation.astype(int), strict=True
    ):
        conjugate = linear @ rotation @ inverse
        target = general.translation[_same(conjugate, general.rotation)][0]
        image = linear @ translation + shifts - shifts @ conjugate.T
        shifts = shifts[_contains(centring, image - target)]
    # one of each class modulo the lattice: the lexicographically smallest
    classes = {
        min(tuple(member) for member in ((shift + centring) % UNIT).tolist()) for shift in shifts
    }
    return np.array(sorted(classes))


def _element(positions: list[Position], linear: np.ndarray, shift: np.ndarray) -> Element:
    """Image of each position under x -> linear x + shift; ValueError if it does not normalise."""
    general = positions[-1]
    # the map followed by every operation of the group: [N, 3, 3] and [N, 3]
    rotation = general.rotation.astype(int) @ linear
    translation = general.rotation.astype(int) @ shift + general.translation
    count = len(positions) + 1
    letter, matrices, vectors = [0], [np.eye(3, dtype=int)], [np.zeros(3, int)]
    for source in positions:
        images = rotation @ source.rotation[0].astype(int)
        offsets = rotation @ source.translation[0].astype(int) + translation
        for w, target in enumerate(positions, start=1):
            kinds = [(len(p.rotation), p.n_free) for p in (source, target)]
            if kinds[0] != kinds[1]:
                continue
            first, constant = target.rotation[0].astype(int), target.translation[0].astype(int)
            fits = (first @ images == images).all(axis=(1, 2)) & (
                (offsets @ first.T + constant - offsets) % UNIT == 0
            ).all(axis=1)
            if fits.any():
                operation = int(np.argmax(fits))
                letter.append(w)
                matrices.append(rotation[operation])
                vectors.append(translation[operation] % UNIT)
                break
    if sorted(letter) != list(range(count)):
        raise ValueError(f"not a permutation of the Wyckoff letters: {letter}")
    is_permutation = (np.abs(linear).sum(axis=1) == 1).all()
    axes = np.abs(linear).argmax(axis=1) if is_permutation else np.arange(3)
    return Element(np.array(letter), np.array(matrices), np.array(vectors), axes)
