"""From atoms in a cell to Crystals: round trips, real crystals, and structures that fail."""

import logging
import time
from pathlib import Path

import numpy as np
import pytest
import spglib

from crystaljax.composition import formulas
from crystaljax.crystal import AtomicCell, Crystals
from crystaljax.structures import to_structures
from crystaljax.symmetry import orbits
from crystaljax.symmetry.analysis import symmetrize
from crystaljax.symmetry.equivalence import canonicalize
from crystaljax.symmetry.tables import tables

WURTZITE = AtomicCell(
    np.array([[3.82, 0, 0], [-1.91, 3.82 * 0.75**0.5, 0], [0, 0, 6.26]]),
    np.array(
        [[1 / 3, 2 / 3, 0], [2 / 3, 1 / 3, 0.5], [1 / 3, 2 / 3, 0.375], [2 / 3, 1 / 3, 0.875]]
    ),
    np.array([30, 30, 16, 16]),
)

METRICS = np.array(
    [
        [5.1, 6.3, 7.7, 95, 103, 98],
        [7.7, 6.3, 5.1, 90, 103, 90],
        [6.3, 5.1, 7.7, 90, 90, 90],
        [5.1, 5.1, 7.7, 90, 90, 90],
        [5.1, 5.1, 7.7, 90, 90, 120],
        [5.1, 5.1, 7.7, 90, 90, 120],
        [5.1, 5.1, 5.1, 90, 90, 90],
    ],
    np.float32,
)


def one_of_each_group() -> Crystals:
    """Crystals on the two most general positions of each group, whose symmetry is no higher."""
    group = np.arange(1, 231)
    general = tables().n_letters[:, None].astype(np.int32)
    letters = np.concatenate([np.maximum(general - 1, 1), general, general], axis=1)
    species = np.tile(np.array([[22, 8, 16]], np.int32), (230, 1))
    frac = np.random.default_rng(8).uniform(size=(230, 3, 3)).astype(np.float32)
    frac = np.asarray(orbits.project(group[:, None], letters, frac))
    return Crystals(
        group, letters, species, frac, METRICS[tables().crystal_system] * [2, 2, 2, 1, 1, 1]
    )


def cells_of(crystals: Crystals, primitive: bool = False) -> list[AtomicCell]:
    """The atoms of each crystal."""
    size = int(orbits.n_atoms(crystals, primitive=primitive).max())
    cells = orbits.expand(crystals, size, primitive=primitive).to_numpy()
    rows = zip(cells.matrix, cells.frac, cells.species, cells.n_atoms, strict=True)
    return [AtomicCell(m.astype(float), x[:n].astype(float), z[:n]) for m, x, z, n in rows]


def agree(a: Crystals, b: Crystals, tolerance: float = 1e-3) -> np.ndarray:
    """bool [B]: the same description."""
    n_slots = max(a.n_slots, b.n_slots)
    a, b = a.with_slots(n_slots), b.with_slots(n_slots)
    difference = a.frac - b.frac
    difference -= np.round(difference)
    scale = np.maximum(b.lattice, 1)
    return (
        (a.space_group == b.space_group)
        & (a.wyckoff == b.wyckoff).all(axis=1)
        & (a.species == b.species).all(axis=1)
        & (np.abs(difference).max(axis=(1, 2)) < tolerance)
        & (np.abs(a.lattice / scale - b.lattice / scale).max(axis=1) < tolerance)
    )


@pytest.mark.parametrize("primitive", [False, True])
def test_crystals_of_every_group_come_back(primitive):
    crystals = one_of_each_group()
    found, reasons = symmetrize(cells_of(crystals, primitive), symprec=1e-3)
    assert reasons == [None] * 230
    np.testing.assert_array_equal(found.space_group, np.arange(1, 231))
    # the cells of triclinic and monoclinic crystals are a matter of reduction
    same = agree(found, canonicalize(crystals))
    assert same[15:].all()
    np.testing.assert_allclose(
        orbits.volume(found.lattice), orbits.volume(crystals.lattice), rtol=1e-3
    )


def test_another_cell_of_the_same_crystal_gives_the_same_description():
    reference, _ = symmetrize([WURTZITE])
    rotation = np.linalg.qr(np.random.default_rng(0).normal(size=(3, 3)))[0]
    supercell = np.array([[1, 1, 0], [0, 1, 0], [1, 0, 2]])
    moved = [
        WURTZITE._replace(matrix=WURTZITE.matrix @ rotation),
        WURTZITE._replace(frac=WURTZITE.frac + np.array([0.3, -0.2, 5.1])),
        WURTZITE._replace(frac=1 - WURTZITE.frac),
        AtomicCell(-WURTZITE.matrix[[1, 0, 2]], WURTZITE.frac[:, [1, 0, 2]], WURTZITE.species),
        AtomicCell(
            supercell @ WURTZITE.matrix,
            np.concatenate(
                [(WURTZITE.frac + np.array([0, 0, k])) @ np.linalg.inv(supercell) for k in (0, 1)]
            ),
            np.tile(WURTZITE.species, 2),
        ),
        WURTZITE._replace(
            frac=WURTZITE.frac + np.random.default_rng(1).uniform(-3e-4, 3e-4, (4, 3))
        ),
    ]
    found, reasons = symmetrize(moved)
    assert reasons == [None] * len(moved)
    assert agree(found, reference[np.zeros(len(moved), int)]).all()
    assert reference.space_group[0] == 186
    assert reference.wyckoff[0].tolist() == [2, 2] and reference.species[0].tolist() == [16, 30]


def test_one_structure_that_fails_costs_nobody_else():
    bad = [
        AtomicCell(np.eye(3) * 3, np.zeros((0, 3)), np.zeros(0, int)),
        WURTZITE._replace(frac=WURTZITE.frac * np.nan),
        WURTZITE._replace(matrix=np.zeros((3, 3))),
        WURTZITE._replace(frac=WURTZITE.frac * 0),
    ]
    crystals, reasons = symmetrize([WURTZITE, *bad, WURTZITE])
    assert reasons[0] is None and reasons[-1] is None
    assert "no atoms" in str(reasons[1]) and "not finite" in str(reasons[2])
    assert "no plausible unit cell" in str(reasons[3])
    assert "no symmetry found" in str(reasons[4])
    assert crystals.space_group.tolist() == [186, 0, 0, 0, 0, 186]
    for field in (crystals.wyckoff, crystals.species, crystals.frac, crystals.lattice):
        assert (field[1:5] == 0).all()
        np.testing.assert_array_equal(field[0], field[5])


def test_what_a_search_would_hardly_end_for_is_left_out():
    """A needle, and many atoms on one place."""
    needle = AtomicCell(np.diag([0.4, 0.4, 60.0]), np.zeros((1, 3)), np.array([6]))
    long = AtomicCell(np.diag([2.0, 2.0, 500.0]), np.zeros((1, 3)), np.array([6]))
    crowd = AtomicCell(np.eye(3) * 6, np.linspace(0, 1e-4, 600).reshape(200, 3), np.full(200, 6))
    start = time.monotonic()
    _, reasons = symmetrize([needle, long, crowd])
    assert time.monotonic() - start < 2
    assert "a reduced axis of 0.4 Å" in str(reasons[0])
    assert "reduced axes of 2 to 500 Å" in str(reasons[1])
    assert "19900 pairs of atoms less than 0.01 Å apart" in str(reasons[2])


def test_nothing_to_symmetrize():
    crystals, reasons = symmetrize([])
    assert len(crystals) == 0 and reasons == []
    crystals, reasons = symmetrize([WURTZITE._replace(matrix=np.zeros((3, 3)))])
    assert crystals.space_group.tolist() == [0] and reasons[0] is not None
    with pytest.raises(ValueError, match="symprec"):
        symmetrize([WURTZITE], symprec=0)


def test_supercells_are_not_remarked_on(caplog):
    double = AtomicCell(
        np.diag([6.0, 3, 9]), np.array([[0, 0, 0], [0.5, 0, 0]]), np.array([29, 29])
    )
    with caplog.at_level(logging.DEBUG):
        crystals, _ = symmetrize([double])
    assert crystals.space_group.tolist() == [123] and not caplog.records


def test_agrees_with_the_encoding_of_crystalformer(shared: Path):
    """Up to the normaliser: canonical descriptions of theirs and of ours are the same."""
    from pymatgen.analysis.structure_matcher import StructureMatcher

    from crystaljax.data.readers import read

    theirs = np.load(shared / "fixtures" / "crystalformer" / "expected.npz", allow_pickle=False)
    cells = {r.id: r.cell for r in read(shared / "data" / "mp20_bt" / "test.csv.gz")}
    ours, reasons = symmetrize([cells[name] for name in theirs["material_id"].tolist()])
    assert reasons == [None] * 64
    # the file has lengths over N^(1/3) for N atoms, angles in radians, and pads of any value
    n_atoms = tables().multiplicity[theirs["G"][:, None] - 1, theirs["W"]].sum(axis=1)
    lattice = theirs["L_angstrom_deg"].copy()
    lattice[:, :3] *= n_atoms[:, None] ** (1 / 3)
    lattice[:, 3:] = np.degrees(lattice[:, 3:])
    frac = np.where(theirs["W"][..., None] > 0, theirs["XYZ"], 0)
    expected = Crystals(theirs["G"], theirs["W"], theirs["A"], frac, lattice)
    assert agree(ours, canonicalize(expected), tolerance=1e-4).all()
    pairs = zip(to_structures(ours, True), to_structures(expected, True), strict=True)
    assert all(StructureMatcher().fit(a, b) for a, b in pairs)


def check_real_crystals(cells: list[AtomicCell], required: float) -> None:
    """They match the originals; their group is found again, by spglib (of every tenth) too."""
    from pymatgen.analysis.structure_matcher import StructureMatcher
    from pymatgen.core import Structure

    crystals, reasons = symmetrize(cells)
    assert reasons == [None] * len(cells)
    decoded = cells_of(crystals, primitive=True)
    again, _ = symmetrize(decoded)
    assert np.mean(again.space_group == crystals.space_group) >= required
    by_spglib = [
        spglib.get_symmetry_dataset((cell.matrix, cell.frac, cell.species), symprec=0.01)
        for cell in decoded[::10]
    ]
    numbers = [found.number if found else 0 for found in by_spglib]
    assert np.mean(crystals.space_group[::10] == numbers) >= required
    matcher = StructureMatcher()
    originals = [Structure(cell.matrix, cell.species, cell.frac) for cell in cells]
    pairs = zip(originals, to_structures(crystals, primitive=True), strict=True)
    assert np.mean([b is not None and matcher.fit(a, b) for a, b in pairs]) >= required


def test_real_crystals_match_their_originals(shared: Path):
    from crystaljax.data.readers import read

    records = list(read(shared / "data" / "mp20_bt" / "test.csv.gz"))
    check_real_crystals([r.cell for r in records[::12] if r.cell is not None], required=0.99)


@pytest.mark.slow
def test_all_real_crystals_match_their_originals(shared: Path):
    """Some twelve minutes on one core: all 14,258 match, 14,252 keep their space group."""
    from crystaljax.data.readers import read

    cells = []
    for name in ("train", "val", "test"):
        records = read(shared / "data" / "mp20_bt" / f"{name}.csv.gz")
        cells += [record.cell for record in records if record.cell is not None]
    assert len(cells) == 14258
    check_real_crystals(cells, required=0.999)


def test_the_composition_is_kept_or_the_row_is_refused() -> None:
    """Atoms on one position: the search would make one of them, and another formula."""
    for distance in (0.0, 1e-3, 9e-3, 0.03, 0.3):
        cell = AtomicCell(
            np.diag([5.0, 6, 7]),
            np.array([[0, 0, 0], [distance / 5, 0, 0], [0.5, 0.5, 0.5]]),
            np.array([11, 11, 17]),
        )
        crystals, (reason,) = symmetrize([cell])
        if reason is None:
            assert formulas(crystals) == ["Na2Cl"]
        else:
            assert distance == 0 and "atoms coincide" in reason
    for distance in (0.0, 1e-3, 9e-3, 0.015, 0.1):  # of helium alone: the formula stays the same
        frac = np.array([[0, 0, 0], [distance / 5, 0, 0], [0.3, 0.5, 0.5], [0.1, 0.2, 0.7]])
        cell = AtomicCell(np.diag([5.0, 6, 7]), frac, np.full(4, 2))
        crystals, (reason,) = symmetrize([cell])
        if reason is None:
            volume = np.linalg.det(np.asarray(orbits.lattice_matrix(crystals.lattice)[0]))
            per_volume = orbits.n_atoms(crystals)[0] / volume
            np.testing.assert_allclose(per_volume, 4 / 210, rtol=0.02)
        else:
            assert distance < 0.02
            assert "atoms coincide" in reason or "search failed" in reason
    for species in (0, -3, 119, 10**9):
        cell = AtomicCell(np.eye(3) * 4, np.zeros((1, 3)), np.array([species]))
        _, (reason,) = symmetrize([cell])
        assert reason == "an atom of no known element"
