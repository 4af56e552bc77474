"""Relaxation of many screened structures with a model outside JAX: `fire` on numpy arrays."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields
from typing import Protocol

import jax
import numpy as np

from crystaljax.crystal import Array, AtomicCell, Crystals, stack
from crystaljax.progress import finished
from crystaljax.rewards.base import Reasons
from crystaljax.rewards.potentials.base import Relaxed, no_relaxation, put_relaxed
from crystaljax.rewards.potentials.fire import (
    FAILED,
    MOVING,
    Search,
    advance,
    filtered_forces,
    relaxed,
)
from crystaljax.rewards.potentials.projection import Symmetry
from crystaljax.rewards.potentials.screening import (
    Neighbors,
    Screened,
    neighbors,
    rows_for,
    slots_for,
)
from crystaljax.validity import overlap_problem, shape_problem


@dataclass(frozen=True)
class Evaluation:
    """Outcome of a model for G structures of N atoms in all."""

    energy: np.ndarray
    """float64 [G]: eV/atom."""
    forces: np.ndarray | None
    """float64 [N, 3]: eV/Å."""
    stress: np.ndarray | None
    """float64 [G, 3, 3]: eV/Å³, positive under tension."""


class Model(Protocol):
    """Protocol: the part of a potential of PyTorch or ASE that relaxation needs."""

    cutoff: float
    batch_atoms: int

    def screened(self, crystals: Crystals | Sequence[AtomicCell]) -> Screened:
        """The cells that the model can take, as far as can be told without their neighbours."""

    def problem(self, cell: AtomicCell, edges: Neighbors) -> str | None:
        """Reason that the model cannot take a structure with these neighbours, or None."""

    def evaluate(
        self,
        cells: Sequence[AtomicCell],
        neighbor_lists: Sequence[Neighbors],
        *,
        gradients: bool = False,
    ) -> Evaluation:
        """One pass of the model over G structures."""


def relax(
    potential: Model,
    crystals: Crystals | Sequence[AtomicCell],
    *,
    keep_symmetry: bool,
    fmax: float,
    max_steps: int,
) -> Relaxed:
    """Relax the items that pass the screening; see `Relaxed`.

    `keep_symmetry` lets only the free Wyckoff coordinates and lattice parameters of `Crystals`
    move; cells that are given have no symmetry to keep. At most `potential.batch_atoms` atoms are
    relaxed at a time; as structures finish, others join. A structure that becomes unphysical, or
    whose energy or forces are not finite, is given up with a reason.
    """
    screened = potential.screened(crystals)
    symmetry = None
    if keep_symmetry and isinstance(crystals, Crystals) and screened.cells:
        of_cells = crystals[screened.rows].padded(rows_for(len(screened.rows)))
        symmetry = Symmetry.of(of_cells, room_for(screened.cells))
    n = len(screened.cells)
    search = Search.start(stack(screened.cells, n, room_for(screened.cells)), np.ones(n, bool))
    reasons: Reasons = [None] * n
    n_moving = n
    while len(rows := _under_way(search, potential.batch_atoms)):
        n_before, n_moving = n_moving, int((search.status == MOVING).sum())
        finished(n_before - n_moving)
        cells, lists = [], []
        for row, cell in zip(rows, _cells(search[rows]), strict=True):
            edges, problem = _neighbors(potential, cell)
            if problem is None and edges is not None:
                cells.append(cell)
                lists.append(edges)
            else:
                search.status[row] = FAILED
                reasons[row] = f"relaxation failed: {problem}"
        rows = rows[search.status[rows] == MOVING]
        if not len(rows):
            continue
        outcome = potential.evaluate(cells, lists, gradients=True)
        part = search[rows]
        forces = _forces(part, outcome)
        if symmetry is not None:
            forces = _symmetric(forces, rows, symmetry)
        with np.errstate(invalid="ignore", over="ignore"):  # of those that fail
            energy, sane = outcome.energy * part.n_atoms, np.ones(len(rows), bool)
            moved = advance(part, energy, forces, sane, fmax, max_steps)
        for field in fields(Search):
            getattr(search, field.name)[rows] = getattr(moved, field.name)
    result = no_relaxation(screened.reasons)
    put_relaxed(result, screened.rows, relaxed(search, reasons))
    return result


def _under_way(search: Search, batch_atoms: int) -> np.ndarray:
    """Rows of the structures to compute next, the largest first, as they take longest.

    At least one, and otherwise at most `batch_atoms` atoms.
    """
    rows = np.argsort(-search.n_atoms, kind="stable")
    rows = rows[search.status[rows] == MOVING]
    fits = np.cumsum(search.n_atoms[rows]) <= batch_atoms
    fits[:1] = True
    return rows[fits]


def _cells(search: Search) -> list[AtomicCell]:
    """The structures as they are now, one by one."""
    cells = search.cells
    return [
        AtomicCell(matrix, frac[:n], species[:n])
        for matrix, frac, species, n in zip(
            cells.matrix, cells.frac, cells.species, search.n_atoms, strict=True
        )
    ]


def _neighbors(potential: Model, cell: AtomicCell) -> tuple[Neighbors | None, str | None]:
    """The neighbours in a cell, or the reason why the potential cannot take it."""
    problem = shape_problem(cell.matrix, len(cell.species))
    if problem is not None:
        return None, problem
    edges = neighbors(cell, potential.cutoff)
    return edges, overlap_problem(edges.closest) or potential.problem(cell, edges)


def _forces(search: Search, outcome: Evaluation) -> np.ndarray:
    """Filtered forces [G, N + 3, 3] from those of all atoms in one list."""
    assert outcome.forces is not None and outcome.stress is not None
    forces = np.zeros_like(search.frac)
    forces[search.species > 0] = outcome.forces
    return filtered_forces(search, forces, outcome.stress)


def _symmetric(forces: np.ndarray, rows: np.ndarray, symmetry: Symmetry) -> np.ndarray:
    """Part of the forces that keeps each space group.

    Computed for all structures, so that there are few shapes.
    """
    full = np.zeros((len(symmetry.system), *forces.shape[1:]), np.float32)
    full[rows] = forces
    return np.asarray(_projected(symmetry, full))[rows].astype(np.float64)


@jax.jit
def _projected(symmetry: Symmetry, forces: Array) -> Array:
    return symmetry(forces)


def room_for(cells: Sequence[AtomicCell]) -> int:
    """Number of atom slots for these cells: one of the few sizes of `screening`."""
    return slots_for(max((len(cell.species) for cell in cells), default=1))
