"""Conditions: what contradicts itself, and what crystals meet."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from random_crystals import prototypes

from crystaljax.composition import symbol
from crystaljax.conditions import Condition, chemical_system, unmet
from crystaljax.structures import to_structures
from crystaljax.symmetry.tables import letter
from crystaljax.tokenizations.text.wyckoff import WyckoffText


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"formula": "Na0.5Cl"}, "whole numbers"),
        ({"formula": "NaXy"}, "NaXy"),
        ({"formula": "NaCl", "formula_units": 0}, "at least 1"),
        ({"formula_units": 2}, "no formula"),
        ({"formula": "NaCl", "elements": ("Na",)}, "Cl, which is not among those allowed"),
        ({"formula": "NaCl", "required": ("O",)}, "O, which is not among those of the formula"),
        ({"elements": ()}, "no element"),
        ({"elements": ("Na",), "required": ("O",)}, "O, which is not among those allowed"),
        ({"space_group": 231}, "231"),
        ({"space_group": (1, 0)}, "space group 0"),
        ({"space_group": ()}, "no space group"),
        ({"template": ()}, "no sites"),
        ({"template": ("b", "a")}, "sort"),
        ({"template": ("a",), "required": ("Na", "Cl")}, "2 elements are required on 1 sites"),
        ({"template": ("aa",)}, "aa"),
        ({"properties": {"band_gap": float("nan")}}, "band_gap"),
    ],
)
def test_what_nothing_can_meet(fields: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Condition(**fields)


def test_names_of_what_is_asked() -> None:
    assert not Condition().asked
    condition = Condition(formula="NaCl", space_group=(225, 221), properties={"band_gap": 1.0})
    assert condition.asked == {"formula", "space_group", "properties"}
    assert condition.space_groups == (225, 221)
    assert Condition(properties={"a": 1.0}) in {Condition(properties={"a": 1.0})}


def test_crystals_meet_what_they_are() -> None:
    crystals = prototypes(29).to_numpy()
    conditions = []
    for i, structure in enumerate(to_structures(crystals, primitive=True)):
        assert structure is not None
        units = structure.composition.get_reduced_composition_and_factor()[1]
        present = tuple(symbol(int(z)) for z in np.unique(crystals.species[i]) if z)
        letters = sorted(int(x) for x in crystals.wyckoff[i] if x)
        conditions.append(
            Condition(
                formula=structure.composition.reduced_formula,
                formula_units=round(units),
                elements=present,
                required=present[:1],
                space_group=int(crystals.space_group[i]),
                template=tuple(letter(x) for x in letters),
            )
        )
    assert unmet(crystals, conditions) == [None] * len(crystals)
    open_units = [Condition(formula=x.formula) for x in conditions]
    assert unmet(crystals, open_units) == [None] * len(crystals)
    twice = [
        Condition(formula=x.formula, formula_units=2 * (x.formula_units or 1)) for x in conditions
    ]
    assert set(unmet(crystals, twice)) == {"another number of formula units than asked for"}
    moved = unmet(crystals, conditions[1:] + conditions[:1])
    assert sum(reason is not None for reason in moved) > 0.9 * len(moved)


@pytest.mark.parametrize(
    ("condition", "reason"),
    [
        (Condition(formula="KBr"), "composition"),
        (Condition(elements=("K",)), "not allowed"),
        (Condition(required=("K",)), "required"),
        (Condition(space_group=(1, 2)), "space group"),
        (Condition(template=("a",)), "template"),
    ],
)
def test_reasons(condition: Condition, reason: str) -> None:
    salt = WyckoffText().decode(["225\n5.640\nNa 4a\nCl 4b"]).crystals
    (found,) = unmet(salt, [condition])
    assert found is not None and reason in found


@pytest.mark.parametrize("text", ["Li-Fe-O", "Li,Fe,O", "Li, Fe, O", "Li Fe O"])
def test_a_chemical_system(text: str) -> None:
    assert chemical_system(text) == ("Li", "Fe", "O")


@pytest.mark.parametrize("text", ["", "Li-", "Li-Li", "LiFeO", "Li-Xx"])
def test_what_is_no_chemical_system(text: str) -> None:
    with pytest.raises(ValueError, match=r"chemical system|unknown element"):
        chemical_system(text)
