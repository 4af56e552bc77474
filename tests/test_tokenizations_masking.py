"""Texts with a hidden element: the symbol is gone wherever it stood, and nothing else is."""

from __future__ import annotations

import re
from functools import partial

import numpy as np
import pytest

from crystaljax.composition import SYMBOLS, atomic_number
from crystaljax.crystal import Crystals
from crystaljax.data.dataset import load
from crystaljax.tokenizations.augmentation import augmented
from crystaljax.tokenizations.masking import MASK, masked
from crystaljax.tokenizations.registry import create_format, tokenization_names
from crystaljax.tokenizations.text.plaid import PlaidText

each_format = pytest.mark.parametrize("name", tokenization_names("text"))
TRICKY = ("S", "C", "O", "Cl", "Co", "Cs", "P", "Pa", "I", "In", "Os", "Sc", "N", "Na", "Si")


def tricky_crystals() -> tuple[Crystals, np.ndarray]:
    """Crystals of elements whose symbols are in other words, and an element of each to hide."""
    crystals = load("prototypes").crystals
    n_sites = np.asarray(crystals.n_sites)
    crystals = crystals[np.flatnonzero((n_sites > 1) & (n_sites <= 4))[::20]].with_slots(4)
    rng = np.random.default_rng(0)
    numbers = np.array([atomic_number(name) for name in TRICKY])
    species = np.where(crystals.species > 0, rng.choice(numbers, crystals.species.shape), 0)
    hidden = np.array([rng.choice(row[row > 0]) for row in species])
    return Crystals(
        crystals.space_group, crystals.wyckoff, species, crystals.frac, crystals.lattice
    ), hidden


@each_format
def test_every_format_hides_an_element(name: str) -> None:
    """With the symbol in place of the mask it is the crystal, and only so."""
    format = create_format(name)
    crystals, hidden = tricky_crystals()
    texts = masked(format.encode, crystals, hidden)
    symbols = [SYMBOLS[z - 1] for z in hidden.tolist()]
    told = [text.replace(MASK, symbol) for text, symbol in zip(texts, symbols, strict=True)]
    whole = format.encode(crystals)
    read, expected = format.decode(told), format.decode(whole)
    np.testing.assert_array_equal(read.ok, expected.ok)
    assert expected.ok.mean() > 0.5
    for one, other in zip(
        (read.crystals.species, read.crystals.wyckoff, read.crystals.lattice),
        (expected.crystals.species, expected.crystals.wyckoff, expected.crystals.lattice),
        strict=True,
    ):
        np.testing.assert_array_equal(one, other)
    for text, full, symbol in zip(texts, whole, symbols, strict=True):
        # Elements stand before no small letter, in no other word of the format.
        assert sorted(text.replace(MASK, symbol)) == sorted(full)
        of_sites = re.findall(rf"^{symbol}\b", full, re.MULTILINE)
        assert len(of_sites) > 0
        assert not re.findall(rf"^{symbol}\b", text, re.MULTILINE)


@each_format
def test_random_descriptions(name: str) -> None:
    """Both writings are of the same description; elements next to each other in order are used."""
    format = create_format(name)
    crystals, hidden = tricky_crystals()
    write = lambda x: augmented(format, x, np.random.default_rng(3))  # noqa: E731
    texts = masked(write, crystals, hidden)
    assert all(MASK in text for text in texts)
    assert texts == masked(write, crystals, hidden)


def test_words_that_have_the_symbol_stay() -> None:
    """Spacegroup, Sites and Cl, in which S and C stand."""
    text = (
        "CSCl\nSpacegroup: Pmmm\nabc: 4.00 5.00 6.00\nangles: 90.00 90.00 90.00\nSites (3)\n"
        "C 0.000 0.000 0.000 1a\nS 0.000 0.000 0.500 1c\nCl 0.500 0.500 0.500 1h"
    )
    crystals = PlaidText().decode([text]).crystals
    for symbol, expected in {
        "S": text.replace("CSCl", "CCl?").replace("\nS 0", "\n? 0"),
        "C": text.replace("CSCl", "SCl?").replace("\nC 0", "\n? 0"),
        "Cl": text.replace("CSCl", "CS?").replace("\nCl 0", "\n? 0"),
    }.items():
        assert masked(PlaidText().encode, crystals, np.array([atomic_number(symbol)])) == [expected]


def alphabetical(crystals: Crystals, spaces: bool) -> list[str]:
    """A user's format: elements alphabetically; the cell's size by the atomic numbers."""
    found = []
    for row in np.asarray(crystals.species):
        names = sorted(SYMBOLS[z - 1] for z in row[row > 0].tolist())
        found.append(" ".join(names) + (f" {row.sum()}" if spaces else ""))
    return found


def test_formats_in_another_order_or_that_tell_more() -> None:
    crystals, hidden = tricky_crystals()
    texts = masked(partial(alphabetical, spaces=False), crystals, hidden)
    for text, row, z in zip(texts, np.asarray(crystals.species), hidden.tolist(), strict=True):
        others = [SYMBOLS[x - 1] for x in row[row > 0].tolist() if x != z]
        assert sorted(text.replace(MASK, "").split()) == sorted(others)
    with pytest.raises(ValueError, match="crystal 0: an element of its text cannot be hidden"):
        masked(partial(alphabetical, spaces=True), crystals, hidden)
    with pytest.raises(ValueError, match="crystal 0 has no element 118 to hide"):
        masked(partial(alphabetical, spaces=False), crystals, np.full(len(hidden), 118))


def test_crystals_of_the_stand_ins() -> None:
    """Og and Ts themselves, and an element that is on all sites."""
    crystals, _ = tricky_crystals()
    z = np.where(np.asarray(crystals.species) > 0, np.where(np.arange(4) % 2, 117, 118), 0)
    heavy = Crystals(crystals.space_group, crystals.wyckoff, z, crystals.frac, crystals.lattice)
    texts = masked(PlaidText().encode, heavy, z[:, 0])
    assert not any("Og" in text for text in texts)
