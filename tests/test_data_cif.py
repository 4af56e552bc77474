"""CIF text to atoms, against pymatgen."""

import gemmi
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pymatgen.analysis.structure_matcher import StructureMatcher
from pymatgen.core import Lattice, Structure
from pymatgen.io.cif import CifWriter

from crystaljax.crystal import AtomicCell
from crystaljax.data import cif
from crystaljax.data.cif_sites import Sites, expand
from crystaljax.symmetry.settings import from_hall

PROTOTYPES = {  # space group, lattice, species and positions of the asymmetric unit
    "rocksalt": (225, Lattice.cubic(5.64), ["Na", "Cl"], [[0, 0, 0], [0.5, 0.5, 0.5]]),
    "diamond": (227, Lattice.cubic(3.567), ["C"], [[0.125, 0.125, 0.125]]),
    "wurtzite": (
        186,
        Lattice.hexagonal(3.25, 5.21),
        ["Zn", "O"],
        [[1 / 3, 2 / 3, 0.0], [1 / 3, 2 / 3, 0.3826]],
    ),
    "rutile": (136, Lattice.tetragonal(4.59, 2.96), ["Ti", "O"], [[0, 0, 0], [0.305, 0.305, 0]]),
    "corundum": (
        167,
        Lattice.hexagonal(4.76, 12.99),
        ["Al", "O"],
        [[0, 0, 0.3522], [0.3063, 0, 0.25]],
    ),
    "baddeleyite": (
        14,
        Lattice.monoclinic(5.15, 5.21, 5.32, 99.2),
        ["Zr", "O", "O"],
        [[0.2754, 0.0395, 0.2083], [0.07, 0.3317, 0.3447], [0.4496, 0.7569, 0.4792]],
    ),
    "triclinic": (
        1,
        Lattice.from_parameters(4.1, 5.2, 6.3, 81, 94, 103),
        ["Cu", "S", "H"],
        [[0.1, 0.2, 0.3], [0.6, 0.55, 0.8], [0.9, 0.1, 0.05]],
    ),
}


def structure(name: str) -> Structure:
    group, lattice, species, coords = PROTOTYPES[name]
    return Structure.from_spacegroup(group, lattice, species, coords)


def to_structure(cell: AtomicCell) -> Structure:
    return Structure(Lattice(cell.matrix), cell.species, cell.frac)


def cif_text(sites: str, *, cell: bool = True, extra: str = "") -> str:
    names = ("length_a 4.0", "length_b 4.0", "length_c 5.0")
    names += ("angle_alpha 90", "angle_beta 90", "angle_gamma 90")
    lines = [f"_cell_{name}" for name in names] if cell else []
    columns = ("label", "type_symbol", "fract_x", "fract_y", "fract_z", "occupancy")
    loop = ["loop_", *(f"_atom_site_{column}" for column in columns), sites]
    return "\n".join(["data_test", *lines, extra, *loop]) + "\n"


@pytest.mark.parametrize("symprec", [None, 0.01])
@pytest.mark.parametrize("name", PROTOTYPES)
def test_agrees_with_pymatgen(name: str, symprec: float | None) -> None:
    text = str(CifWriter(structure(name), symprec=symprec))
    cell = cif.parse_one(text)
    expected = Structure.from_str(text, fmt="cif")
    assert len(cell.species) == len(expected)
    matcher = StructureMatcher(primitive_cell=False, scale=False, attempt_supercell=False)
    rms = matcher.get_rms_dist(to_structure(cell), expected)
    assert rms is not None
    assert rms[0] < 1e-4
    np.testing.assert_allclose(np.linalg.det(cell.matrix), expected.volume, rtol=1e-6)


@pytest.mark.parametrize("digits", [3, 4, 8])
def test_rounded_special_positions_are_restored(digits: int) -> None:
    """1/3 written 0.333 is one atom on the special position, exactly, not several around it."""
    third, two = f"{1 / 3:.{digits}f}", f"{2 / 3:.{digits}f}"
    text = str(CifWriter(structure("wurtzite"), symprec=0.01))
    text = text.replace("0.33333333", third).replace("0.66666667", two)
    cell = cif.parse_one(text)
    assert len(cell.species) == 4
    sixths = cell.frac[:, :2] * 6
    np.testing.assert_allclose(sixths, np.round(sixths), atol=1e-9)


@settings(max_examples=60)
@given(st.sampled_from([225, 227, 186, 136, 167, 14, 62, 194, 230]), st.integers(0, 2**32 - 1))
def test_general_positions_have_the_full_multiplicity(group: int, seed: int) -> None:
    """The orbit of a random point is the space group's order times that point."""
    operations = from_hall(gemmi.get_spacegroup_reference_setting(group).hall)
    point = np.random.default_rng(seed).uniform(0, 1, (1, 3))
    offset = operations.rotation @ point[0] + operations.translation - point[0]
    offset -= np.round(offset)
    if np.sort(np.abs(offset).max(axis=1))[1] < 1e-4:
        return  # the rare point that is near a special position
    written = [tuple(f"{x:.8f}" for x in point[0])]
    sites = Sites(["C1"], np.array([6]), point, written, np.array([np.nan]))
    matrix = Lattice.hexagonal(50, 50).matrix if group in (186, 194, 167) else np.eye(3) * 50
    frac, site = expand(sites, matrix, operations)
    assert len(frac) == len(site) == len(operations.rotation)
    assert (frac >= 0).all()
    assert (frac < 1).all()


def test_space_group_symbol_without_operations() -> None:
    extra = "_symmetry_space_group_name_H-M 'I 4/m m m'"
    cell = cif.parse_one(cif_text("Fe1 Fe 0 0 0 1", extra=extra))
    assert cell.species.tolist() == [26, 26]
    np.testing.assert_allclose(np.sort(cell.frac, axis=0), [[0, 0, 0], [0.5, 0.5, 0.5]])


def test_element_from_label_charge_and_uncertainty() -> None:
    text = cif_text("Fe1 Fe3+ 0.1(2) 0 0 1.0\nO1 O2- 0.5 0.5 0.25 1").replace("4.0", "4.00(3)")
    cell = cif.parse_one(text)
    assert cell.species.tolist() == [26, 8]
    np.testing.assert_allclose(cell.frac[0], [0.1, 0, 0])
    without = text.replace("_atom_site_type_symbol\n", "").replace("Fe3+ ", "").replace("O2- ", "")
    assert cif.parse_one(without).species.tolist() == [26, 8]


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        (cif_text("Fe1 Fe 0 0 0 0.5\nCo1 Co 0 0 0 0.5"), r"partial occupancy: site Fe1 .* 0\.5"),
        (cif_text("Fe1 Fe 0 0 0 1\nCo1 Co 0 0 0.001 1"), "different elements share a position"),
        (cif_text("Fe1 Fe 0 0 0 1", cell=False), "no unit cell"),
        (cif_text("Fe1 Fe 0 0 0 1").replace("4.0", "0.0"), "make no unit cell"),
        (cif_text("Fe1 Fe 0 0 0 1").replace("alpha 90", "alpha 200"), "make no unit cell"),
        (cif_text("Fe1 Fe 0 ? 0 1"), "Fe1 has no coordinates"),
        (cif_text("X1 Vac 0 0 0 1"), "unknown element 'Vac' at site X1"),
        (cif_text("D1 D 0 0 0 1"), "isotope of hydrogen"),
        ("data_empty\n_cell_length_a 4\n", "no atoms"),
        ("", "no CIF|no atoms"),
        ("this is no CIF", "not a CIF"),
        (
            cif_text("Fe1 Fe 0 0 0 1", extra="loop_\n_symmetry_equiv_pos_as_xyz\n'x,y,w'"),
            "symmetry operation",
        ),
        (
            cif_text("Fe1 Fe 0 0 0 1", extra="_symmetry_space_group_name_H-M 'Q 9'"),
            "'Q 9' is unknown",
        ),
    ],
)
def test_what_is_wrong_is_said(text: str, reason: str) -> None:
    with pytest.raises(ValueError, match=reason):
        cif.parse_one(text)


def test_every_block_is_read_and_a_bad_one_costs_itself() -> None:
    good, bad = cif_text("Fe1 Fe 0 0 0 1"), cif_text("Fe1 Fe 0 0 0 0.5")
    text = good + bad.replace("data_test", "data_bad") + "data_publication\n_author\n_author me\n"
    crystals = cif.parse(text)
    assert [name for name, _ in crystals] == ["test", "bad"]
    assert isinstance(crystals[0][1], AtomicCell)
    assert isinstance(crystals[1][1], ValueError)


@pytest.mark.parametrize(
    ("fault", "reason"),
    [
        ("_cell_length_a 4", "_cell_length_a is there twice"),
        ("_CELL_Length_A 4", "there twice"),
        ("_author", "_author has no value"),
        ("loop_\n_p\n_q\n1 2 3", "not a CIF: .*number of values in loop"),
        ("_note 'never closed", "not a CIF: .*unterminated"),
        ("_note\n;never closed\n", "not a CIF"),
        ("_note a b", "not a CIF"),
        ("loop_\n", "not a CIF"),
    ],
)
def test_a_block_that_is_no_cif_costs_itself(fault: str, reason: str) -> None:
    good = cif_text("Fe1 Fe 0 0 0 1")
    bad = cif_text("Fe1 Fe 0 0 0 1", extra=fault).replace("data_test", "data_bad")
    with pytest.raises(ValueError, match=reason):
        cif.parse_one(bad)
    crystals = dict(cif.parse(good + bad + good.replace("data_test", "data_last")))
    assert list(crystals) == ["test", "bad", "last"]
    assert isinstance(crystals["bad"], ValueError)
    assert isinstance(crystals["test"], AtomicCell)
    assert isinstance(crystals["last"], AtomicCell)


def test_blocks_of_one_name_are_told_apart() -> None:
    names = [name for name, _ in cif.parse(cif_text("Fe1 Fe 0 0 0 1") * 3)]
    assert names == ["test", "test_2", "test_3"]


@settings(max_examples=300, deadline=None)
@given(st.data())
def test_no_other_exception_leaves(data: st.DataObject) -> None:
    """Lines left out, doubled or changed, bytes put in: a crystal or a ValueError."""
    extra = "_symmetry_space_group_name_H-M 'P 21/c'\n_cell_volume 80\n_chemical_formula_sum Fe2"
    extra += "\nloop_\n_symmetry_equiv_pos_as_xyz\n'x,y,z'\n'-x,-y,-z'"
    lines = cif_text("Fe1 Fe 0.1 0.2 0.3 1\nO1 O 0.5 0.5 0 1", extra=extra).splitlines()
    for _ in range(data.draw(st.integers(1, 3))):
        place = data.draw(st.integers(0, len(lines) - 1))
        kind = data.draw(st.sampled_from(["drop", "double", "put", "value"]))
        if kind == "drop" and len(lines) > 1:
            del lines[place]
        elif kind == "double":
            lines.insert(place, lines[place])
        elif kind == "put":
            where = data.draw(st.integers(0, len(lines[place])))
            put = data.draw(st.text(max_size=3) | st.sampled_from(["'", ";", "\n;", "loop_", "\0"]))
            lines[place] = lines[place][:where] + put + lines[place][where:]
        else:
            values = ["0", "-1", "1e999", "?", ".", "nan", "inf", "''", "1e300", "180", "x,x,z"]
            words = lines[place].split()
            lines[place] = " ".join([*words[:-1], data.draw(st.sampled_from(values))])
    try:
        crystals = cif.parse("\n".join(lines))
    except ValueError:
        return
    for _, crystal in crystals:
        assert isinstance(crystal, AtomicCell | ValueError)
