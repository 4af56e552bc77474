"""Energies of attempts at predicting structures, and of the true ones, by the same potential."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from crystaljax.crystal import AtomicCell
from crystaljax.evaluation.attempts import Attempts, Known, element_counts_of
from crystaljax.progress import tracked_batches
from crystaljax.rewards.base import Reasons, RewardBatch
from crystaljax.rewards.cell_energies import CellEnergies, relaxation_of
from crystaljax.rewards.compose import Guarded
from crystaljax.rewards.ehull import EnergyAboveHull, relaxation_state
from crystaljax.rewards.potentials.base import Relaxed
from crystaljax.rewards.stability import StabilityReward

CHUNK = 64
"""Crystals computed between two steps of the progress bar."""


@dataclass(frozen=True)
class CSPEnergies:
    """Energies of A attempts and T test crystals by one potential."""

    energy: np.ndarray
    """float64 [A]: eV/atom, after relaxation if there was one; nan where there is none."""
    true_energy: np.ndarray
    """float64 [T]: of the true structures, likewise."""
    e_above_hull: np.ndarray
    """float64 [A]: eV/atom."""
    reasons: Reasons
    """[A]: why there is none."""
    potential: str
    """Its name."""
    label: str
    """Names the potential and the relaxation."""
    hull: str
    """Names the hull as well."""
    relaxed: Relaxed | None = None
    """The A attempts relaxed, if they were."""


def csp_energies(
    judge: EnergyAboveHull | StabilityReward, truth: Known, attempts: Attempts
) -> CSPEnergies:
    """Energies of attempts and of the test crystals that they are at; relaxed if `judge` does so.

    A relaxation that has not converged in the judge's steps is taken as far as it came. Energies
    are looked up and kept where the judge has a cache.
    """
    energy = judge.energy if isinstance(judge, StabilityReward) else judge
    true: list[AtomicCell | None] = [None] * len(truth)
    for row in np.unique(attempts.target).tolist():
        true[row] = truth.cells[row]
    found = cell_energies(judge, attempts.cells, attempts.reasons, "attempts")
    known = cell_energies(judge, true, [None] * len(true), "true structures")
    relaxed = relaxation_of(found) if energy.relax_steps else None
    cells = attempts.cells if relaxed is None else relaxed.cells
    above = energy.above(element_counts_of(attempts.cells), -found.value, cells)
    state = relaxation_state(relaxed, energy.relax_steps)
    name = energy.potential.name
    return CSPEnergies(
        np.where(above.extrapolated, np.nan, -found.value),
        -known.value,
        above.e_above_hull,
        above.reasons(found.reasons),
        name,
        f"{name}, {state}",
        f"{energy.label}, {state}",
        relaxed,
    )


def cell_energies(
    judge: EnergyAboveHull | StabilityReward,
    cells: Sequence[AtomicCell | None],
    reasons: Reasons,
    what: str,
) -> RewardBatch:
    """Minus the energies [B] (eV/atom) of cells, relaxed if `judge` does so; None has none.

    reasons: [B] why a cell is None, or has no energy whatever the potential says.

    `relaxation_of` gives the relaxed cells. An exception costs the cell that causes it.
    """
    if isinstance(judge, StabilityReward):
        energies, steps = judge.of_cells, judge.energy.relax_steps
    else:
        steps = judge.relax_steps
        energies = Guarded(CellEnergies(judge.potential, steps))
    reasons = [
        reason or "no crystal" if cell is None else reason
        for cell, reason in zip(cells, reasons, strict=True)
    ]
    rows = [row for row, cell in enumerate(cells) if cell is not None]
    if not rows:
        return RewardBatch.from_values(np.full(len(cells), np.nan), None, reasons)
    rows.sort(key=lambda row: len(cells[row].species))  # type: ignore[union-attr]
    parts = tracked_batches(rows, CHUNK, f"{'relaxing' if steps else 'energies of'} {what}")
    batches = [energies([cells[row] for row in part]) for part in parts]
    return RewardBatch.concatenate(batches).spread(np.array(rows), reasons)
