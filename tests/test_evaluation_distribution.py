"""Tests of crystaljax.evaluation.distribution against scipy, pymatgen and counting."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.spatial.distance import jensenshannon

from crystaljax.crystal import Crystals
from crystaljax.data.prototypes import prototypes
from crystaljax.evaluation.distribution import (
    Distributions,
    atomic_masses,
    distribution_metrics,
    jensen_shannon,
    total_variation,
    wasserstein,
)
from crystaljax.structures import to_structures

weights = st.lists(st.floats(0, 10), min_size=4, max_size=4).filter(lambda x: sum(x) > 1e-3)


@given(weights, weights)
def test_distances_of_distributions(p: list[float], q: list[float]) -> None:
    p_array, q_array = np.array(p), np.array(q)
    expected = jensenshannon(p_array, q_array, base=2) ** 2
    assert jensen_shannon(p_array, q_array) == pytest.approx(expected, abs=1e-9)
    distance = total_variation(p_array, q_array)
    assert 0 <= distance <= 1 + 1e-12
    assert distance == pytest.approx(total_variation(q_array, p_array))
    assert total_variation(p_array, 3 * p_array) == pytest.approx(0, abs=1e-12)


def test_disjoint_and_impossible_distributions() -> None:
    p, q = np.array([1.0, 0]), np.array([0, 1.0])
    assert total_variation(p, q) == 1
    assert jensen_shannon(p, q) == pytest.approx(1)
    assert math.isnan(total_variation(p, np.zeros(2)))
    assert math.isnan(jensen_shannon(p, np.zeros(2)))
    with pytest.raises(ValueError, match="negative"):
        total_variation(p, np.array([1, -1.0]))


def test_wasserstein() -> None:
    assert wasserstein(np.array([0.0, 1.0]), np.array([2.0, 3.0])) == pytest.approx(2)
    assert math.isnan(wasserstein(np.array([]), np.array([1.0])))


def test_distributions_as_counted_with_pymatgen() -> None:
    crystals = prototypes(1).crystals[:80]
    found = Distributions.of(crystals)
    structures = to_structures(crystals)
    np.testing.assert_allclose(found.density, [s.density for s in structures], rtol=1e-4)
    np.testing.assert_array_equal(found.n_elements, [len(s.composition) for s in structures])
    with_oxygen = np.mean(["O" in s.composition for s in structures])
    assert found.element[8] == pytest.approx(with_oxygen)
    cubic = np.mean(crystals.space_group == 225)
    assert found.space_group[224] == pytest.approx(cubic)
    assert found.space_group.sum() == pytest.approx(1)


def test_masses() -> None:
    masses = atomic_masses()
    assert masses[1] == pytest.approx(1.008, abs=1e-3)
    assert masses[92] == pytest.approx(238.03, abs=0.01)
    assert (masses[1:] > 0).all()


def test_metrics_vanish_for_the_reference_itself() -> None:
    crystals = prototypes(1).crystals[:50]
    same = Distributions.of(crystals)
    for metric in distribution_metrics(same, same, "itself"):
        assert metric.value == pytest.approx(0, abs=1e-9)
        assert metric.reference == "itself"
        assert metric.total == 50
    other = Distributions.of(crystals[::3])
    assert all(metric.value > 0 for metric in distribution_metrics(other, same, "all"))


def test_rows_that_are_no_crystal_are_not_counted() -> None:
    crystals = prototypes(1).crystals[:10].to_numpy()
    empty = Crystals(*(np.zeros_like(x) for x in vars(crystals).values()))
    found = Distributions.of(Crystals.concatenate([crystals, empty]))
    np.testing.assert_allclose(found.element, Distributions.of(crystals).element)
    assert found.n == 10
    nothing = Distributions.of(empty)
    assert nothing.n == 0
    metrics = distribution_metrics(nothing, found, "ten")
    assert all(math.isnan(metric.value) for metric in metrics)
