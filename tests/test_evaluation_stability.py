"""Tests of crystaljax.evaluation.stability."""

import dataclasses
import math

import numpy as np
import pytest

from crystaljax.crystal import AtomicCell, Crystals
from crystaljax.data.prototypes import prototypes
from crystaljax.evaluation.rates import Rate
from crystaljax.evaluation.stability import (
    Thresholds,
    keeps_space_group,
    relaxation_metrics,
    stability_metrics,
)
from crystaljax.rewards.believable import believable
from crystaljax.rewards.potentials.base import no_relaxation
from crystaljax.symmetry.analysis import symmetrize

ENERGY = np.array([-0.1, 0.0, 0.05, 0.1, 0.2, math.nan, -1.0, 0.0])
CLUSTER = np.array([0, 1, 2, 2, 4, 5, 7, 7])
NOVEL = np.array([1, 0, 1, 1, 1, 1, 1, 1], bool)
GROUP = np.array([1, 1, 0, 1, 1, 1, 1, 1], bool)


def counts(**options: object) -> dict[str, int]:
    metrics = stability_metrics(ENERGY, "a hull", **options)  # type: ignore[arg-type]
    assert all(m.total == len(ENERGY) for m in metrics if isinstance(m, Rate))
    return {m.name: m.count for m in metrics if isinstance(m, Rate)}


def test_rates_are_over_all_samples() -> None:
    assert counts(cluster=CLUSTER, novel=NOVEL, correct_group=GROUP) == {
        "energy known": 7,
        "stable": 4,
        "metastable": 6,
        "S.U.N.": 2,
        "metastable S.U.N.": 3,
        "S.S.U.N.": 3,
    }


@pytest.mark.parametrize("stable_one", range(3))
def test_of_a_cluster_the_best_member_counts(stable_one: int) -> None:
    energy = np.full(3, 0.5)
    energy[stable_one] = -0.1
    metrics = stability_metrics(energy, "a hull", cluster=np.zeros(3, int), novel=np.ones(3, bool))
    found = {m.name: m.count for m in metrics if isinstance(m, Rate)}
    assert found["S.U.N."] == found["metastable S.U.N."] == found["stable"] == 1


def test_thresholds_are_arguments_and_are_said() -> None:
    metrics = stability_metrics(ENERGY, "a hull", thresholds=Thresholds(0.05, 0.2))
    by_name = {m.name: m for m in metrics}
    assert isinstance(by_name["stable"], Rate)
    assert by_name["stable"].count == 5
    assert "≤ 0.05 eV/atom" in by_name["stable"].description
    assert "≤ 0.2 eV/atom" in by_name["metastable"].description
    assert by_name["stable"].reference == "a hull"


def test_what_is_not_known_is_left_out() -> None:
    assert "S.U.N." not in counts(cluster=CLUSTER)
    assert "S.S.U.N." not in counts(cluster=CLUSTER, novel=NOVEL)


def test_energies_are_of_those_that_have_one() -> None:
    mean, median = stability_metrics(ENERGY, "a hull")[-2:]
    assert mean.value == pytest.approx(np.nanmean(ENERGY))
    assert median.value == pytest.approx(np.nanmedian(ENERGY))
    assert mean.total == median.total == 7


def test_samples_keep_their_space_group() -> None:
    crystals = prototypes(1).crystals[:100]
    assert keeps_space_group(crystals).mean() > 0.98


def test_space_groups_that_are_not_kept() -> None:
    copper = AtomicCell(3.6 * np.eye(3), np.zeros((1, 3)), np.array([29]))
    found, _ = symmetrize([copper])
    # The same cell described with less symmetry than it has: one atom in P1.
    hidden = dataclasses.replace(found, space_group=np.ones(1, np.int32))
    nothing = dataclasses.replace(found, space_group=np.zeros(1, np.int32))
    crystals = Crystals.concatenate([found, hidden, nothing])
    np.testing.assert_array_equal(keeps_space_group(crystals), [True, False, False])


def test_relaxation() -> None:
    relaxed = no_relaxation([None, None, None, "too close"])
    relaxed.ok[:3] = relaxed.converged[:2] = True
    relaxed.initial_energy[:], relaxed.energy[:3], relaxed.steps[:3] = 0.0, [-1, -2, -3], [1, 2, 6]
    displacement = np.array([0.1, 0.3, math.nan, math.nan])
    found = {m.name: m for m in relaxation_metrics(displacement, relaxed, "CHGNet, FIRE")}
    matched = found["match to relaxed"]
    assert isinstance(matched, Rate)
    assert (matched.count, matched.total) == (2, 4)
    assert found["relaxation converged"].value == 0.5
    assert found["RMSD to relaxed"].value == pytest.approx(0.2)
    assert found["RMSD to relaxed"].total == 2
    assert found["RMSD to relaxed"].reference == "CHGNet, FIRE"
    assert found["median energy drop"].value == 2
    assert found["mean relaxation steps"].value == 3


def test_energies_are_believed_where_the_hull_knows_the_system() -> None:
    energy = np.array([0.0, 0.05, -0.1, -0.11, np.nan, -5.0, 3.0])
    n_known = np.array([12, 11, 12, 100, 50, 0, 12])
    expected = [True, False, True, False, False, False, True]
    assert believable(energy, n_known).tolist() == expected
    assert believable(energy, n_known, min_known=0, max_below=10).tolist() == [
        *([True] * 4),
        False,
        True,
        True,
    ]


def test_believable_crystals_are_counted_apart() -> None:
    energy, everyone = np.array([0.0, 0.0, -1.0]), np.ones(3, bool)
    found = stability_metrics(
        energy, "hull", cluster=np.arange(3), novel=everyone, n_known=np.array([12, 3, 99])
    )
    counts = {metric.name: metric.count for metric in found if isinstance(metric, Rate)}
    for name in ("stable", "metastable", "S.U.N.", "metastable S.U.N."):
        assert counts[name] == 3
        assert counts[f"believable {name}"] == 1
    without = stability_metrics(energy, "hull", cluster=np.arange(3), novel=everyone)
    assert "believable metastable S.U.N." not in {metric.name for metric in without}
