"""Tests of crystaljax.evaluation.charge_balance against SMACT."""

import numpy as np
import pytest
from test_validity import crystals_of

from crystaljax.crystal import Crystals
from crystaljax.data.prototypes import prototypes
from crystaljax.evaluation import charge_balance
from crystaljax.evaluation.charge_balance import composition_valid
from crystaljax.structures import to_structures


def test_compositions_as_smact() -> None:
    from smact.screening import smact_validity

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


def test_each_formula_is_tested_once(monkeypatch: pytest.MonkeyPatch) -> None:
    import smact.screening

    asked = []

    def count(formula: str, **_: object) -> bool:
        asked.append(formula)
        return True

    monkeypatch.setattr(smact.screening, "smact_validity", count)
    charge_balance.formula_valid.cache_clear()
    crystals = prototypes(1).crystals[:40]
    composition_valid(crystals)
    composition_valid(Crystals.concatenate([crystals, crystals]))
    assert len(asked) == len(set(asked))
    charge_balance.formula_valid.cache_clear()


def test_unknown_table_is_named() -> None:
    with pytest.raises(ValueError, match=r"'wiki'.*smact14 or icsd24"):
        composition_valid(prototypes(1).crystals[:1], "wiki")  # type: ignore[arg-type]
