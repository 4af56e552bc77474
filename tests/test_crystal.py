"""Fractional coordinates are brought into the unit cell."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from crystaljax.crystal import wrapped


@given(st.lists(st.floats(-1e6, 1e6), min_size=1), st.sampled_from([np.float32, np.float64]))
def test_coordinates_are_below_one(values: list[float], dtype: type) -> None:
    frac = np.array(values, dtype)
    found = wrapped(frac)
    assert found.dtype == dtype
    assert ((found >= 0) & (found < 1)).all()
    moved = (frac - found).astype(float)
    np.testing.assert_allclose(moved, np.round(moved), atol=2 * np.spacing(np.abs(frac).max() + 1))


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_just_below_a_whole_number_is_zero(dtype: type) -> None:
    assert wrapped(np.array([-1e-30, -1.5e-35, 1.0, 0.25], dtype)).tolist() == [0, 0, 0, 0.25]


def test_what_is_no_number_stays() -> None:
    assert np.isnan(wrapped(np.array([np.nan]))).all()
