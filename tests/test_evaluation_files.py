"""Tests of crystaljax.evaluation.files: crystals from files, with and without energies."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
from test_rewards_ehull import AMERICIUM, CRUSHED, IRON, KCL, NACL, Fixed, crystals_of

from crystaljax.crystal import AtomicCell, Crystals
from crystaljax.evaluation.evaluate import Reference
from crystaljax.evaluation.files import (
    NOT_FROM_FILES,
    energies,
    evaluate_file,
    ranked,
    without_duplicates,
)
from crystaljax.rewards.ehull import EnergyAboveHull
from crystaljax.rewards.formation import mp_references
from crystaljax.rewards.hull import Hull
from crystaljax.rewards.potentials.base import Relaxed, no_relaxation
from crystaljax.rewards.potentials.screening import primitive_cells

SAMPLES = crystals_of(NACL, KCL, IRON, NACL)
HULL = Hull.from_entries(["NaCl", "KCl", "Fe"], [-2.0, -2.0, 0.0])


class Relaxing(Fixed):
    """Gives every cell the same energy, 1 eV/atom less when relaxed, which iron cannot be."""

    def relax(self, crystals: Crystals | Sequence[AtomicCell], **_: Any) -> Relaxed:
        assert isinstance(crystals, Crystals)
        found = no_relaxation([None] * len(crystals))
        found.cells[:] = primitive_cells(crystals, 500)[0]
        found.initial_energy[:], found.energy[:] = self.energy, self.energy - 1
        found.ok[:] = found.converged[:] = True
        for row in np.flatnonzero((crystals.species == 26).any(axis=1)):
            found.cells[row], found.reasons[row] = None, "it melts"
            found.energy[row], found.ok[row], found.converged[row] = np.nan, False, False
        return found


def potential(energy: float) -> Any:
    return Relaxing(energy)


def rates(result: Any) -> dict[str, tuple[int, int]]:
    return {rate.name: (rate.count, rate.total) for rate in result.rates}


def test_samples_that_are_no_crystals_count_in_every_rate() -> None:
    found = evaluate_file(SAMPLES, 10)
    assert {total for _, total in rates(found).values()} == {10}
    assert rates(found)["decoded"] == (4, 10)
    assert rates(found)["unique"] == (3, 10)
    assert not {"stable", "novel"} & rates(found).keys()
    assert not set(NOT_FROM_FILES) & {metric.name for metric in found.metrics}
    assert "keeps_space_group" not in found.columns
    assert "4 of 10 samples are crystals" in found.context
    assert all(len(column) == 10 for column in found.columns.values())


def test_fewer_samples_than_crystals() -> None:
    with pytest.raises(ValueError, match=r"4 crystals cannot come from 3 samples: give the number"):
        evaluate_file(SAMPLES, 3)


def test_novelty_is_against_the_reference() -> None:
    known = Reference.of(crystals_of(NACL), "one crystal")
    found = evaluate_file(SAMPLES, 4, known)
    assert rates(found)["novel"] == (2, 4)


def test_energies_are_those_of_the_reward() -> None:
    energy = EnergyAboveHull(potential(-4.0), HULL)
    found = evaluate_file(SAMPLES, 5, energy=energy)
    reference = mp_references()
    above = -4.0 - (reference[11] + reference[17]) / 2 + 2.0
    np.testing.assert_allclose(found.columns["e_above_hull"][[0, 3]], above, rtol=1e-6)
    assert np.isnan(found.columns["e_above_hull"][4])
    assert rates(found)["energy known"] == (4, 5)
    assert "unrelaxed" in found["metastable"].reference
    metastable = found.columns["e_above_hull"] <= 0.1
    assert rates(found)["metastable"] == (metastable.sum(), 5)
    assert rates(found)["believable metastable"] == (0, 5)  # of a hull of three entries


def test_why_there_is_no_energy() -> None:
    energy = EnergyAboveHull(potential(-4.0), HULL)
    found = evaluate_file(crystals_of(NACL, AMERICIUM, AMERICIUM), 3, energy=energy)
    assert rates(found)["energy known"] == (1, 3)
    assert any("without an energy above hull by" in x and ": 2 × " in x for x in found.context)


def test_relaxed_energies() -> None:
    energy = EnergyAboveHull(potential(-4.0), HULL)
    still = evaluate_file(SAMPLES, 5, energy=energy).columns["e_above_hull"]
    relaxing = EnergyAboveHull(potential(-4.0), HULL, relax_steps=9)
    found = evaluate_file(SAMPLES, 5, energy=relaxing)
    above = found.columns["e_above_hull"]
    np.testing.assert_allclose(above[[0, 1, 3]], still[[0, 1, 3]] - 1, rtol=1e-6)
    assert np.isnan(above[[2, 4]]).all()
    state = "relaxed by FIRE to 0.02 eV/Å in at most 9 steps (3 of 3 converged)"
    assert state in found["metastable"].reference
    assert found["relaxation converged"].count == 3
    assert f"without an energy above hull by {potential(0).name}: 1 × it melts" in found.context


def test_many_crystals_are_taken_in_parts() -> None:
    many = SAMPLES[np.arange(300) % 4]
    asked = Fixed(-4.0)
    energy: Any = EnergyAboveHull(asked, HULL)  # type: ignore[arg-type]
    found = energies(energy, many)
    assert asked.asked == 300 and len(found.reasons) == 300
    np.testing.assert_array_equal(found.value, energy(many).value)


def test_of_duplicates_the_best_is_left() -> None:
    """What is no crystal is compared with nothing, and stays."""
    crystals = SAMPLES.padded(6)
    for best, kept in ((0, [0, 1, 2, 4, 5]), (3, [1, 2, 3, 4, 5])):
        score = np.arange(6) == best
        assert without_duplicates(crystals, score.astype(float)).tolist() == kept


def test_the_lowest_energy_comes_first() -> None:
    """After all with an energy those without one, in their order."""
    crystals = crystals_of(AMERICIUM, NACL, IRON, KCL, AMERICIUM)
    energy = EnergyAboveHull(potential(-4.0), HULL)
    order, columns, reasons = ranked(energy, crystals)
    values = energy(crystals).info["e_above_hull"]
    assert order.tolist() == [*(1 + np.argsort(values[1:4])).tolist(), 0, 4]
    np.testing.assert_array_equal(columns["e_above_hull"][:3], np.sort(values[1:4]))
    assert np.isnan(columns["e_above_hull"][3:]).all()
    assert [reason is None for reason in reasons] == [False, True, True, True, False]


def test_no_crystals_at_all() -> None:
    found = evaluate_file(SAMPLES[:0], 3, energy=EnergyAboveHull(potential(-4.0), HULL))
    assert rates(found)["decoded"] == (0, 3)
    assert rates(found)["metastable"] == (0, 3)


def test_crystals_that_collapsed() -> None:
    found = evaluate_file(crystals_of(NACL, CRUSHED), 2)
    assert rates(found)["valid structure"] == (1, 2)
