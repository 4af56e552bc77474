"""Orbits against pyxtal's positions; lattices against pymatgen and closed forms."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pymatgen.core import Lattice

from crystaljax.crystal import Crystals
from crystaljax.symmetry import orbits
from crystaljax.symmetry.tables import tables

LATTICES = np.array(
    [  # a cell with the metric of each crystal system
        [3, 4, 5, 80, 75, 100],
        [3, 4, 5, 90, 105, 90],
        [3, 4, 5, 90, 90, 90],
        [3, 3, 5, 90, 90, 90],
        [3, 3, 5, 90, 90, 120],
        [3, 3, 5, 90, 90, 120],
        [3, 3, 3, 90, 90, 90],
    ],
    np.float32,
)


@pytest.fixture(scope="module")
def one_per_group() -> Crystals:
    """A crystal in every group, with an atom of element w at each of its positions w."""
    group = np.arange(1, 231)
    letters = np.arange(1, 28) * np.ones((230, 1), np.int32)
    letters = np.where(letters <= tables().n_letters[:, None], letters, 0).astype(np.int32)
    frac = np.random.default_rng(0).uniform(size=(230, 27, 3)).astype(np.float32)
    frac = np.asarray(orbits.project(group[:, None], letters, frac))
    return Crystals(group, letters, letters, frac, LATTICES[tables().crystal_system])


def distance(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """Largest coordinate difference [n, m] between points [n, 3] and [m, 3], modulo 1."""
    difference = x[:, None] - y[None]
    return np.abs(difference - np.round(difference)).max(-1)


def test_expand_gives_the_orbits_of_pyxtal(one_per_group):
    from pyxtal.symmetry import Group

    cells = orbits.expand(one_per_group, max_atoms=1200).to_numpy()
    checked = 0
    for i in range(230):
        for w, position in enumerate(reversed(list(Group(i + 1))), start=1):
            mine = cells.frac[i][cells.species[i] == w]
            point = one_per_group.frac[i, w - 1]
            theirs = np.array(
                [op.rotation_matrix @ point + op.translation_vector for op in position.ops]
            )
            assert len(mine) == position.multiplicity
            match = distance(mine, theirs) < 1e-5
            assert (match.sum(0) == 1).all() and (match.sum(1) == 1).all()
            checked += 1
    assert checked == 1731
    assert ((cells.frac >= 0) & (cells.frac < 1)).all()


def test_primitive_cells_repeat_to_the_conventional_ones(one_per_group):
    full = orbits.expand(one_per_group, max_atoms=1200).to_numpy()
    primitive = orbits.expand(one_per_group, max_atoms=1200, primitive=True).to_numpy()
    n_centering = tables().n_centering
    assert (full.n_atoms == n_centering * primitive.n_atoms).all()
    assert (primitive.n_atoms == orbits.n_atoms(one_per_group, primitive=True)).all()
    ratio = np.linalg.det(full.matrix) / np.linalg.det(primitive.matrix)
    np.testing.assert_allclose(ratio, n_centering, rtol=1e-5)
    for i in range(230):
        # every atom of the conventional cell is a lattice translate of one in the primitive cell
        there = np.linalg.inv(primitive.matrix[i].astype(float))
        back = full.frac[i].astype(float) @ full.matrix[i] @ there
        for w in range(1, tables().n_letters[i] + 1):
            same = distance(
                back[full.species[i] == w], primitive.frac[i][primitive.species[i] == w]
            )
            assert ((same < 1e-4).sum(0) == n_centering[i]).all()


def test_project_is_idempotent_and_keeps_free_coordinates(one_per_group):
    group, letters = one_per_group.space_group[:, None], one_per_group.wyckoff
    again = orbits.project(group, letters, one_per_group.frac)
    for x, y in zip(one_per_group.frac, np.asarray(again), strict=True):
        assert np.diagonal(distance(x, y)).max() < 1e-6
    raw = np.random.default_rng(1).uniform(size=(230, 27, 3)).astype(np.float32)
    moved = np.asarray(orbits.project(group, letters, raw))
    free = tables().free[group - 1, letters]
    np.testing.assert_array_equal(moved[free], raw[free])
    varying = tables().varying[group - 1, letters] & (letters > 0)[..., None]
    other = np.asarray(orbits.project(group, letters, raw / 2 + 0.1))
    np.testing.assert_array_equal((moved != other)[letters > 0], varying[letters > 0])
    assert (moved[letters == 0] == 0).all()


@given(st.floats(-2, 2, width=32))
def test_wrapped_coordinates_stay_below_one(x):
    wrapped = float(orbits.wrap(jnp.float32(x)))
    assert 0 <= wrapped < 1
    assert abs((wrapped - x + 0.5) % 1 - 0.5) < 1e-6


def test_rows_without_atoms_cost_nobody_else(one_per_group):
    zeros = jax.tree.map(np.zeros_like, one_per_group[:1])
    batch = Crystals.concatenate([one_per_group[:3], zeros, one_per_group[5:7]])
    assert orbits.n_atoms(batch)[3] == 0
    cells = orbits.expand(batch, max_atoms=1200).to_numpy()
    assert not cells.mask[3].any()
    assert np.isfinite(cells.frac).all() and np.isfinite(cells.matrix).all()
    alone = orbits.expand(one_per_group[5:7], max_atoms=1200).to_numpy()
    np.testing.assert_allclose(cells.frac[4:], alone.frac)


def test_a_crystal_too_large_for_its_slots_is_empty(one_per_group):
    batch = one_per_group[np.array([0, 224])]
    fits, too_large = np.asarray(orbits.expand(batch, max_atoms=20).n_atoms)
    assert fits == 1 and too_large == 0


def test_a_letter_that_the_group_lacks_gives_no_atoms():
    crystals = Crystals(
        np.array([1]),
        np.array([[1, 27]]),
        np.array([[6, 7]]),
        np.full((1, 2, 3), 0.3, np.float32),
        LATTICES[:1],
    )
    cells = orbits.expand(crystals, max_atoms=4).to_numpy()
    assert cells.species.tolist() == [[6, 0, 0, 0]]


lengths = st.floats(0.5, 50)
angles = st.floats(60, 119)


@given(st.tuples(lengths, lengths, lengths, angles, angles, angles))
def test_lattice_matrix_has_the_metric_of_its_parameters(parameters):
    matrix = np.asarray(orbits.lattice_matrix(np.array(parameters)), float)
    cosines = np.cos(np.radians(parameters[3:]))
    if 1 - (cosines**2).sum() + 2 * cosines.prod() < 0.01:  # flat, or no cell at all
        return
    np.testing.assert_allclose(Lattice(matrix).parameters, parameters, rtol=2e-4)
    theirs = Lattice.from_parameters(*parameters).volume
    np.testing.assert_allclose(orbits.volume(np.array(parameters)), theirs, rtol=1e-3)
    assert matrix[0, 1] == matrix[0, 2] == matrix[1, 2] == 0 and (np.diagonal(matrix) > 0).all()


def test_angles_that_close_no_cell_have_no_volume_and_finite_gradients():
    impossible = np.array([3, 3, 3, 120.0, 120, 130], np.float32)
    assert orbits.volume(impossible) == 0
    assert np.isfinite(jax.grad(orbits.volume)(impossible)).all()


def test_constrained_lattices_are_the_metrics_of_their_groups():
    from pyxtal.lattice import Lattice as PyxtalLattice
    from pyxtal.symmetry import Group

    rng = np.random.default_rng(2)
    group = np.arange(1, 231)
    raw = np.concatenate([rng.uniform(3, 9, (230, 3)), rng.uniform(70, 110, (230, 3))], axis=1)
    lattice = np.asarray(orbits.constrain_lattice(group, raw))
    again = orbits.constrain_lattice(group, lattice)
    np.testing.assert_array_equal(again, lattice)
    free = np.asarray(orbits.lattice_free(group))
    np.testing.assert_array_equal(lattice[free], raw.astype(np.float32)[free])
    for i in range(230):
        assert free[i].sum() == PyxtalLattice(Group(i + 1).lattice_type, 100).dof
    # a lattice is allowed when every rotation of the group preserves its metric
    matrix = np.asarray(orbits.lattice_matrix(lattice), float)
    metric = matrix @ matrix.swapaxes(1, 2)
    for i in range(230):
        general = tables().n_letters[i]
        start, count = tables().op_start[i, general], tables().multiplicity[i, general]
        for rotation in tables().rotation[start : start + count].astype(float):
            np.testing.assert_allclose(rotation.T @ metric[i] @ rotation, metric[i], atol=1e-3)
