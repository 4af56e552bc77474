"""Texts of site symmetries: what symbols and numbers mean, and what is no such text."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from random_crystals import prototypes

from crystaljax.crystal import Crystals
from crystaljax.data.dataset import load
from crystaljax.structures import to_cells
from crystaljax.symmetry.tables import letter
from crystaljax.tokenizations.text.site_symmetry import SiteSymmetryText
from crystaljax.tokenizations.text.wyckoff import WyckoffText

TEXT = SiteSymmetryText()
RUTILE = "136: 4.594 2.959\nTi@m.mm#1\nO@m.2m#1 0.3048"


def test_rutile() -> None:
    source = "136\n4.594 2.959\nTi 2a\nO 4f 0.3048"
    assert TEXT.encode(WyckoffText().decode([source]).crystals) == [RUTILE]
    assert WyckoffText().encode(TEXT.decode([RUTILE]).crystals) == [source]
    loose = " 136:  4.594 2.959 \n  O@m.2m#1  0.3048\nTi@m.mm#1\n"
    assert TEXT.encode(TEXT.decode([loose]).crystals) == [RUTILE]


def symbols(text: str) -> list[str]:
    """Site symmetries of a text's sites."""
    return [line.split()[0].partition("@")[2].partition("#")[0] for line in text.split("\n")[1:]]


def assert_as_spglib_says(crystals: Crystals) -> int:
    """Site symmetries and elements are those that spglib finds; the crystals compared.

    In its own standard cell, whose axes have the order that the symbols are oriented by; the
    origin, by which letters may differ, does not change symbols.
    """
    import spglib

    compared = 0
    for text, cell in zip(TEXT.encode(crystals), to_cells(crystals), strict=True):
        data = spglib.get_symmetry_dataset((cell.matrix, cell.frac, cell.species), symprec=0.01)
        if data is None or data.number != int(text.partition(":")[0]):
            continue
        if not np.allclose(data.transformation_matrix, np.eye(3), atol=1e-4):
            continue
        compared += 1
        orbits = np.unique(data.crystallographic_orbits)
        found = sorted((data.site_symmetry_symbols[i], int(cell.species[i])) for i in orbits)
        written = TEXT.decode([text]).crystals
        species = written.species[0, : int(written.n_sites[0])].tolist()
        assert sorted(zip(symbols(TEXT.encode(written)[0]), species, strict=True)) == found, text
    return compared


def test_prototypes_against_spglib() -> None:
    crystals = prototypes(5)
    assert assert_as_spglib_says(crystals) > 0.6 * len(crystals)


def test_materials_project_against_spglib(shared: Path, tmp_path: Path) -> None:
    source = shared / "data" / "mp20_bt" / "test.csv.gz"
    crystals = load(source, cache_dir=tmp_path, workers=1).crystals
    some = crystals[np.random.default_rng(1).choice(len(crystals), 300, replace=False)]
    assert assert_as_spglib_says(some) > 150
    decoded = TEXT.decode(TEXT.encode(some))
    assert decoded.ok.all()
    np.testing.assert_array_equal(decoded.crystals.space_group, some.space_group)


def test_numbers_tell_positions_apart() -> None:
    """Every position of every group, against pyxtal's table: its symbol, and which of those."""
    symmetry = pytest.importorskip("pyxtal.symmetry")
    for group in (2, 62, 136, 166, 187, 194, 221, 225, 227):
        positions = list(reversed(list(symmetry.Group(group))))
        for position in positions:
            position.get_site_symmetry()
        names = [position.site_symm for position in positions]
        for index, position in enumerate(positions, start=1):
            number = names[:index].count(position.site_symm)
            crystals = WyckoffText().decode(
                [one_site(group, f"{position.multiplicity}{letter(index)}", position.get_dof())]
            )
            assert crystals.ok.all()
            place = TEXT.encode(crystals.crystals)[0].split("@")[1].split()[0]
            assert place == f"{position.site_symm}#{number}"


def one_site(group: int, name: str, n_free: int) -> str:
    """A Wyckoff text with one site."""
    numbers = " ".join(["0.1234", "0.2718", "0.3391"][:n_free])
    lattices = {2: "4 5 6 80 95 100", 62: "4 5 6", 221: "4", 225: "4", 227: "4"}
    return f"{group}\n{lattices.get(group, '4 5')}\nNa {name} {numbers}"


def test_vocabulary() -> None:
    """447 words; with the blank before it no number begins another, so that words are clear."""
    words = TEXT.vocabulary()
    kinds = [len([w for w in words if w[0] == mark]) for mark in "\n@#"]
    assert kinds == [118, 78, 8]
    assert len(words) == len(set(words)) == 230 + 118 + 78 + 8 + 3 + 10


def test_tokens() -> None:
    pytest.importorskip("tokenizers")
    from crystaljax.text.tokenizer_training import from_vocabulary

    tokenizer = from_vocabulary(TEXT.vocabulary())
    (tokens,) = tokenizer.encode([RUTILE])
    words = ["136:", " ", *"4.594", " ", *"2.959", "\nTi", "@m.mm", "#1", "\nO", "@m.2m", "#1"]
    assert tokenizer.fast.convert_ids_to_tokens(tokens) == [*words, " 0.", *"3048"]
    texts = TEXT.encode(prototypes(23))
    assert tokenizer.decode(tokenizer.encode(texts)) == texts


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("", "a space group with a colon"),
        ("136: 4.594 2.959", "a space group with a colon"),
        ("136 4.594 2.959\nTi@m.mm#1", "a space group with a colon"),
        ("231: 4.594\nTi@m.mm#1", "'231' is no space group"),
        ("136: 4.594\nTi@m.mm#1", "a lattice of space group 136: 2 numbers expected"),
        (RUTILE.replace("@", " "), "'Ti m.mm#1' is no site"),
        (RUTILE.replace("\n", "\n\n", 1), "'' is no site"),
        (RUTILE.replace("m.2m", "4/mmm"), "'4/mmm#1' is no site symmetry of space group 136"),
        (RUTILE.replace("m.mm#1", "m.mm#3"), "'m.mm#3' is no site symmetry of space group 136"),
        (RUTILE.replace("Ti", "Tx"), "unknown element 'Tx'"),
        (RUTILE + " 0.1", "site symmetry m.2m#1 of space group 136: 1 number expected"),
        (RUTILE + "\nTi@m.mm#1", "a position without freedom twice"),
    ],
)
def test_faults(text: str, reason: str) -> None:
    decoded = TEXT.decode([RUTILE, text])
    assert decoded.ok.tolist() == [True, False]
    assert reason in (decoded.reasons[1] or "")
