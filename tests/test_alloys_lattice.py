"""Lattice parameters of BCC and B2."""

import csv
import gzip
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
from pymatgen.core import Composition, Element, Structure

from crystaljax.alloys.lattice import (
    ERROR,
    FCC,
    ROOM,
    atomic_volume,
    lattice_from_molar_volume,
    lattice_parameter,
    pair_lattice,
)
from crystaljax.alloys.volumes import ATOMIC_VOLUME, AVOGADRO, B2_LATTICE, THERMAL_EXPANSION


def test_elements_and_compounds_are_the_tabulated() -> None:
    chromium = lattice_parameter(["Al", "Cr"], np.array([0, 1]), np.array([0, 1]), ROOM)
    assert chromium == pytest.approx(2.884)
    nial = lattice_parameter(["Al", "Ni"], np.array([1, 0]), np.array([0, 1]), ROOM)
    assert nial == pytest.approx(2.887)


def test_order_sublattices_and_vacancies_do_not_matter() -> None:
    elements = ["Al", "Cr", "Ni"]
    y = np.array([[0.6, 0.1, 0.3], [0.2, 0.5, 0.3]])
    a = lattice_parameter(elements, y[0], y[1], 900.0)
    assert lattice_parameter(elements, y[1], y[0], 900.0) == pytest.approx(a)
    assert lattice_parameter(elements, 0.7 * y[0], y[1], 900.0) == pytest.approx(a)
    backwards = lattice_parameter(elements[::-1], y[0, ::-1], y[1, ::-1], 900.0)
    assert backwards == pytest.approx(a)


def test_expansion_is_that_of_the_mean_composition() -> None:
    y = np.array([0.25, 0.75])
    temperatures = np.array([300.0, 800.0, 1300.0])
    a = lattice_parameter(["Fe", "Ti"], y, y, temperatures)
    slope = 0.25 * THERMAL_EXPANSION["Fe"] + 0.75 * THERMAL_EXPANSION["Ti"]
    for low, high in pairwise(np.log(a)):
        assert (high - low) / 500 == pytest.approx(slope)


def test_compounds_are_met_as_well_as_stated() -> None:
    errors = {p: pair_lattice(*p, tabulated=False) - a for p, a in B2_LATTICE.items()}
    usual = [abs(e) for pair, e in errors.items() if "Al" in pair and "Y" not in pair]
    assert max(usual) < ERROR
    assert max(map(abs, errors.values())) < 0.12


def test_compounds_agree_with_relaxed_cells(shared: Path) -> None:
    """All CsCl cells of MP-20 whose elements are known: the table within 0.04 Å of DFT."""
    found = relaxed_compounds(shared / "data" / "mp20_bt")
    assert len(found) >= 13
    assert found.keys() <= B2_LATTICE.keys()
    for pair, lattice in found.items():
        assert B2_LATTICE[pair] == pytest.approx(lattice, abs=0.04), pair


def relaxed_compounds(folder: Path) -> dict[tuple[str, str], float]:
    """a in Å of the CsCl cells of a folder of MP-20's tables, by elements in order."""
    found = {}
    for path in sorted(folder.glob("*.csv.gz")):
        with gzip.open(path, "rt", encoding="utf-8") as file:
            for row in csv.DictReader(file):
                elements = Composition(row["pretty_formula"]).get_el_amt_dict()
                cubic = row["spacegroup.number"] == "221" and set(elements.values()) == {1.0}
                if cubic and len(elements) == 2 and elements.keys() <= ATOMIC_VOLUME.keys():
                    cell = Structure.from_str(row["cif"], fmt="cif")
                    if len(cell) == 2:
                        first, second = sorted(elements)
                        found[first, second] = cell.volume ** (1 / 3)
    return found


def test_bcc_metals_have_their_molar_volume() -> None:
    """Elements that are BCC at room temperature have pymatgen's molar volume within 1 %."""
    for element in ("Cr", "Fe", "Mo", "Nb", "Ta", "V", "W"):
        volume = float(Element(element).molar_volume) / AVOGADRO * 1e24
        assert ATOMIC_VOLUME[element] == pytest.approx(volume, rel=0.01)


def test_b2_is_ordered_in_the_way_that_makes_it_smallest() -> None:
    nial = atomic_volume(["Ni", "Al"], np.array([1.0, 1.0]), ordered=True)
    assert nial == pytest.approx(2.887**3 / 2)
    assert atomic_volume(["Ni"], np.ones(1), ordered=True) == pytest.approx(ATOMIC_VOLUME["Ni"])
    random = np.random.default_rng(0)
    for elements in (["Al", "Ti", "Ru", "Ni"], ["Al", "Fe", "Mn"]):
        x = random.dirichlet(np.ones(len(elements)))
        least = atomic_volume(elements, x, ordered=True)
        # No random occupation of the two sublattices is smaller.
        weights = random.dirichlet(np.full(len(elements), 0.3), 3000)
        first = weights * np.clip(2 * x / weights, None, 1).min(axis=1, keepdims=True)
        rest = 2 * x - first
        first += (1 - first.sum(1, keepdims=True)) * rest / rest.sum(1, keepdims=True)
        others = lattice_parameter(elements, first, 2 * x - first, ROOM) ** 3 / 2
        assert least <= others.min() + 1e-9
        assert least <= atomic_volume(elements, x, ordered=False)


def test_gamma_and_gamma_prime() -> None:
    """Ni3Al and the slopes of nickel's parameter with Al and Cr: P. Caron, Superalloys 2000."""
    nial = lattice_parameter(["Al", "Ni"], np.array([0, 1]), np.array([1, 0]), ROOM, FCC)
    assert nial == pytest.approx(3.570)
    assert atomic_volume(["Ni", "Al"], np.array([3, 1]), ordered=True, lattice=FCC) == (
        pytest.approx(3.570**3 / 4)
    )
    for element, slope in (("Al", 0.179), ("Cr", 0.110), ("Co", 0.0196)):
        x = np.array([0.15, 0.85])
        gamma = lattice_parameter([element, "Ni"], x, x, ROOM, FCC)
        assert gamma == pytest.approx(3.524 + 0.15 * slope, abs=0.001)


def test_order_of_unequal_sublattices_is_the_smallest() -> None:
    """By brute force over occupations of L12 with two of its elements on both sites."""
    elements, x = ["Al", "Cr", "Ni"], np.array([0.2, 0.2, 0.6])
    least = atomic_volume(elements, x, ordered=True, lattice=FCC)
    minor = np.array([(a, c, 1 - a - c) for a in np.linspace(0, 0.8, 41) for c in (0, 0.2, 0.4)])
    minor = minor[(minor >= -1e-9).all(axis=1)].clip(0)
    major = (x - minor / 4) * 4 / 3
    fits = (major >= -1e-9).all(axis=1)
    major = major[fits].clip(0)
    others = lattice_parameter(elements, major, minor[fits], ROOM, FCC) ** 3 / 4
    assert least == pytest.approx(others.min())


def test_unknown_elements_are_nan_only_where_present() -> None:
    elements = ["Fe", "Pu"]
    assert np.isnan(lattice_parameter(elements, np.array([0.5, 0.5]), np.array([1, 0]), ROOM))
    iron = lattice_parameter(elements, np.array([1, 0]), np.array([1, 0]), ROOM)
    assert iron == pytest.approx(2.867)


def test_molar_volume_of_iron() -> None:
    assert lattice_from_molar_volume(7.0956e-6) == pytest.approx(2.867, abs=1e-3)


def test_the_papers_example() -> None:
    """The paper's A2 at 373 K has 2.91 Å and its B2 2.93 Å (TCHEA7)."""
    elements = ["Al", "Cr", "Mn"]
    a2 = np.array([0.08, 0.71, 0.21])
    assert lattice_parameter(elements, a2, a2, 373.15) == pytest.approx(2.91, abs=ERROR)
    y = np.array([[0.95, 0.0, 0.05, 0.0], [0.05, 0.1, 0.25, 0.6]])
    b2 = lattice_parameter(["Al", "Cr", "Mn", "Fe"], y[0], y[1], 373.15)
    assert b2 == pytest.approx(2.93, abs=ERROR)
