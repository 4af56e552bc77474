"""Formation energies against the reference entries and pymatgen."""

import gzip
import json
from pathlib import Path

import numpy as np
import pytest

from crystaljax.composition import atomic_number, parse_formulas
from crystaljax.rewards.formation import formation_energy, missing_elements, mp_references


def test_references_are_those_of_the_materials_project(shared: Path) -> None:
    from pymatgen.entries.computed_entries import ComputedEntry

    path = shared / "data" / "mp_elemental_references.json.gz"
    entries = json.loads(gzip.decompress(path.read_bytes()))
    expected = np.full(119, np.nan)
    for symbol, entry in entries.items():
        expected[atomic_number(symbol)] = ComputedEntry.from_dict(entry).energy_per_atom
    np.testing.assert_allclose(mp_references(), expected, atol=1e-6)
    assert np.isfinite(mp_references()).sum() == 89


def test_elements_have_no_formation_energy_and_a_compound_its_own() -> None:
    references = np.full(119, np.nan)
    references[[11, 17]] = -1.0, -2.0
    counts = parse_formulas(["Na", "Cl", "Na4Cl4", "NaCl3"])
    energy = np.array([-1.0, -2.0, -3.5, -3.0])
    result = formation_energy(counts, energy, references)
    np.testing.assert_allclose(result, [0.0, 0.0, -2.0, -1.25])


def test_an_element_without_reference_gives_nan_and_is_named() -> None:
    counts = parse_formulas(["PoO2", "NaCl", "AmPo"])
    result = formation_energy(counts, np.zeros(3))
    np.testing.assert_array_equal(np.isnan(result), [True, False, True])
    assert missing_elements(counts) == [["Po"], [], ["Po", "Am"]]


def test_no_atoms_give_nan() -> None:
    assert np.isnan(formation_energy(np.zeros((1, 119)), np.zeros(1)))[0]


def test_the_shared_table_cannot_be_changed() -> None:
    with pytest.raises(ValueError, match="read-only"):
        mp_references()[1] = 0.0
