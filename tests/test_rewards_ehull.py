"""The energy-above-hull reward, by hand and with CHGNet."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest

from crystaljax import AtomicCell, Crystals
from crystaljax.composition import element_counts
from crystaljax.data.registry import RESOURCES, Resource
from crystaljax.rewards import create
from crystaljax.rewards.base import Reasons
from crystaljax.rewards.corrections import mp2020_correction
from crystaljax.rewards.demo_hull import demonstration_hull
from crystaljax.rewards.ehull import EnergyAboveHull, load_hull
from crystaljax.rewards.formation import mp_references
from crystaljax.rewards.hull import Hull
from crystaljax.rewards.levels import MP2020
from crystaljax.rewards.potentials import Energies, Relaxed
from crystaljax.rewards.potentials.screening import screen


def crystals_of(*rows: tuple[int, float, list[tuple[int, int]]]) -> Crystals:
    """Cubic crystals from (space group, edge in Å, [(letter, atomic number), ...])."""
    n, slots = len(rows), max(len(sites) for _, _, sites in rows)
    wyckoff, species = np.zeros((n, slots), np.int32), np.zeros((n, slots), np.int32)
    frac = np.zeros((n, slots, 3), np.float32)
    lattice = np.full((n, 6), 90, np.float32)
    for i, (_, a, sites) in enumerate(rows):
        lattice[i, :3] = a
        for s, (letter, z) in enumerate(sites):
            wyckoff[i, s], species[i, s] = letter, z
            frac[i, s] = 0.5 if letter == 2 else 0.0  # b of 221 and 225 is the body centre
    group = np.array([group for group, _, _ in rows], np.int32)
    return Crystals(group, wyckoff, species, frac, lattice)


NACL = (225, 5.64, [(1, 11), (2, 17)])
KCL = (225, 6.29, [(1, 19), (2, 17)])
IRON = (229, 2.86, [(1, 26)])
CRUSHED = (225, 0.9, [(1, 11), (2, 17)])
AMERICIUM = (225, 4.9, [(1, 95)])


class Fixed:
    """A potential that gives every cell the same energy, and remembers what it was asked."""

    name = "fixed"

    def __init__(self, energy: float, level: str | None = "MP2020") -> None:
        self.energy = energy
        self.level = level
        self.asked = 0

    def energies(self, crystals: Crystals | Sequence[AtomicCell]) -> Energies:
        self.asked += len(crystals)
        reasons: Reasons = [None] * len(crystals)
        return Energies(np.full(len(crystals), self.energy), np.ones(len(crystals), bool), reasons)

    def relax(
        self,
        crystals: Crystals | Sequence[AtomicCell],
        *,
        fmax: float = 0.02,
        max_steps: int = 500,
    ) -> Relaxed:
        raise NotImplementedError


def test_the_value_is_minus_the_energy_above_hull() -> None:
    references = mp_references()
    hull = Hull.from_entries(["NaCl", "Fe"], [-2.0, 0.0])
    batch = EnergyAboveHull(Fixed(-5.0), hull)(crystals_of(NACL, IRON))
    formation = [-5.0 - (references[11] + references[17]) / 2, -5.0 - references[26]]
    np.testing.assert_allclose(batch.info["energy_per_atom"], [-5, -5])
    np.testing.assert_allclose(batch.info["formation_energy"], formation)
    np.testing.assert_allclose(batch.info["e_above_hull"], np.array(formation) - [-2.0, 0.0])
    np.testing.assert_allclose(batch.value, -batch.info["e_above_hull"])
    assert batch.ok.all()


def test_an_energy_that_no_crystal_has_is_none() -> None:
    batch = EnergyAboveHull(Fixed(-4e7), load_hull("demonstration"))(crystals_of(NACL))
    assert not batch.ok[0] and np.isnan(batch.info["e_above_hull"][0])
    assert "no crystal has that" in str(batch.reasons[0])


def test_corrections_are_added_where_the_potential_lacks_them() -> None:
    hull = Hull.from_entries(["NaCl", "Fe"], [-2.0, 0.0])
    crystals = crystals_of(NACL, CRUSHED, IRON)
    corrected = EnergyAboveHull(Fixed(-5.0), hull)(crystals)
    raw = EnergyAboveHull(Fixed(-5.0, "MP"), hull)(crystals)
    expected = mp2020_correction(screen(crystals, max_atoms=8, elements=np.arange(1, 95)).cells)
    assert expected[0] == pytest.approx(-0.614 / 2) and expected[1] == 0
    np.testing.assert_allclose(raw.info["correction"][[0, 2]], expected, atol=1e-12)
    np.testing.assert_allclose(raw.value, corrected.value - raw.info["correction"])
    np.testing.assert_array_equal(corrected.info["correction"], 0)
    assert "fixed" in EnergyAboveHull(Fixed(-5.0), hull).label


def test_the_hull_s_own_references_are_used() -> None:
    references = np.full(119, np.nan)
    references[[11, 17]] = -1.0, -3.0
    hull = Hull.from_entries(["NaCl"], [-2.0], references=references)
    batch = EnergyAboveHull(Fixed(-5.0), hull)(crystals_of(NACL))
    np.testing.assert_allclose(batch.info["formation_energy"], [-3.0])
    np.testing.assert_allclose(batch.value, [1.0])


def test_an_element_the_hull_lacks_costs_its_item_and_no_energy() -> None:
    potential = Fixed(-5.0)
    batch = EnergyAboveHull(potential, Hull.from_entries(["NaCl"], [-2.0], name="salt"))(
        crystals_of(NACL, KCL, IRON, NACL)
    )
    assert batch.ok.tolist() == [True, False, False, True]
    assert batch.reasons[1] == "the hull 'salt' has no entry with K"
    assert potential.asked == 2
    assert np.isnan(batch.value[1:3]).all()


def test_an_element_without_reference_is_named() -> None:
    hull = Hull.from_entries(["AmO2", "NaCl"], [-1.0, -1.0])
    batch = EnergyAboveHull(Fixed(-5.0), hull)(crystals_of(AMERICIUM, NACL))
    assert batch.ok.tolist() == [False, True]
    assert batch.reasons[0] == "no elemental reference energy of Am"


def test_primitive_cells_are_screened() -> None:
    result = screen(
        crystals_of(NACL, CRUSHED, IRON, AMERICIUM), max_atoms=8, elements=np.arange(1, 95)
    )
    assert [len(cell.species) for cell in result.cells] == [2, 1]
    assert result.rows.tolist() == [0, 2]
    volume = abs(np.linalg.det(result.cells[0].matrix))
    assert volume == pytest.approx(5.64**3 / 4, rel=1e-5)
    assert result.reasons[0] is None
    assert "Å³ per atom" in str(result.reasons[1])
    assert "not trained on Am" in str(result.reasons[3])
    few = screen(crystals_of(NACL, IRON), max_atoms=1, elements=np.arange(1, 95))
    assert few.reasons == ["2 atoms, more than 1", None]


def test_chgnet_against_the_demonstration_hull() -> None:
    """Salt and copper are near the hull, stretched salt is not, crushed salt has no energy."""
    pytest.importorskip("chgnet", reason="needs the chgnet extra")
    reward = create("e_above_hull")
    stretched = (225, 6.6, [(1, 11), (2, 17)])
    copper = (225, 3.61, [(1, 29)])
    batch = reward(crystals_of(NACL, CRUSHED, stretched, copper))
    assert batch.ok.tolist() == [True, False, True, True]
    above = batch.info["e_above_hull"]
    assert abs(above[0]) < 0.1
    assert above[2] > above[0] + 0.05
    assert abs(above[3]) < 0.1
    assert list(batch.failures()) == [batch.reasons[1]]


def test_an_empty_batch() -> None:
    hull = Hull.from_entries(["NaCl"], [-2.0])
    batch = EnergyAboveHull(Fixed(-5.0), hull)(crystals_of(NACL)[np.zeros(0, np.int64)])
    assert len(batch) == 0


def test_the_demonstration_hull_knows_every_element_with_a_reference() -> None:
    hull = demonstration_hull()
    assert hull.name == "demonstration hull"
    assert hull.elements == set(np.flatnonzero(np.isfinite(mp_references())).tolist())
    assert hull.n_entries > 300


def test_hulls_by_name_by_file_and_as_they_are(tmp_path: Path) -> None:
    path = tmp_path / "hull.csv"
    path.write_text("formula,formation_energy_per_atom\nNaCl,-2\n")
    assert load_hull(path).n_entries == 1
    hull = load_hull("demonstration")
    assert load_hull(hull) is hull
    with pytest.raises(FileNotFoundError, match=r"no such hull file: demo.*mp-energies"):
        load_hull("demo")


def test_a_registered_hull_is_downloaded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "served.csv").write_text("formula,formation_energy_per_atom\nNaCl,-2\nKCl,-2\n")
    there = Resource(
        "mp-energies", "energies", (tmp_path / "served.csv").as_uri(), "mp.csv", "a test"
    )
    monkeypatch.setitem(RESOURCES, "mp-energies", there)
    monkeypatch.setenv("CRYSTALJAX_CACHE", str(tmp_path / "cache"))
    hull = load_hull("mp-energies")
    assert (hull.name, hull.n_entries, hull.level) == ("mp.csv", 2, MP2020)
    assert load_hull("mp-energies:energy=formation_energy_per_atom@MP").level == "MP"


@pytest.mark.slow
def test_the_demonstration_hull_is_that_of_the_prototypes() -> None:
    """No prototype lies below it, and some lie on it."""
    pytest.importorskip("chgnet", reason="needs the chgnet extra")
    from crystaljax.data.dataset import load
    from crystaljax.rewards.build_demo_hull import Config, best_formation_energies

    crystals = load("prototypes").crystals.to_numpy()[:240:12]
    energies = best_formation_energies(crystals, Config())
    above = demonstration_hull().energy_above_hull(element_counts(crystals), energies)
    assert np.nanmin(above) > -1e-4
    assert (above < 1e-4).sum() >= 3
