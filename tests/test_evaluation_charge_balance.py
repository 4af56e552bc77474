"""Tests of crystaljax.evaluation.charge_balance against SMACT."""

import time

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pymatgen.core import Composition
from smact.screening import smact_validity
from test_validity import crystals_of

from crystaljax.composition import SYMBOLS
from crystaljax.crystal import Crystals
from crystaljax.data.prototypes import prototypes
from crystaljax.evaluation import charge_balance
from crystaljax.evaluation.charge_balance import composition_valid
from crystaljax.structures import to_structures


def test_compositions_as_smact() -> None:
    crystals = prototypes(2).crystals
    for table, name in (("smact14", "smact14"), ("icsd24", None)):
        charge_balance.formula_valid.cache_clear()
        found = composition_valid(crystals, table)  # type: ignore[arg-type]
        structures = to_structures(crystals[::5])
        expected = [
            smact_validity(s.composition.reduced_formula, oxidation_states_set=name)
            for s in structures
        ]
        np.testing.assert_array_equal(found[::5], expected)
        assert 0.5 < found.mean() < 1


def test_compositions_that_are_known() -> None:
    salt, wrong, noble, alloy = (
        crystals_of((5 * np.eye(3), [[0, 0, 0], *extra], elements))
        for elements, extra in (
            ([11, 17], [[0.5, 0.5, 0.5]]),  # NaCl
            ([11, 17, 17], [[0.5, 0.5, 0.5], [0.5, 0, 0.1]]),  # NaCl2
            ([2, 10], [[0.5, 0.5, 0.5]]),  # HeNe
            ([29, 79], [[0.5, 0.5, 0.5]]),  # CuAu
        )
    )
    crystals = Crystals.concatenate([salt, wrong, noble, alloy])
    valid = composition_valid(crystals, "icsd24")
    np.testing.assert_array_equal(valid, [True, False, False, True])


@settings(deadline=None, max_examples=300)
@given(
    st.dictionaries(st.sampled_from(SYMBOLS[1:104]), st.integers(1, 6), min_size=1, max_size=4),
    st.sampled_from(["smact14", "icsd24"]),
    st.booleans(),
)
def test_any_formula_as_smact(
    amounts: dict[str, int], table: charge_balance.OxidationTable, alloys: bool
) -> None:
    formula = Composition(amounts).reduced_formula
    name = None if table == "icsd24" else table
    try:
        expected = smact_validity(formula, include_alloys=alloys, oxidation_states_set=name)
    except (KeyError, NameError, TypeError, ValueError):
        expected = False
    assert charge_balance.formula_valid(formula, table, alloys) == expected


def test_formulas_of_many_elements_take_no_time() -> None:
    """Combinations of their states are more than 10¹²."""
    formula = "Fe2Mn3Cr5V7Ti2Mo3Re5Ru7W2Nb3Os5C7N2P3S5Cl7Br2I3O5"
    start = time.process_time()
    assert charge_balance.formula_valid(formula, "smact14")
    assert not charge_balance.formula_valid("Fe2Mn3Cr5V7Ti2Mo3Re5Ru7W2Nb3Os5He", "smact14")
    assert time.process_time() - start < 5


def test_each_formula_is_tested_once(monkeypatch: pytest.MonkeyPatch) -> None:
    asked = []

    def count(counts: object, ions: object) -> bool:
        asked.append((str(counts), str(ions)))
        return True

    monkeypatch.setattr(charge_balance, "_balances", count)
    charge_balance.formula_valid.cache_clear()
    crystals = prototypes(1).crystals[:40]
    composition_valid(crystals)
    composition_valid(Crystals.concatenate([crystals, crystals]))
    assert asked and len(asked) == len(set(asked))
    charge_balance.formula_valid.cache_clear()
