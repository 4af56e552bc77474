"""Rewards of answers that should be crystals."""

import numpy as np
import pytest

from crystaljax.composition import formulas, parse_formulas
from crystaljax.crystal import Crystals
from crystaljax.data.dataset import load
from crystaljax.rewards.base import RewardBatch
from crystaljax.rewards.completions import (
    Completion,
    CrystalReward,
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
    judged = FormulaReward()(answers)
    np.testing.assert_array_equal(judged.ok, [True, True, True, False, False])
    np.testing.assert_allclose(judged.value[:3], [1, 1, 0.5])
    np.testing.assert_array_equal(judged.info["as_asked"], [1, 1, 0, 1, 0])
    np.testing.assert_array_equal(judged.info["valid"], [1, 1, 1, 0, 0])
    assert judged.reasons[3] == "atoms closer than 0.5 Å"
    assert judged.reasons[4]


def test_another_reward_judges_the_crystals() -> None:
    def size(crystals: Crystals) -> RewardBatch:
        value = np.asarray(crystals.lattice[:, 0], float)
        return RewardBatch.from_values(value, reasons=[None if x < 6 else "large" for x in value])

    large = ROCK_SALT.replace("5.6", "6.6")
    answers = [answer(ROCK_SALT), answer("no crystal"), answer(large), answer(ROCK_SALT, "KCl")]
    judged = CrystalReward(size)(answers)
    assert judged.value[0] == pytest.approx(5.64, abs=1e-4)
    assert judged.reasons[2:] == ["large", "another composition than asked for"]
    np.testing.assert_array_equal(judged.ok, [True, False, False, False])


def test_formulas_of_real_crystals() -> None:
    crystals = load("prototypes").crystals[np.arange(0, 2000, 20)]
    names = formulas(crystals)
    np.testing.assert_allclose(composition_likeness(crystals, parse_formulas(names)), 1)
    shifted = [*names[1:], names[0]]
    expected = np.array([a == b for a, b in zip(names, shifted, strict=True)])
    likeness = composition_likeness(crystals, parse_formulas(shifted))
    np.testing.assert_array_equal(likeness > 1 - 1e-6, expected)
    texts = WyckoffText().encode(crystals)
    judged = FormulaReward()([answer(*x) for x in zip(texts, names, strict=True)])
    assert judged.ok.mean() > 0.97
    np.testing.assert_allclose(judged.value[judged.ok], 1)


def test_a_formula_that_is_none() -> None:
    with pytest.raises(ValueError, match="cannot read the formula 'Xx'"):
        FormulaReward()([answer(ROCK_SALT, "Xx")])
