"""How rewards are made fit to be trained on."""

import numpy as np
import pytest

from crystaljax.rewards.base import RewardBatch
from crystaljax.training.rollouts import RewardBounds


def judged(*values: float) -> RewardBatch:
    return RewardBatch.from_values(np.array(values))


def test_rewards_are_bounded() -> None:
    bounds = RewardBounds(invalid=-5.0, low=-3.0, high=0.5)
    np.testing.assert_array_equal(bounds(judged(-4.0, -1.0, 0.7, np.nan)), [-3.0, -1.0, 0.5, -3.0])


def test_decades_of_rewards_are_steps() -> None:
    bounds = RewardBounds(invalid=-9999.0, low=-9999.0, high=0.0, scale="log")
    np.testing.assert_allclose(
        bounds(judged(0.0, 3.0, -9.0, -99.0, -999.0, np.nan)), [0, 0, -1, -2, -3, -4]
    )


@pytest.mark.parametrize("scale", ["linear", "log"])
def test_the_order_of_rewards_is_kept(scale: str) -> None:
    values = np.sort(np.random.default_rng(0).uniform(-1000, 0, 50))
    found = RewardBounds(-2000.0, -2000.0, 0.0, scale)(judged(*values))  # type: ignore[arg-type]
    assert (np.diff(found) > 0).all()
