"""Energies of atomic cells by a potential, as a reward, which may be guarded and kept on disk."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from crystaljax.crystal import AtomicCell
from crystaljax.rewards.base import RewardBatch
from crystaljax.rewards.potentials.base import Potential, Relaxed, no_relaxation


@dataclass(frozen=True)
class CellEnergies:
    """Minus the energy (eV/atom) of atomic cells by a potential, as they stand or relaxed first.

    With `relax_steps` the energy is that after at most so many steps, converged or not, and `info`
    has what `relaxation_of` reads. Not ok: what the potential cannot take.
    """

    potential: Potential
    relax_steps: int = 0

    def __call__(self, cells: Sequence[AtomicCell], /) -> RewardBatch:
        """Rewards of B cells."""
        if not self.relax_steps:
            found = self.potential.energies(cells)
            return RewardBatch.from_values(-found.energy, None, found.reasons)
        relaxed = self.potential.relax(cells, max_steps=self.relax_steps)
        return RewardBatch.from_values(
            -relaxed.energy, relaxation_columns(relaxed), relaxed.reasons
        )


def relaxation_columns(relaxed: Relaxed) -> dict[str, np.ndarray]:
    """A relaxation as columns of `info`, which caches and pools can carry."""
    cells = np.full(len(relaxed.cells), None, object)
    for row, cell in enumerate(relaxed.cells):
        cells[row] = None if cell is None else cell._asdict()
    return {
        "energy_per_atom": relaxed.energy,
        "initial_energy_per_atom": relaxed.initial_energy,
        "relaxation_steps": relaxed.steps,
        "converged": relaxed.converged,
        "relaxed": cells,
    }


def relaxation_of(batch: RewardBatch) -> Relaxed:
    """The relaxations behind rewards of an `EnergyAboveHull` or `CellEnergies` that relaxes."""
    if "relaxed" not in batch.info:  # none of them came to the potential
        return no_relaxation(batch.reasons)
    cells = [
        None if cell is None else AtomicCell(*(np.asarray(cell[x]) for x in AtomicCell._fields))
        for cell in batch.info["relaxed"]
    ]
    return Relaxed(
        cells,
        batch.info["energy_per_atom"],
        batch.info["initial_energy_per_atom"],
        batch.info["relaxation_steps"],
        batch.info["converged"],
        np.array([cell is not None for cell in cells], bool),
        [
            reason if cell is None else None
            for cell, reason in zip(cells, batch.reasons, strict=True)
        ],
    )
