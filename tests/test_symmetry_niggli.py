"""Niggli-reduced cells, against their definition and pymatgen's matcher."""

import jax
import numpy as np
import pytest
from hypothesis import given, settings
from pymatgen.analysis.structure_matcher import StructureMatcher
from pymatgen.core import Lattice
from random_crystals import prototypes, triclinic_crystal

from crystaljax.crystal import Crystals
from crystaljax.structures import to_structure, to_structures
from crystaljax.symmetry.niggli import niggli_cells

SAME = StructureMatcher(
    ltol=1e-3, stol=1e-3, angle_tol=0.1, scale=False, primitive_cell=False, attempt_supercell=False
)


def test_axes_are_reduced() -> None:
    """The main conditions (International Tables A, 9.2.2)."""
    for cell in niggli_cells(prototypes(17)):
        products = cell.matrix @ cell.matrix.T
        aa, bb, cc = products.diagonal()
        bc, ca, ab = products[1, 2], products[2, 0], products[0, 1]
        slack = 1e-5 * cc
        assert np.linalg.det(cell.matrix) > 0
        assert aa <= bb + slack <= cc + 2 * slack
        assert 2 * abs(bc) <= bb + slack
        assert 2 * abs(ca) <= aa + slack
        assert 2 * abs(ab) <= aa + slack
        obtuse = max(bc, ca, ab) <= slack
        assert obtuse or min(bc, ca, ab) > slack
        assert not obtuse or 2 * abs(bc + ca + ab) <= aa + bb + slack


def test_the_crystal_is_the_same() -> None:
    crystals = prototypes(17)
    for cell, structure in zip(niggli_cells(crystals), to_structures(crystals, True), strict=True):
        assert SAME.fit(to_structure(cell), structure)


@settings(max_examples=30)
@given(triclinic_crystal())
def test_any_cell(crystals: Crystals) -> None:
    (cell,), (structure,) = niggli_cells(crystals), to_structures(crystals)
    assert structure is not None
    angles = np.array(Lattice(cell.matrix).angles)
    assert angles.min() > 60 - 1e-3
    assert angles.max() < 120 + 1e-3
    assert ((cell.frac >= 0) & (cell.frac < 1)).all()
    assert SAME.fit(to_structure(cell), structure)


def test_noise_does_not_choose_the_axes() -> None:
    crystals = prototypes(17)
    noise = np.random.default_rng(0).normal(0, 1e-7, crystals.lattice.shape).astype(np.float32)
    noisy = Crystals(
        crystals.space_group,
        crystals.wyckoff,
        crystals.species,
        crystals.frac,
        crystals.lattice * (1 + noise),
    )
    for one, other in zip(niggli_cells(crystals), niggli_cells(noisy), strict=True):
        parameters = Lattice(one.matrix).parameters, Lattice(other.matrix).parameters
        np.testing.assert_allclose(*parameters, atol=1e-2)


def test_what_is_no_cell() -> None:
    crystals = prototypes(500)
    empty = jax.tree.map(lambda x: x.copy(), crystals)
    empty.wyckoff[1] = 0
    with pytest.raises(ValueError, match="crystal 1 has no atoms or no space group"):
        niggli_cells(empty)
    for bad in (0, np.nan):
        flat = jax.tree.map(lambda x: x.copy(), crystals)
        flat.lattice[2, :3] = bad
        with pytest.raises(ValueError, match="crystal 2 has no unit cell"):
            niggli_cells(flat)
    assert niggli_cells(crystals[:0]) == []
