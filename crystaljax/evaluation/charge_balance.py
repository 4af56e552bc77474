"""Charge balance of compositions by SMACT."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache, lru_cache
from importlib.metadata import version
from typing import Literal, NamedTuple, get_args

import numpy as np

from crystaljax.composition import formulas
from crystaljax.crystal import Crystals

OxidationTable = Literal["smact14", "icsd24"]
"""SMACT's oxidation states: its 2014 list, which published validities used, or its newer default
(the ICSD's of 2024, filtered)."""


def composition_valid(crystals: Crystals, table: OxidationTable = "smact14") -> np.ndarray:
    """Mask of compositions that pass SMACT's test: bool [B]; no atoms fail.

    Elements and alloys of metals pass; others need oxidation states of `table` that balance and
    agree with the electronegativities. Each formula is tested once in a process.
    D. W. Davies et al., JOSS 4 (2019), 1361. ValueError for an unknown table.
    """
    if table not in get_args(OxidationTable):
        raise ValueError(f"no table {table!r} of oxidation states: use smact14 or icsd24")
    return np.array(
        [bool(name) and formula_valid(name, table) for name in formulas(crystals)], bool
    )


def smact_description(table: OxidationTable) -> str:
    """Note on the compositional test for tables of results."""
    return f"SMACT {version('smact')}, oxidation states {table}"


@lru_cache(maxsize=1 << 18)
def formula_valid(formula: str, table: OxidationTable, alloys: bool = True) -> bool:
    """SMACT's verdict on a reduced formula; False where it knows nothing of an element.

    The same as of `smact.screening.smact_validity`, which tries all combinations of oxidation
    states: hours for formulas of twelve elements, such as models write.

    Args:
      alloys: whether alloys of metals pass without oxidation states.
    """
    from pymatgen.core import Composition
    from smact import metals

    try:
        amounts = Composition(formula).as_dict()
    except (KeyError, ValueError):
        return False
    if len(amounts) == 1 or (alloys and set(amounts) <= set(metals)):
        return True
    ions = [_ion(name, table) for name in amounts]
    if any(ion is None or not ion.states or ion.electronegativity is None for ion in ions):
        return False
    return _balances([int(n) for n in amounts.values()], [ion for ion in ions if ion])


class _Ion(NamedTuple):
    """An element in compounds."""

    states: tuple[int, ...]
    """Oxidation states."""
    electronegativity: float | None
    """Pauling electronegativity; None if unknown."""


@cache
def _ion(name: str, table: OxidationTable) -> _Ion | None:
    """An element by SMACT; None for one that it does not know."""
    from smact import Element

    try:
        element = Element(name)
    except (KeyError, NameError):
        return None
    states = element.oxidation_states_smact14 if table == "smact14" else _icsd24().get(name)
    return _Ion(tuple(states or ()), element.pauling_eneg)


@cache
def _icsd24() -> dict[str, tuple[int, ...]]:
    """Oxidation states of the ICSD of 2024, by SMACT's default filter."""
    from smact.utils.oxidation import ICSD24OxStatesFilter

    found = ICSD24OxStatesFilter().filter()
    names, states = found["element"], found["oxidation_state"]
    return {
        str(name): tuple(int(x) for x in str(some).split())
        for name, some in zip(names, states, strict=True)
    }


def _balances(counts: Sequence[int], ions: Sequence[_Ion]) -> bool:
    """Whether some states are neutral with all cations less electronegative than all anions.

    For each bound between the two, all charges that the elements can have together, one more
    element at a time.
    """
    for bound in {ion.electronegativity for ion in ions}:
        charges = {0}
        for n, ion in zip(counts, ions, strict=True):
            is_less = ion.electronegativity < bound  # type: ignore[operator]
            fine = [x for x in ion.states if x == 0 or (x > 0) == is_less]
            charges = {charge + n * x for charge in charges for x in fine}
        if 0 in charges:
            return True
    return False
