"""Chemical plausibility of candidates: SMACT's test, and Pauling's without its waiver."""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache

import numpy as np

from crystaljax.alloys.composition import Candidate, write_formula
from crystaljax.evaluation.charge_balance import OxidationTable, formula_valid, smact_description
from crystaljax.evaluation.rates import Rate

_RULES = {
    "SMACT": "elements and alloys of metals pass, others balance oxidation states that agree with"
    " the electronegativities",
    "Pauling": "oxidation states balance and agree with Pauling's electronegativities, also those"
    " of alloys of metals; elements pass",
}


def validity_rates(
    candidates: Sequence[Candidate | None], table: OxidationTable = "smact14"
) -> dict[str, tuple[Rate, np.ndarray]]:
    """Rates of candidates whose two phases both pass, each with its mask, bool [N], by name.

    None, a text that was no candidate, fails. SMACT lets every alloy of metals pass, so that it
    rejects only what has a non-metal; the Pauling test is the stricter of the two. The paper
    (arXiv 2511.12036) does not say which alloys it lets pass.
    """
    found = {}
    for name, description in _RULES.items():
        alloys = name == "SMACT"
        mask = np.array([_valid(candidate, table, alloys) for candidate in candidates], bool)
        rate = Rate.of(
            f"{name} valid",
            mask,
            f"in both phases {description}",
            reference=smact_description(table),
        )
        found[rate.name] = (rate, mask)
    return found


def _valid(candidate: Candidate | None, table: OxidationTable, alloys: bool) -> bool:
    if candidate is None:
        return False
    phases = (candidate.bcc, candidate.b2)
    return all(_phase_valid(tuple(amounts.items()), table, alloys) for amounts in phases)


@lru_cache(maxsize=1 << 16)
def _phase_valid(
    amounts: tuple[tuple[str, float], ...], table: OxidationTable, alloys: bool
) -> bool:
    """Of one phase; models write the same ones often."""
    return formula_valid(_formula(amounts), table, alloys)


@lru_cache(maxsize=1 << 16)
def _formula(amounts: tuple[tuple[str, float], ...]) -> str:
    return write_formula(dict(amounts))
