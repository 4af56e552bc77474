"""Build tables.npz, the space-group and Wyckoff tables, from pyxtal's copy of ITA.

    python -m crystaljax.symmetry.build_tables

takes ten seconds and writes the file beside this module. What the rest of the package relies
on (orders, idempotent first operations, exact translations) is checked here, once, so that
nothing has to be checked at run time.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from crystaljax.symmetry.tables import N_GROUPS, N_LETTERS, PATH, letter

GENERIC_POINT = np.array([0.1234, 0.2718, 0.3391])
"""Coordinates that no symmetry operation maps onto themselves."""


@dataclass(frozen=True)
class Position:
    """One Wyckoff position: its operations, translations in 24ths."""

    letter: str
    site_symmetry: str
    rotation: np.ndarray
    translation: np.ndarray


def read_group(number: int) -> tuple[str, list[Position]]:
    """Hermann-Mauguin symbol and positions (a first) of a group in its standard setting."""
    from pyxtal.symmetry import Group

    group = Group(number)
    positions = []
    for position in reversed(list(group)):
        position.get_site_symmetry()
        rotation = np.array([op.rotation_matrix for op in position.ops])
        twenty_fourths = np.array([op.translation_vector for op in position.ops]) * 24
        if not np.allclose(twenty_fourths, np.round(twenty_fourths), atol=1e-3):
            raise ValueError(f"group {number}: a translation is not a multiple of 1/24")
        positions.append(
            Position(
                position.letter,
                position.site_symm,
                np.round(rotation).astype(np.int8),
                (np.round(twenty_fourths).astype(int) % 24).astype(np.int8),
            )
        )
    return group.symbol, positions


def check_position(position: Position, lattice_points: np.ndarray) -> None:
    """Raise ValueError unless the position has the properties that the package relies on.

    The first operation is idempotent modulo 1 and has as many independent coordinates as its
    rank; the first multiplicity / n_centering operations give one point per primitive cell.
    """
    first, shift = position.rotation[0].astype(int), position.translation[0].astype(int)
    if (first @ first != first).any() or (first @ shift % 24).any():
        raise ValueError(f"position {position.letter}: the first operation is not idempotent")
    n_free = (first == np.eye(3)).all(axis=1).sum()
    if n_free != np.linalg.matrix_rank(first):
        raise ValueError(f"position {position.letter}: free coordinates are not independent")
    points = position.rotation @ GENERIC_POINT + position.translation / 24
    points = points[: len(points) // len(lattice_points)]
    difference = points[:, None, None] - points[None, :, None] + lattice_points
    same = (np.abs(difference - np.round(difference)).max(-1) < 1e-6).any(-1)
    if same.sum() != len(points):
        raise ValueError(f"position {position.letter}: operations are not primitive first")


def build() -> dict[str, np.ndarray]:
    """The arrays of tables.npz; see `tables.Tables` for their meaning."""
    symbols = []
    multiplicity = np.zeros((N_GROUPS, N_LETTERS), np.int16)
    site_symmetry = np.zeros((N_GROUPS, N_LETTERS), "U12")
    rotation, translation = [], []
    for index in range(N_GROUPS):
        symbol, positions = read_group(index + 1)
        symbols.append(symbol)
        general = positions[-1]
        is_centring = (general.rotation == np.eye(3)).all(axis=(1, 2))
        for w, position in enumerate(positions, start=1):
            if position.letter != letter(w):
                raise ValueError(f"group {index + 1}: expected {letter(w)}, got {position.letter}")
            check_position(position, general.translation[is_centring] / 24)
            multiplicity[index, w] = len(position.rotation)
            site_symmetry[index, w] = position.site_symmetry
            rotation.append(position.rotation)
            translation.append(position.translation)
    return {
        "symbol": np.array(symbols),
        "multiplicity": multiplicity,
        "site_symmetry": site_symmetry,
        "rotation": np.concatenate(rotation),
        "translation": np.concatenate(translation),
    }


if __name__ == "__main__":
    np.savez_compressed(PATH, allow_pickle=False, **build())
