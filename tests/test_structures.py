"""The border to pymatgen."""

import numpy as np
import pytest
from pymatgen.core import Composition, DummySpecies, Lattice, Structure

from crystaljax.crystal import Crystals
from crystaljax.structures import from_structure, to_structures


@pytest.fixture
def crystals() -> Crystals:
    """Rock salt, cubic perovskite and wurtzite."""
    return Crystals(
        np.array([225, 221, 186]),
        np.array([[1, 2, 0], [1, 2, 3], [2, 2, 0]]),
        np.array([[11, 17, 0], [38, 22, 8], [30, 16, 0]]),
        np.array(
            [
                [[0, 0, 0], [0.5, 0.5, 0.5], [0, 0, 0]],
                [[0, 0, 0], [0.5, 0.5, 0.5], [0, 0.5, 0.5]],
                [[1 / 3, 2 / 3, 0], [1 / 3, 2 / 3, 0.375], [0, 0, 0]],
            ],
            np.float32,
        ),
        np.array(
            [
                [5.64, 5.64, 5.64, 90, 90, 90],
                [3.9, 3.9, 3.9, 90, 90, 90],
                [3.82, 3.82, 6.26, 90, 90, 120],
            ],
            np.float32,
        ),
    )


def test_known_structures_against_pymatgen(crystals):
    rock_salt, perovskite, wurtzite = to_structures(crystals)
    assert rock_salt is not None and perovskite is not None and wurtzite is not None
    expected = Structure.from_spacegroup(
        "Fm-3m", Lattice.cubic(5.64), ["Na", "Cl"], [[0, 0, 0], [0.5, 0.5, 0.5]]
    )
    assert rock_salt.matches(expected, scale=False, primitive_cell=False)
    assert len(rock_salt) == 8
    assert perovskite.composition == Composition("SrTiO3")
    assert perovskite.get_space_group_info()[1] == 221
    assert wurtzite.get_space_group_info()[1] == 186 and wurtzite.composition == Composition(
        "Zn2S2"
    )


def test_primitive_cells_are_the_same_crystals(crystals):
    full, primitive = to_structures(crystals), to_structures(crystals, primitive=True)
    assert [len(structure) for structure in primitive] == [2, 5, 4]
    for a, b in zip(full, primitive, strict=True):
        assert a.matches(b, scale=False)


def test_a_structure_survives_the_way_there_and_back(crystals):
    for structure in to_structures(crystals):
        cell = from_structure(structure.add_oxidation_state_by_guess())
        again = Structure(cell.matrix, cell.species, cell.frac)
        assert again.matches(structure, scale=False)


@pytest.mark.parametrize(
    "field, value", [("species", 0), ("species", 119), ("lattice", 0), ("frac", np.nan)]
)
def test_rows_that_are_no_crystals_are_none(crystals, field, value):
    getattr(crystals, field)[1] = value
    first, second, third = to_structures(crystals)
    assert second is None and first is not None and third is not None


def test_no_crystals_give_no_structures(crystals):
    assert to_structures(crystals[:0]) == []


def test_sites_that_are_not_one_element_are_named():
    lattice = Lattice.cubic(3)
    shared = Structure(lattice, [{"Fe": 0.5, "Ni": 0.5}], [[0, 0, 0]])
    with pytest.raises(ValueError, match=r"Fe:0\.5.*partly occupied"):
        from_structure(shared)
    with pytest.raises(ValueError, match="X0\\+ is not an element"):
        from_structure(Structure(lattice, [DummySpecies("X", 0)], [[0, 0, 0]]))
