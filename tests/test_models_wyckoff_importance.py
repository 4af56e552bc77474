"""Selection of weighted candidates: what is kept, and that averages come out right."""

from __future__ import annotations

import numpy as np
import pytest

from crystaljax.models.wyckoff.importance import effective_size, kept_weights, select, threshold


def test_effective_size() -> None:
    assert effective_size(np.ones(7)) == pytest.approx(7)
    assert effective_size(np.array([1.0, 0, 0])) == 1
    assert effective_size(np.array([3.0, 1.0])) == pytest.approx(16 / 10)
    assert effective_size(np.zeros(3)) == 0


def test_as_many_are_kept_as_asked_for() -> None:
    rng = np.random.default_rng(0)
    for n in (1, 5, 40):
        weight = np.exp(2 * rng.normal(size=60)) * (rng.random(60) < 0.8)
        c = threshold(weight, n)
        n_kept = min(n, np.count_nonzero(weight))
        assert np.minimum(weight / c, 1).sum() == pytest.approx(n_kept)
        rows, kept = select(weight, n, rng.random())
        assert len(set(rows)) == len(rows) == n_kept
        np.testing.assert_allclose(kept, np.maximum(weight[rows], c))
        np.testing.assert_allclose(np.sort(kept), np.sort(kept_weights(weight, n)))


def test_none_of_no_weight() -> None:
    rows, kept = select(np.zeros(5), 3, 0.5)
    assert len(rows) == len(kept) == len(kept_weights(np.zeros(5), 3)) == 0


def test_averages_are_kept() -> None:
    """Sums of weights over any part are right on average (Liu, Chen and Wong, 1998)."""
    weight = np.array([0.1, 0.5, 0.2, 4.0, 0.05, 1.0, 0.0, 0.3])
    rng = np.random.default_rng(1)
    total = np.zeros(len(weight))
    for _ in range(4000):
        rows, kept = select(weight, 4, rng.random())
        total[rows] += kept
    np.testing.assert_allclose(total / 4000, weight, rtol=0.1)
