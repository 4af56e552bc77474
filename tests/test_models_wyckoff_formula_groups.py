"""p(space group | formula) of like formulas."""

import numpy as np
import pytest

from crystaljax.composition import mendeleev_numbers, parse_formula
from crystaljax.data.dataset import load
from crystaljax.models.wyckoff.formula_groups import ANONYMOUS, MARGINAL, SCALE, FormulaGroups

COUNTS = np.bincount([225, 225, 221, 194, 62, 62, 62], minlength=231)[1:]
KNOWN = {"NaCl": [225], "CsCl": [221, 225], "CaPd2": [194], "TiO2": [62, 62, 62]}


def given(formula: str) -> np.ndarray:
    return FormulaGroups(KNOWN, COUNTS)(parse_formula(formula).astype(int))


@pytest.mark.parametrize("formula", ["NaCl", "Na2Cl2", "ClNa", "KBr", "SrTiO3", "O2Ti", "Fe"])
def test_are_probabilities(formula: str) -> None:
    found = given(formula)
    assert found.sum() == pytest.approx(1)
    assert (found[COUNTS == 0] == 0).all() and (found[COUNTS > 0] > 0).all()


def test_by_hand() -> None:
    """LiCl: by the distances to NaCl and CsCl; elements of one amount may change places."""
    number = dict(zip(("Li", "Na", "Cs", "Cl"), mendeleev_numbers()[[3, 11, 55, 17]], strict=True))
    marginal = COUNTS / COUNTS.sum()
    like = (np.bincount([224, 220, 224], minlength=230) + MARGINAL * marginal) / (3 + MARGINAL)
    sodium, caesium = (np.exp(-abs(number["Li"] - number[x]) / SCALE) for x in ("Na", "Cs"))
    near = np.bincount([224, 220, 224], [sodium, caesium, caesium], 230) + ANONYMOUS * like
    np.testing.assert_allclose(given("LiCl"), near / near.sum())
    np.testing.assert_array_equal(given("LiCl"), given("Cl2Li2"))


def test_unknown_formulas_are_as_all_crystals() -> None:
    np.testing.assert_allclose(given("SrTiO3"), COUNTS / COUNTS.sum())


def test_says_more_of_crystals_that_it_has_not_seen() -> None:
    """Than all crystals' groups do: half of the prototypes by the other half."""
    data = load("prototypes")
    half = np.random.default_rng(0).permutation(len(data))
    known, unseen = data[np.sort(half[::2])], data[np.sort(half[1::2])]
    model = FormulaGroups(known.formula_groups, known.space_group_counts + 0.5)
    groups = np.asarray(unseen.crystals.space_group) - 1
    formulas = [name for name, rows in unseen.formula_groups.items() for _ in rows]
    numbers = [g - 1 for rows in unseen.formula_groups.values() for g in rows]
    asked = [model(parse_formula(name).astype(int)) for name in formulas]
    score = np.mean([np.log(p[g]) for p, g in zip(asked, numbers, strict=True)])
    marginal = (known.space_group_counts + 0.5) / (known.space_group_counts + 0.5).sum()
    assert score > np.log(marginal[groups]).mean() + 0.1
