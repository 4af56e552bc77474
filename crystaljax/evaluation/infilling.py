"""Infilling: how often the hidden element of a crystal is told."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from crystaljax.composition import SYMBOLS, atomic_number, element_counts, formula
from crystaljax.crystal import Crystals
from crystaljax.evaluation.charge_balance import OxidationTable, formula_valid, smact_description
from crystaljax.evaluation.rates import Rate

DENOMINATOR = "crystals with a hidden element"


def infilling_rates(
    answers: Sequence[str],
    crystals: Crystals,
    hidden: np.ndarray,
    table: OxidationTable = "smact14",
) -> list[Rate]:
    """Rates of answers to N questions for an element that is hidden in a crystal.

    Args:
      answers: [N]: symbols of elements, if they are any.
      crystals: [N]: the whole ones.
      hidden: int [N]: atomic numbers of the true elements.
      table: oxidation states of SMACT's test.

    Chemically allowed is the true element, and any other with which the composition passes the
    test; see `charge_balance.composition_valid`.
    """
    told = np.array([_number(answer) for answer in answers], int)
    exact = told == np.asarray(hidden)
    counts = element_counts(crystals.to_numpy())
    allowed = exact.copy()
    for row in np.flatnonzero((told > 0) & ~exact).tolist():
        changed = counts[row].copy()
        changed[hidden[row]] = 0
        changed[told[row]] += counts[row, hidden[row]]
        allowed[row] = formula_valid(formula(changed), table)
    test = smact_description(table)
    return [
        Rate.of("infilling: an element", told > 0, "the symbol of an element", DENOMINATOR),
        Rate.of("infilling: exact", exact, "the element that the crystal has", DENOMINATOR),
        Rate.of(
            "infilling: allowed",
            allowed,
            "that element, or one with which the composition passes SMACT's test",
            DENOMINATOR,
            test,
        ),
    ]


def _number(answer: str) -> int:
    """Atomic number of an element's symbol, with any space around it; 0 of anything else."""
    symbol = answer.strip()
    return atomic_number(symbol) if symbol in SYMBOLS else 0
