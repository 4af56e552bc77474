"""Energies of atomic cells: guarded, relaxed, and kept on disk."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from loose_potential import POTENTIAL

from crystaljax.crystal import AtomicCell
from crystaljax.evaluation.attempt_energies import cell_energies
from crystaljax.rewards.cell_energies import relaxation_of
from crystaljax.rewards.stability import StabilityConfig, StabilityReward

TIN = 50


def cube(a: float, *species: int) -> AtomicCell:
    n = len(species)
    return AtomicCell(a * np.eye(3), np.arange(3 * n).reshape(n, 3) / (3 * n), np.array(species))


CELLS = [cube(4, 11, 17), None, cube(3, 12), cube(4, TIN), cube(5, 11, 11, 8)]
"""Of which the fourth has no energy."""

ENERGIES = np.array([32, np.nan, 27, np.nan, 125 / 3]) / 1e3
"""Minus those in eV/atom: the volume of an atom in 1000 Å³."""


@pytest.fixture
def config(tmp_path: Path) -> StabilityConfig:
    (tmp_path / "loose.py").write_text(POTENTIAL)
    return StabilityConfig(f"{tmp_path / 'loose.py'}:Loose", cache=tmp_path / "energies.sqlite")


@pytest.mark.parametrize("steps", [0, 2])
def test_what_is_kept_is_not_computed_again(
    config: StabilityConfig, steps: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = StabilityConfig(config.potential, relax_steps=steps, cache=config.cache)
    for computed in (True, False):
        with StabilityReward(config) as judge:
            if not computed:
                for name in ("energies", "relax"):
                    monkeypatch.setattr(judge.energy.potential, name, None)
            found = cell_energies(judge, CELLS, ["why"] * 5, "cells")
        np.testing.assert_allclose(found.value, ENERGIES)
        assert found.reasons == [None, "why", None, "tin", None]
        if steps:
            relaxed = relaxation_of(found)
            assert [cell is not None for cell in relaxed.cells] == found.ok.tolist()
            np.testing.assert_allclose(relaxed.energy, -ENERGIES)
            assert relaxed.steps.tolist() == [3, 0, 3, 0, 3]
            for given, after in zip(CELLS, relaxed.cells, strict=True):
                if given is not None and after is not None:
                    np.testing.assert_array_equal(given.matrix, after.matrix)


def test_an_exception_costs_the_cell_that_causes_it(
    config: StabilityConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    with StabilityReward(StabilityConfig(config.potential)) as judge:
        potential = judge.energy.potential
        given = potential.energies

        def energies(cells: list[AtomicCell]) -> object:
            if any(len(cell.species) == 1 for cell in cells):
                raise RuntimeError("a lonely atom")
            return given(cells)

        monkeypatch.setattr(potential, "energies", energies)
        found = cell_energies(judge.energy, CELLS, [None] * 5, "cells")
    np.testing.assert_allclose(found.value, np.where([1, 0, 0, 0, 1], ENERGIES, np.nan))
    assert "a lonely atom" in str(found.reasons[2])
    assert found.reasons[1] == "no crystal"


def test_nothing(config: StabilityConfig) -> None:
    """No cells at all, and none that is a crystal."""
    with StabilityReward(config) as judge:
        for n in (0, 2):
            found = cell_energies(judge, [None] * n, [None] * n, "cells")
            assert len(found) == n and not found.ok.any()
            assert len(relaxation_of(found).cells) == n
