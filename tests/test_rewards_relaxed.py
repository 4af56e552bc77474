"""Energies above hull of relaxed crystals: those of single relaxations, however they are got."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from test_rewards_ehull import IRON, KCL, NACL, crystals_of

from crystaljax.crystal import Crystals
from crystaljax.evaluation.evaluate import EvaluationConfig, Reference
from crystaljax.evaluation.policies import assess_crystals
from crystaljax.rewards.cache import Cached
from crystaljax.rewards.cell_energies import relaxation_of
from crystaljax.rewards.ehull import EnergyAboveHull, create_e_above_hull
from crystaljax.rewards.hull import Hull
from crystaljax.rewards.pool import PoolConfig
from crystaljax.rewards.stability import StabilityConfig, StabilityReward

pytest.importorskip("torch", reason="needs an extra that brings PyTorch")

from test_rewards_potentials_screened_relaxation import LennardJones

HULL = Hull.from_entries(["NaCl", "KCl", "Fe"], [-2.0, -2.0, 0.0])
WIDE = (225, 6.4, [(1, 19), (2, 17)])
AMERICIUM = (225, 4.9, [(1, 95)])
STEPS = 3


class Potential(LennardJones):
    """Lennard-Jones as if it were of the hull's level."""

    level = "MP2020"


@pytest.fixture(scope="module")
def reward() -> EnergyAboveHull:
    return EnergyAboveHull(Potential(device="cpu"), HULL, relax_steps=STEPS)


def samples() -> Crystals:
    return crystals_of(NACL, KCL, AMERICIUM, IRON, WIDE)


def test_rewards_are_those_of_single_relaxations(reward: EnergyAboveHull) -> None:
    crystals = samples()
    found = reward(crystals)
    still = EnergyAboveHull(reward.potential, reward.hull)(crystals)
    np.testing.assert_array_equal(found.ok, still.ok)
    assert found.ok.tolist() == [True, True, False, True, True]
    for row in np.flatnonzero(found.ok):
        alone: Any = reward.potential.relax(crystals[[row]], max_steps=STEPS)
        assert found.info["energy_per_atom"][row] == pytest.approx(alone.energy[0], abs=1e-10)
        assert found.info["relaxation_steps"][row] == alone.steps[0]
        assert found.info["converged"][row] == alone.converged[0]
        before = still.info["energy_per_atom"][row]
        assert found.info["initial_energy_per_atom"][row] == pytest.approx(before, abs=1e-10)
        gain = found.value[row] - still.value[row]
        assert gain == pytest.approx(before - alone.energy[0], abs=1e-9)
    # So few steps are not enough, and count all the same.
    assert (
        not found.info["converged"].any() and (found.value[found.ok] > still.value[found.ok]).all()
    )


def test_what_was_relaxed_is_at_hand(reward: EnergyAboveHull, tmp_path: Path) -> None:
    crystals = samples()
    fresh = reward(crystals)
    cached = Cached(reward, tmp_path / "energies.sqlite", "some potential")
    cached(crystals)
    again = cached(crystals)
    cached.close()
    for batch in (fresh, again, fresh[::-1][::-1]):
        relaxed = relaxation_of(batch)
        assert relaxed.ok.tolist() == fresh.ok.tolist()
        np.testing.assert_array_equal(relaxed.energy, fresh.info["energy_per_atom"])
        assert relaxed.cells[2] is None and relaxed.reasons[2] == fresh.reasons[2]
        cells = [cell for cell in relaxed.cells if cell is not None]
        energies = reward.potential.energies(cells).energy
        np.testing.assert_allclose(energies, relaxed.energy[relaxed.ok], atol=1e-9)


class Served(StabilityReward):
    """The reward above in place of a named potential's."""

    def __init__(self, config: StabilityConfig, energy: EnergyAboveHull) -> None:
        self.__dict__["energy"] = energy
        super().__init__(config)


def test_evaluations_tell_of_the_relaxation(reward: EnergyAboveHull) -> None:
    crystals = samples()
    energy = Served(StabilityConfig(relax_steps=STEPS), reward)
    reference = Reference.of(crystals_of(NACL), "one crystal")
    config = EvaluationConfig(progress=False)
    found = assess_crystals(crystals, energy, reference, config=config).evaluation
    assert "relaxed by FIRE" in found["metastable"].reference
    assert found["match to relaxed"].count == found["energy known"].count == 4
    assert found["relaxation converged"].count == 0
    assert found["RMSD to relaxed"].value >= 0


def test_what_is_kept_belongs_to_the_steps() -> None:
    pool = PoolConfig(kind="processes")  # which loads no potential here
    configs = [StabilityConfig(relax_steps=n, pool=pool) for n in (0, 5, 10)]
    identities = [StabilityReward(config)._identity() for config in configs]
    assert len(set(identities)) == 3
    assert "relax" not in identities[0]  # what was kept before counts
    with pytest.raises(ValueError, match="relax_steps"):
        StabilityConfig(relax_steps=-1)


@pytest.mark.slow
def test_so_does_a_potential_on_the_device(shared: Path) -> None:
    pytest.importorskip("nequix", reason="needs the nequix extra")
    weights = shared / "weights" / "nequix-mp-1.nqx"
    reward = create_e_above_hull(f"nequix:{weights}@MP", HULL, relax_steps=STEPS)
    crystals = crystals_of(NACL, IRON)
    found = reward(crystals)
    for row in range(2):
        alone: Any = reward.potential.relax(crystals[[row]], max_steps=STEPS)
        assert found.info["energy_per_atom"][row] == pytest.approx(alone.energy[0], abs=1e-5)
