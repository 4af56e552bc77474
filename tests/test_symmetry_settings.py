"""Space-group settings: types, lattices, symbols (their atoms: test_data_cif_settings)."""

import numpy as np
import pytest
import spglib

from crystaljax.symmetry.settings import (
    Names,
    choose,
    from_hall,
    group_number,
    misfit,
    number_of,
    parse_operations,
    settings_of,
)
from crystaljax.symmetry.tables import tables


def cell(a: float, b: float, c: float, beta: float = 90.0) -> np.ndarray:
    beta = np.radians(beta)
    return np.array([[a, 0, 0], [0, b, 0], [c * np.cos(beta), 0, c * np.sin(beta)]])


def test_the_type_of_operations_in_any_setting() -> None:
    for index in range(1, 531, 7):
        kind = spglib.get_spacegroup_type(index)
        assert kind is not None
        assert number_of(from_hall(kind.hall_symbol)) == kind.number
        if "(" not in kind.hall_symbol:  # another origin, which no table has
            assert number_of(from_hall(f"{kind.hall_symbol} (x+1/8,y,z+1/24)")) == kind.number


def test_listed_operations_equal_those_of_the_hall_symbol() -> None:
    listed = parse_operations(("x,y,z", "1/2-X, y+1/2, -z+1/2", "-x,-y,-z", "x-0.5,-y+.5,z+1/2"))
    assert listed.key == from_hall("-P 2yn").key
    np.testing.assert_array_equal(listed.rotation[0], np.eye(3))
    assert ((listed.translation >= 0) & (listed.translation < 1)).all()


def test_misfit_is_an_error_of_lengths_or_angles() -> None:
    four = from_hall("P 4")
    np.testing.assert_allclose(misfit(four, cell(5, 5, 7)), 0, atol=1e-12)
    np.testing.assert_allclose(misfit(four, cell(5, 5.01, 7)), 0.004, rtol=0.01)
    np.testing.assert_allclose(misfit(from_hall("P 2x"), cell(5, 6, 7, 91)), 2 * 0.01745, rtol=0.01)


def test_the_lattice_chooses_among_settings() -> None:
    names = Names(symbols=("P 2/m",))
    assert len(settings_of(names)) == 3
    assert [s.code for s in choose(names, cell(5, 6, 7, 100))] == ["b"]
    assert [s.code for s in choose(names, cell(5, 6, 7, 100)[[1, 2, 0]][:, [1, 2, 0]])] == ["a"]
    assert [s.code for s in choose(Names(number=14), cell(5, 6, 7, 100))] == ["b1"]
    assert choose(Names(number=221), cell(5, 6, 7)) == ()


@pytest.mark.parametrize(
    "names",
    [
        Names(symbols=("P 21/c",), number=15),
        Names(hall="-P 2yn", symbols=("P 1 21/c 1",)),
        Names(symbols=("P 21/c", "P n m a")),
        Names(number=62, code="b1"),
    ],
)
def test_names_that_contradict(names: Names) -> None:
    with pytest.raises(ValueError, match="contradict one another"):
        settings_of(names)


def test_groups_by_number_and_symbol() -> None:
    """The symbols are spglib's, of all settings, which pymatgen writes with underscores."""
    for hall in range(1, 531):
        group = spglib.get_spacegroup_type(hall)
        for symbol in (group.international_short, group.international_short.replace("_", "")):
            assert group_number(symbol) == group.number, symbol
    assert [group_number(str(number)) for number in range(1, 231)] == list(range(1, 231))
    assert [group_number(symbol) for symbol in tables().symbol] == list(range(1, 231))


@pytest.mark.parametrize("text", ["0", "231", "-1", "1.5", "Fm-3q", "", "NaCl"])
def test_what_is_no_space_group(text: str) -> None:
    with pytest.raises(ValueError, match="space group"):
        group_number(text)
