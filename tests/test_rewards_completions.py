"""Rewards of answers that should be crystals."""

import numpy as np
import pytest

from crystaljax.composition import formulas, parse_formulas
from crystaljax.data.dataset import load
from crystaljax.rewards.completions import (
    Completion,
    FormulaReward,
    composition_likeness,
)
from crystaljax.tokenizations.text.wyckoff import WyckoffText

ROCK_SALT = "225\n5.640\nNa 4a\nCl 4b"


def answer(text: str, formula: str = "NaCl") -> Completion:
    return Completion({"formula": formula}, text, True)


def test_answers_are_read_and_compared_with_what_was_asked() -> None:
    answers = [
        answer(ROCK_SALT),
        answer(ROCK_SALT, "Na2Cl2"),
        answer(ROCK_SALT, "KCl"),
        answer("221\n0.100\nNa 1a\nCl 1b"),
        answer("nonsense"),
    ]
    judged = FormulaReward(WyckoffText())(answers)
    np.testing.assert_array_equal(judged.ok, [True, True, True, False, False])
    np.testing.assert_allclose(judged.value[:3], [1, 1, 0.5])
    np.testing.assert_array_equal(judged.info["as_asked"], [1, 1, 0, 1, 0])
    np.testing.assert_array_equal(judged.info["valid"], [1, 1, 1, 0, 0])
    assert judged.reasons[3] == "atoms closer than 0.5 Å"
    assert judged.reasons[4]


def test_formulas_of_real_crystals() -> None:
    crystals = load("prototypes").crystals[np.arange(0, 2000, 20)]
    names = formulas(crystals)
    np.testing.assert_allclose(composition_likeness(crystals, parse_formulas(names)), 1)
    shifted = [*names[1:], names[0]]
    expected = np.array([a == b for a, b in zip(names, shifted, strict=True)])
    likeness = composition_likeness(crystals, parse_formulas(shifted))
    np.testing.assert_array_equal(likeness > 1 - 1e-6, expected)
    texts = WyckoffText().encode(crystals)
    judged = FormulaReward(WyckoffText())([answer(*x) for x in zip(texts, names, strict=True)])
    assert judged.ok.mean() > 0.97
    np.testing.assert_allclose(judged.value[judged.ok], 1)


def test_a_formula_that_is_none() -> None:
    with pytest.raises(ValueError, match="cannot read the formula 'Xx'"):
        FormulaReward(WyckoffText())([answer(ROCK_SALT, "Xx")])
