"""Magpie features against values by hand, distances against scipy's."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.spatial.distance import cdist

from crystaljax.alloys.composition import PAPER_ELEMENTS, Candidate
from crystaljax.alloys.evaluation.novelty import (
    PROPERTIES,
    STATISTICS,
    FeatureSpace,
    coverage_rates,
    magpie_features,
    nearest,
)

CANDIDATES = [
    Candidate({"Cr": float(x), "Ni": 100.0 - x}, {"Al": 1.0, "Ni": 1.0}, volume)
    for x in (60, 70, 80, 90)
    for volume in (30.0, 40.0, 55.0)
]


def feature(mixture: dict[str, float], statistic: str, name: str) -> float:
    (row,) = magpie_features([mixture])
    return row[STATISTICS.index(statistic) * len(PROPERTIES) + PROPERTIES.index(name)]


@pytest.mark.parametrize(
    ("statistic", "name", "expected"),
    [
        ("mean", "atomic number", (13 + 3 * 28) / 4),
        ("average deviation", "atomic number", 2 * 0.25 * 0.75 * 15),
        ("minimum", "electronegativity", 1.61),
        ("maximum", "electronegativity", 1.91),
        ("range", "melting point", 1728 - 933.47),
        ("mode", "atomic mass", 58.6934),
        ("mean", "group", (13 + 3 * 10) / 4),
        ("mean", "period", (3 + 3 * 4) / 4),
        # Al is [Ne] 3s2 3p1, Ni is [Ar] 3d8 4s2.
        ("mean", "s electrons", 2.0),
        ("mean", "p electrons", 0.25),
        ("mean", "d electrons", 6.0),
        ("maximum", "valence electrons", 10.0),
        ("maximum", "p holes", 5.0),
        ("minimum", "p holes", 0.0),
        ("mode", "d holes", 2.0),
        ("mean", "holes", (5 + 3 * 2) / 4),
    ],
)
def test_features_by_hand(statistic: str, name: str, expected: float) -> None:
    assert feature({"Al": 1.0, "Ni": 3.0}, statistic, name) == pytest.approx(expected)


def test_the_mode_of_equals_is_the_least() -> None:
    assert feature({"Ni": 0.4, "Al": 0.4, "Cr": 0.2}, "mode", "atomic number") == 13


def test_electrons_of_the_elements() -> None:
    """Those of Magpie's tables (NdValence, NfValence, NsValence)."""
    electrons = {"Cr": (1, 5, 0), "Nb": (1, 4, 0), "Zn": (2, 10, 0), "Hf": (2, 2, 14)}
    for element, of_shells in electrons.items():
        found = [feature({element: 1.0}, "mean", f"{shell} electrons") for shell in "sdf"]
        assert tuple(found) == of_shells, element
    assert np.isfinite(magpie_features([{e: 1.0} for e in PAPER_ELEMENTS])).all()


mixtures = st.dictionaries(
    st.sampled_from(PAPER_ELEMENTS), st.floats(0.01, 100), min_size=1, max_size=5
)


@given(st.lists(mixtures, min_size=1, max_size=4), st.floats(0.1, 10))
def test_features_know_no_scale_order_or_company(
    several: list[dict[str, float]], scale: float
) -> None:
    together = magpie_features(several)
    for row, mixture in zip(together, several, strict=True):
        other = {e: scale * x for e, x in reversed(mixture.items())}
        np.testing.assert_allclose(magpie_features([other])[0], row, rtol=1e-9, atol=1e-9)
    mean, _, low, high, spread, mode = np.split(together, len(STATISTICS), axis=1)
    assert (low <= mean + 1e-9).all()
    assert (mean <= high + 1e-9).all()
    assert ((low <= mode) & (mode <= high)).all()
    np.testing.assert_allclose(spread, high - low)


@pytest.mark.parametrize("features", ["master", "phases"])
def test_distances_are_rms_of_standard_scores(features: str) -> None:
    space = FeatureSpace.of(CANDIDATES, features)  # type: ignore[arg-type]
    points = space(CANDIDATES)
    varies = space.weight > 0
    assert 0 < varies.sum() < len(varies)  # Al is always the lightest
    np.testing.assert_allclose(points.mean(axis=0), 0, atol=1e-12)
    # Of pairs drawn with replacement the mean square distance is twice the variance, which is 1.
    assert (cdist(points, points) ** 2).mean() == pytest.approx(2)
    assert np.isnan(space([None])).all()


def test_what_cannot_be_described_costs_itself() -> None:
    space = FeatureSpace.of(CANDIDATES)
    strange = Candidate({"Cs": 1.0}, {"Al": 1.0, "Ni": 1.0}, 40.0)  # its volume is not tabulated
    points = space([strange, CANDIDATES[0], None])
    assert np.isfinite(points).all(axis=1).tolist() == [False, True, False]
    assert np.isfinite(FeatureSpace.of(CANDIDATES, "phases")([strange])).all()


def test_a_space_needs_candidates() -> None:
    with pytest.raises(ValueError, match="no training candidates"):
        FeatureSpace.of([])


@settings(max_examples=20)
@given(st.integers(1, 40), st.integers(1, 40), st.integers(0, 10**6))
def test_nearest_is_scipys(n: int, m: int, seed: int) -> None:
    rng = np.random.default_rng(seed)
    points, others = rng.normal(size=(n, 7)), rng.normal(size=(m, 7))
    expected = cdist(points, others).min(axis=1)
    np.testing.assert_allclose(nearest(points, others, at_once=6), expected, atol=1e-7)
    assert nearest(points, points) == pytest.approx(np.zeros(n), abs=1e-6)


def test_nearest_passes_over_the_unknown() -> None:
    unknown = np.array([[math.nan, 0.0], [3.0, 4.0]])
    found = nearest(np.array([[0.0, 0.0], [math.nan, 1.0]]), unknown)
    np.testing.assert_array_equal(found, [5.0, math.nan])
    np.testing.assert_array_equal(nearest(unknown, unknown[:1]), [math.nan, math.inf])


def test_coverage() -> None:
    samples = np.array([[0.0], [0.1], [9.0], [math.nan]])
    reference = np.array([[0.05], [1.0], [2.0]])
    recall, precision = coverage_rates(samples, reference, 0.5, "train")
    assert (recall.count, recall.total) == (1, 3)
    assert (precision.count, precision.total) == (2, 4)
    assert recall.denominator == "reference candidates"
    assert "0.5" in recall.description
    assert precision.reference == "train"
