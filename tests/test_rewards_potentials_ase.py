"""Calculators of ASE as potentials: against ASE itself."""

from pathlib import Path

import numpy as np
import pytest
from ase import Atoms
from ase.calculators.lj import LennardJones
from ase.filters import FrechetCellFilter
from ase.optimize import FIRE

from crystaljax.crystal import AtomicCell
from crystaljax.data.dataset import load
from crystaljax.rewards.levels import LevelError
from crystaljax.rewards.potentials import create_potential, potential_level
from crystaljax.rewards.stability import StabilityConfig, StabilityReward
from crystaljax.structures import to_structures

FILE = """
from ase.calculators.lj import LennardJones
from ase.calculators.calculator import Calculator, all_changes

def argon():
    return LennardJones(sigma=2.5, epsilon=0.2, rc=6.0, smooth=True)

class Picky(LennardJones):
    def calculate(self, atoms=None, properties=None, system_changes=all_changes):
        if 26 in atoms.numbers:
            raise RuntimeError("iron is not for me")
        super().calculate(atoms, properties, system_changes)

def picky():
    return Picky(sigma=2.5, epsilon=0.2, rc=6.0, smooth=True)

class OnlyEnergies(Calculator):
    implemented_properties = ["energy"]

    def calculate(self, atoms=None, properties=None, system_changes=all_changes):
        self.results = {"energy": -1.0 * len(atoms)}

def nothing():
    return 3
"""


@pytest.fixture(scope="module")
def file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("user") / "mine.py"
    path.write_text(FILE)
    return path


def argon() -> LennardJones:
    return LennardJones(sigma=2.5, epsilon=0.2, rc=6.0, smooth=True)


def test_energies_are_those_of_the_calculator(file: Path) -> None:
    crystals = load("prototypes").crystals[:12]
    found = create_potential(f"ase:{file}:argon").energies(crystals)
    assert found.ok.all()
    for energy, structure in zip(found.energy, to_structures(crystals), strict=True):
        assert structure is not None
        atoms = structure.to_ase_atoms(msonable=False)
        atoms.calc = argon()
        assert energy == pytest.approx(atoms.get_potential_energy() / len(atoms), abs=1e-4)


@pytest.mark.slow
def test_relaxation_ends_where_that_of_ase_ends(file: Path) -> None:
    cell = AtomicCell(
        np.diag([3.0, 3.2, 3.1]) + 0.05,
        np.array([[0, 0, 0], [0.52, 0.48, 0.5]]),
        np.array([18, 18]),
    )
    found = create_potential(f"ase:{file}:argon").relax([cell], fmax=0.01)
    assert found.ok.all() and found.converged.all()
    atoms = Atoms("Ar2", cell=cell.matrix, scaled_positions=cell.frac, pbc=True)
    atoms.calc = argon()
    FIRE(FrechetCellFilter(atoms), logfile=None).run(fmax=0.01, steps=1000)
    assert found.energy[0] == pytest.approx(atoms.get_potential_energy() / 2, abs=1e-4)
    assert found.initial_energy[0] > found.energy[0] + 1e-3


def test_a_structure_for_which_it_raises_costs_only_itself(file: Path) -> None:
    crystals = load("prototypes").crystals[:40]
    iron = (crystals.species == 26).any(axis=1)
    assert iron.any() and not iron.all()
    potential = create_potential(f"ase:{file}:picky")
    found = potential.energies(crystals)
    np.testing.assert_array_equal(found.ok, ~iron)
    assert {found.reasons[i] for i in np.flatnonzero(iron)} == {"RuntimeError: iron is not for me"}
    some = np.concatenate([np.flatnonzero(iron)[:1], np.flatnonzero(~iron)[:1]])
    relaxed = potential.relax(crystals[some], max_steps=3)
    np.testing.assert_array_equal(relaxed.ok, [False, True])
    assert "iron is not for me" in str(relaxed.reasons[0])


def test_what_cannot_be_done_is_said(file: Path) -> None:
    crystals = load("prototypes").crystals[:2]
    only = create_potential(f"ase:{file}:OnlyEnergies")
    np.testing.assert_allclose(only.energies(crystals).energy, -1.0)
    with pytest.raises(ValueError, match="OnlyEnergies cannot relax: it has no forces and no stre"):
        only.relax(crystals)
    with pytest.raises(TypeError, match="nothing returns int, which is no calculator of ASE"):
        create_potential(f"ase:{file}:nothing")
    with pytest.raises(ValueError, match="defines no function 'absent'"):
        create_potential(f"ase:{file}:absent")
    with pytest.raises(ValueError, match=r"write ase:FILE\.py:FUNCTION"):
        create_potential(f"ase:{file}")


def test_it_rewards_at_the_level_that_is_named(file: Path) -> None:
    name = f"ase:{file}:argon"
    assert potential_level(name) is None
    assert potential_level(f"{name}@MP") == "MP"
    with pytest.raises(LevelError, match="level"):
        StabilityReward(StabilityConfig(name))
    with StabilityReward(StabilityConfig(f"{name}@MP")) as stability:
        assert stability(load("prototypes").crystals[:3]).ok.any()
