"""Distinct pairs against draws, and counts of elements."""

import math
from itertools import combinations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from crystaljax.alloys.composition import Candidate, read_candidate
from crystaljax.alloys.evaluation.diversity import (
    element_frequencies,
    expected_unique,
    pair_keys,
)
from crystaljax.composition import atomic_number


def candidate(bcc: str, b2: str = "AlNi", volume: float = 40) -> Candidate:
    text = f"<BCC>{bcc}</BCC> <B2>{b2}</B2> <B2_Volume>{volume}</B2_Volume>"
    found, _ = read_candidate(text)
    assert found is not None
    return found


@given(st.lists(st.sampled_from(["a", "b", "c", "d", None]), max_size=8), st.integers(0, 8))
def test_unique_is_the_mean_over_all_draws(keys: list[str | None], draw: int) -> None:
    found = expected_unique(keys, draw)
    if draw > len(keys):
        assert math.isnan(found)
        return
    draws = list(combinations(range(len(keys)), draw))
    counts = [len({keys[i] for i in drawn} - {None}) for drawn in draws]
    assert found == pytest.approx(np.mean(counts), abs=1e-9)


def test_unique_of_many() -> None:
    assert expected_unique(list(range(5000)), 100) == pytest.approx(100)
    assert expected_unique(["a"] * 5000, 100) == pytest.approx(1)


def test_pairs_know_no_order_and_no_volume() -> None:
    keys = pair_keys(
        [
            candidate("Cr90Ni10"),
            candidate("Ni10Cr90", "Ni50Al50", 20),
            candidate("Cr9Ni"),
            candidate("Cr90Ni10", "AlCo"),
            None,
        ]
    )
    assert keys[0] == keys[1] == keys[2] != keys[3]
    assert keys[4] is None


def test_frequencies() -> None:
    candidates = [candidate("Cr"), candidate("CrNi", "AlCo"), None]
    expected = np.zeros(119)
    for element, share in {"Cr": 1.0, "Al": 1.0, "Ni": 1.0, "Co": 0.5}.items():
        expected[atomic_number(element)] = share
    np.testing.assert_array_equal(element_frequencies(candidates), expected)
    of_bcc = element_frequencies(candidates, "bcc")
    assert of_bcc[atomic_number("Ni")] == 0.5
    assert of_bcc[atomic_number("Al")] == 0
    assert not element_frequencies([]).any()
