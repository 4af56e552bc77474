"""Clipping and scaling of rewards for training."""

import numpy as np
import pytest

from crystaljax.rewards.base import RewardBatch
from crystaljax.rewards.bounds import UNBOUNDED, UNNAMED, Quantity, RewardBounds, quantity_of
from crystaljax.rewards.compose import Clip, Guarded, InvalidPenalty, ValidOnly
from crystaljax.rewards.ehull import E_ABOVE_HULL


def judged(*values: float) -> RewardBatch:
    return RewardBatch.from_values(np.array(values))


def test_the_penalty_is_not_clipped() -> None:
    bounds = RewardBounds(invalid=-5.0, low=-3.0, high=0.5)
    np.testing.assert_array_equal(bounds(judged(-4.0, -1.0, 0.7, np.nan)), [-3.0, -1.0, 0.5, -5.0])
    np.testing.assert_array_equal(
        bounds.clips(judged(-4.0, -1.0, 0.7, np.nan)), [True, False, True, False]
    )


@pytest.mark.parametrize("scale", [1e-6, 1.0, 1e6])
def test_without_bounds_rewards_are_as_they_were(scale: float) -> None:
    """And the penalty has their scale: one standard deviation below the lowest."""
    values = scale * np.array([4.0, 1.0, 7.0])
    found = UNBOUNDED(judged(*values, np.nan))
    np.testing.assert_array_equal(found[:3], values)
    assert found[3] == pytest.approx(values.min() - values.std())


def test_the_penalty_where_rewards_tell_no_scale() -> None:
    np.testing.assert_allclose(UNBOUNDED(judged(0.1, 0.1, 0.1, np.nan)), [0.1, 0.1, 0.1, -0.9])
    np.testing.assert_allclose(UNBOUNDED(judged(7.0, np.nan)), [7, 6])
    assert np.isfinite(UNBOUNDED(judged(np.nan, np.nan))).all()


def test_the_penalty_is_below_the_lower_bound() -> None:
    values = judged(-0.5, -0.1, np.nan)
    assert RewardBounds(low=-1.0, high=0.5)(values)[2] == pytest.approx(-1.2)
    assert E_ABOVE_HULL.bounds(values)[2] == pytest.approx(-1.2)


def test_decades_of_rewards_are_steps() -> None:
    bounds = RewardBounds(invalid=-9999.0, low=-9999.0, high=0.0, scale="log")
    np.testing.assert_allclose(
        bounds(judged(0.0, 3.0, -9.0, -99.0, -999.0, np.nan)), [0, 0, -1, -2, -3, -4]
    )
    relative = RewardBounds(high=0.0, scale="log")(judged(0.0, -99.0, np.nan))
    np.testing.assert_allclose(relative, [0, -2, -3])


@pytest.mark.parametrize("scale", ["linear", "log"])
def test_the_order_of_rewards_is_kept(scale: str) -> None:
    values = np.sort(np.random.default_rng(0).uniform(-1000, 0, 50))
    found = RewardBounds(-2000.0, -2000.0, 0.0, scale)(judged(*values))  # type: ignore[arg-type]
    assert (np.diff(found) > 0).all()


def test_what_is_given_goes_over_the_reward_s_own() -> None:
    own = RewardBounds(low=-1.0, high=0.5)
    assert UNBOUNDED.over(own) == own
    assert RewardBounds(high=2.0, invalid=-3.0).over(own) == RewardBounds(-3.0, -1.0, 2.0)
    assert RewardBounds(low=-np.inf, high=np.inf).over(own)(judged(5.0))[0] == 5


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"low": 1.0, "high": 0.0}, "low must be below high"),
        ({"low": np.nan}, "low must be"),
        ({"invalid": np.nan}, "invalid must be finite"),
        ({"invalid": -np.inf}, "invalid must be finite"),
        ({"invalid": 0.0, "low": -1.0}, "more than the lowest reward, -1"),
    ],
)
def test_bounds_that_cannot_be(options: dict[str, float], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        RewardBounds(**options)  # type: ignore[arg-type]


def test_a_log_scale_needs_an_end() -> None:
    with pytest.raises(ValueError, match="needs an upper bound"):
        RewardBounds(scale="log").over(UNBOUNDED)


def test_wrappers_measure_what_the_reward_measures() -> None:
    class Density:
        quantity = Quantity("density", "g/cm³")

        def __call__(self, crystals: object) -> RewardBatch:
            return judged(1.0)

    inner = Density()
    for wrapped in (Guarded(inner), ValidOnly(inner), Clip(inner, 0, 1), InvalidPenalty(inner, 0)):
        assert quantity_of(wrapped) is Density.quantity
    assert Density.quantity.label == "density (g/cm³)"
    assert Density.quantity.of(0.1) == "0.1 g/cm³"
    assert quantity_of(judged) is UNNAMED and UNNAMED.label == "reward" and UNNAMED.of(2) == "2"
