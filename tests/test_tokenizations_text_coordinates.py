"""Coordinate texts: round trips up to the decimals, symmetry found again, faults as reasons."""

from __future__ import annotations

import re
from pathlib import Path

import jax
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pymatgen.analysis.structure_matcher import StructureMatcher
from pymatgen.core import Lattice, Structure
from random_crystals import prototypes, triclinic_crystal

from crystaljax.crystal import Crystals
from crystaljax.data.dataset import load
from crystaljax.structures import to_structures
from crystaljax.tokenizations.text.coordinates import CoordinatesText
from crystaljax.tokenizations.text.wyckoff import WyckoffText

TEXT = CoordinatesText()
RUTILE = WyckoffText().decode(["136\n4.594 2.959\nTi 2a\nO 4f 0.3048"]).crystals
WRITTEN = """2.96 4.59 4.59
90.00 90.00 90.00
Ti
0.000 0.000 0.000
Ti
0.500 0.500 0.500
O
0.000 0.305 0.305
O
0.500 0.805 0.195
O
0.500 0.195 0.805
O
0.000 0.695 0.695"""
STRICT = StructureMatcher(ltol=0.05, stol=0.05, angle_tol=1)


def structure_of(text: str) -> Structure:
    """A text read by pymatgen alone."""
    lengths, angles, *atoms = text.split("\n")
    lattice = Lattice.from_parameters(*map(float, [*lengths.split(), *angles.split()]))
    return Structure(lattice, atoms[::2], [list(map(float, x.split())) for x in atoms[1::2]])


def assert_come_back(crystals: Crystals, read: Crystals) -> None:
    """As the strict matcher sees it."""
    pairs = zip(to_structures(crystals, True), to_structures(read, True), strict=True)
    for one, other in pairs:
        assert one is not None
        assert other is not None
        assert STRICT.fit(one, other)


def test_rutile() -> None:
    (text,) = TEXT.encode(RUTILE)
    assert sorted(text.split("\n")) == sorted(WRITTEN.split("\n"))
    decoded = TEXT.decode([WRITTEN])
    assert decoded.reasons == [None]
    assert decoded.crystals.space_group.tolist() == [136]
    assert decoded.crystals.lattice[0] == pytest.approx([4.59, 4.59, 2.96, 90, 90, 90])
    assert sorted(decoded.crystals.species[0].tolist()) == [8, 22]


def test_angles_are_rounded() -> None:
    """The trigonal axes of 119.9999...° stay what they are."""
    crystals = prototypes(9)
    trigonal = crystals[np.isin(crystals.space_group, [164, 166, 187, 194])]
    some = [text.split("\n")[1] for text in CoordinatesText(angle_decimals=1).encode(trigonal)]
    assert "119.9" not in " ".join(some)
    assert any("120.0" in angles for angles in some)


def test_prototypes_come_back() -> None:
    crystals = prototypes(23)
    decoded = TEXT.decode(TEXT.encode(crystals))
    assert decoded.ok.all()
    assert (decoded.crystals.space_group == crystals.space_group).mean() > 0.98
    assert_come_back(crystals, decoded.crystals)


@pytest.mark.parametrize("decimals", [2, 3, 5])
@settings(max_examples=20)
@given(triclinic_crystal())
def test_any_cell_comes_back(decimals: int, crystals: Crystals) -> None:
    """The text has the numbers to the decimals, and what is read is what it says."""
    text = CoordinatesText(decimals, decimals, decimals)
    (written,) = text.encode(crystals)
    assert re.fullmatch(text.pattern(), written)
    (structure,) = to_structures(crystals)
    assert structure is not None
    moved = 10.0**-decimals * 30
    matcher = StructureMatcher(
        ltol=moved, stol=moved, angle_tol=3 * moved, scale=False, primitive_cell=False
    )
    assert matcher.fit(structure, structure_of(written))
    decoded = text.decode([written])
    assert decoded.reasons == [None]
    assert_come_back(crystals, decoded.crystals)


def test_another_way_to_write_it() -> None:
    """Blanks, other axes and cells, coordinates outside the cell: the crystal is the same."""
    cell = structure_of(WRITTEN) * [[2, 0, 0], [1, 1, 0], [0, 0, 1]]
    lines = [" ".join(map(str, np.round(x, 5))) for x in (cell.lattice.abc, cell.lattice.angles)]
    for site in cell:
        lines += [f" {site.specie} ", "  ".join(f"{x - 2:.5f}" for x in site.frac_coords)]
    read, other = (
        TEXT.decode([text]).crystals for text in (WRITTEN, "\n".join(["", *lines, ""]) + "\n ")
    )
    assert other.space_group.tolist() == [136]
    np.testing.assert_allclose(other.lattice, read.lattice, atol=1e-3)
    assert_come_back(read, other)


def test_augmentation() -> None:
    crystals = prototypes(23)
    rng = np.random.default_rng(0)
    plain, one, other = TEXT.encode(crystals), *(TEXT.augment(crystals, rng) for _ in range(2))
    changed = [len({a, b, c}) == 3 for a, b, c in zip(plain, one, other, strict=True)]
    assert np.mean(changed) > 0.99
    assert TEXT.augment(crystals, np.random.default_rng(0)) == one
    pattern = re.compile(TEXT.pattern())
    assert all(map(pattern.fullmatch, one))
    decoded = TEXT.decode(one)
    assert decoded.ok.all()
    assert (decoded.crystals.space_group == crystals.space_group).mean() > 0.98
    assert_come_back(crystals, decoded.crystals)
    # neither the order nor the origin is that of before
    elements = [[text.split("\n")[2::2] for text in texts] for texts in (plain, one)]
    assert all(sorted(a) == sorted(b) for a, b in zip(*elements, strict=True))
    assert any(a != b for a, b in zip(*elements, strict=True))
    firsts = np.array([text.split("\n")[3].split() for text in one], float)
    assert abs(firsts.mean(0) - 0.5).max() < 0.1


def test_symprec() -> None:
    """What is further off than the tolerance has no symmetry."""
    text = WRITTEN.replace("0.000 0.305 0.305", "0.000 0.310 0.300")
    coarse = CoordinatesText(symprec=0.1)
    assert TEXT.decode([text]).crystals.space_group[0] != 136
    assert coarse.decode([text]).crystals.space_group.tolist() == [136]
    assert CoordinatesText(2, 2, 3).tolerance == pytest.approx(0.1051, abs=1e-4)
    assert TEXT.tolerance == pytest.approx(0.0159, abs=1e-4)


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("", "four lines"),
        ("3 3 3\n90 90 90\nTi", "four lines"),
        (WRITTEN + "\nTi", "'Ti': an atom is an element and its coordinates"),
        (WRITTEN + "\n", None),
        ("3 3\n90 90 90\nTi\n0 0 0", "cell lengths are 3 numbers, not '3 3'"),
        ("3 3 x\n90 90 90\nTi\n0 0 0", "cell lengths are 3 numbers"),
        ("3 3 nan\n90 90 90\nTi\n0 0 0", "cell lengths are 3 numbers"),
        (f"3 3 {'9' * 400}\n90 90 90\nTi\n0 0 0", "cell lengths are 3 numbers"),
        ("3 3 ٣\n90 90 90\nTi\n0 0 0", "cell lengths are 3 numbers"),
        ("3 3 3\n90 90\nTi\n0 0 0", "cell angles are 3 numbers, not '90 90'"),
        ("3 3 3\n90 90 90\nXx\n0 0 0", "unknown element 'Xx'"),
        ("3 3 3\n90 90 90\nTi O\n0 0 0", "'Ti O' is no element"),
        ("3 3 3\n90 90 90\n\n0 0 0", "'' is no element"),
        ("3 3 3\n90 90 90\nTi\n0 0", "coordinates are 3 numbers, not '0 0'"),
        ("3 3 0\n90 90 90\nTi\n0 0 0", "a cell length or angle out of range"),
        ("3 3 -3\n90 90 90\nTi\n0 0 0", "a cell length or angle out of range"),
        ("3 3 3\n90 90 180\nTi\n0 0 0", "a cell length or angle out of range"),
        ("3 3 3\n10 10 170\nTi\n0 0 0", "the lattice parameters do not form a cell"),
        ("3 3 3\n60 60 120\nTi\n0 0 0", "the lattice parameters do not form a cell"),
        ("0.1 0.1 0.1\n90 90 90\nTi\n0 0 0", "its volume is below 0.1"),
        ("0.50 0.84 435.84\n120 76.03 120\nTi\n0 0 0", "no plausible unit cell"),
        ("1.1 3 400\n90 90 90\nTi\n0 0 0", "no plausible unit cell"),
        ("3 3 99999\n90 90 90\nTi\n0 0 0", "lattice vectors of 99999"),
        ("3 3 3\n90 90 90\nTi\n0 0 0\nO\n0 0 0", "atoms 0 and 1 (counted from 0) are less than"),
        ("3 3 3\n90 90 90\nTi\n0 0 0\nTi\n0.005 0 0", "are less than 0.0158727 Å apart"),
    ],
)
def test_faults(text: str, reason: str | None) -> None:
    decoded = TEXT.decode([WRITTEN, text, WRITTEN])
    assert decoded.ok.tolist() == [True, reason is None, True]
    if reason is not None:
        assert reason in (decoded.reasons[1] or "")
        assert not any(np.asarray(x[1]).any() for x in jax.tree.leaves(decoded.crystals))


def mangled(texts: tuple[str, ...]) -> st.SearchStrategy[str]:
    """Texts with a piece taken out, doubled, or replaced by other characters."""
    text, position = st.sampled_from(texts), st.floats(0, 1)
    piece = st.sampled_from(["", "\n", " ", "0 0 0\n", "-", ".", "9", "Ti", "nan", "Å:", "\0"])

    def mangle(whole: str, start: float, stop: float, new: str, twice: bool) -> str:
        i, j = sorted(round(x * len(whole)) for x in (start, stop))
        return whole[:i] + new + whole[i if twice else j :]

    return st.builds(mangle, text, position, position, piece | st.text(max_size=5), st.booleans())


@settings(max_examples=200)
@given(st.lists(mangled((WRITTEN,)) | st.text("0123456789.- \nTiO", max_size=60), max_size=3))
def test_garbage_never_raises(texts: list[str]) -> None:
    decoded = TEXT.decode(texts)
    assert [reason is None for reason in decoded.reasons] == decoded.ok.tolist()
    assert len(decoded.crystals) == len(texts)
    assert all(np.isfinite(x).all() for x in jax.tree.leaves(decoded.crystals))


@pytest.mark.parametrize(
    "lattice",
    [
        "1.06 6.36 71.32\n90 90 120",
        "0.50 0.80 20.00\n90 90 90",
        "2.08 12.48 193.72\n120 120 90",
        "4.14 7.33 500.00\n90 90 90",
    ],
)
def test_cells_that_no_search_ends_for(lattice: str) -> None:
    """At this tolerance the search does not end in any useful time for such needles."""
    text = f"{lattice}\nTi\n0 0 0\nO\n0.3 0.4 0.2"
    assert "no plausible unit cell" in (CoordinatesText(2, 2, 3).decode([text]).reasons[0] or "")


def test_many_atoms_in_one_place_cost_no_time() -> None:
    """The symmetry search alone took 5 s for 200 of them."""
    text = "5 5 5\n90 90 90" + "\nTi\n0 0 0" * 1000
    assert "are less than" in (TEXT.decode([text]).reasons[0] or "")


@settings(max_examples=30)
@given(st.data())
def test_what_the_pattern_allows_decodes(data: st.DataObject) -> None:
    pattern = re.compile(TEXT.pattern(elements=["Ti", "O"]), re.ASCII)
    text = data.draw(st.from_regex(pattern, fullmatch=True))
    (reason,) = TEXT.decode([text]).reasons
    allowed = ("out of range", "do not form a cell", "no plausible", "are less than", "is below")
    assert reason is None or any(each in reason for each in allowed)


def test_pattern() -> None:
    crystals = prototypes(23)
    for text in (TEXT, CoordinatesText(2, 3, 4)):
        assert all(map(re.compile(text.pattern()).fullmatch, text.encode(crystals)))
    assert not re.fullmatch(TEXT.pattern(elements=["Ti"]), WRITTEN)
    assert re.fullmatch(TEXT.pattern(elements=["Ti", "O"]), WRITTEN)
    assert not re.fullmatch(TEXT.pattern(), WRITTEN + "\n")
    with pytest.raises(ValueError, match="cannot be held to space groups"):
        TEXT.pattern([225])
    with pytest.raises(ValueError, match="unknown element 'Xx'"):
        TEXT.pattern(elements=["Xx"])


def test_crystals_that_cannot_be_written() -> None:
    both = Crystals.concatenate([RUTILE, RUTILE])
    both.lattice[1, :3] = 1200
    with pytest.raises(ValueError, match="crystal 1 cannot be written: a cell of"):
        TEXT.encode(both)
    both.space_group[0] = 0
    with pytest.raises(ValueError, match="crystal 0 has no atoms or no space group"):
        TEXT.encode(both)
    assert TEXT.encode(both[:0]) == []


def test_bad_options() -> None:
    with pytest.raises(ValueError, match="symprec must be above 0"):
        CoordinatesText(symprec=0)
    with pytest.raises(ValueError, match="angle_decimals must be at least 1"):
        CoordinatesText(angle_decimals=0)


def test_materials_project(shared: Path, tmp_path: Path) -> None:
    source = shared / "data" / "mp20_bt" / "test.csv.gz"
    crystals = load(source, cache_dir=tmp_path, workers=1).crystals
    some = crystals[np.random.default_rng(0).choice(len(crystals), 300, replace=False)]
    decoded = TEXT.decode(TEXT.encode(some))
    assert decoded.ok.all()
    assert (decoded.crystals.space_group == some.space_group).all()
    assert_come_back(some, decoded.crystals)
