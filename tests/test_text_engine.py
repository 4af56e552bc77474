"""Shapes of the sampling batch: few of them, and large enough."""

from hypothesis import given
from hypothesis import strategies as st

from crystaljax.text.engine import SMALLEST_BATCH, batch_sizes, bucket


@given(st.integers(1, 10**6))
def test_lengths_are_rounded_up_a_little_to_few(length: int) -> None:
    rounded = bucket(length)
    assert length <= rounded <= max(1.25 * length, 16)
    assert bucket(rounded) == rounded


def test_lengths_to_choose_from() -> None:
    found = sorted({bucket(n) for n in range(100)})
    assert found == [16, 20, 24, 28, 32, 40, 48, 56, 64, 80, 96, 112]


@given(st.integers(1, 2000), st.sampled_from([1, 2, 3, 8, 64]))
def test_batches_can_be_spread_over_the_devices(largest: int, devices: int) -> None:
    sizes = batch_sizes(largest, devices)
    assert largest <= sizes[0] < largest + devices
    assert all(size % devices == 0 for size in sizes)
    assert sizes == sorted(set(sizes), reverse=True)
    assert sizes[-1] <= 4 * max(SMALLEST_BATCH, devices)
    assert len(sizes) <= 6


def test_batch_sizes() -> None:
    assert batch_sizes(64) == [64, 16, 4]
    assert batch_sizes(3) == [3]
    assert batch_sizes(9, 8) == [16, 8]
