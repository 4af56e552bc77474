"""Divergences by element, of hand-made tokens."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pytest

from crystaljax.alloys.evaluation.tokens import (
    ALLOY_TOKENS,
    NUMERALS,
    by_element,
    columns,
    element_table,
    read_element_tables,
    write_element_tables,
)
from crystaljax.alloys.family import FCC_L12

if TYPE_CHECKING:
    from crystaljax.text.divergence import TokenDivergence

PIECES = ["<BCC>", "N", "i", "3", "3", "Cr", "</BCC>", " ", "<B2>", "Al", "Ni", "2", "</B2>"]
VOLUME = [" ", "<B2_Volume>", "5", "0", ".", "6", "</B2_Volume>", ""]


def divergence(pieces: list[str], nats: list[float], copies: int = 1) -> TokenDivergence:
    """Copies of one text; without the extra llm the test is skipped."""
    pytest.importorskip("qwix")
    from crystaljax.text.divergence import TokenDivergence, _labels

    labels = _labels([piece.encode() for piece in pieces], ALLOY_TOKENS) * copies
    token, kind, span = (np.array(column, object) for column in zip(*labels, strict=True))
    sample = np.repeat(np.arange(copies), len(pieces))
    return TokenDivergence(copies, np.array(nats * copies), sample, token, kind, span)


def test_symbols_and_amounts_by_phase() -> None:
    nats = [9.0, 1, 2, 3, 4, 5, 9, 9, 9, 6, 7, 8, 9, *[9] * len(VOLUME)]
    found = by_element(divergence(PIECES + VOLUME, nats, copies=2))
    assert found.symbols == ("Al", "Cr", "Ni")
    assert columns() == ("BCC element", "BCC amount", "B2 element", "B2 amount")
    told = ("FCC element", "FCC amount", "L12 element", "L12 amount")
    assert columns(FCC_L12.tags) == told
    nan = np.nan
    expected = [[nan, nan, 6, nan], [5, nan, nan, nan], [3, 7, 7, 8]]
    np.testing.assert_array_equal(found.mean, expected)
    np.testing.assert_array_equal(found.places, 2 * np.isfinite(expected))


def test_texts_that_are_no_candidates() -> None:
    found = by_element(divergence(["Ni", " ", "3", "<B2>", "7", "Ti"], [1.0] * 6))
    assert found.symbols == ("Ni", "Ti")  # 7 stands in a B2, after Ni
    np.testing.assert_array_equal(found.places, [[0, 0, 0, 1], [0, 0, 1, 0]])


def test_the_paper_s_space_in_the_tag() -> None:
    assert divergence(["<B2 Volume>", "50"], [0.0] * 2).kind.tolist() == ["tag", "number"]


def test_elements_and_numerals_of_the_paper_s_table(tmp_path: Path) -> None:
    nats = [9.0, 1, 2, 3, 4, 5, 9, 9, 9, 6, 7, 8, 9, 9, 9, 10, 20, 30, 40, 9, 99]
    found = element_table(divergence(PIECES + VOLUME, nats, copies=2))
    # Ni: tokens N, i and Ni at two places of a text; 33 and 50.6 have several digits, 2 has not,
    # and the end token is of no kind.
    assert found.symbols == ("Ni", "Al", "Cr", NUMERALS)
    assert found.places.tolist() == [4, 2, 2, 4]
    np.testing.assert_allclose(found.mean, [10 / 3, 6, 5, (3 + 4 + 10 + 20 + 30 + 40) / 6])
    path = tmp_path / "kl.csv"
    write_element_tables(path, {"DPO": found, "GRPO": found})
    read = read_element_tables(path)
    assert list(read) == ["DPO", "GRPO"]
    for one in read.values():
        assert one.symbols == found.symbols
        np.testing.assert_array_equal(one.places, found.places)
        np.testing.assert_array_equal(one.mean, found.mean)
    path.write_text("a,b\n")
    with pytest.raises(ValueError, match="no table of elements"):
        read_element_tables(path)
