"""MP2020 corrections against pymatgen's own scheme."""

import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from pymatgen.core import Lattice, Structure
from pymatgen.entries.compatibility import MaterialsProject2020Compatibility
from pymatgen.entries.computed_entries import ComputedStructureEntry
from pymatgen.io.vasp.sets import MPRelaxSet

from crystaljax import AtomicCell
from crystaljax.data.dataset import PROTOTYPES, load
from crystaljax.rewards.corrections import is_sulfate, mp2020_correction, oxide_kind
from crystaljax.rewards.potentials.screening import screen
from crystaljax.structures import from_structure


def cubic(edge: float, species: list[str], frac: list[list[float]]) -> Structure:
    return Structure(Lattice.cubic(edge), species, frac)


def dimer(bond: float, cation: str, n_cations: int) -> Structure:
    """Two oxygen atoms `bond` Å apart and some cations, in a box of 6 Å."""
    places = [[0.5, 0.5, 0.5], [0.5, 0, 0.5], [0, 0.5, 0.5]][:n_cations]
    oxygen = [[0, 0, 0], [bond / 6, 0, 0]]
    return cubic(6, [cation] * n_cations + ["O", "O"], places + oxygen)


SULFATE = cubic(
    7,
    ["Ca", "S", "O", "O", "O", "O"],
    [[0.5, 0.5, 0.5], [0, 0, 0]]
    + [[0.12 * x, 0.12 * y, 0.12 * z] for x, y, z in [(1, 1, 1), (1, -1, -1), (-1, 1, -1)]]
    + [[-0.12, -0.12, 0.12]],
)
STRUCTURES = {
    "oxide": Structure.from_spacegroup(
        "Fm-3m", Lattice.cubic(4.2), ["Mg", "O"], [[0] * 3, [0.5] * 3]
    ),
    "oxide with U": Structure.from_spacegroup(
        "Fm-3m", Lattice.cubic(4.2), ["Ni", "O"], [[0] * 3, [0.5] * 3]
    ),
    "two with U": cubic(
        3.9, ["Fe", "Mn", "O", "O"], [[0] * 3, [0.5] * 3, [0.5, 0, 0], [0, 0.5, 0]]
    ),
    "fluoride with U": cubic(
        4, ["Fe", "F", "F", "F"], [[0] * 3, [0.5, 0, 0], [0, 0.5, 0], [0, 0, 0.5]]
    ),
    "sulfide of iron, no U": cubic(5, ["Fe", "S"], [[0] * 3, [0.5] * 3]),
    "peroxide": dimer(1.5, "Li", 2),
    "superoxide": dimer(1.3, "K", 1),
    "hydroxide": cubic(5, ["Li", "O", "H"], [[0.5] * 3, [0, 0, 0], [0.19, 0, 0]]),
    "ozonide": cubic(
        6, ["K", "O", "O", "O"], [[0.5] * 3, [0, 0, 0], [0.22, 0, 0], [-0.1, 0.19, 0]]
    ),
    "sulfate": SULFATE,
    "polysulfide": cubic(
        6, ["Li", "Li", "S", "S"], [[0.5] * 3, [0.5, 0, 0.5], [0, 0, 0], [0.33, 0, 0]]
    ),
    "element": cubic(2.9, ["Fe", "Fe"], [[0] * 3, [0.5] * 3]),
    "element of an anion": cubic(3.5, ["O", "O"], [[0] * 3, [0.35, 0, 0]]),
    "alloy": cubic(3, ["Fe", "Al"], [[0] * 3, [0.5] * 3]),
    "fractional state": cubic(5, ["K", "Sb", "Sb"], [[0] * 3, [0.5] * 3, [0.5, 0, 0]]),
    "two anions": cubic(5, ["Bi", "O", "Cl"], [[0] * 3, [0.5] * 3, [0.5, 0, 0]]),
}


def by_pymatgen(structure: Structure) -> float:
    """eV/atom of an entry calculated with the project's own +U settings."""
    strongest = max(structure.elements, key=lambda e: e.X).symbol
    settings: Any = MPRelaxSet.CONFIG["INCAR"]["LDAUU"].get(strongest, {})
    parameters = {
        "run_type": "GGA+U",
        "software": "not vasp",  # there are no POTCARs to check
        "hubbards": {e.symbol: settings.get(e.symbol, 0) for e in structure.elements},
    }
    entry = ComputedStructureEntry(structure, 0.0, parameters=parameters)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of oxidation states that cannot be guessed
        adjustments = MaterialsProject2020Compatibility().get_adjustments(entry)
    return sum(adjustment.value for adjustment in adjustments) / len(structure)


@pytest.mark.parametrize("kind", STRUCTURES)
def test_corrections_are_those_of_pymatgen(kind: str) -> None:
    structure = STRUCTURES[kind]
    correction = mp2020_correction([from_structure(structure)])
    assert correction == pytest.approx(by_pymatgen(structure), abs=1e-9)


def test_the_kinds_of_oxides_and_sulfides_are_told_apart() -> None:
    def cell(kind: str) -> AtomicCell:
        return from_structure(STRUCTURES[kind])

    kinds = [oxide_kind(cell(k)) for k in ("oxide", "peroxide", "superoxide", "ozonide")]
    assert kinds == ["oxide", "peroxide", "superoxide", "ozonide"]
    assert oxide_kind(cell("hydroxide")) == "oxide"
    assert is_sulfate(cell("sulfate")) and not is_sulfate(cell("polysulfide"))


def test_elements_have_no_correction_and_nothing_has_nan() -> None:
    elements = [from_structure(STRUCTURES[k]) for k in ("element", "element of an anion", "alloy")]
    correction = mp2020_correction([elements[0], None, *elements[1:]])
    np.testing.assert_array_equal(correction, [0, np.nan, 0, 0])
    assert mp2020_correction([]).shape == (0,)


def test_a_far_away_sulfur_atom_is_no_sulfate() -> None:
    structure = cubic(12, ["Na", "S"], [[0] * 3, [0.5] * 3])
    assert mp2020_correction([from_structure(structure)]) == pytest.approx(by_pymatgen(structure))


def has_one_strongest(structure: Structure) -> bool:
    """Of two equally electronegative elements, pymatgen takes the one the formula names last."""
    values = [element.X for element in structure.elements]
    return values.count(max(values)) == 1


def check(source: str | Path, part: slice) -> None:
    crystals = load(source).crystals[part]
    cells = screen(crystals, max_atoms=500, elements=np.arange(1, 119)).cells
    structures = [Structure(c.matrix, c.species, c.frac) for c in cells]
    rows = [i for i, structure in enumerate(structures) if has_one_strongest(structure)]
    expected = np.array([by_pymatgen(structures[i]) for i in rows])
    np.testing.assert_allclose(mp2020_correction([cells[i] for i in rows]), expected, atol=1e-6)
    assert len(rows) > 0.95 * len(crystals) and np.count_nonzero(expected) > 0.2 * len(rows)


def test_corrections_of_the_embedded_prototypes_are_those_of_pymatgen() -> None:
    check(PROTOTYPES, slice(0, 200))


@pytest.mark.slow
def test_corrections_of_real_crystals_are_those_of_pymatgen(shared: Path) -> None:
    check(shared / "data" / "mp20_bt" / "val.csv.gz", slice(None))
