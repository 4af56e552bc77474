"""Curation of single phases, with an engine of made-up rules."""

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import pytest
from alloy_tables import b2, bcc

from crystaljax.alloys.composition import write_formula
from crystaljax.alloys.curation import PhasePurity, PurityConfig, ServedPurity, curate
from crystaljax.alloys.engines.table import composition_key, write_table
from crystaljax.alloys.engines.thermodynamics import Equilibria, Point
from crystaljax.alloys.grid import GridConfig, Roles
from crystaljax.alloys.reward import EngineConfig

GRID = GridConfig(Roles(("Cr", "Fe"), ("Al",), ("Co", "Ni", "Al")), parts=(4,), site_parts=(2,))
TEMPERATURES = np.array([500.0, 1500.0])


class Engine:
    """B2 is what has aluminium, but not with nickel; it cannot compute iron alone."""

    elements = ("Al", "Cr", "Co", "Fe", "Ni")
    identity = "made up"
    missing: frozenset[frozenset[str]] = frozenset()

    def __init__(self) -> None:
        self.asked: list[list[str]] = []

    def equilibria(
        self, compositions: Sequence[Mapping[str, float]], temperatures: np.ndarray
    ) -> Equilibria:
        self.asked += [sorted(x) for x in compositions]
        points = [[self._point(x, t) for t in temperatures] for x in compositions]
        return Equilibria.from_points(compositions, temperatures, points)

    def _point(self, mixture: Mapping[str, float], temperature: float) -> Point:
        if mixture.get("Fe") == 1 or (mixture.get("Cr") == 1 and temperature < 1000):
            return "it hung"
        share = 1.0 if temperature > 1000 and "Ni" not in mixture else 0.98
        if mixture.get("Al"):
            return [b2(share), bcc(1 - share)]
        return [bcc(share), b2(1 - share)]


def test_only_single_phases_are_kept_and_failures_named() -> None:
    found = curate(PhasePurity(Engine(), TEMPERATURES), GRID)
    assert [write_formula(one) for one in found.bcc] == ["Cr", "CrFe3", "CrFe", "Cr3Fe"]
    assert [write_formula(one) for one in found.b2] == ["AlCo"]
    assert found.failed == {"Fe": "it hung"}
    assert found.n_tried == {"bcc": 5, "b2": 3}
    less = curate(PhasePurity(Engine(), TEMPERATURES), GRID, purity=0.97)
    assert [write_formula(one) for one in less.b2] == ["AlCo", "AlNi", "Al2CoNi"]


def test_compositions_of_the_same_elements_come_together() -> None:
    engine = Engine()
    curate(PhasePurity(engine, TEMPERATURES), GRID)
    changes = [a != b for a, b in zip(engine.asked, engine.asked[1:], strict=False)]
    assert sum(changes) == len({tuple(x) for x in engine.asked}) - 1


def test_purity_is_the_largest_of_what_could_be_computed() -> None:
    keys = [composition_key(x) for x in ({"Cr": 1}, {"Al": 1, "Ni": 1}, {"Fe": 1})]
    judged = PhasePurity(Engine(), TEMPERATURES)(keys)
    np.testing.assert_allclose(judged.info["bcc"][:2], [1, 0.02])
    np.testing.assert_allclose(judged.info["b2"][:2], [0, 0.98])
    np.testing.assert_allclose(judged.value, [1, 0.98, np.nan])
    np.testing.assert_array_equal(judged.info["failed_points"], [1, 0, 2])
    assert judged.reasons == [None, None, "it hung"]


def test_results_are_kept_for_later_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    mixtures = [{"Cr": 1.0}, {"Al": 0.5, "Co": 0.5}]
    points: list[list[Point]] = [[[bcc(1.0)]], [[b2(1.0)]]]
    write_table(tmp_path / "t.npz", Equilibria.from_points(mixtures, [900.0], points))
    engine = EngineConfig(str(tmp_path / "t.npz"), "table")
    config = PurityConfig(engine, (900.0,), cache=tmp_path / "cache.sqlite")
    grid = GridConfig(Roles(("Cr",), ("Al",), ("Co", "Ni")), site_parts=(1,), most_site=1)
    with ServedPurity(config) as judge:
        found = curate(judge.served, grid)
    assert [write_formula(one) for one in [*found.bcc, *found.b2]] == ["Cr", "AlCo"]
    assert found.failed == {"AlNi": "the engine has no Ni"}
    monkeypatch.setattr(PhasePurity, "__call__", None)
    with ServedPurity(config) as judge:
        assert curate(judge.served, grid) == found
