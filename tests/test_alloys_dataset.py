"""Curation of training data, with an engine of made-up rules."""

from collections.abc import Mapping, Sequence

import numpy as np
import pytest
from alloy_tables import b2, bcc

from crystaljax.alloys.composition import write_formula
from crystaljax.alloys.dataset import (
    CurationConfig,
    b2_candidates,
    bcc_candidates,
    candidates,
    curate,
)
from crystaljax.alloys.thermodynamics import Equilibria, Point

CONFIG = CurationConfig(("Cr", "Fe"), ("Al",), ("Co", "Ni", "Al"), step=25)


class Engine:
    """B2 is what has half aluminium, BCC what has none; it cannot compute iron alone."""

    elements = ("Al", "Cr", "Co", "Fe", "Ni")
    identity = "made up"

    def equilibria(
        self, compositions: Sequence[Mapping[str, float]], temperatures: np.ndarray
    ) -> Equilibria:
        points = [[self._point(x, t) for t in temperatures] for x in compositions]
        return Equilibria.from_points(compositions, temperatures, points)

    def _point(self, mixture: Mapping[str, float], temperature: float) -> Point:
        if mixture.get("Fe") == 1:
            return "it hung"
        share = 1.0 if temperature > 1000 and "Ni" not in mixture else 0.98
        if mixture.get("Al"):
            return [b2(share), bcc(1 - share)]
        return [bcc(share), b2(1 - share)]


def test_grid_of_bcc() -> None:
    found = [write_formula(one) for one in bcc_candidates(CONFIG)]
    assert found == ["Cr", "Fe", "CrFe3", "CrFe", "Cr3Fe"]
    coarse = CurationConfig(("V", "Nb", "Mo"), step=33)
    ternary = [one for one in bcc_candidates(coarse) if len(one) == 3]
    assert ternary == [{"V": 33, "Nb": 33, "Mo": 34}]
    assert all(sum(one.values()) == 100 for one in bcc_candidates(coarse))


def test_sites_of_b2() -> None:
    found = [write_formula(one) for one in b2_candidates(CONFIG)]
    assert found == ["AlCo", "AlNi", "Al2CoNi"]
    both = CurationConfig(first_site=("Al", "Ni"), second_site=("Al", "Ni"), most_site=1)
    assert [write_formula(one) for one in b2_candidates(both)] == ["AlNi"]


def test_only_single_phases_are_kept_and_failures_named() -> None:
    found = curate(Engine(), CONFIG, np.array([500.0, 1500.0]))
    assert [write_formula(one) for one in found.bcc] == ["Cr", "CrFe3", "CrFe", "Cr3Fe"]
    assert [write_formula(one) for one in found.b2] == ["AlCo"]
    assert found.failed == {"Fe": "it hung"}


@pytest.mark.parametrize("volumes", ["normal", "uniform"])
def test_pairs_are_split_whole(volumes: str) -> None:
    phases = [{"Cr": 10.0 * n, "Fe": 100 - 10.0 * n} for n in range(1, 10)]
    compounds = [{"Al": 1.0, "Ni": 1.0}, {"Al": 1.0, "Co": 1.0}]
    config = CurationConfig(volumes=volumes, validation=0.25)  # type: ignore[arg-type]
    training, validation = candidates(phases, compounds, config)
    assert (len(training), len(validation)) == (14 * 3, 4 * 3)
    keys = [{str(one).split("<B2_V")[0] for one in side} for side in (training, validation)]
    assert not keys[0] & keys[1]
    amounts = np.array([one.b2_volume for one in training + validation])
    assert amounts.min() >= 20
    assert amounts.max() <= 70
    assert amounts.std() == pytest.approx(10 if volumes == "normal" else 14.4, abs=3)
    again = candidates(phases, compounds, config)
    assert [str(one) for one in again[0]] == [str(one) for one in training]
