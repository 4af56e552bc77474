"""The convex hull against pymatgen's phase diagrams and closed forms."""

from itertools import combinations
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from crystaljax.composition import SYMBOLS, parse_formulas
from crystaljax.rewards.hull import Hull
from crystaljax.rewards.hull_files import HullTable, read_hull_table


def pymatgen_energy_above_hull(
    formulas: list[str], energies: np.ndarray, query: str, energy: float
) -> float:
    """By a PhaseDiagram of the entries, with an elemental reference at 0 for each element."""
    from pymatgen.analysis.phase_diagram import PDEntry, PhaseDiagram
    from pymatgen.core import Composition

    composition = Composition(query)
    elements = {e for f in [*formulas, query] for e in Composition(f).elements}
    entries = [PDEntry(Composition({e: 1}), 0.0) for e in elements]
    for f, e in zip(formulas, energies, strict=True):
        entries.append(PDEntry(Composition(f), e * Composition(f).num_atoms))
    entry = PDEntry(composition, energy * composition.num_atoms)
    return PhaseDiagram(entries).get_e_above_hull(entry, allow_negative=True)


@pytest.fixture(scope="module")
def mp20(shared: Path) -> tuple[HullTable, Hull]:
    folder = shared / "data" / "mp20_bt"
    return read_hull_table(folder), Hull.from_file(folder)


def test_500_entries_agree_with_pymatgen(mp20: tuple[HullTable, Hull]) -> None:
    from pymatgen.analysis.phase_diagram import PDEntry, PhaseDiagram
    from pymatgen.core import Composition, Element

    table, hull = mp20
    rng = np.random.default_rng(0)
    rows = rng.choice(len(table.counts), 500, replace=False)
    energies = table.energies[rows] + rng.choice([0.0, -0.3, 0.2], 500)  # below, on and above
    ours = hull.energy_above_hull(table.counts[rows], energies)
    by_system: dict[tuple[int, ...], list[int]] = {}
    for i, row in enumerate(table.counts > 0):
        by_system.setdefault(tuple(np.flatnonzero(row)), []).append(i)

    def entry(counts: np.ndarray, energy: float) -> PDEntry:
        composition = Composition({Element.from_Z(z): counts[z] for z in np.flatnonzero(counts)})
        return PDEntry(composition, energy * composition.num_atoms)

    theirs = []
    for row, energy in zip(rows, energies, strict=True):
        elements = np.flatnonzero(table.counts[row])
        entries = [entry(np.eye(119)[z], 0.0) for z in elements]
        for size in range(1, len(elements) + 1):
            for system in combinations(elements, size):
                known = by_system.get(system, [])
                entries += [entry(table.counts[i], table.energies[i]) for i in known]
        diagram = PhaseDiagram(entries)
        query = entry(table.counts[row], energy)
        theirs.append(diagram.get_e_above_hull(query, allow_negative=True))
    np.testing.assert_allclose(ours, theirs, atol=1e-6)
    assert (ours < -1e-3).any()
    assert (ours > 1e-3).any()


def test_no_entry_lies_below_its_own_hull(mp20: tuple[HullTable, Hull]) -> None:
    table, hull = mp20
    above = hull.energy_above_hull(table.counts[::5], table.energies[::5])
    assert above.min() > -1e-9
    on_hull = above < 1e-9
    assert 0.3 < on_hull.mean() < 0.95


def _some(amounts: list[int]) -> list[int]:
    """The amounts; one of each element where there would be none."""
    return amounts if any(amounts) else [1] * len(amounts)


chemistries = st.integers(1, 5).flatmap(
    lambda n: st.lists(
        st.tuples(
            st.lists(st.integers(0, 4), min_size=n, max_size=n).map(
                lambda x: x if any(x) else [1] * n
            ),
            st.floats(-3, 1).map(lambda x: round(x, 3)),
        ),
        min_size=1,
        max_size=8,
    )
)


@settings(max_examples=60)
@given(chemistries, st.integers(0, 10**6))
def test_random_systems_agree_with_pymatgen(
    entries: list[tuple[list[int], float]], seed: int
) -> None:
    """Unary to quinary, with repeated and collinear compositions and elements below 0."""

    def name(amounts: list[int]) -> str:
        return "".join(f"{SYMBOLS[i + 2]}{n}" for i, n in enumerate(amounts) if n)

    formulas = [name(amounts) for amounts, _ in entries]
    energies = np.array([energy for _, energy in entries])
    n = len(entries[0][0])
    query = name(np.random.default_rng(seed).integers(1, 5, n).tolist())
    # The elements are listed with 0 too, so that the hull knows each of them.
    hull = Hull.from_entries([*formulas, *SYMBOLS[2 : 2 + n]], [*energies, *[0.0] * n])
    ours = hull.energy_above_hull(parse_formulas([query]), np.array([-0.7]))[0]
    assert ours == pytest.approx(
        pymatgen_energy_above_hull(formulas, energies, query, -0.7), abs=1e-6
    )


def test_many_elements_by_linear_programming() -> None:
    names = SYMBOLS[2:10]
    formulas = ["".join(pair) for pair in combinations(names, 2)]
    energies = np.random.default_rng(0).uniform(-2, 0, len(formulas))
    hull = Hull.from_entries(formulas, energies)
    query = "".join(names)
    ours = hull.energy_above_hull(parse_formulas([query]), np.zeros(1))[0]
    assert ours > 0
    expected = pymatgen_energy_above_hull(formulas, energies, query, 0.0)
    assert ours == pytest.approx(expected, abs=1e-6)


def test_closed_forms() -> None:
    """A binary with one compound, the elements alone, and an element below its reference."""
    hull = Hull.from_entries(["NaCl", "NaCl", "Na3Cl", "K", "Ar"], [-2.0, -1.5, -0.5, -0.1, 0.3])
    counts = parse_formulas(["NaCl", "Na3Cl", "NaCl3", "K", "Ar", "KAr"])
    hull_energy = hull.hull_energy(counts)
    np.testing.assert_allclose(hull_energy, [-2, -1, -1, -0.1, 0, -0.05], atol=1e-12)
    above = hull.energy_above_hull(counts[:2], np.array([-2.5, -0.5]))
    np.testing.assert_allclose(above, [-0.5, 0.5], atol=1e-12)


def test_the_size_of_the_cell_does_not_matter() -> None:
    hull = Hull.from_entries(["NaCl"], [-2.0])
    counts = parse_formulas(["Na3Cl2", "Na12Cl8"])
    assert np.ptp(hull.hull_energy(counts)) == pytest.approx(0, abs=1e-12)


def test_a_lacking_element_gives_nan_a_reason_and_an_error() -> None:
    hull = Hull.from_entries(["NaCl", "MgO"], [-2.0, -3.0], name="two salts")
    counts = np.concatenate([parse_formulas(["NaCl", "KCl", "KFe", "MgO"]), np.zeros((1, 119))])
    above = hull.energy_above_hull(counts, np.zeros(5))
    np.testing.assert_array_equal(np.isnan(above), [False, True, True, False, True])
    assert hull.reasons(counts) == [
        None,
        "the hull 'two salts' has no entry with K",
        "the hull 'two salts' has no entry with K, Fe",
        None,
        "no atoms",
    ]
    hull.require(["Na", 17])
    with pytest.raises(ValueError, match="'two salts' has no entry with K, Fe"):
        hull.require(["Na", "Fe", "K"])
    with pytest.raises(ValueError, match="unknown element 'Xx'"):
        hull.require(["Xx"])


def test_an_empty_batch() -> None:
    hull = Hull.from_entries(["NaCl"], [-2.0])
    assert hull.energy_above_hull(np.zeros((0, 119)), np.zeros(0)).shape == (0,)


def test_rows_without_energy_are_left_out_and_nothing_left_is_an_error() -> None:
    assert Hull.from_entries(["NaCl", "NaCl2"], [-1.0, np.nan]).n_entries == 1
    with pytest.raises(ValueError, match="none with an energy"):
        Hull.from_entries([], [])
    with pytest.raises(ValueError, match="2 formulas but 1"):
        Hull.from_entries(["NaCl", "KCl"], [1.0])


def test_a_dataset_s_properties_are_a_table() -> None:
    columns = {
        "pretty_formula": np.array(["NaCl", "MgO"]),
        "formation_energy_per_atom": np.array([-2.0, -3.0]),
        "band_gap": np.array([5.0, 7.0]),
    }
    assert Hull.from_table(columns).n_entries == 2
    with pytest.raises(ValueError, match="no energy column"):
        Hull.from_table({"formula": ["NaCl"], "gap": [1.0]})


def test_entries_known_of_a_system_are_those_of_its_subsystems() -> None:
    formulas = ["Na", "Na", "Cl2", "NaCl", "Na3Cl", "NaClO3", "KCl", "Na2O"]
    hull = Hull.from_entries(formulas, np.zeros(len(formulas)))
    counts = parse_formulas(["NaCl", "Na2Cl5", "Na", "NaClO", "KCl", "Xe", "KNaClO"])
    assert hull.n_known(counts).tolist() == [5, 5, 2, 7, 2, 0, 8]
    assert hull.n_known(np.zeros((2, 119))).tolist() == [0, 0]
