"""Random structures from PyXtal."""

import numpy as np
import pytest

from crystaljax.composition import formulas
from crystaljax.conditions import Condition, unmet
from crystaljax.validity import structure_valid

pytest.importorskip("pyxtal")

from crystaljax.baselines.random_search import RandomSearch


def test_structures_are_as_asked() -> None:
    asked = [
        Condition(formula="SrTiO3", formula_units=1, space_group=(1, 2, 25, 99, 123)),
        Condition(formula="NaCl"),
    ]
    search = RandomSearch()
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
