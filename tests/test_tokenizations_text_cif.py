"""CIF texts: CIFs that other programs read alike, and texts that contradict themselves."""

from __future__ import annotations

import gemmi
import numpy as np
import pytest

from crystaljax.composition import SYMBOLS
from crystaljax.data.dataset import load
from crystaljax.structures import to_cells
from crystaljax.tokenizations.text.cif import CifText
from crystaljax.tokenizations.text.wyckoff import WyckoffText

TEXT = CifText(consistent=True)
LENIENT = CifText()
RUTILE = """\
data_Ti2O4
_chemical_formula_structural TiO2
_chemical_formula_sum 'Ti2 O4'
_cell_formula_units_Z 2
_symmetry_space_group_name_H-M P42/mnm
_symmetry_Int_Tables_number 136
_cell_length_a 4.5940
_cell_length_b 4.5940
_cell_length_c 2.9590
_cell_angle_alpha 90.0000
_cell_angle_beta 90.0000
_cell_angle_gamma 90.0000
loop_
_atom_site_type_symbol
_atom_site_label
_atom_site_symmetry_multiplicity
_atom_site_Wyckoff_symbol
_atom_site_fract_x
_atom_site_fract_y
_atom_site_fract_z
Ti Ti0 2 a 0.0000 0.0000 0.0000
O O1 4 f 0.3048 0.3048 0.0000"""


def test_rutile() -> None:
    source = "136\n4.594 2.959\nTi 2a\nO 4f 0.3048"
    assert TEXT.encode(WyckoffText().decode([source]).crystals) == [RUTILE]
    assert WyckoffText().encode(TEXT.decode([RUTILE]).crystals) == [source]


def test_other_programs_read_the_same_atoms() -> None:
    """gemmi expands a prototype of each space group by the name of the group alone."""
    crystals = load("prototypes").crystals
    crystals = crystals[np.unique(crystals.space_group, return_index=True)[1]]
    assert len(crystals) > 80
    for text, cell in zip(TEXT.encode(crystals), to_cells(crystals), strict=True):
        block = gemmi.cif.read_string(text).sole_block()
        read = gemmi.make_small_structure_from_block(block)
        atoms = read.get_all_unit_cell_sites()
        species = [atom.element.atomic_number for atom in atoms]
        assert sorted(species) == sorted(cell.species.tolist()), text
        for atom in atoms:
            same = cell.frac[cell.species == atom.element.atomic_number]
            moved = same - np.array(atom.fract.tolist())
            assert np.abs(moved - np.round(moved)).max(axis=1).min() < 2e-4, text


def test_tags_and_columns_in_any_order() -> None:
    lines = RUTILE.split("\n")
    loop = [
        *("", "loop_", "_symmetry_equiv_pos_as_xyz", "'x, y, z'", "_cell_volume 62.4"),
        *("loop_", "_atom_site_occupancy", "_atom_site_fract_z", "_atom_site_fract_y"),
        *("_atom_site_fract_x", "_atom_site_Wyckoff_symbol", "_atom_site_symmetry_multiplicity"),
        *("_atom_site_type_symbol", "_atom_site_label"),
        *("1 0 -0.6952 0.3048 f 4 O O1", "1 0 0 0 a 2 Ti Ti0"),
    ]
    other = "\n".join([lines[0], *lines[11:0:-1], *loop])
    decoded = TEXT.decode([other])
    assert decoded.reasons == [None]
    assert TEXT.encode(decoded.crystals) == [RUTILE]


@pytest.mark.parametrize(
    ("old", "new", "reason"),
    [
        ("_symmetry_Int_Tables_number 136\n", "", "_symmetry_Int_Tables_number is missing"),
        ("number 136", "number 0", "'0' is no space group"),
        ("number 136", "number x", "'x' is no space group"),
        ("_cell_length_b 4.5940\n", "", "_cell_length_b is missing"),
        ("_cell_length_b 4.5940", "_cell_length_b", "_cell_length_b: 1 number expected, not ''"),
        ("_cell_length_b 4.5940", "_cell_length_a 4.5940", "_cell_length_a is given twice"),
        ("loop_", "data_Ti2O4", "data_ is given twice"),
        ("loop_\n", "", "'Ti Ti0 2 a 0.0000 0.0000 0.0000' is no tag, and belongs to no loop_"),
        ("_atom_site_Wyckoff_symbol\n", "", "there is no loop_ of sites"),
        ("_atom_site_fract_z\n", "", "is no site of 6 columns"),
        (" a ", " q ", "'2q' is no Wyckoff position of space group 136"),
        (" 2 a ", " 1 2a ", "'2a' is no Wyckoff letter"),
        (" 2 a ", " 4 a ", "'4a' is no Wyckoff position"),
        ("0.3048 0.3048", "0.3048 inf", "a site's place: 3 numbers expected"),
        ("\nTi Ti0", "\nTy Ti0", "unknown element 'Ty'"),
        ("data_Ti2O4", "Ti2O4", "'Ti2O4' is no tag"),
        ("4.5940", "0.0000", "a cell length or angle out of range"),
    ],
)
def test_faults(old: str, new: str, reason: str) -> None:
    text = RUTILE.replace(old, new)
    for format in (TEXT, LENIENT):
        decoded = format.decode([RUTILE, text, RUTILE])
        assert decoded.ok.tolist() == [True, False, True]
        assert reason in (decoded.reasons[1] or "")


@pytest.mark.parametrize(
    ("old", "new", "reason"),
    [
        ("data_Ti2O4", "data_Ti4O8", "do not have the formula 'Ti4O8' of data_"),
        ("structural TiO2", "structural TiO", "'TiO' of _chemical_formula_structural"),
        ("'Ti2 O4'", "'Ti2 S4'", "'Ti2 S4' of _chemical_formula_sum"),
        ("'Ti2 O4'", "'Ti2 O4", None),
        ("units_Z 2", "units_Z 4", "the sites are 2 formula units, not '4'"),
        ("P42/mnm", "P42/mcm", "space group 136 is P42/mnm, not 'P42/mcm'"),
        ("length_b 4.5940", "length_b 4.6000", "does not have the metric of space group 136"),
        ("0.3048 0.3048", "0.3048 0.3052", "not on their Wyckoff positions"),
    ],
)
def test_contradictions(old: str, new: str, reason: str | None) -> None:
    text = RUTILE.replace(old, new)
    assert TEXT.encode(LENIENT.decode([text]).crystals) == [RUTILE]
    decoded = TEXT.decode([RUTILE, text])
    assert decoded.ok.tolist() == [True, reason is None]
    assert (reason or "") in (decoded.reasons[1] or "")


def test_names_are_those_of_the_settings() -> None:
    """gemmi finds the standard setting by each name that can be written."""
    from crystaljax.tokenizations.text.cif import _name

    for group in range(1, 231):
        found = gemmi.find_spacegroup_by_name(_name(group))
        assert found == gemmi.get_spacegroup_reference_setting(group)
    assert [_name(g) for g in (14, 166, 227)] == ["P21/c", "R-3m:H", "Fd-3m:2"]


def test_elements() -> None:
    """All of them can be written."""
    texts = [f"221\n4.000\n{symbol} 1a" for symbol in SYMBOLS]
    crystals = WyckoffText().decode(texts).crystals
    assert TEXT.decode(TEXT.encode(crystals)).ok.all()
