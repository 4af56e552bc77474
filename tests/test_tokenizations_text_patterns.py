"""The expressions that patterns are made of."""

from __future__ import annotations

import re

import pytest

from crystaljax.composition import SYMBOLS
from crystaljax.tokenizations.text import patterns


@pytest.mark.parametrize(
    "names", [["H", "He", "O"], ["Ti"], ["C", "Ca", "Cl"], list(SYMBOLS)], ids=len
)
def test_one_of(names: list[str]) -> None:
    """Each of the names and no other of one or two letters."""
    expression = re.compile(patterns.one_of(names))
    capitals, small = "ABCDEFGHIJKLMNOPQRSTUVWXYZ", "abcdefghijklmnopqrstuvwxyz"
    words = [*capitals, *(a + b for a in capitals for b in small)]
    assert [word for word in words if expression.fullmatch(word)] == sorted(names, key=words.index)


def test_heads_with_the_same_tail_share_it() -> None:
    tails = {1: "a", 2: "b", 3: "a"}
    assert patterns.by_tail(tails, str, tails.__getitem__) == "(?:1|3)a|(?:2)b"


def test_angles() -> None:
    assert patterns.angles(194, 1) == [r"90\.0", r"90\.0", r"120\.0"]
    assert patterns.angles(15, 0) == ["90", patterns.angle(0), "90"]


def test_sites() -> None:
    """Rutile's group: constants as they are, the two coordinates of 4f as any."""
    found = patterns.sites(136, 2)
    assert found[r"0\.00 0\.00 0\.00"] == ["2a"]
    assert found[r"0\.[0-9]{2} 0\.[0-9]{2} 0\.00"] == ["4f", "4g", "8i"]
