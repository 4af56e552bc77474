"""Budgets of trainings, and what was reached within them."""

import math

import pytest

from crystaljax.experiment.comparison.budget import BudgetConfig, at_crystals, reached


def test_steps_cost_the_budget() -> None:
    budget = BudgetConfig(flops=1e9, batch_size=10)
    assert budget.n_steps(1e6, "cif") == 100
    assert budget.n_steps(1e6, "cif", 0.3) == 30
    with pytest.raises(ValueError, match=r"cif: .* 10 steps of 10 crystals"):
        budget.n_steps(1e7, "cif")


def test_curves_are_read_between_their_points() -> None:
    curve = [[10, 5.0], [1000, 3.0]]
    assert at_crystals(curve, 100) == pytest.approx(4)
    assert at_crystals(curve, 10) == 5
    assert at_crystals(curve, 5000) == 3
    assert math.isnan(at_crystals(curve, 9))
    assert math.isnan(at_crystals([], 9))


def test_budgets_are_those_of_the_least() -> None:
    short = {"nll": 6.0, "crystals": 100, "crystals_per_second": 10, "curve": [[50, 7], [100, 6]]}
    long = {
        "nll": 2.0,
        "crystals": 10_000,
        "crystals_per_second": 500,
        "curve": [[100, 5], [1000, 4], [10_000, 2]],
    }
    found = reached({"short": short, "long": long})
    assert found["short"].equal_flops == found["short"].equal_crystals == 6
    assert found["long"] == pytest.approx((2, 5, 2 + 2 * (1 - math.log10(5))), abs=1e-9)
    assert found["short"].equal_seconds == 6  # its 10 s are the fewest
    assert reached({}) == {}
