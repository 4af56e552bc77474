"""Build tables.npz, the space-group and Wyckoff tables, from pyxtal's copy of ITA.

    python -m crystaljax.symmetry.build_tables

takes a minute and writes the file beside this module. The properties that the rest of the package
relies on (orders, idempotent first operations, exact translations) are checked here, so that they
need not be checked at run time.
"""

from __future__ import annotations

import numpy as np

from crystaljax.symmetry.build_normalizers import (
    UNIT,
    Position,
    lattice_rotations,
    normalizer,
    polar_axes,
)
from crystaljax.symmetry.tables import LAST_GROUP, N_GROUPS, N_LETTERS, PATH, SYSTEMS, letter

P6_MMM = 191
"""The group whose rotations are all those of the hexagonal lattice."""

GENERIC_POINT = np.array([0.1234, 0.2718, 0.3391])
"""Coordinates that no symmetry operation maps onto themselves."""


def read_group(number: int) -> tuple[str, list[Position]]:
    """Hermann-Mauguin symbol and positions (a first) of a group in its standard setting."""
    from pyxtal.symmetry import Group

    group = Group(number)
    positions = []
    for position in reversed(list(group)):
        position.get_site_symmetry()
        rotation = np.array([op.rotation_matrix for op in position.ops])
        twenty_fourths = np.array([op.translation_vector for op in position.ops]) * UNIT
        if not np.allclose(twenty_fourths, np.round(twenty_fourths), atol=1e-3):
            raise ValueError(f"group {number}: a translation is not a multiple of 1/24")
        positions.append(
            Position(
                position.letter,
                position.site_symm,
                np.round(rotation).astype(np.int8),
                (np.round(twenty_fourths).astype(int) % UNIT).astype(np.int8),
            )
        )
    return group.symbol, positions


def check_position(position: Position, lattice_points: np.ndarray) -> None:
    """Raise ValueError unless the position has the properties that the package relies on.

    The first operation is idempotent modulo 1 and has as many independent coordinates as its
    rank; the first multiplicity / n_centering operations give one point per primitive cell.
    """
    first, shift = position.rotation[0].astype(int), position.translation[0].astype(int)
    if (first @ first != first).any() or (first @ shift % UNIT).any():
        raise ValueError(f"position {position.letter}: the first operation is not idempotent")
    n_free = (first == np.eye(3)).all(axis=1).sum()
    if n_free != np.linalg.matrix_rank(first):
        raise ValueError(f"position {position.letter}: free coordinates are not independent")
    points = position.rotation @ GENERIC_POINT + position.translation / UNIT
    points = points[: len(points) // len(lattice_points)]
    difference = points[:, None, None] - points[None, :, None] + lattice_points
    same = (np.abs(difference - np.round(difference)).max(-1) < 1e-6).any(-1)
    if same.sum() != len(points):
        raise ValueError(f"position {position.letter}: operations are not primitive first")


def check_polar(position: Position, polar: np.ndarray) -> None:
    """Raise ValueError unless shifts along the polar axes keep the first operation's form."""
    first = position.rotation[0]
    if (first[polar] != np.eye(3)[polar]).any() or (first[:, polar] != np.eye(3)[:, polar]).any():
        raise ValueError(f"position {position.letter}: depends on the origin of a polar axis")


def build_positions(groups: list[list[Position]]) -> dict[str, np.ndarray]:
    """The arrays of tables.npz about Wyckoff positions; see `tables.Tables`."""
    multiplicity = np.zeros((N_GROUPS, N_LETTERS), np.int16)
    site_symmetry = np.zeros((N_GROUPS, N_LETTERS), "U12")
    for group, positions in enumerate(groups):
        general = positions[-1]
        is_centring = (general.rotation == np.eye(3)).all(axis=(1, 2))
        for w, position in enumerate(positions, start=1):
            if position.letter != letter(w):
                raise ValueError(f"group {group + 1}: expected {letter(w)}, got {position.letter}")
            check_position(position, general.translation[is_centring] / UNIT)
            check_polar(position, polar_axes(general))
            multiplicity[group, w] = len(position.rotation)
            site_symmetry[group, w] = position.site_symmetry
    positions = [position for group in groups for position in group]
    return {
        "multiplicity": multiplicity,
        "site_symmetry": site_symmetry,
        "rotation": np.concatenate([position.rotation for position in positions]),
        "translation": np.concatenate([position.translation for position in positions]),
    }


def build_normalizers(groups: list[list[Position]]) -> dict[str, np.ndarray]:
    """The arrays of tables.npz about equivalent descriptions; see `tables.Tables`."""
    hexagonal = np.unique(groups[P6_MMM - 1][-1].rotation, axis=0).astype(int)
    counts, elements = [], []
    for group, positions in enumerate(groups):
        system = SYSTEMS[int(np.searchsorted(LAST_GROUP, group + 1))]
        found = normalizer(positions, lattice_rotations(system, hexagonal))
        counts.append(len(found))
        elements.extend(found)

    def stack(field: str) -> np.ndarray:
        values = [getattr(element, field) for element in elements]
        padded = np.zeros((len(values), N_LETTERS, *values[0].shape[1:]), np.int8)
        for row, value in zip(padded, values, strict=True):
            row[: len(value)] = value
        return padded

    return {
        "polar": np.stack([polar_axes(positions[-1]) for positions in groups]),
        "n_equivalents": np.array(counts, np.int16),
        "equivalent_letter": stack("letter"),
        "equivalent_rotation": stack("rotation"),
        "equivalent_translation": stack("translation"),
        "equivalent_axes": np.array([element.axes for element in elements], np.int8),
    }


def build() -> dict[str, np.ndarray]:
    """All arrays of tables.npz; see `tables.Tables` for their meaning."""
    symbols, groups = zip(*map(read_group, range(1, N_GROUPS + 1)), strict=True)
    return {
        "symbol": np.array(symbols),
        **build_positions(list(groups)),
        **build_normalizers(list(groups)),
    }


if __name__ == "__main__":
    np.savez_compressed(PATH, allow_pickle=False, **build())
