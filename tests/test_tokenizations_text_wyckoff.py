"""Wyckoff texts: round trips up to the decimals, and faults that are reported and never raised."""

from __future__ import annotations

import re
import string
from pathlib import Path

import jax
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from crystaljax.composition import SYMBOLS
from crystaljax.crystal import Crystals
from crystaljax.data.dataset import load
from crystaljax.structures import to_structures
from crystaljax.symmetry.orbits import FREE_LATTICE
from crystaljax.symmetry.tables import tables
from crystaljax.tokenizations.text.wyckoff import WyckoffText

TEXT = WyckoffText()
RUTILE = "136\n4.594 2.959\nTi 2a\nO 4f 0.3048"


def assert_same(one: Crystals, other: Crystals, coordinate: float, length: float) -> None:
    """Equal up to rounding; dependent coordinates may double it."""
    for name in ("space_group", "wyckoff", "species"):
        np.testing.assert_array_equal(getattr(one, name), getattr(other, name))
    difference = np.asarray(one.frac - other.frac, float)
    assert np.abs(difference - np.round(difference)).max() <= coordinate + 1e-6
    assert np.abs(one.lattice[:, :3] - other.lattice[:, :3]).max() <= length / 2 + 1e-5
    assert np.abs(one.lattice[:, 3:] - other.lattice[:, 3:]).max() <= 0.005 + 1e-4


def assert_rewritten_alike(texts: list[str], crystals: Crystals) -> None:
    """But for the order of sites whose written coordinates are equal."""
    for one, other in zip(texts, TEXT.encode(crystals), strict=True):
        assert sorted(one.split("\n")) == sorted(other.split("\n"))


def test_round_trip() -> None:
    """With as many decimals as float32 has, the sites' order too."""
    crystals = load("prototypes").crystals
    text = WyckoffText(coordinate_decimals=6, length_decimals=6)
    decoded = text.decode(text.encode(crystals))
    assert decoded.ok.all()
    assert decoded.reasons == [None] * len(crystals)
    assert_same(decoded.crystals.with_slots(crystals.n_slots), crystals, 1e-6, 1e-6)
    texts = TEXT.encode(crystals)
    assert_rewritten_alike(texts, TEXT.decode(texts).crystals)


@pytest.mark.parametrize("decimals", [2, 6])
def test_decimals(decimals: int) -> None:
    crystals = load("prototypes").crystals[np.arange(0, 200, 7)]
    text = WyckoffText(coordinate_decimals=decimals, length_decimals=decimals)
    decoded = text.decode(text.encode(crystals)).crystals.with_slots(crystals.n_slots)
    difference = np.asarray(decoded.frac - crystals.frac, float)
    assert np.abs(difference - np.round(difference)).max() <= 10.0**-decimals + 1e-6
    lengths = np.abs(decoded.lattice[:, :3] - crystals.lattice[:, :3])
    assert lengths.max() <= 10.0**-decimals / 2 + 1e-5


NUMBER = "-?[0-9]{1,6}([.][0-9]{1,9})?"


def read_plainly(text: str) -> str | None:
    """A text as it would be written, its sites in the order given; None if it is none."""
    lines = text.strip().split("\n")
    if len(lines) < 3 or not re.fullmatch("[0-9]{1,3}", lines[0].strip()):
        return None
    group = int(lines[0])
    if not 1 <= group <= 230:
        return None
    free = np.flatnonzero(FREE_LATTICE[tables().crystal_system[group - 1]])
    if not re.fullmatch(rf"\s*{NUMBER}(\s+{NUMBER}){{{len(free) - 1}}}\s*", lines[1]):
        return None
    numbers = zip(lines[1].split(), free.tolist(), strict=True)
    lattice = " ".join(f"{float(x):.{3 if axis < 3 else 2}f}" for x, axis in numbers)
    sites = [site_read_plainly(line, group) for line in lines[2:]]
    return None if None in sites else "\n".join([str(group), lattice, *filter(None, sites)])


def site_read_plainly(line: str, group: int) -> str | None:
    """Likewise a line of a space group."""
    site = re.fullmatch(rf"\s*([A-Z][a-z]?)\s+([0-9]+)([a-zA])((\s+{NUMBER})*)\s*", line)
    if site is None or site[1] not in SYMBOLS:
        return None
    index = (string.ascii_lowercase + "A").index(site[3]) + 1
    multiplicity, values = int(tables().multiplicity[group - 1, index]), site[4].split()
    if multiplicity != int(site[2]) or multiplicity == 0:
        return None
    if len(values) != tables().n_free[group - 1, index]:
        return None
    written = [f"{float(x) % 1:.4f}".replace("1.0000", "0.0000") for x in values]
    return " ".join([site[1], f"{multiplicity}{site[3]}", *written])


LATER = {
    "a position without freedom twice",
    "a cell length or angle out of range",
    "the lattice parameters do not form a cell",
}
"""Faults that are not of a line alone."""


def test_batches_are_read_as_texts_are_one_by_one() -> None:
    """Also texts with a character lost or exchanged."""
    rng = np.random.default_rng(0)
    texts = TEXT.encode(load("prototypes").crystals)[::4]
    for text in list(texts):
        for _ in range(3):
            place, new = int(rng.integers(len(text))), str(rng.choice(["", *"012789 \n.aTiO-"]))
            texts.append(text[:place] + new + text[place + 1 :])
    decoded = TEXT.decode(texts)
    assert 0.3 < decoded.ok.mean() < 0.9
    again = iter(TEXT.encode(decoded.crystals[decoded.ok]))
    for text, ok, reason in zip(texts, decoded.ok, decoded.reasons, strict=True):
        expected = read_plainly(text)
        assert ok == (expected is not None and reason not in LATER), text
        if ok:
            assert expected is not None
            head, lattice, *sites = expected.split("\n")
            found_head, found_lattice, *found_sites = next(again).split("\n")
            assert (found_head, sorted(found_sites)) == (head, sorted(sites)), text
            parameters = [float(x) for x in lattice.split()]
            assert [float(x) for x in found_lattice.split()] == pytest.approx(parameters, rel=1e-6)


def test_rutile() -> None:
    decoded = TEXT.decode([RUTILE])
    assert TEXT.encode(decoded.crystals) == [RUTILE]
    (structure,) = to_structures(decoded.crystals)
    assert structure is not None
    assert structure.composition.reduced_formula == "TiO2"
    assert structure.lattice.abc == pytest.approx((4.594, 4.594, 2.959), rel=1e-5)
    assert structure.get_space_group_info()[1] == 136


def test_what_is_equivalent_is_read_alike() -> None:
    other = "\n 136 \n4.594  2.959 \nO 4f -0.6952\n Ti   2a\n\n"
    assert TEXT.encode(TEXT.decode([other]).crystals) == [RUTILE]


def test_sites_in_order() -> None:
    lines = [*RUTILE.split("\n")[:2], "O 4f 0.7", "Ti 4f 0.1", "O 4f 0.1", "C 2b", "N 2a"]
    crystals = TEXT.decode(["\n".join(lines)]).crystals
    assert crystals.wyckoff[0, :5].tolist() == [1, 2, 6, 6, 6]
    assert crystals.species[0, :5].tolist() == [7, 6, 22, 8, 8]


def test_a_coordinate_that_rounds_to_one() -> None:
    crystals = TEXT.decode([RUTILE]).crystals
    crystals.frac[0, 1] = 0.99998, 0.99998, 0
    assert TEXT.encode(crystals)[0].endswith("O 4f 0.0000")


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("", "three lines"),
        ("136\n4.594 2.959", "three lines"),
        ("231\n4 3\nTi 2a", "'231' is no space group"),
        ("0\n4 3\nTi 2a", "'0' is no space group"),
        ("P4\n4 3\nTi 2a", "'P4' is no space group"),
        ("136\n4.594\nTi 2a", "a lattice of space group 136: 2 numbers expected, not '4.594'"),
        ("136\n4.594 x\nTi 2a", "2 numbers expected, not '4.594 x'"),
        ("136\n4.594 nan\nTi 2a", "2 numbers expected"),
        (f"136\n4 {'9' * 400}\nTi 2a", "2 numbers expected"),
        ("136\n4.594 0.0\nTi 2a", "a cell length or angle out of range"),
        ("136\n4.594 2.959\nTi", "'Ti' is no site"),
        ("136\n4.594 2.959\n\nTi 2a", "'' is no site"),
        ("136\n4.594 2.959\nXx 2a", "unknown element 'Xx'"),
        ("136\n4.594 2.959\nTi 4a", "'4a' is no Wyckoff position of space group 136"),
        ("136\n4.594 2.959\nTi 2z", "'2z' is no Wyckoff position"),
        ("136\n4.594 2.959\nTi a2", "'a2' is no Wyckoff position"),
        ("136\n4.594 2.959\nO 4f", "position 4f of space group 136: 1 number expected, not ''"),
        ("136\n4.594 2.959\nO 4f 0.3 0.3 0", "position 4f of space group 136: 1 number expected"),
        ("136\n4.594 2.959\nTi 2a\nO 2a", "a position without freedom twice"),
        ("1\n4 4 4 10 10 170\nTi 1a 0 0 0", "do not form a cell"),
        ("٣\n4 4 4 90 90 90\nTi 1a 0 0 0", "no space group"),
    ],
)
def test_faults(text: str, reason: str) -> None:
    decoded = TEXT.decode([RUTILE, text, RUTILE])
    assert decoded.ok.tolist() == [True, False, True]
    assert reason in (decoded.reasons[1] or "")
    assert not any(np.asarray(x[1]).any() for x in jax.tree.leaves(decoded.crystals))


@settings(max_examples=200)
@given(st.lists(st.text() | st.text("0123456789.- \naTiO4fz", max_size=60), max_size=3))
def test_garbage_never_raises(texts: list[str]) -> None:
    decoded = TEXT.decode(texts)
    assert [reason is None for reason in decoded.reasons] == decoded.ok.tolist()
    assert len(decoded.crystals) == len(texts)
    assert all(np.isfinite(x).all() for x in jax.tree.leaves(decoded.crystals))


@pytest.mark.parametrize("group", [2, 15, 62, 136, 166, 194, 225])
@settings(max_examples=20)
@given(st.data())
def test_what_the_pattern_allows_decodes(group: int, data: st.DataObject) -> None:
    pattern = TEXT.pattern([group], ["Ti", "O"])
    text = data.draw(st.from_regex(re.compile(pattern, re.ASCII), fullmatch=True))
    (reason,) = TEXT.decode([text]).reasons
    assert reason in (
        None,
        "a position without freedom twice",
        "a cell length or angle out of range",
        "the lattice parameters do not form a cell",
    )


def test_a_pattern_of_all_groups() -> None:
    pattern = re.compile(TEXT.pattern())
    crystals = load("prototypes").crystals[np.arange(0, 2000, 20)]
    assert all(pattern.fullmatch(text) for text in TEXT.encode(crystals))
    assert not pattern.fullmatch(RUTILE + " ")


def test_crystals_that_cannot_be_written() -> None:
    crystals = TEXT.decode([RUTILE, "nothing"]).crystals
    with pytest.raises(ValueError, match="crystal 1 cannot be written"):
        TEXT.encode(crystals)


def test_materials_project(shared: Path, tmp_path: Path) -> None:
    """pymatgen's matcher says that decoded structures are those that were written."""
    from pymatgen.analysis.structure_matcher import StructureMatcher

    source = shared / "data" / "mp20_bt" / "val.csv.gz"
    crystals = load(source, cache_dir=tmp_path, workers=1).crystals
    texts = TEXT.encode(crystals)
    decoded = TEXT.decode(texts)
    assert decoded.ok.all()
    assert_rewritten_alike(texts, decoded.crystals)
    some = np.random.default_rng(0).choice(len(crystals), 100, replace=False)
    written = to_structures(crystals[some], primitive=True)
    read = to_structures(decoded.crystals[some], primitive=True)
    matcher = StructureMatcher(ltol=0.001, stol=0.005, angle_tol=0.1, scale=False)
    for one, other in zip(written, read, strict=True):
        assert one is not None
        assert other is not None
        assert matcher.fit(one, other)
