"""Element symbols, formulas and counts, against pymatgen."""

import subprocess
import sys

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from crystaljax import Crystals
from crystaljax.composition import (
    SYMBOLS,
    atomic_number,
    element_counts,
    formula,
    formulas,
    parse_formula,
    parse_formulas,
    symbol,
)


def test_symbols_are_those_of_the_periodic_table() -> None:
    from pymatgen.core import Element

    assert [Element.from_Z(z).symbol for z in range(1, 119)] == list(SYMBOLS)
    assert all(symbol(atomic_number(s)) == s for s in SYMBOLS)


@pytest.mark.parametrize("unknown", ["Xx", "fe", "FE", "", "Uue", " Fe"])
def test_an_unknown_element_is_named(unknown: str) -> None:
    with pytest.raises(ValueError, match=f"unknown element '{unknown}'"):
        atomic_number(unknown)


def test_a_symbol_in_the_wrong_case_is_corrected() -> None:
    with pytest.raises(ValueError, match="did you mean 'Fe'"):
        atomic_number("FE")


@pytest.mark.parametrize("z", [0, 119, -1])
def test_an_atomic_number_outside_the_table_is_named(z: int) -> None:
    with pytest.raises(ValueError, match=f"atomic number {z}"):
        symbol(z)


amounts = st.dictionaries(
    st.sampled_from(SYMBOLS[:103]), st.integers(1, 60), min_size=1, max_size=6
)


@given(amounts)
def test_a_written_formula_reads_back_as_the_reduced_composition(amount: dict[str, int]) -> None:
    from pymatgen.core import Composition

    counts = np.zeros(119, np.int32)
    for name, n in amount.items():
        counts[atomic_number(name)] = n
    written = formula(counts)
    parsed = {symbol(z): parse_formula(written)[z] for z in np.flatnonzero(parse_formula(written))}
    divisor = np.gcd.reduce(list(amount.values()))
    assert parsed == {name: n / divisor for name, n in amount.items()}
    assert Composition(written) == Composition({name: n / divisor for name, n in amount.items()})


@pytest.mark.parametrize(
    "text", ["Ca(OH)2", "Ba2NaOsO6", "((CH3)2N)2Co", "Li0.5Fe0.5 O2", "[Fe(CN)6]2K3", "Fe2O3 Fe"]
)
def test_parsing_agrees_with_pymatgen(text: str) -> None:
    from pymatgen.core import Composition

    expected = np.zeros(119)
    for element, amount in Composition(text).items():
        expected[element.Z] = amount
    np.testing.assert_allclose(parse_formula(text), expected)


@pytest.mark.parametrize("text", ["", "2Fe", "Fe)", "(Fe", "Fe-O", "Xy2", "fe", "Fe0"])
def test_a_bad_formula_is_named(text: str) -> None:
    with pytest.raises(ValueError, match="cannot read the formula") as caught:
        parse_formulas(["NaCl", text])
    assert repr(text) in str(caught.value)


@pytest.mark.parametrize("text", ["NaCl", "SrTiO3", "LiFePO4", "GaAs", "Mg2Si"])
def test_formulas_put_cations_first(text: str) -> None:
    assert formula(parse_formula(text)) == text


def rock_salt_and_more() -> Crystals:
    """NaCl (225, a and b), diamond (227, a), an empty row, and a letter its group lacks."""
    wyckoff = np.array([[1, 2, 0], [1, 0, 0], [0, 0, 0], [9, 1, 0]], np.int32)
    species = np.array([[11, 17, 0], [6, 0, 0], [0, 0, 0], [8, 8, 0]], np.int32)
    return Crystals(
        space_group=np.array([225, 227, 1, 1], np.int32),
        wyckoff=wyckoff,
        species=species,
        frac=np.zeros((4, 3, 3), np.float32),
        lattice=np.tile(np.float32([5, 5, 5, 90, 90, 90]), (4, 1)),
    )


def test_element_counts_of_the_conventional_cell() -> None:
    counts = element_counts(rock_salt_and_more())
    assert counts.shape == (4, 119)
    assert counts.dtype == np.int32
    assert {z: int(counts[0, z]) for z in np.flatnonzero(counts[0])} == {11: 4, 17: 4}
    assert {z: int(counts[1, z]) for z in np.flatnonzero(counts[1])} == {6: 8}
    assert counts[2].sum() == 0
    assert counts[3].sum() == 1  # P1 has no letter i


def test_formulas_of_crystals() -> None:
    assert formulas(rock_salt_and_more()) == ["NaCl", "C", "", "O"]


def test_reading_formulas_needs_no_heavy_import() -> None:
    code = "import sys, crystaljax.composition; assert 'pymatgen' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True)
