"""Tests of crystaljax.evaluation.rates against closed forms and scipy."""

import json
import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import binomtest, sem

from crystaljax.evaluation.rates import Difference, Measure, Rate, pooled


@given(st.integers(1, 5000), st.floats(0, 1))
def test_interval_is_wilsons(total: int, fraction: float) -> None:
    count = round(fraction * total)
    rate = Rate("stable", count, total, "")
    expected = binomtest(count, total).proportion_ci(0.95, method="wilson")
    np.testing.assert_allclose(
        rate.interval(z=1.959963984540054), (expected.low, expected.high), atol=1e-9
    )
    assert rate.value == count / total
    assert rate.standard_error > 0


def test_standard_error_is_binomial_for_many() -> None:
    rate = Rate("stable", 30_000, 100_000, "")
    assert rate.standard_error == pytest.approx(math.sqrt(0.3 * 0.7 / 100_000), rel=1e-3)


def test_standard_error_covers_two_thirds() -> None:
    rng = np.random.default_rng(0)
    rates = [Rate("", int(k), 200, "") for k in rng.binomial(200, 0.1, 4000)]
    covered = np.mean([abs(rate.value - 0.1) <= rate.standard_error for rate in rates])
    assert 0.62 < covered < 0.75


def test_rates_of_runs_that_differ_have_the_error_over_runs() -> None:
    counts = [335, 396, 194]
    metrics = [Rate("sun", count, 1000, "").to_dict() for count in counts]
    rate = pooled(metrics, "sun")
    assert rate is not None and (rate.count, rate.total) == (925, 3000)
    assert rate.standard_error == pytest.approx(sem(np.array(counts) / 1000))
    assert rate.text == "30.8 ± 6.0 %"
    low, high = rate.interval(z=1)
    assert (high - low) / 2 == pytest.approx(rate.standard_error)
    unlike = Rate("", 10, 200, "", runs=((0, 100), (10, 100)))
    assert unlike.interval(z=2) == (0.0, pytest.approx(0.15))
    alike = pooled([Rate("sun", 300, 1000, "").to_dict()] * 3, "sun")
    assert alike is not None
    assert alike.standard_error == Rate("sun", 900, 3000, "").standard_error
    alone = pooled(metrics[:1], "sun")
    assert alone is not None and alone.standard_error == Rate("sun", 335, 1000, "").standard_error


def test_the_error_over_runs_covers_the_mean_of_all_runs() -> None:
    """Rates of runs scatter by 5 points around 30 %: errors of items alone cover a fifth."""
    rng = np.random.default_rng(0)
    true = np.clip(rng.normal(0.3, 0.05, (2000, 3)), 0, 1)
    counts = rng.binomial(1000, true)
    found = [pooled([Rate("x", int(k), 1000, "").to_dict() for k in row], "x") for row in counts]
    covered = np.mean([x is not None and abs(x.value - 0.3) <= x.standard_error for x in found])
    alone = [Rate("x", int(row.sum()), 3000, "") for row in counts]
    assert np.mean([abs(x.value - 0.3) <= x.standard_error for x in alone]) < 0.3
    assert covered > 0.5  # Student's t of two degrees of freedom: 58 %


def test_text_and_denominators() -> None:
    rate = Rate.of("stable", np.arange(1000) < 123, "below the hull", reference="a hull")
    assert (rate.count, rate.total) == (123, 1000)
    assert rate.text == "12.3 ± 1.0 %"
    assert rate.fraction == "123 / 1000"
    content = rate.to_dict()
    assert content["reference"] == "a hull"
    assert content["denominator"] == "generated samples"
    assert content["value"] == 0.123


def test_rates_of_nothing() -> None:
    rate = Rate.of("stable", np.zeros(0, bool), "")
    assert math.isnan(rate.value)
    assert rate.text == "–"
    assert json.dumps(rate.to_dict(), allow_nan=False)


@pytest.mark.parametrize(("count", "total"), [(-1, 3), (4, 3)])
def test_impossible_counts_are_refused(count: int, total: int) -> None:
    with pytest.raises(ValueError, match="'stable'"):
        Rate("stable", count, total, "")


def test_mean_leaves_out_what_is_not_finite() -> None:
    values = np.array([1.0, 2.0, 3.0, math.nan, math.inf])
    measure = Measure.mean("energy", values, "eV/atom", "")
    assert measure.value == 2
    assert measure.standard_error == pytest.approx(1 / math.sqrt(3))
    assert measure.total == 3
    assert measure.text == "2.000 ± 0.577 eV/atom"
    empty = Measure.mean("energy", np.array([math.nan]), "eV/atom", "")
    assert empty.text == "–"
    assert json.dumps(empty.to_dict(), allow_nan=False)


def test_median_and_its_error() -> None:
    rng = np.random.default_rng(1)
    samples = [Measure.median("", rng.exponential(size=400), "", "") for _ in range(400)]
    spread = np.std([m.value for m in samples])
    assert np.mean([m.value for m in samples]) == pytest.approx(math.log(2), abs=0.01)
    assert np.mean([m.standard_error for m in samples]) == pytest.approx(spread, rel=0.15)
    assert Measure.median("", np.array([]), "", "").total == 0
    assert math.isnan(Measure.median("", np.array([1.0]), "", "").standard_error)


def test_difference() -> None:
    change = Difference(Rate("stable", 100, 1000, ""), Rate("stable", 200, 1000, ""))
    expected = math.sqrt(0.1 * 0.9 / 1000 + 0.2 * 0.8 / 1000)
    assert change.value == pytest.approx(0.1)
    assert change.standard_error == pytest.approx(expected, rel=1e-2)
    assert change.sigmas == pytest.approx(0.1 / expected, rel=1e-2)
    assert change.text == "+10.0 ± 1.6 %"
    energies = Difference(
        Measure("e", 0.5, 0.03, "eV/atom", 9, ""), Measure("e", 0.25, 0.04, "eV/atom", 9, "")
    )
    assert energies.text == "-0.250 ± 0.050 eV/atom"
    unknown = Difference(Measure("e", 0.5, math.nan, "", 9, ""), Measure("e", 0.2, 0.1, "", 9, ""))
    assert unknown.text == "-0.300"
    assert json.dumps(unknown.to_dict(), allow_nan=False)
