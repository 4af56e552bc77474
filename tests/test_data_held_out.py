"""Crystals that are held out."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from crystaljax.data.held_out import held_out


@given(st.integers(20, 200), st.integers(15, 40), st.floats(0.1, 0.9), st.integers(0, 9))
def test_formulas_stay_whole(n: int, kinds: int, share: float, seed: int) -> None:
    formulas = [f"X{i}" for i in np.random.default_rng(seed).integers(kinds, size=n)]
    try:
        held = held_out(formulas, share, seed)
    except ValueError:
        return
    names = np.array(formulas)
    assert not {*names[held]} & {*names[~held]}
    rarest = min(formulas.count(name) for name in set(formulas) - {*names[held]})
    assert share * n - rarest - 0.5 < held.sum() <= share * n + 0.5
    np.testing.assert_array_equal(held, held_out(formulas, share, seed))


def test_seeds_differ() -> None:
    formulas = [str(i) for i in range(100)]
    masks = [held_out(formulas, 0.3, seed) for seed in (0, 1)]
    assert masks[0].sum() == masks[1].sum() == 30
    assert (masks[0] != masks[1]).any()


@pytest.mark.parametrize("share", [0.0, 1.0, -1.0, float("nan")])
def test_shares_that_cannot_be(share: float) -> None:
    with pytest.raises(ValueError, match="between 0 and 1"):
        held_out(["a", "b"], share)


def test_a_part_without_crystals() -> None:
    with pytest.raises(ValueError, match="leaves one part without any"):
        held_out(["a"] * 10, 0.5)
