"""Lower convex hulls, against linear programming by HiGHS."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import linprog

from crystaljax.alloys.engines.hull import lowest_simplices


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 2**32 - 1), st.integers(1, 5), st.integers(0, 60), st.booleans())
def test_least_energies_are_those_of_linear_programming(
    seed: int, n_elements: int, n_points: int, coarse: bool
) -> None:
    """On a coarse lattice compositions repeat, coincide with the alloy's and lie on one line."""
    random = np.random.default_rng(seed)
    inner = random.dirichlet(np.ones(n_elements), n_points + 1)
    if coarse:
        counts = random.multinomial(4, np.full(n_elements, 1 / n_elements), n_points + 1)
        inner = (counts + 1e-3) / (counts + 1e-3).sum(axis=1, keepdims=True)
    x, inner = inner[0], inner[1:]
    compositions = np.concatenate([np.eye(n_elements), inner])
    energy = random.normal(-50_000, 5_000, (4, len(compositions)))
    energy[:, :n_elements] = 1e10
    indices, amounts = lowest_simplices(x, compositions, energy)
    np.testing.assert_allclose(np.einsum("te,tef->tf", amounts, compositions[indices]), [x] * 4)
    assert (amounts > -1e-9).all()
    found = (amounts * np.take_along_axis(energy, indices, axis=1)).sum(axis=1)
    for row, heights in enumerate(energy):
        best = linprog(np.minimum(heights, 1e6), A_eq=compositions.T, b_eq=x)
        if best.x[:n_elements].max() < 1e-9:  # of real points alone
            assert found[row] == pytest.approx(best.fun, abs=0.01)
