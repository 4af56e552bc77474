"""Numbers as texts keep what they say, whatever their size."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from crystaljax.numbers import number_format, number_text


@pytest.mark.parametrize(
    ("values", "texts"),
    [
        ([0.1234, -12.0, 0.0], ["0.123", "-12.000", "0.000"]),
        ([1.3e-5, 2e-7, 0.0], ["1.3e-05", "2e-07", "0"]),
        ([1234567.1, 3.0], ["1.235e+06", "3"]),
        ([math.nan, 0.5, math.inf], ["nan", "0.500", "inf"]),
        ([], []),
    ],
)
def test_numbers_that_stand_together(values: list[float], texts: list[str]) -> None:
    spec = number_format(values)
    assert [f"{value:{spec}}" for value in values] == texts


@given(st.floats(-1e300, 1e300))
def test_a_number_is_read_back(value: float) -> None:
    """Up to a rounding of half the last of three digits, or of 0.0005 above 0.01."""
    found = float(number_text(value))
    assert found == pytest.approx(value, rel=5e-4, abs=5e-4 if abs(value) >= 0.01 else 0)
