"""Random structures from PyXtal."""

import numpy as np
import pytest

from crystaljax.composition import formulas
from crystaljax.conditions import Condition, unmet
from crystaljax.models.wyckoff.demands import OPEN_UNITS
from crystaljax.symmetry.orbits import n_atoms
from crystaljax.validity import structure_valid

pytest.importorskip("pyxtal")

from crystaljax.baselines.random_search import RandomSearch, _contents


def test_structures_are_as_asked() -> None:
    asked = [
        Condition(formula="SrTiO3", formula_units=1, space_group=(1, 2, 25, 99, 123)),
        Condition(formula="NaCl"),
    ]
    search = RandomSearch(max_atoms=20)
    found = search.propose(asked, 3, seed=1)
    assert unmet(found.crystals, [c for c in asked for _ in range(3)]) == [None] * 6
    assert found.reasons == [None] * 6
    assert structure_valid(found.crystals).all()
    again = search.propose(asked, 3, seed=1)
    np.testing.assert_array_equal(again.crystals.lattice, found.crystals.lattice)
    assert formulas(found.crystals)[3:] == ["NaCl"] * 3


def test_what_no_group_holds() -> None:
    """One atom of each of two elements does not fit 230 groups; a large cell is not made at all."""
    search = RandomSearch(max_atoms=4)
    found = search.propose(
        [Condition(formula="LiF", formula_units=1, space_group=14), Condition(formula="Fe3O4")], 2
    )
    assert not found.crystals.space_group.any()
    assert found.reasons[0] == "no space group holds LiF with at most 4 atoms"
    assert found.reasons[2] == "no space group holds Fe3O4 with at most 4 atoms"


def test_open_units_are_of_the_reduced_formula() -> None:
    """Na2Cl2 is asked like NaCl: cells of 2 atoms on, as many units as the Wyckoff model tries."""
    sizes = {
        name: [int(content.sum()) for content in _contents(Condition(formula=name))]
        for name in ("NaCl", "Na2Cl2", "Sr2Ti2O6")
    }
    assert sizes["NaCl"] == sizes["Na2Cl2"] == [2 * n for n in OPEN_UNITS]
    assert sizes["Sr2Ti2O6"] == [5, 10, 15, 20]  # 4 units: 325 remainders; 5: 576
    asked = Condition(formula="Na2Cl2", space_group=225)
    found = RandomSearch(max_atoms=3).propose([asked], 1, seed=0)
    assert found.reasons == [None] and n_atoms(found.crystals, primitive=True).tolist() == [2]


def test_cells_as_large_as_asked_for() -> None:
    """24 atoms; and one that has too many ways to be placed, which costs itself alone."""
    asked = [
        Condition(formula="NaCl", formula_units=12, space_group=(1, 2, 4)),
        Condition(formula="LiNaKRbCsFCl", formula_units=5),
    ]
    found = RandomSearch(max_atoms=52).propose(asked, 1, seed=0)
    assert found.reasons[0] is None and "too many for a composition" in str(found.reasons[1])
    assert n_atoms(found.crystals, primitive=True).tolist() == [24, 0]
