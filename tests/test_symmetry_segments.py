"""Lists of unequal length, against plain Python."""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from crystaljax.symmetry.segments import first_smallest, ragged, smallest, snap, tolerant_order

counts = st.lists(st.integers(1, 4), min_size=1, max_size=6)


@given(st.lists(st.integers(0, 4), max_size=6))
def test_ragged_counts_within_each_segment(lengths):
    segment, rank = ragged(np.array(lengths, int))
    expected = [(i, j) for i, length in enumerate(lengths) for j in range(length)]
    assert list(zip(segment.tolist(), rank.tolist(), strict=True)) == expected


@given(counts, st.randoms(use_true_random=False))
def test_smallest_items_of_each_segment(lengths, random):
    segment = np.repeat(np.arange(len(lengths)), lengths)
    rows = [(random.randint(0, 2), random.randint(0, 2)) for _ in segment]
    noisy = np.array(rows) + np.array([[random.uniform(-2e-6, 2e-6)] * 2 for _ in rows])
    expected = []
    for i in range(len(lengths)):
        members = [k for k in range(len(rows)) if segment[k] == i]
        least = min(rows[k] for k in members)
        expected.append([k for k in members if rows[k] == least])
    assert smallest(segment, noisy.T).tolist() == [k for group in expected for k in group]
    assert first_smallest(segment, noisy.T).tolist() == [group[0] for group in expected]
    # and the order that takes noise for equality, ties in the order given
    order = tolerant_order(noisy.T)
    assert [rows[k] for k in order] == sorted(rows)


def test_no_segments_have_no_smallest():
    nothing = np.zeros(0)
    assert first_smallest(nothing.astype(int), [nothing]).tolist() == []
    assert tolerant_order([nothing]).tolist() == []


@given(st.floats(-5, 5))
def test_snapped_coordinates_are_below_one_and_near(x):
    snapped = float(snap(np.array(x)))
    assert 0 <= snapped <= 1 - 1e-5
    assert abs((snapped - x + 0.5) % 1 - 0.5) < 2e-5
