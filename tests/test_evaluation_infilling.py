"""Rates of hidden elements that were told."""

from __future__ import annotations

import numpy as np

from crystaljax.composition import atomic_number
from crystaljax.evaluation.infilling import infilling_rates
from crystaljax.tokenizations.text.wyckoff import WyckoffText

SALT = "225\n5.6\n{} 4a\n{} 4b"


def test_rates() -> None:
    """NaCl with Cl hidden: a halide balances Na, and sodium alone passes; a noble gas does not."""
    answers = ["Cl", " Br\n", "Ne", "Na", "cl", "", "Cl and more", "Xx"]
    crystals = WyckoffText().decode([SALT.format("Na", "Cl")] * len(answers)).crystals
    rates = {x.name: x for x in infilling_rates(answers, crystals, np.full(len(answers), 17))}
    told, exact, allowed = (rates[f"infilling: {x}"] for x in ("an element", "exact", "allowed"))
    assert (told.count, exact.count, told.total, exact.total) == (4, 1, 8, 8)
    assert allowed.count == 3  # Cl, Br, and Na, the element itself
    assert "smact14" in allowed.reference
    assert exact.denominator == "crystals with a hidden element"


def test_the_true_element_is_allowed_whatever_the_test_says() -> None:
    """NaCl2, which has no balance; neither has NaBr2."""
    text = "225\n6.0\nNa 4a\nCl 8c"
    crystals = WyckoffText().decode([text] * 3).crystals
    chlorine = np.full(3, atomic_number("Cl"))
    rates = {x.name: x for x in infilling_rates(["Cl", "Br", "S"], crystals, chlorine)}
    assert rates["infilling: allowed"].count == 1
