"""Cell, symmetry, sites and contents of CIFs: read rightly, or refused with the reason."""

import numpy as np
import pytest
from pymatgen.core import Lattice

from crystaljax.crystal import AtomicCell, Crystals
from crystaljax.data import cif
from crystaljax.data.cif_sites import SAME_SITE
from crystaljax.data.writers import to_cif
from crystaljax.structures import to_cells
from crystaljax.symmetry.orbits import FIXED_ANGLES, FREE_LATTICE, LENGTH_SOURCE, project
from crystaljax.symmetry.tables import tables
from crystaljax.validity import close_pairs

TAGS = ("length_a", "length_b", "length_c", "angle_alpha", "angle_beta", "angle_gamma")
CUBE = (5.64, 5.64, 5.64, 90, 90, 90)
NACL = "Na1 0 0 0\nCl1 0.5 0.5 0.5"


def text(
    sites: str = NACL,
    *lines: str,
    cell: tuple[float | str, ...] = CUBE,
    columns: tuple[str, ...] = (),
) -> str:
    """A CIF of sites with label and coordinates, more columns, and lines before the sites."""
    parameters = [f"_cell_{tag} {x}" for tag, x in zip(TAGS, cell, strict=True) if x != ""]
    names = ("label", "fract_x", "fract_y", "fract_z", *columns)
    loop = ["loop_", *(f"_atom_site_{name}" for name in names), sites]
    return "\n".join(["data_x", *parameters, *lines, *loop]) + "\n"


def operations(*triplets: str) -> str:
    return "\n".join(["loop_", "_symmetry_equiv_pos_as_xyz", *(f"'{t}'" for t in triplets)])


def symbol(name: str) -> str:
    return f"_symmetry_space_group_name_H-M '{name}'"


def n_atoms(cif_text: str) -> int:
    return len(cif.parse_one(cif_text).species)


# The cell


@pytest.mark.parametrize("place", range(6))
@pytest.mark.parametrize("value", ["", ".", "?", "'5 Å'", "nan", "inf", "0", "-5"])
def test_a_cell_is_whole(place: int, value: str) -> None:
    cell = [*CUBE[:place], value, *CUBE[place + 1 :]]
    with pytest.raises(ValueError, match=f"{TAGS[place]}|make no unit cell"):
        cif.parse_one(text(cell=tuple(cell)))


@pytest.mark.parametrize(
    "cell",
    [
        (5, 5, 5, 90, 90, 180),
        (5, 5, 5, 120, 120, 130),  # no three vectors have these angles
        (5, 5, 5, 1.5708, 1.5708, 1.5708),  # radians
        (0.1, 0.1, 0.1, 90, 90, 90),
        ("1e200", "1e200", "1e200", 90, 90, 90),
    ],
)
def test_a_cell_is_plausible(cell: tuple[float | str, ...]) -> None:
    with pytest.raises(ValueError, match="make no unit cell"):
        cif.parse_one(text(cell=cell))


def test_a_cell_in_a_loop_with_uncertainties() -> None:
    tags = "\n".join(f"_cell_{tag}" for tag in TAGS)
    row = "5.64(2) 6.10(3) 7.00 90 101.5(1) 90"
    found = cif.parse_one(text(NACL, "loop_", tags, row, cell=("",) * 6))
    expected = Lattice.from_parameters(5.64, 6.1, 7, 90, 101.5, 90)
    np.testing.assert_allclose(np.linalg.det(found.matrix), expected.volume)
    with pytest.raises(ValueError, match="has 2 values of _cell_length_a"):
        cif.parse_one(text(NACL, "loop_", tags, row, row, cell=("",) * 6))


@pytest.mark.parametrize("axis", "xyz")
def test_coordinates_are_whole(axis: str) -> None:
    lines = text().replace(f"_atom_site_fract_{axis}", f"_atom_site_cartn_{axis}")
    with pytest.raises(ValueError, match=f"fract_{axis} has 0 values for 2 sites"):
        cif.parse_one(lines)
    for missing in ("?", ".", "x", "1/0"):
        with pytest.raises(ValueError, match="Cl1 has no coordinates"):
            cif.parse_one(text(f"Na1 0 0 0\nCl1 0.5 {missing} 0.5"))


# What else is stated


@pytest.mark.parametrize(
    ("lines", "reason"),
    [
        (["_chemical_formula_sum 'Na2 Cl1'"], "NaCl, but _chemical_formula_sum says 'Na2 Cl1'"),
        (["_chemical_formula_sum 'Na Cl O'"], "NaCl, but"),
        (["_chemical_formula_sum 'Na'"], "NaCl, but"),
        (["_chemical_formula_sum 'Na Br'"], "NaCl, but"),
        (["_chemical_formula_sum 'Na0.9 Cl1.0'"], "NaCl, but"),
        (["_chemical_formula_sum 'Na Cl'", "_cell_formula_units_Z 4"], "2 atoms.* Z = 4"),
        (["_chemical_formula_sum 'Na4 Cl4'", "_cell_formula_units_Z 4"], "2 atoms.* Z = 4"),
        (["_cell_formula_units_Z 4"], "2 atoms.*4 formula units"),
        (["_cell_volume 717.6(3)"], r"179.41 Å³, but _cell_volume says 717.6\(3\)"),
        (["_cell_volume 177"], "volume"),
    ],
)
def test_what_is_stated_must_agree(lines: list[str], reason: str) -> None:
    with pytest.raises(ValueError, match=reason):
        cif.parse_one(text(NACL, *lines))


@pytest.mark.parametrize(
    "lines",
    [
        ["_chemical_formula_sum 'Cl Na'", "_cell_formula_units_Z 1"],
        ["_chemical_formula_sum 'Na4 Cl4'"],  # of the conventional cell
        ["_chemical_formula_sum '(Na Cl)2'"],
        ["_chemical_formula_sum 'NA1 CL1'"],
        ["_chemical_formula_sum 'Na0.33(1) Cl0.333'"],
        ["_chemical_formula_sum ?", "_cell_formula_units_Z ?", "_cell_volume ."],
        ["_chemical_formula_sum 'rock salt'", "_cell_formula_units_Z 0"],
        ["_chemical_formula_sum\n;\nNa1\nCl1\n;"],
        ["_cell_volume 179.4"],
        ["_cell_volume 179"],
        ["_cell_volume 179.41(12)"],
    ],
)
def test_what_is_stated_in_other_ways_agrees(lines: list[str]) -> None:
    assert n_atoms(text(NACL, *lines)) == 2


def test_formulas_of_several_units() -> None:
    """Z of the reduced formula beside the contents of the cell (pymatgen), or of Hg2Cl2."""
    sites = "Hg1 0 0 0.1\nHg2 0 0 0.4\nCl1 0 0 0.6\nCl2 0 0 0.9"
    for formula, z in (("Hg2 Cl2", 1), ("Hg2 Cl2", 2), ("Hg Cl", 2), ("Hg4 Cl4", 1)):
        lines = (f"_chemical_formula_sum '{formula}'", f"_cell_formula_units_Z {z}")
        assert n_atoms(text(sites, *lines)) == 4
    for formula, z in (("Hg2 Cl2", 3), ("Hg Cl", 1), ("Hg2 Cl2", 4)):
        lines = (f"_chemical_formula_sum '{formula}'", f"_cell_formula_units_Z {z}")
        with pytest.raises(ValueError, match=f"Z = {z}"):
            cif.parse_one(text(sites, *lines))
    assert n_atoms(text("O1 0 0 0\nH1 0 0 0.2\nH2 0 0.2 0", "_chemical_formula_sum 'D2 O'")) == 3


def test_hydrogen_without_a_position_is_missed() -> None:
    with pytest.raises(ValueError, match="O1 stands for 2 hydrogen atoms"):
        cif.parse_one(text("O1 0 0 0 2", columns=("attached_hydrogens",)))


@pytest.mark.parametrize("kind", ["NH4", "H2O", "OH", "Vac", "M", "D"])
def test_no_group_of_atoms_is_an_element(kind: str) -> None:
    with pytest.raises(ValueError, match=f"unknown element '{kind}'|isotope"):
        cif.parse_one(text(f"X1 0 0 0 {kind}", columns=("type_symbol",)))


# Symmetry


@pytest.mark.parametrize(
    ("triplets", "cell", "reason"),
    [
        (
            ("x,y,z", "-y,x,z", "-x,-y,z", "y,-x,z"),
            (5, 7, 5, 90, 90, 90),
            "no symmetry of the cell",
        ),
        (("x,y,z", "x,-y,z"), (5, 6, 7, 90, 90, 100), "no symmetry of the cell"),
        (("x,y,z", "-y,x-y,z", "-x+y,-x,z"), (6, 6, 6, 55, 55, 55), "no symmetry of the cell"),
        (("x,y,z", "x,x,z"), CUBE, "'x,x,z' is no symmetry operation"),
        (("x,y,z", "x/2,y,z"), CUBE, "'x/2,y,z' is no symmetry operation"),
        (("x,y,z", "2*x,y,z"), CUBE, "'2\\*x,y,z' is no symmetry operation"),
        (("x,y,z", "-y,x,z"), CUBE, "form no group"),
        (("x,y,z", "x+1/3,y,z"), CUBE, "form no group"),
        (("x,y,z", "x,y,z,-1"), CUBE, "cannot be read"),
        (("x,y,z", "x+1/5,y,z"), CUBE, "cannot be read"),
        (("x,y,w",), CUBE, "cannot be read"),
    ],
)
def test_listed_operations_are_a_group_of_the_cell(
    triplets: tuple[str, ...], cell: tuple[float, ...], reason: str
) -> None:
    with pytest.raises(ValueError, match=reason):
        cif.parse_one(text(NACL, operations(*triplets), cell=cell))


@pytest.mark.parametrize(
    "triplets",
    [
        ("x,y,z", "-x,-y,-z"),
        ("x,y,z", "-x,-y,-z", "x,y,z", "1-x,-y,1-z", "X, Y, Z"),  # some twice
        ("-x,-y,-z",),  # the identity goes without saying
    ],
)
def test_doubled_and_left_out_operations(triplets: tuple[str, ...]) -> None:
    assert n_atoms(text("Na1 0.1 0.2 0.3\nCl1 .5 .5 .5", operations(*triplets))) == 3


def test_tags_of_newer_dictionaries() -> None:
    listed = operations("x,y,z", "-x,-y,-z")
    for tag in ("_space_group_symop_operation_xyz", "_space_group_symop.operation_xyz"):
        new = listed.replace("_symmetry_equiv_pos_as_xyz", tag)
        assert n_atoms(text("Na1 0.1 0.2 0.3", new)) == 2
        assert n_atoms(text("Na1 0.1 0.2 0.3", new, listed)) == 2
    with pytest.raises(ValueError, match="two lists of symmetry operations differ"):
        cif.parse_one(
            text(
                "Na1 0.1 0.2 0.3",
                listed.replace("equiv_pos_as", "equiv_pos_as"),
                new.replace("-z", "z"),
            )
        )
    assert n_atoms(text("Na1 0.1 0.2 0.3", "_symmetry_equiv_pos_as_xyz -x,-y,-z")) == 2


def test_magnetic_operations_alone_are_refused() -> None:
    magnetic = "loop_\n_space_group_symop_magn_operation.xyz\nx,y,z,+1\n-x,-y,-z,-1"
    with pytest.raises(ValueError, match="magnetic symmetry alone"):
        cif.parse_one(text(NACL, magnetic))
    assert n_atoms(text(NACL, magnetic, operations("x,y,z"))) == 2


def test_operations_of_fewer_atoms_than_the_named_group() -> None:
    """Atoms listed in full in P 1 may keep their group's name; an asymmetric unit may not."""
    listed = operations("x,y,z")
    faces = [(0, 0, 0), (0.5, 0.5, 0), (0.5, 0, 0.5), (0, 0.5, 0.5)]
    full = [f"Na{i} {x} {y} {z}\nCl{i} {x + 0.5} {y} {z}" for i, (x, y, z) in enumerate(faces)]
    for name in (
        symbol("F m -3 m"),
        "_space_group_IT_number 225",
        "_space_group_name_Hall '-F 4 2 3'",
    ):
        assert n_atoms(text("\n".join(full), listed, name)) == 8
        with pytest.raises(ValueError, match="operations or atoms are missing"):
            cif.parse_one(text(NACL, listed, name))
    primitive = (3.988, 3.988, 3.988, 60, 60, 60)  # of which Fm-3m has no operations
    assert n_atoms(text(NACL, listed, symbol("F m -3 m"), cell=primitive)) == 2
    other_setting = operations("x,y,z", "-x+1/2,y+1/2,-z+1/2", "-x,-y,-z", "x+1/2,-y+1/2,z+1/2")
    found = text("Na1 .1 .2 .3", other_setting, symbol("P 21/c"), cell=(5, 6, 7, 90, 101, 90))
    assert n_atoms(found) == 4


MONOCLINIC = (5.64, 7, 9, 90, 101, 90)
SECOND = (5.64, 7, 9, 90, 90, 101)
RHOMBOHEDRAL = (6, 6, 6, 55, 55, 55)
HEXAGONAL = (6, 6, 9, 90, 90, 120)


@pytest.mark.parametrize(
    ("names", "cell", "hall"),
    [
        ([symbol("P2_1/n"), "_symmetry_Int_Tables_number 14"], MONOCLINIC, "-P 2yn"),
        ([symbol("P 2(1)/n")], SECOND, "-P 2n"),
        ([symbol("P 2/m")], SECOND, "-P 2"),
        ([symbol("P 2/m")], MONOCLINIC, "-P 2y"),
        ([symbol("P 2/m")], (5, 6, 7, 90, 90, 90), "-P 2y"),  # b where the lattice leaves it open
        ([symbol("P 21/b 21/n 21/m")], (5, 6, 7, 90, 90, 90), "-P 2c 2ab"),
        ([symbol("P b n m"), "_space_group_IT_number 62"], (5, 6, 7, 90, 90, 90), "-P 2c 2ab"),
        ([symbol("F d -3 m S")], CUBE, "F 4d 2 3 -1d"),
        ([symbol("Fd-3mZ")], CUBE, "-F 4vw 2vw 3"),
        ([symbol("F d -3 m (1)")], CUBE, "F 4d 2 3 -1d"),
        ([symbol("F d -3 m :2")], CUBE, "-F 4vw 2vw 3"),
        ([symbol("F d 3 m O2")], CUBE, "-F 4vw 2vw 3"),
        ([symbol("F d -3 m (origin choice 1)")], CUBE, "F 4d 2 3 -1d"),
        ([symbol("P n -3 (2)")], CUBE, "-P 2ab 2bc 3"),
        ([symbol("R -3 m")], RHOMBOHEDRAL, "-P 3* 2"),
        ([symbol("R -3 m")], HEXAGONAL, '-R 3 2"'),
        ([symbol("R -3 m H")], HEXAGONAL, '-R 3 2"'),
        ([symbol("R -3 m :R")], RHOMBOHEDRAL, "-P 3* 2"),
        ([symbol("R-3m (rhombohedral axes)")], RHOMBOHEDRAL, "-P 3* 2"),
        (["_space_group_IT_number 166"], RHOMBOHEDRAL, "-P 3* 2"),
        (["_space_group_IT_number 14"], MONOCLINIC, "-P 2ybc"),
        (["_space_group_IT_number 10"], SECOND, "-P 2"),
        (["_space_group_IT_number 62"], (5, 6, 7, 90, 90, 90), "-P 2ac 2n"),
        ([symbol("C m c a")], (5, 6, 7, 90, 90, 90), "-C 2ac 2"),
        ([symbol("B 1 21 1")], MONOCLINIC, "B 2yb"),  # a centring that ITA does not list
        # a Hall symbol of another origin, beside the names of its type
        (
            ["_space_group_name_Hall '-P 2ybc (x,y,z+1/4)'", symbol("P 21/c")],
            MONOCLINIC,
            "-P 2ybc (x,y,z+1/4)",
        ),
        (["_space_group_name_Hall '-F 4 2 3'", symbol("FM3M, of old")], CUBE, "-F 4 2 3"),
        ([symbol("?"), "_space_group_IT_number 0", "_space_group_name_Hall ."], CUBE, "P 1"),
    ],
)
def test_names_of_settings(names: list[str], cell: tuple[float, ...], hall: str) -> None:
    """The same atoms as by the Hall symbol, which the settings' own test compares with spglib."""
    sites = "Na1 0.113 0.237 0.371\nCl1 0 0 0"
    quote = '"' if '"' not in hall else "'"
    expected = cif.parse_one(text(sites, f"_space_group_name_Hall {quote}{hall}{quote}", cell=cell))
    found = cif.parse_one(text(sites, *names, cell=cell))
    np.testing.assert_array_equal(found.species, expected.species)
    np.testing.assert_allclose(found.frac, expected.frac)


@pytest.mark.parametrize(
    ("names", "cell", "reason"),
    [
        ([symbol("F d -3 m")], CUBE, "'F d -3 m' is open between 2 settings"),
        (["_space_group_IT_number 227"], CUBE, "number 227 is open between 2 settings"),
        ([symbol("X 9"), "_space_group_IT_number 14"], MONOCLINIC, "'X 9' is unknown"),
        ([symbol("P 21/c"), "_space_group_IT_number 62"], MONOCLINIC, "contradict one another"),
        (
            ["_space_group_name_Hall '-P 2yn'", "_space_group_IT_number 15"],
            MONOCLINIC,
            "contradict",
        ),
        (["_space_group_name_Hall '-P 2yn'", symbol("P 1 21/c 1")], MONOCLINIC, "contradict"),
        (["_space_group_name_Hall 'F 4d 2 3 -1d'", symbol("F d -3 m :2")], CUBE, "contradict"),
        (["_space_group_name_Hall 'nonsense'"], CUBE, "Hall symbol 'nonsense' cannot be read"),
        (["_space_group_IT_number 231"], CUBE, "no space group of number 231"),
        (["_space_group_IT_number cubic"], CUBE, "no space group of number cubic"),
        ([symbol("R -3 m :H")], RHOMBOHEDRAL, "cell does not have the symmetry"),
        ([symbol("P 4/m m m")], (5, 6, 7, 90, 90, 90), "cell does not have the symmetry"),
        ([symbol("P 1 2/m 1")], SECOND, "cell does not have the symmetry"),
        (
            ["_space_group_IT_number 225", "_symmetry_Int_Tables_number 221"],
            CUBE,
            "several values: 225, 221",
        ),
        (
            ["_space_group_IT_number 14", "_space_group_IT_coordinate_system_code x9"],
            MONOCLINIC,
            "contradict one another: number 14, coordinate system code 'x9'",
        ),
    ],
)
def test_names_that_settle_nothing(names: list[str], cell: tuple[float, ...], reason: str) -> None:
    with pytest.raises(ValueError, match=reason):
        cif.parse_one(text("Na1 0.113 0.237 0.371", *names, cell=cell))


def test_what_is_stated_settles_the_origin() -> None:
    """Diamond with its atom at the origin (choice 1) or at 1/8 (choice 2): eight atoms."""
    cell = (3.567, 3.567, 3.567, 90, 90, 90)
    stated = (symbol("F d -3 m"), "_chemical_formula_sum C", "_cell_formula_units_Z 8")
    for x in ("0", "0.125"):
        assert n_atoms(text(f"C1 {x} {x} {x}", *stated, cell=cell)) == 8
    multiplicity = text(
        "C1 0 0 0 8", symbol("F d -3 m"), cell=cell, columns=("symmetry_multiplicity",)
    )
    assert n_atoms(multiplicity) == 8


# Sites


def test_images_near_an_axis_are_atoms() -> None:
    """Three images 0.03 Å apart are not one atom; by another site they are not either."""
    sites, cell = "Na1 0.004 0.002 0\nCl1 .3333 .6667 .5", (5.64, 5.64, 6, 90, 90, 120)
    assert n_atoms(text(sites, symbol("P 3"), cell=cell)) == 4
    assert (
        n_atoms(
            text(sites.replace(".004", ".000").replace(".002", ".000"), symbol("P 3"), cell=cell)
        )
        == 2
    )


@pytest.mark.parametrize(
    ("site", "expected"),
    [
        ("0.3333 0.6667 0.58345(3)", 1),
        ("0.333 0.667 0.5", 1),
        ("0.33 0.67 0.5", 1),
        ("0.666 0.333 0.5", 1),  # cut off, not rounded
        ("0.33300 0.66700 0.25000", 1),  # zeros that say nothing
        ("0.33333334 0.66666669 0.1", 1),  # single precision
        ("0.3333 0.6663 0.5", 3),
        ("0.33310 0.66672 0.5", 3),
        ("0.001 0 0.5", 3),
        ("0 0.0000200 0", 3),
    ],
)
def test_site_symmetry_is_judged_by_decimals(site: str, expected: int) -> None:
    cell = (5.64, 5.64, 6, 90, 90, 120)
    assert n_atoms(text(f"Na1 {site}", symbol("P 3"), cell=cell)) == expected


def test_a_stated_multiplicity_decides() -> None:
    """A site near an axis is on it where the file says so (pymatgen without refinement)."""
    cell, columns = (5.64, 5.64, 6, 90, 90, 120), ("symmetry_multiplicity",)
    for site, stated in (("0.33310000 0.66672000 0.5", 1), ("0.33310000 0.66672000 0.5", 3)):
        written = text(f"Na1 {site} {stated}", symbol("P 3"), cell=cell, columns=columns)
        assert n_atoms(written) == stated
    for site, stated in (("0.1 0.2 0.5", 6), ("0.1 0.2 0.5", 2), ("0 0 0.5", 2)):
        with pytest.raises(ValueError, match=f"multiplicity .* but {stated} is stated"):
            cif.parse_one(text(f"Na1 {site} {stated}", symbol("P 3"), cell=cell, columns=columns))
    # orders of the site symmetry, which some programs write in that column
    orders = text("Na1 0 0 0 3\nCl1 .1 .3 .5 1", symbol("P 3"), cell=cell, columns=columns)
    assert n_atoms(orders) == 4


@pytest.mark.parametrize(
    "sites", ["Na1 0 0 0\nNa2 0 0 0", "Na1 0 0 0\nNa2 1 1 0", "Na1 0 0 0\nNa2 .5 .5 .5"]
)
def test_an_atom_listed_twice(sites: str) -> None:
    lines = (operations("x,y,z", "x+1/2,y+1/2,z+1/2"),)
    with pytest.raises(ValueError, match="listed twice: sites Na1 and Na2 coincide"):
        cif.parse_one(text(sites, *lines))
    with pytest.raises(ValueError, match=r"share a position .*Na1 and Cl2"):
        cif.parse_one(text(sites.replace("Na2", "Cl2"), *lines))


def test_close_pairs_by_tree_and_by_all_pairs() -> None:
    rng = np.random.default_rng(0)
    matrix = Lattice.from_parameters(4, 9, 20, 50, 70, 110).matrix
    frac = rng.uniform(-1, 2, (300, 3))
    offset = frac[:, None] - frac
    offset -= np.round(offset)
    distance = np.linalg.norm(offset @ matrix, axis=-1)
    for n in (60, 300):
        expected = np.argwhere(np.triu(distance[:n, :n] < 0.8, 1))
        found = np.sort(close_pairs(frac[:n], matrix, 0.8), axis=1)
        assert len(expected) > 1
        np.testing.assert_array_equal(found[np.lexsort(found.T[::-1])], expected)


# Our own CIFs


def drawn(n: int, rng: np.random.Generator) -> Crystals:
    """Crystals of every group, valid or not: sites near special positions, sites that overlap."""
    group = rng.integers(1, 231, n)
    n_letters = tables().n_letters[group - 1]
    wyckoff = np.where(
        rng.random((n, 3)) < 0.6,
        n_letters[:, None],
        rng.integers(1, n_letters[:, None] + 1, (n, 3)),
    )
    wyckoff[:, 1:] *= np.arange(1, 3) < rng.integers(1, 4, (n, 1))
    system = tables().crystal_system[group - 1]
    frac = rng.random((n, 3, 3))
    near = rng.integers(1, n_letters[:, None] + 1, (n, 3))
    special = np.asarray(project(group[:, None], near, frac.astype(np.float32)))
    shift = 10.0 ** rng.uniform(-8, -1, (n, 3, 1)) * rng.normal(size=(n, 3, 3))
    frac = np.where(rng.random((n, 3, 1)) < 0.5, special + shift, frac)
    twice = (rng.random(n) < 0.2) & (wyckoff[:, 1] > 0)
    wyckoff[twice, 1] = wyckoff[twice, 0]
    frac[twice, 1] = frac[twice, 0] + shift[twice, 1]
    lengths = np.take_along_axis(rng.uniform(3, 15, (n, 3)), LENGTH_SOURCE[system], axis=1)
    angles = np.where(FREE_LATTICE[system, 3:], rng.uniform(75, 110, (n, 3)), FIXED_ANGLES[system])
    return Crystals(
        group.astype(np.int32),
        wyckoff.astype(np.int32),
        np.where(wyckoff > 0, rng.integers(1, 4, (n, 3)), 0).astype(np.int32),
        (frac % 1).astype(np.float32),
        np.concatenate([lengths, angles], axis=1).astype(np.float32),
    )


def same_atoms(found: AtomicCell, expected: AtomicCell) -> bool:
    offset = found.frac[:, None] - expected.frac
    offset -= np.round(offset)
    near = (np.abs(offset) < 2e-6).all(axis=-1) & (found.species[:, None] == expected.species)
    return len(found.species) == len(expected.species) and bool(
        near.any(0).all() and near.any(1).all()
    )


def test_written_and_read_back_is_the_same_crystal() -> None:
    """Or refused, for a pair of atoms that no reader takes."""
    crystals = drawn(600, np.random.default_rng(0))
    refused = invalid = 0
    for cif_text, expected in zip(to_cif(crystals), to_cells(crystals), strict=True):
        overlaps = len(close_pairs(expected.frac, expected.matrix, 1.01 * SAME_SITE)) > 0
        invalid += len(close_pairs(expected.frac, expected.matrix, 0.5)) > 0
        try:
            found = cif.parse_one(cif_text)
        except ValueError as error:
            assert overlaps, error
            refused += 1
        else:
            assert same_atoms(found, expected), cif_text
    assert 50 < refused < invalid < 500
