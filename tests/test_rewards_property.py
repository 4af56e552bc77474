"""Property rewards with models whose predictions are known."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pytest

from crystaljax.crystal import Crystals
from crystaljax.rewards import create, registered
from crystaljax.rewards.properties import Predictions
from crystaljax.rewards.property import target_range, target_value


@dataclass(frozen=True)
class Edge:
    """The cell edge a, times a factor; a cell of 3 Å cannot be judged."""

    factor: float = 1.0

    def predict(self, crystals: Crystals) -> Predictions:
        a = self.factor * np.asarray(crystals.lattice[:, 0], np.float64)
        reasons = ["three" if edge == 3 else None for edge in crystals.lattice[:, 0]]
        return Predictions(np.where([r is None for r in reasons], a, np.nan), reasons)


def batch_of(n: int) -> Crystals:
    """Cubic crystals with the cell edges 1, 2, 3, ... Å."""
    lattice = np.tile(np.float32([1, 1, 1, 90, 90, 90]), (n, 1))
    lattice[:, :3] *= np.arange(1, n + 1)[:, None]
    return Crystals(
        space_group=np.full(n, 221, np.int32),
        wyckoff=np.ones((n, 1), np.int32),
        species=np.full((n, 1), 26, np.int32),
        frac=np.zeros((n, 1, 3), np.float32),
        lattice=lattice,
    )


def test_they_are_known_by_name() -> None:
    names = {"property", "target_value", "target_range", "figure_of_merit"}
    assert names <= set(registered())
    with pytest.raises(ValueError, match="no property is named 'colour'"):
        create("property", model="colour")


def test_a_property_and_its_weight() -> None:
    batch = create("property", model=Edge(), weight=-2.0)(batch_of(4))
    np.testing.assert_allclose(batch.value, [-2, -4, np.nan, -8])
    np.testing.assert_allclose(batch.info["property"], [1, 2, np.nan, 4])
    assert batch.reasons == [None, None, "three", None]


def test_targets() -> None:
    linear = create("target_value", model=Edge(), target=2.5, scale=0.5)(batch_of(4))
    np.testing.assert_allclose(linear.value, [-3, -1, np.nan, -3])
    gaussian = create("target_value", model=Edge(), target=2.0, scale=2.0, shape="gaussian")
    expected = [np.exp(-1 / 8), 1, np.nan, np.exp(-1 / 2)]
    np.testing.assert_allclose(gaussian(batch_of(4)).value, expected)
    inside = create("target_range", model=Edge(), low=2, high=3.5, scale=0.25)(batch_of(4))
    np.testing.assert_allclose(inside.value, [-4, 0, np.nan, -2])
    np.testing.assert_allclose(target_range(1, np.inf, 1)(np.array([0.5, 9.0])), [-0.5, 0])


def test_targets_that_make_no_sense() -> None:
    with pytest.raises(ValueError, match="above 0, not 0"):
        target_value(1.0, 0.0)
    with pytest.raises(ValueError, match="no shape 'cubic'"):
        target_value(1.0, 1.0, "cubic")
    with pytest.raises(ValueError, match="low is above high"):
        target_range(2.0, 1.0, 1.0)


def test_the_figure_of_merit() -> None:
    merit = create("figure_of_merit", dielectric=Edge(2.0), band_gap=Edge(), maximum=30.0)
    batch = merit(batch_of(5))
    np.testing.assert_allclose(batch.value, [2, 8, np.nan, 30, 30])
    np.testing.assert_allclose(batch.info["dielectric"], [2, 4, np.nan, 8, 10])
    np.testing.assert_allclose(batch.info["band_gap"], [1, 2, np.nan, 4, 5])
    assert batch.reasons[2] == "dielectric: three"
    metals = create("figure_of_merit", dielectric=Edge(), band_gap=Edge(-1.0))(batch_of(2))
    np.testing.assert_array_equal(metals.value, [0, 0])
    both = create("figure_of_merit", dielectric=Edge(-1.0), band_gap=Edge(-1.0))(batch_of(2))
    np.testing.assert_array_equal(both.value, [0, 0])


def test_predictions_that_are_not_finite_are_not_ok() -> None:
    batch = create("property", model=Edge(np.nan))(batch_of(2))
    assert not batch.ok.any()
    assert batch.reasons[0] == "the reward is nan"
