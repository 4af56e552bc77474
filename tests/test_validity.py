"""Tests of crystaljax.validity against pymatgen."""

import dataclasses

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pymatgen.core import Lattice, Structure

from crystaljax.composition import covalent_radii
from crystaljax.crystal import AtomicCell, Cells, Crystals
from crystaljax.data.prototypes import prototypes
from crystaljax.structures import to_structures
from crystaljax.symmetry.analysis import symmetrize
from crystaljax.symmetry.lattices import minkowski_reduce
from crystaljax.validity import (
    apart_by_radii,
    closest_distance,
    is_crystal,
    min_distances,
    shortest_distances,
    structure_valid,
)


def by_pymatgen(structure: Structure) -> float:
    """Shortest distance, an atom's own images included."""
    away = structure.distance_matrix + 1e9 * np.eye(len(structure))
    minimal, _ = minkowski_reduce(structure.lattice.matrix[None])  # its own test: Niggli
    return float(min(away.min(), np.linalg.norm(minimal, axis=-1).min()))


def crystals_of(*cells: tuple[np.ndarray, list, list]) -> Crystals:
    """Crystals from (matrix, frac, atomic numbers)."""
    found, reasons = symmetrize([AtomicCell(m, np.array(f), np.array(z)) for m, f, z in cells])
    assert not any(reasons)
    return found


@settings(max_examples=25)
@given(st.integers(0, 2**32 - 1), st.floats(0.3, 8), st.integers(0, 10))
def test_distances_in_small_and_skewed_cells(seed: int, size: float, skew: int) -> None:
    rng = np.random.default_rng(seed)
    n, b = rng.integers(1, 7, 8), 8
    matrix = np.linalg.qr(rng.normal(size=(b, 3, 3)))[0] + 0.3 * rng.normal(size=(b, 3, 3))
    change = np.tril(rng.integers(-skew, skew + 1, (b, 3, 3)), -1) + np.eye(3)
    matrix = (change @ (size * matrix)).astype(np.float32)
    frac = rng.uniform(size=(b, 6, 3)).astype(np.float32)
    species = np.where(np.arange(6) < n[:, None], 6, 0)
    found = min_distances(Cells(frac, species, matrix))
    expected = [
        by_pymatgen(Structure(Lattice(m), ["C"] * k, f[:k]))
        for m, k, f in zip(matrix.astype(float), n, frac.astype(float), strict=True)
    ]
    np.testing.assert_allclose(found, expected, atol=2e-4 * max(1, size * skew))


def test_real_crystals() -> None:
    crystals = prototypes(1).crystals[:120]
    distance, volume = closest_distance(crystals)
    structures = to_structures(crystals, primitive=True)
    np.testing.assert_allclose(distance, [by_pymatgen(s) for s in structures], atol=1e-4)
    np.testing.assert_allclose(volume, [s.volume for s in structures], rtol=1e-5)
    assert structure_valid(crystals).all()
    assert is_crystal(crystals).all()


def test_thresholds() -> None:
    crystals = crystals_of(
        (4 * np.eye(3), [[0, 0, 0], [0, 0, 0.13]], [11, 17]),  # 0.52 Å apart
        (4 * np.eye(3), [[0, 0, 0], [0, 0, 0.12]], [11, 17]),  # 0.48 Å
        (4 * np.eye(3), [[0, 0, 0], [0, 0, 0.88]], [11, 17]),  # 0.48 Å, through the cell's face
        (np.diag([3.0, 6, 6]), [[0, 0, 0]], [11]),
    )
    crystals.lattice[3, crystals.lattice[3] == 3] = 0.45  # an atom on its own image
    np.testing.assert_array_equal(structure_valid(crystals), [True, False, False, False])
    np.testing.assert_array_equal(
        structure_valid(crystals, min_distance=0.4), [True, True, True, True]
    )
    assert not structure_valid(crystals, min_volume=100).any()


def test_rows_that_are_no_crystal() -> None:
    good = crystals_of((4 * np.eye(3), [[0, 0, 0]], [29])).to_numpy()
    assert is_crystal(good).all()
    bad = {
        "space_group": [0, 231, -1],
        "wyckoff": [0, 27, 99, -3],
        "species": [0, 119, -1],
        "frac": [np.nan, np.inf],
    }
    rows = []
    for name, values in bad.items():
        field = getattr(good, name)
        rows += [dataclasses.replace(good, **{name: np.full_like(field, x)}) for x in values]
    for lattice in ([4, 4, 4, 90, 90, np.nan], [0, 4, 4, 90, 90, 90], [4, 4, 4, 10, 90, 150]):
        rows.append(dataclasses.replace(good, lattice=np.array([lattice], np.float32)))
    crystals = Crystals.concatenate([good, *rows, good])
    expected = np.zeros(len(crystals), bool)
    expected[[0, -1]] = True
    np.testing.assert_array_equal(is_crystal(crystals), expected)
    np.testing.assert_array_equal(structure_valid(crystals), expected)
    assert not is_crystal(crystals[1:1]).size
    assert not structure_valid(crystals[1:3]).any()


def test_many_atoms_in_one_cell() -> None:
    lattice = 30 * np.eye(3) + 0.01 * np.arange(9).reshape(3, 3)
    frac = np.random.default_rng(0).uniform(size=(20, 3))
    crystals = crystals_of((lattice, frac, [6] * 20), (lattice / 10, frac, [6] * 20))
    expected = [by_pymatgen(s) for s in to_structures(crystals)]
    np.testing.assert_allclose(closest_distance(crystals)[0], expected, atol=1e-4)


def test_apart_by_radii() -> None:
    """Half the sum of the radii of Na and Cl (1.66 and 1.02 Å) is 1.34 Å; of H, 0.31 Å."""
    salt = np.array([[0, 0, 0], [0.5, 0.5, 0.5]])
    cells = [
        AtomicCell(np.eye(3) * a, salt, np.array(species))
        for a, species in [
            (2 * 1.33 / 3**0.5, [11, 17]),  # also 1.54 Å between images of Na, of 1.66 Å
            (2 * 1.35 / 3**0.5, [11, 17]),
            (2.0, [11, 17]),
            (0.8, [1, 1]),
            (0.6, [1, 1]),
            (0.3, [1, 1]),
        ]
    ]
    assert apart_by_radii([*cells, None]).tolist() == [False, False, True, True, True, False, False]
    radii = covalent_radii()
    ratio = shortest_distances(cells, radii)
    assert ratio[2] == pytest.approx(min(3**0.5 / (radii[11] + radii[17]), 1 / radii[11]))
    assert shortest_distances(cells)[2] == pytest.approx(3**0.5)
