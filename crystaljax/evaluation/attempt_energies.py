"""Energies of attempts at predicting structures, and of the true ones, by the same potential."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np

from crystaljax.crystal import AtomicCell
from crystaljax.evaluation.attempts import Attempts, Known, element_counts_of
from crystaljax.rewards.base import Reasons
from crystaljax.rewards.ehull import EnergyAboveHull, relaxation_state
from crystaljax.rewards.potentials import Potential
from crystaljax.rewards.potentials.base import Relaxed, no_relaxation, put_relaxed
from crystaljax.training.progress import tracked

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
    label: str
    """Names the potential and the relaxation."""
    hull: str
    """Names the hull as well."""
    relaxed: Relaxed | None = None
    """The A attempts relaxed, if they were."""


def csp_energies(energy: EnergyAboveHull, truth: Known, attempts: Attempts) -> CSPEnergies:
    """Energies of attempts and of the test crystals that they are at; relaxed if `energy` does so.

    A relaxation that has not converged in `energy.relax_steps` is taken as far as it came.
    """
    true: list[AtomicCell | None] = [None] * len(truth)
    for row in np.unique(attempts.target).tolist():
        true[row] = truth.cells[row]
    potential, steps = energy.potential, energy.relax_steps
    relaxed, cells = None, attempts.cells
    if steps:
        relaxed = relaxed_cells(potential, attempts.cells, attempts.reasons, steps, "attempts")
        known = relaxed_cells(potential, true, [None] * len(true), steps, "true structures")
        values, true_values, reasons = relaxed.energy, known.energy, relaxed.reasons
        cells = relaxed.cells
    else:
        values, reasons = cell_energies(potential, attempts.cells, attempts.reasons, "attempts")
        true_values, _ = cell_energies(potential, true, [None] * len(true), "true structures")
    above = energy.above(element_counts_of(attempts.cells), values, cells).e_above_hull
    state = relaxation_state(relaxed, steps)
    return CSPEnergies(
        values,
        true_values,
        above,
        reasons,
        f"{potential.name}, {state}",
        f"{energy.label}, {state}",
        relaxed,
    )


def cell_energies(
    potential: Potential, cells: Sequence[AtomicCell | None], reasons: Reasons, what: str
) -> tuple[np.ndarray, Reasons]:
    """Energies [B] of cells as they stand, and why there is none."""
    values, reasons = np.full(len(cells), np.nan), list(reasons)
    for part in _parts(cells, f"energies of {what}"):
        found = potential.energies([cell for row in part if (cell := cells[row]) is not None])
        values[part] = found.energy
        for row, reason in zip(part, found.reasons, strict=True):
            reasons[row] = reason
    return values, reasons


def relaxed_cells(
    potential: Potential,
    cells: Sequence[AtomicCell | None],
    reasons: Reasons,
    max_steps: int,
    what: str,
) -> Relaxed:
    """Cells [B] relaxed; None stays."""
    result = no_relaxation(
        [
            reason or "no crystal" if cell is None else reason
            for cell, reason in zip(cells, reasons, strict=True)
        ]
    )
    for part in _parts(cells, f"relaxing {what}"):
        given = [cell for row in part if (cell := cells[row]) is not None]
        put_relaxed(result, np.array(part), potential.relax(given, max_steps=max_steps))
    return result


def _parts(cells: Sequence[AtomicCell | None], what: str) -> Iterable[list[int]]:
    """Rows of cells that there are, those of like size together, some at a time, with a bar."""
    rows = [row for row, cell in enumerate(cells) if cell is not None]
    rows.sort(key=lambda row: len(cells[row].species))  # type: ignore[union-attr]
    parts = [rows[start : start + CHUNK] for start in range(0, len(rows), CHUNK)]
    return tracked(parts, what)
