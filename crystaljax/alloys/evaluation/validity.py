"""Chemical validity of candidates: SMACT's test, with and without its exception for metals."""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache

import numpy as np

from crystaljax.alloys.composition import Amounts, Candidate, write_formula
from crystaljax.evaluation.charge_balance import OxidationTable, formula_valid, smact_description
from crystaljax.evaluation.rates import Rate

_RULES = {
    "SMACT": "elements and alloys of metals pass, others balance oxidation states that agree with"
    " the electronegativities",
    "Pauling": "oxidation states balance and agree with Pauling's electronegativities, also those"
    " of alloys of metals; elements pass",
}

Validity = dict[str, tuple[Rate, np.ndarray]]
"""Rates, each with its mask, bool [N], by name."""


def validity_rates(
    candidates: Sequence[Candidate | None], table: OxidationTable = "smact14"
) -> Validity:
    """Rates of candidates whose two phases both pass.

    None, a text without a candidate, fails. SMACT lets every alloy of metals pass, so that it
    rejects only candidates with a non-metal. The Pauling test is stricter: it has no exception for
    alloys. The paper (arXiv 2511.12036) does not say whether it has one. The test of
    electronegativities without charge balance (SMACT's `pauling_test`) cannot reject any alloy:
    positive states alone agree with all electronegativities.
    """
    parts = [None if one is None else (one.bcc, one.b2) for one in candidates]
    return _rates(parts, "in both phases ", table)


def mixture_validity_rates(
    mixtures: Sequence[Amounts | None], table: OxidationTable = "smact14"
) -> Validity:
    """The same for whole compositions, such as those of crystals."""
    return _rates([None if one is None else (one,) for one in mixtures], "", table)


def _rates(
    parts: Sequence[tuple[Amounts, ...] | None], where: str, table: OxidationTable
) -> Validity:
    """Rates of samples all of whose parts pass."""
    found = {}
    for name, description in _RULES.items():
        alloys = name == "SMACT"
        mask = np.array([_valid(each, table, alloys) for each in parts], bool)
        rate = Rate.of(
            f"{name} valid", mask, f"{where}{description}", reference=smact_description(table)
        )
        found[rate.name] = (rate, mask)
    return found


def _valid(parts: tuple[Amounts, ...] | None, table: OxidationTable, alloys: bool) -> bool:
    if parts is None:
        return False
    return all(_part_valid(tuple(amounts.items()), table, alloys) for amounts in parts)


@lru_cache(maxsize=1 << 16)
def _part_valid(
    amounts: tuple[tuple[str, float], ...], table: OxidationTable, alloys: bool
) -> bool:
    """Validity of one composition; cached, as models often repeat compositions."""
    return formula_valid(_formula(amounts), table, alloys)


@lru_cache(maxsize=1 << 16)
def _formula(amounts: tuple[tuple[str, float], ...]) -> str:
    return write_formula(dict(amounts))
