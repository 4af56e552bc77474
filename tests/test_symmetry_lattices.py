"""Tests of crystaljax.symmetry.lattices against pymatgen's Niggli reduction."""

import itertools

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st
from pymatgen.core import Lattice

from crystaljax.symmetry.lattices import minkowski_reduce


def skewed(rng: np.random.Generator, n: int) -> np.ndarray:
    """Lattices in bases up to twenty times longer than they need be."""
    matrix = np.linalg.qr(rng.normal(size=(n, 3, 3)))[0] + 0.2 * rng.normal(size=(n, 3, 3))
    matrix *= rng.uniform(1, 8, (n, 3, 1))
    change = np.tril(rng.integers(-20, 21, (n, 3, 3)), -1) + np.eye(3)
    return change @ matrix


@settings(max_examples=20)
@given(st.integers(0, 2**32 - 1))
def test_lengths_are_those_of_the_niggli_cell(seed: int) -> None:
    matrix = skewed(np.random.default_rng(seed), 20)
    reduced, change = minkowski_reduce(matrix)
    np.testing.assert_allclose(change @ matrix, reduced, atol=1e-8)
    np.testing.assert_allclose(np.abs(np.linalg.det(change)), 1)
    np.testing.assert_array_equal(change, np.rint(change))
    niggli = [np.sort(Lattice(m).get_niggli_reduced_lattice().abc) for m in matrix]
    np.testing.assert_allclose(np.linalg.norm(reduced, axis=-1), niggli, rtol=1e-6)


def test_no_shorter_vector_exists() -> None:
    reduced, _ = minkowski_reduce(skewed(np.random.default_rng(3), 200))
    steps = np.array([n for n in itertools.product(range(-2, 3), repeat=3) if any(n)])
    lengths = np.linalg.norm(steps @ reduced, axis=-1)
    shortest = np.linalg.norm(reduced, axis=-1)
    assert (lengths.min(axis=1) >= shortest[:, 0] * (1 - 1e-9)).all()
    # The bound that the search for neighbours rests on: planes are at least λ/sqrt(2) apart.
    spacing = 1 / np.linalg.norm(np.linalg.inv(reduced), axis=1)
    assert (spacing >= shortest[:, :1] / np.sqrt(2) * (1 - 1e-9)).all()


def test_lattices_that_are_none_come_back() -> None:
    matrix = np.stack([np.zeros((3, 3)), np.full((3, 3), np.nan), np.eye(3), np.ones((3, 3))])
    reduced, change = minkowski_reduce(matrix)
    np.testing.assert_array_equal(reduced, matrix)
    np.testing.assert_array_equal(change, np.broadcast_to(np.eye(3), (4, 3, 3)))
    assert minkowski_reduce(np.zeros((0, 3, 3)))[0].shape == (0, 3, 3)
