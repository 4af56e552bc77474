"""Any calculator of ASE as a potential: slow, since it takes one structure at a time."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from crystaljax import user_code
from crystaljax.crystal import AtomicCell, Crystals
from crystaljax.rewards.compose import PASSING, failure
from crystaljax.rewards.potentials.base import Energies, Relaxed, scatter
from crystaljax.rewards.potentials.screened_relaxation import Evaluation, relax
from crystaljax.rewards.potentials.screening import Neighbors, Screened, screen

if TYPE_CHECKING:
    from ase import Atoms


def level_of(file: str, function: str) -> None:
    """None: a calculator's level of theory is unknown; users give it after the name, as "@MP"."""


class AsePotential:
    """Energies and relaxation with a calculator of ASE (Larsen et al. 2017, 273002).

    It is called for one structure after the other; a structure for which it raises is not ok.
    """

    cutoff = 1.0  # Å: for the test of overlapping atoms; the calculator finds its own neighbours
    batch_atoms = 1  # one structure at a time

    def __init__(
        self, file: str, function: str, *, level: str | None = None, max_atoms: int = 200
    ) -> None:
        """Make the calculator: `function` of a Python file returns it, called without arguments.

        The file is run: give none that you do not trust. `max_atoms`: larger cells are not taken.
        Errors: see `user_code.load`; TypeError if what is returned is no calculator.
        """
        self.calculator = user_code.load_called(f"{file}:{function}")()
        needed = "get_property", "implemented_properties"
        if not all(hasattr(self.calculator, name) for name in needed):
            raise TypeError(
                f"{file}:{function} returns {type(self.calculator).__name__}, which is no"
                " calculator of ASE"
            )
        self.name = f"ASE's {type(self.calculator).__name__}"
        self.level, self.max_atoms = level, max_atoms
        self.elements = np.arange(1, 119)

    def energies(self, crystals: Crystals | Sequence[AtomicCell]) -> Energies:
        """Potential energies of B items (of their primitive cells): see `Energies`."""
        cells, rows, reasons = self.screened(crystals)
        energy = np.full(len(cells), np.nan)
        for i, (cell, row) in enumerate(zip(cells, rows.tolist(), strict=True)):
            found, reasons[row] = self._results(cell)
            energy[i] = found.energy
        kept = np.isfinite(energy)
        return scatter(energy[kept], rows[kept], reasons)

    def relax(
        self,
        crystals: Crystals | Sequence[AtomicCell],
        *,
        fmax: float = 0.02,
        max_steps: int = 500,
        keep_symmetry: bool = True,
    ) -> Relaxed:
        """Relax atoms and cell, one structure at a time: see `TorchPotential.relax`.

        ValueError for a calculator without forces or stress.
        """
        missing = {"forces", "stress"} - set(self.calculator.implemented_properties)
        if missing:
            raise ValueError(
                f"{self.name} cannot relax: it has no {' and no '.join(sorted(missing))}"
            )
        return relax(self, crystals, keep_symmetry=keep_symmetry, fmax=fmax, max_steps=max_steps)

    def screened(self, crystals: Crystals | Sequence[AtomicCell]) -> Screened:
        """The cells that are physical enough to compute."""
        return screen(crystals, max_atoms=self.max_atoms, elements=self.elements)

    def problem(self, cell: AtomicCell, edges: Neighbors) -> str | None:
        """Reason for which the calculator cannot take a structure, None if it can."""
        return self._results(cell)[1]

    def evaluate(
        self,
        cells: Sequence[AtomicCell],
        neighbor_lists: Sequence[Neighbors],
        *,
        gradients: bool = False,
    ) -> Evaluation:
        """Energies, forces and stresses of G structures."""
        found = [self._results(cell, gradients)[0] for cell in cells]
        energy = np.array([each.energy for each in found], np.float64)
        if not gradients:
            return Evaluation(energy, None, None)
        forces = np.concatenate([each.forces for each in found])
        return Evaluation(energy, forces, np.stack([each.stress for each in found]))

    def _results(self, cell: AtomicCell, gradients: bool = False) -> tuple[Results, str | None]:
        """Energy, and forces and stress by `gradients`; nan and the reason if it raises."""
        n = len(cell.species)
        forces, stress = np.full((n, 3), np.nan), np.full((3, 3), np.nan)
        try:
            atoms = _atoms(cell)
            atoms.calc = self.calculator
            energy = float(atoms.get_potential_energy()) / n
            if gradients:
                forces, stress = atoms.get_forces(), atoms.get_stress(voigt=False)
            return Results(energy, forces, stress), None
        except PASSING:
            raise
        except BaseException as error:  # noqa: BLE001 (a calculator may raise anything)
            return Results(np.nan, forces, stress), failure(error)[0]


class Results(NamedTuple):
    """Results of a calculator for one structure of N atoms."""

    energy: float
    """eV/atom."""
    forces: np.ndarray
    """[N, 3]: eV/Å."""
    stress: np.ndarray
    """[3, 3]: eV/Å³."""


def _atoms(cell: AtomicCell) -> Atoms:
    from ase import Atoms

    return Atoms(numbers=cell.species, cell=cell.matrix, scaled_positions=cell.frac, pbc=True)
