"""Relaxation with ASE, one structure at a time, for any potential."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from crystaljax.crystal import AtomicCell
from crystaljax.rewards.potentials.base import Relaxed
from crystaljax.rewards.potentials.screening import Screened, UnphysicalError, geometry_problem

EvaluateOne = Callable[[AtomicCell], tuple[float, np.ndarray, np.ndarray]]
"""Total energy (eV), forces [N, 3] (eV/Å) and stress [3, 3] (eV/Å³, positive under tension)."""


def relax_all(screened: Screened, evaluate: EvaluateOne, *, fmax: float, max_steps: int) -> Relaxed:
    """Relax the cells that passed the screening; see `Relaxed`.

    FIRE in a Fréchet cell filter, to forces below `fmax` (eV/Å) within `max_steps`.
    """
    n = len(screened.reasons)
    reasons = list(screened.reasons)
    cells: list[AtomicCell | None] = [None] * n
    energy, initial = np.full(n, np.nan), np.full(n, np.nan)
    steps, converged = np.zeros(n, np.int64), np.zeros(n, bool)
    for row, cell in zip(screened.rows, screened.cells, strict=True):
        try:
            initial[row] = evaluate(cell)[0] / len(cell.species)
            cells[row], energy[row], steps[row], converged[row] = _relax(
                cell, evaluate, fmax, max_steps
            )
        except UnphysicalError as error:
            reasons[row] = f"relaxation failed: {error}"
    ok = np.array([reason is None for reason in reasons], bool)
    return Relaxed(cells, energy, initial, steps, converged, ok, reasons)


def _relax(
    cell: AtomicCell, evaluate: EvaluateOne, fmax: float, max_steps: int
) -> tuple[AtomicCell, float, int, bool]:
    from ase import Atoms
    from ase.filters import FrechetCellFilter
    from ase.optimize import FIRE

    atoms = Atoms(cell.species, scaled_positions=cell.frac, cell=cell.matrix, pbc=True)
    atoms.calc = _calculator(evaluate)
    optimiser = FIRE(FrechetCellFilter(atoms), logfile=None)
    converged = bool(optimiser.run(fmax=fmax, steps=max_steps))
    relaxed = AtomicCell(np.array(atoms.cell), atoms.get_scaled_positions(), cell.species)
    return relaxed, atoms.get_potential_energy() / len(atoms), optimiser.nsteps, converged


def _calculator(evaluate: EvaluateOne) -> Any:
    """An ASE calculator; UnphysicalError from it as soon as the structure goes astray."""
    from ase.calculators.calculator import Calculator, all_changes
    from ase.stress import full_3x3_to_voigt_6_stress

    class Evaluator(Calculator):
        implemented_properties = ["energy", "forces", "stress"]  # noqa: RUF012 (as ASE has it)

        def calculate(
            self, atoms: Any = None, properties: Any = None, system_changes: Any = all_changes
        ) -> None:
            super().calculate(atoms, properties, system_changes)
            cell = AtomicCell(np.array(atoms.cell), atoms.get_scaled_positions(), atoms.numbers)
            if problem := geometry_problem(cell):
                raise UnphysicalError(problem)
            energy, forces, stress = evaluate(cell)
            if not (np.isfinite(energy) and np.isfinite(forces).all()):
                raise UnphysicalError("the energy or the forces are not finite")
            self.results = {
                "energy": energy,
                "forces": forces,
                "stress": full_3x3_to_voigt_6_stress(stress),
            }

    return Evaluator()
