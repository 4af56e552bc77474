"""Tables of the 230 space groups and their 1731 Wyckoff positions.

Settings are the standard ones of the International Tables for Crystallography A (ITA): unique
axis b and cell choice 1, hexagonal axes for rhombohedral groups (obverse), origin choice 2.
Group tables are indexed by space-group number - 1, position tables also by the letter's index:
1 = a (the most special position) ... 26 = z, 27 = A, and 0 for no position. The file is built
and checked by `build_tables.py`.
"""

from __future__ import annotations

import string
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import numpy as np

N_GROUPS = 230
N_LETTERS = 28
PATH = Path(__file__).with_name("tables.npz")

SYSTEMS = (
    "triclinic",
    "monoclinic",
    "orthorhombic",
    "tetragonal",
    "trigonal",
    "hexagonal",
    "cubic",
)
LAST_GROUP = (2, 15, 74, 142, 167, 194, 230)
"""The last space group of each crystal system."""

PRIMITIVE_BASIS = {
    "P": [[1, 0, 0], [0, 1, 0], [0, 0, 1]],
    "A": [[1, 0, 0], [0, 1 / 2, -1 / 2], [0, 1 / 2, 1 / 2]],
    "C": [[1 / 2, 1 / 2, 0], [-1 / 2, 1 / 2, 0], [0, 0, 1]],
    "I": [[-1 / 2, 1 / 2, 1 / 2], [1 / 2, -1 / 2, 1 / 2], [1 / 2, 1 / 2, -1 / 2]],
    "F": [[0, 1 / 2, 1 / 2], [1 / 2, 0, 1 / 2], [1 / 2, 1 / 2, 0]],
    "R": [[2 / 3, 1 / 3, 1 / 3], [-1 / 3, 1 / 3, 1 / 3], [-1 / 3, -2 / 3, 1 / 3]],
}
"""Primitive lattice vectors (rows) in units of the conventional ones, by centring."""


@dataclass(frozen=True, eq=False)
class Tables:
    """Numpy arrays over groups (number - 1) and letter indices; see the module's docstring."""

    symbol: np.ndarray
    """str [230]: Hermann-Mauguin symbol, short."""
    crystal_system: np.ndarray
    """int8 [230]: index into `SYSTEMS`."""
    n_centering: np.ndarray
    """int8 [230]: lattice points in the conventional cell (1, 2, 3 or 4)."""
    primitive: np.ndarray
    """float64 [230, 3, 3]: primitive vectors (rows) in the conventional basis, so that
    `primitive @ matrix` is the primitive cell's matrix and `frac @ inv(primitive)` are
    coordinates in it."""
    n_letters: np.ndarray
    """int8 [230]: number of Wyckoff positions; the general position has this index."""
    multiplicity: np.ndarray
    """int16 [230, 28]: points in the conventional cell, 0 where there is no such position."""
    site_symmetry: np.ndarray
    """str [230, 28]: oriented site-symmetry symbol, empty where there is no such position."""
    free: np.ndarray
    """bool [230, 28, 3]: coordinate is an independent parameter of the position, that is, the
    first operation copies it."""
    varying: np.ndarray
    """bool [230, 28, 3]: coordinate is not a constant of the position: free, or like the y of
    (x, 2x, z) a function of the free ones."""
    op_start: np.ndarray
    """int32 [230, 28]: where the position's operations begin in `rotation`, `translation`."""
    rotation: np.ndarray
    """int8 [14433, 3, 3]: linear part of each position's operations. The first of a position
    is idempotent modulo 1, and the first multiplicity / n_centering give one point of each
    orbit modulo centring translations."""
    translation: np.ndarray
    """float32 [14433, 3]: translation of each operation, a multiple of 1/24 in [0, 1)."""

    keeps_form: np.ndarray
    """bool [14433]: the operation maps representatives of its position to representatives,
    points that have the form of the first operation."""
    polar: np.ndarray
    """bool [230, 3]: the origin along this axis is free."""
    n_equivalents: np.ndarray
    """int16 [230]: cosets of the group in its Euclidean normaliser (E = 2298 in all), not
    counting continuous shifts along polar axes; the identity comes first."""
    equivalent_start: np.ndarray
    """int32 [230]: where the group's cosets begin in the arrays below."""
    equivalent_letter: np.ndarray
    """uint8 [E, 28]: the position that each position becomes, as letter indices."""
    equivalent_rotation: np.ndarray
    """int8 [E, 28, 3, 3]: with the next, the map from representatives of each position to
    representatives of the position that it becomes."""
    equivalent_translation: np.ndarray
    """float32 [E, 28, 3]: translation of that map, a multiple of 1/24 in [0, 1)."""
    equivalent_axes: np.ndarray
    """int8 [E, 3]: for each of the new a, b, c (and α, β, γ) the index of the old one."""

    @property
    def n_free(self) -> np.ndarray:
        """int [230, 28]: independent coordinates of each position."""
        return self.free.sum(axis=-1)


@cache
def tables() -> Tables:
    """The tables, read once."""
    with np.load(PATH, allow_pickle=False) as archive:
        file = {name: archive[name] for name in archive.files}
    symbol, multiplicity = file["symbol"], file["multiplicity"]
    rotation, translation = file["rotation"], file["translation"]
    exists = multiplicity > 0
    op_start = _starts(multiplicity)
    first = rotation[np.where(exists, op_start, 0)]
    primitive = np.array([PRIMITIVE_BASIS[name[0]] for name in symbol.tolist()])
    return Tables(
        symbol=symbol,
        crystal_system=np.searchsorted(LAST_GROUP, np.arange(1, N_GROUPS + 1)).astype(np.int8),
        n_centering=np.round(1 / np.linalg.det(primitive)).astype(np.int8),
        primitive=primitive,
        n_letters=exists.sum(axis=1).astype(np.int8),
        multiplicity=multiplicity,
        site_symmetry=file["site_symmetry"],
        free=(first == np.eye(3)).all(axis=-1) & exists[..., None],
        varying=(first != 0).any(axis=-1) & exists[..., None],
        op_start=op_start,
        rotation=rotation,
        translation=(translation / 24).astype(np.float32),
        keeps_form=_keeps_form(rotation.astype(int), translation.astype(int), multiplicity),
        polar=file["polar"],
        n_equivalents=file["n_equivalents"],
        equivalent_start=_starts(file["n_equivalents"]),
        equivalent_letter=file["equivalent_letter"].astype(np.uint8),
        equivalent_rotation=file["equivalent_rotation"],
        equivalent_translation=(file["equivalent_translation"] / 24).astype(np.float32),
        equivalent_axes=file["equivalent_axes"],
    )


def _starts(counts: np.ndarray) -> np.ndarray:
    """int32, shaped like `counts`: start of each run in the concatenation of all runs."""
    flat = counts.ravel().astype(np.int32)
    return (np.cumsum(flat) - flat).reshape(counts.shape).astype(np.int32)


def _keeps_form(
    rotation: np.ndarray, translation: np.ndarray, multiplicity: np.ndarray
) -> np.ndarray:
    """bool [n_ops]: whether first operation · operation = operation, modulo 1 (24ths)."""
    counts = multiplicity.ravel()
    first = np.repeat(_starts(counts), counts)
    rotates = (rotation[first] @ rotation == rotation).all(axis=(1, 2))
    image = (rotation[first] @ translation[..., None])[..., 0] + translation[first]
    return rotates & ((image - translation) % 24 == 0).all(axis=1)


def check_group(number: int) -> None:
    """ValueError for a number that is no space group."""
    if not 1 <= number <= N_GROUPS:
        raise ValueError(f"space group {number}: they are numbered 1-{N_GROUPS}")


def letter_index(letter: str) -> int:
    """1 for "a" ... 26 for "z", 27 for "A"; ValueError for anything else."""
    index = (string.ascii_lowercase + "A").find(letter) + 1
    if len(letter) != 1 or index == 0:
        raise ValueError(f"{letter!r} is not a Wyckoff letter: write one of a-z, or A")
    return index


def letter(index: int) -> str:
    """The letter of an index 1-27; ValueError for anything else."""
    if not 1 <= index < N_LETTERS:
        raise ValueError(f"{index} is not the index of a Wyckoff letter: 1 = a ... 27 = A")
    return (string.ascii_lowercase + "A")[index - 1]
