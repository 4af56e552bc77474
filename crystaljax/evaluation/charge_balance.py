"""Charge balance of compositions by SMACT."""

from __future__ import annotations

from functools import lru_cache, partial
from importlib.metadata import version
from typing import Literal, get_args

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

    `alloys`: whether alloys of metals pass without oxidation states.
    """
    from smact.screening import smact_validity

    test = partial(smact_validity, use_pauling_test=True, include_alloys=alloys)
    try:
        # None is SMACT's own default: its list of 2024 with its default filter.
        return bool(test(formula, oxidation_states_set=None if table == "icsd24" else table))
    except (KeyError, NameError, TypeError, ValueError):
        return False
