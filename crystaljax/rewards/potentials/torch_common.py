"""Base of the PyTorch potentials: screening, neighbour lists, batches, relaxation."""

from __future__ import annotations

import pickle
from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from crystaljax.crystal import AtomicCell, Crystals
from crystaljax.rewards.potentials.base import Energies, Relaxed, scatter
from crystaljax.rewards.potentials.screened_relaxation import Evaluation, relax
from crystaljax.rewards.potentials.screening import (
    Neighbors,
    Screened,
    neighbors,
    screen,
)

if TYPE_CHECKING:
    import torch

BATCH_ATOMS = {"cpu": 100, "cuda": 6000}
"""Atoms in one pass, by kind of device; a CPU is no faster with more."""

UNREADABLE = (
    AttributeError,
    EOFError,
    KeyError,
    RuntimeError,
    TypeError,
    ValueError,
    pickle.UnpicklingError,
)
"""Exceptions that PyTorch raises for files without weights, or with another model's."""


class TorchPotential(ABC):
    """Base class of potentials that take a batch of structures as one graph.

    A subclass has its own `evaluate`, cutoff and elements.
    """

    name: str
    level: str | None
    elements: np.ndarray
    cutoff: float
    """Å: cutoff of its neighbour lists."""

    def __init__(
        self,
        *,
        batch_atoms: int | None = None,
        max_atoms: int = 200,
        device: str | None = None,
        threads: int | None = None,
    ) -> None:
        """Device and batch sizes of the computation.

        `batch_atoms`: atoms in one pass, which bounds the memory (default: see `BATCH_ATOMS`).
        `max_atoms`: larger cells are not taken. `device`: "cpu" or "cuda" (default: a GPU where
        there is one). `threads`: PyTorch's threads for the whole process (default: left alone).
        """
        import torch

        if threads is not None:
            torch.set_num_threads(threads)
        self.device = device or ("cuda" if torch.cuda.is_available() else "cpu")
        self.batch_atoms = batch_atoms or BATCH_ATOMS[torch.device(self.device).type]
        self.max_atoms = max_atoms

    @abstractmethod
    def evaluate(
        self,
        cells: Sequence[AtomicCell],
        neighbor_lists: Sequence[Neighbors],
        *,
        gradients: bool = False,
    ) -> Evaluation:
        """One pass of the model over G structures, with forces and stresses by `gradients`."""

    def problem(self, cell: AtomicCell, edges: Neighbors) -> str | None:
        """Reason that the model cannot take a structure with these neighbours, or None."""
        return None

    def energies(self, crystals: Crystals | Sequence[AtomicCell]) -> Energies:
        """Potential energies of B items (of their primitive cells): see `Energies`.

        Not ok: items that `screen` leaves out, elements that the model does not know, structures
        with a `problem`, and energies that are not finite.
        """
        cells, rows, reasons = self.screened(crystals)
        lists = [neighbors(cell, self.cutoff) for cell in cells]
        usable = []
        for i, (cell, edges, row) in enumerate(zip(cells, lists, rows, strict=True)):
            reasons[row] = self.problem(cell, edges)
            if reasons[row] is None:
                usable.append(i)
        energy = np.full(len(cells), np.nan)
        # sorted by numbers of edges, so that consecutive passes need similar memory
        for part in self._batches(sorted(usable, key=lambda i: len(lists[i].center)), cells):
            energy[part] = self.evaluate([cells[i] for i in part], [lists[i] for i in part]).energy
        kept = np.array(usable, np.int64)
        return scatter(energy[kept], rows[kept], reasons)

    def relax(
        self,
        crystals: Crystals | Sequence[AtomicCell],
        *,
        fmax: float = 0.02,
        max_steps: int = 500,
        keep_symmetry: bool = True,
    ) -> Relaxed:
        """Relax atoms and cell, many structures at a time: see `screened_relaxation`.

        Converged when every force, that on the cell included, is below `fmax` (eV/Å) within
        `max_steps`. An item whose structure becomes unphysical on the way is not ok.
        `keep_symmetry` lets only the free Wyckoff coordinates and lattice parameters of `Crystals`
        move; cells that are given have no symmetry to keep.
        """
        return relax(self, crystals, keep_symmetry=keep_symmetry, fmax=fmax, max_steps=max_steps)

    def screened(self, crystals: Crystals | Sequence[AtomicCell]) -> Screened:
        """The cells that the model can take, as far as can be told without their neighbours."""
        return screen(crystals, max_atoms=self.max_atoms, elements=self.elements)

    def _batches(self, items: Sequence[int], cells: Sequence[AtomicCell]) -> Iterator[list[int]]:
        """Items in groups of at most `batch_atoms` atoms; a larger item is a group of its own."""
        part: list[int] = []
        n_atoms = 0
        for i in items:
            n_atoms += len(cells[i].species)
            if part and n_atoms > self.batch_atoms:
                yield part
                part, n_atoms = [], len(cells[i].species)
            part.append(i)
        if part:
            yield part


class Collated(NamedTuple):
    """G structures of N atoms in total, concatenated, with their E directed edges."""

    n_atoms: np.ndarray
    """int64 [G]"""
    n_edges: np.ndarray
    """int64 [G]"""
    owner: np.ndarray
    """int64 [N]: the structure of each atom."""
    species: np.ndarray
    """int64 [N]: atomic numbers."""
    frac: np.ndarray
    """float64 [N, 3]"""
    matrix: np.ndarray
    """float64 [G, 3, 3]: lattice vectors in Å, one a row."""
    center: np.ndarray
    """int64 [E]"""
    neighbor: np.ndarray
    """int64 [E]"""
    image: np.ndarray
    """int64 [E, 3]: lattice translation of the neighbour."""


def collate(cells: Sequence[AtomicCell], neighbor_lists: Sequence[Neighbors]) -> Collated:
    """Join G structures and their neighbour lists into one graph."""
    n_atoms = np.array([len(cell.species) for cell in cells])
    offsets = np.cumsum(n_atoms) - n_atoms
    lists = list(zip(neighbor_lists, offsets, strict=True))
    return Collated(
        n_atoms=n_atoms,
        n_edges=np.array([len(edges.center) for edges in neighbor_lists]),
        owner=np.repeat(np.arange(len(cells)), n_atoms),
        species=np.concatenate([cell.species for cell in cells]).astype(np.int64),
        frac=np.concatenate([cell.frac for cell in cells]),
        matrix=np.stack([cell.matrix for cell in cells]),
        center=np.concatenate([edges.center + offset for edges, offset in lists]),
        neighbor=np.concatenate([edges.neighbor + offset for edges, offset in lists]),
        image=np.concatenate([edges.image for edges in neighbor_lists]),
    )


def to_torch(array: Any, device: str) -> torch.Tensor:
    """A NumPy or JAX array as a tensor on `device`, by DLPack.

    Shares memory when the array is on that device already, so do not write to the tensor; copied
    otherwise.
    """
    import torch

    return torch.from_dlpack(array).to(device)
