"""CHGNet (Deng et al. 2023): a universal potential whose weights come inside its own package."""

from __future__ import annotations

import contextlib
import io
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from crystaljax.crystal import AtomicCell, Crystals
from crystaljax.rewards.potentials.base import Corrections, Energies, Relaxed, scatter
from crystaljax.rewards.potentials.chgnet_graph import ATOM_CUTOFF, batched_graph
from crystaljax.rewards.potentials.screening import (
    Neighbors,
    UnphysicalError,
    neighbors,
    screen,
)

MAX_ATOMIC_NUMBER = 94


def _import() -> tuple[Any, Any]:
    """torch and the class CHGNet; ImportError saying how to install them."""
    try:
        import torch
        from chgnet.model import CHGNet
    except ImportError as error:
        raise ImportError(
            'CHGNet is not installed: run pip install "crystaljax[chgnet]"'
        ) from error
    return torch, CHGNet


@dataclass(frozen=True)
class Evaluation:
    """What the model says of G structures of N atoms in all."""

    energy: np.ndarray
    """float64 [G]: eV/atom."""
    forces: np.ndarray | None
    """float64 [N, 3]: eV/Å."""
    stress: np.ndarray | None
    """float64 [G, 3, 3]: eV/Å³, positive under tension."""


class CHGNetPotential:
    """Energies and relaxation with CHGNet, in batches of even size.

    CHGNet was trained on the corrected (MP2020) energies of MPtrj, so its energies go straight
    against the Materials Project's elemental references.
    """

    corrections: Corrections = "included"

    def __init__(
        self,
        *,
        weights: str = "0.3.0",
        batch_atoms: int | None = None,
        max_atoms: int = 200,
        device: str | None = None,
        threads: int | None = None,
    ) -> None:
        """Load the model.

        `weights`: a version that the chgnet package carries. `batch_atoms`: atoms in one pass
        (default: 300 on a CPU, 6000 on a GPU). `max_atoms`: larger cells are not taken. `device`:
        "cpu" or "cuda" (default: a GPU where there is one). `threads`: PyTorch's threads for
        the whole process (default: left alone). ImportError without the chgnet package,
        ValueError for unknown weights.
        """
        torch, chgnet = _import()
        self.name = f"CHGNet {weights}"
        if threads is not None:
            torch.set_num_threads(threads)
        self.device = device or ("cuda" if torch.cuda.is_available() else "cpu")
        self.batch_atoms = batch_atoms or (300 if self.device == "cpu" else 6000)
        self.max_atoms = max_atoms
        with contextlib.redirect_stdout(io.StringIO()):  # it announces itself
            model = chgnet.load(model_name=weights, use_device=self.device, verbose=False)
        self.model = model.eval().requires_grad_(False)

    def energies(self, crystals: Crystals | Sequence[AtomicCell]) -> Energies:
        """Potential energies of B items (of their primitive cells): see `Energies`.

        Not ok: what `screen` leaves out, elements beyond Pu, and atoms with no other within 6 Å.
        """
        cells, rows, reasons = screen(
            crystals, max_atoms=self.max_atoms, max_atomic_number=MAX_ATOMIC_NUMBER
        )
        neighbor_lists = [neighbors(cell, ATOM_CUTOFF) for cell in cells]
        usable = []
        for i, (cell, row) in enumerate(zip(cells, rows, strict=True)):
            reasons[row] = _isolated(cell, neighbor_lists[i])
            if reasons[row] is None:
                usable.append(i)
        energy = np.full(len(cells), np.nan)
        for part in self._batches([(i, len(neighbor_lists[i].center)) for i in usable], cells):
            result = self.evaluate([cells[i] for i in part], [neighbor_lists[i] for i in part])
            energy[part] = result.energy
        kept = np.array(usable, np.int64)
        return scatter(energy[kept], rows[kept], reasons)

    def relax(
        self,
        crystals: Crystals | Sequence[AtomicCell],
        *,
        fmax: float = 0.02,
        max_steps: int = 500,
    ) -> Relaxed:
        """Relax atoms and cell, one structure at a time, with FIRE in a Fréchet cell filter.

        Converged when every force, that on the cell included, is below `fmax` (eV/Å) within
        `max_steps`. An item whose structure becomes unphysical on the way is not ok.
        """
        from crystaljax.rewards.potentials.relaxation import relax_all

        screened = screen(crystals, max_atoms=self.max_atoms, max_atomic_number=MAX_ATOMIC_NUMBER)
        return relax_all(screened, self._evaluate_one, fmax=fmax, max_steps=max_steps)

    def _evaluate_one(self, cell: AtomicCell) -> tuple[float, np.ndarray, np.ndarray]:
        """Total energy (eV), forces [N, 3] (eV/Å) and stress [3, 3] (eV/Å³) of one cell."""
        edges = neighbors(cell, ATOM_CUTOFF)
        if problem := _isolated(cell, edges):
            raise UnphysicalError(problem)
        result = self.evaluate([cell], [edges], gradients=True)
        assert result.forces is not None and result.stress is not None
        return float(result.energy[0]) * len(cell.species), result.forces, result.stress[0]

    def _batches(
        self, sizes: list[tuple[int, int]], cells: Sequence[AtomicCell]
    ) -> Iterator[list[int]]:
        """Items in groups of similar numbers of edges and at most `batch_atoms` atoms."""
        part: list[int] = []
        n_atoms = 0
        for i, _ in sorted(sizes, key=lambda item: item[1]):
            n_atoms += len(cells[i].species)
            if part and n_atoms > self.batch_atoms:
                yield part
                part, n_atoms = [], len(cells[i].species)
            part.append(i)
        if part:
            yield part

    def evaluate(
        self,
        cells: Sequence[AtomicCell],
        neighbor_lists: Sequence[Neighbors],
        *,
        gradients: bool = False,
    ) -> Evaluation:
        """One pass of the model over G structures, with forces and stresses by `gradients`."""
        import torch

        with torch.set_grad_enabled(gradients):
            inputs = batched_graph(
                cells, neighbor_lists, self.model, device=self.device, gradients=gradients
            )
            # is_intensive: the model gives eV/atom, and so does its linear composition model.
            energy = self.model._compute(inputs.graph)["e"]
            energy = energy + self.model.composition_model.fc(inputs.composition).view(-1)
            per_atom = energy.detach().cpu().numpy().astype(np.float64)
            if not gradients:
                return Evaluation(per_atom, None, None)
            n_atoms = torch.bincount(inputs.graph.atom_owners)
            total = (energy * n_atoms).sum()
            slopes = torch.autograd.grad(total, [inputs.positions, inputs.strain])
        by_position, by_strain = (slope.cpu().numpy().astype(np.float64) for slope in slopes)
        volumes = inputs.graph.volumes.cpu().numpy().astype(np.float64)
        return Evaluation(per_atom, -by_position, by_strain / volumes[:, None, None])


def _isolated(cell: AtomicCell, edges: Neighbors) -> str | None:
    alone = len(cell.species) - len(np.unique(edges.center))
    return f"{alone} atom(s) have no neighbour within {ATOM_CUTOFF:.0f} Å" if alone else None
