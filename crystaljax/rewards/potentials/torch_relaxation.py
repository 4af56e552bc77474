"""Relaxation of many structures at a time: FIRE in a Fréchet cell filter.

Each structure takes the steps that ASE's `FIRE` takes on its `FrechetCellFilter`, whatever else is
in the batch. FIRE: Bitzek et al., Physical Review Letters 97, 170201 (2006). The filter moves the
atoms of the undeformed cell and the logarithm of its deformation F = exp(A), whose force is the
adjoint of the Fréchet derivative of exp.

TorchSim (0.3) would do it too, but one force of nan, or one structure that joins, makes it skip
FIRE's mixing for the whole batch; the forces on left-handed cells have the wrong sign; and it
counts one number of steps for all structures.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple, Protocol

import jax
import numpy as np

from crystaljax.crystal import Array, AtomicCell, wrapped
from crystaljax.rewards.base import Reasons
from crystaljax.rewards.potentials.base import Relaxed, no_relaxation
from crystaljax.rewards.potentials.fire import (
    DT,
    DT_MAX,
    GROW,
    MAX_STEP,
    MIXING,
    MIXING_DECAY,
    PATIENCE,
    SHRINK,
    Symmetry,
)
from crystaljax.rewards.potentials.screening import (
    Neighbors,
    Screened,
    neighbors,
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
    """The part of a `TorchPotential` that relaxation needs."""

    cutoff: float
    batch_atoms: int

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


class Walkers(NamedTuple):
    """G structures on their way down, with room for A atoms each."""

    item: np.ndarray
    """int [G]: which of the screened cells each is."""
    matrix: np.ndarray
    """float64 [G, 3, 3]: the undeformed cell, Å."""
    n_atoms: np.ndarray
    """int [G]"""
    place: np.ndarray
    """float64 [G, 3 + A, 3]: n_atoms · log F, then the positions in the undeformed cell, Å."""
    velocity: np.ndarray
    """float64 [G, 3 + A, 3]"""
    dt: np.ndarray
    """float64 [G]"""
    alpha: np.ndarray
    """float64 [G]: how far a step turns the velocity towards the force."""
    downhill: np.ndarray
    """int [G]: steps in a row that went along the force."""
    steps: np.ndarray
    """int [G]: steps taken."""

    def select(self, rows: np.ndarray) -> Walkers:
        """Some of them, by index or mask."""
        return Walkers(*(x[rows] for x in self))


def relax(
    potential: Model,
    screened: Screened,
    *,
    symmetry: Symmetry | None,
    fmax: float,
    max_steps: int,
) -> Relaxed:
    """Relax the cells that passed the screening; see `Relaxed`.

    `symmetry`, if there is one, is of these cells with room for `room_for` atoms, and is kept.
    At most `potential.batch_atoms` atoms are under way; as structures finish, others join. One
    that becomes unphysical, or whose energy or forces are not finite, leaves with a reason.
    """
    result = no_relaxation(screened.reasons)
    sizes = np.array([len(cell.species) for cell in screened.cells], int)
    waiting = deque(np.argsort(-sizes, kind="stable").tolist())  # large ones take longest
    walkers = _start([], screened.cells)
    while waiting or len(walkers.item):
        free = potential.batch_atoms - int(walkers.n_atoms.sum())
        joining = _next(waiting, sizes, free, alone=not len(walkers.item))
        walkers = _join(walkers, _start(joining, screened.cells))
        cells, lists, problems = _prepare(potential, _cells(walkers, screened.cells))
        walkers = _drop(walkers, problems, screened, result)
        if not cells:
            continue
        outcome = potential.evaluate(cells, lists, gradients=True)
        forces = filter_forces(walkers, outcome)
        if symmetry is not None:
            forces = _symmetric(forces, walkers.item, symmetry)
        finite = np.isfinite(outcome.energy) & np.isfinite(forces).all((1, 2))
        converged = finite & (np.linalg.norm(forces, axis=2).max(1) < fmax)
        done = ~finite | converged | (walkers.steps >= max_steps)

        rows = screened.rows[walkers.item]
        first = walkers.steps == 0
        result.initial_energy[rows[first]] = outcome.energy[first]
        result.steps[rows] = walkers.steps
        for g in np.flatnonzero(done & finite):
            result.cells[rows[g]] = cells[g]._replace(frac=wrapped(cells[g].frac))
            result.energy[rows[g]] = outcome.energy[g]
            result.converged[rows[g]] = converged[g]
            result.ok[rows[g]] = True
        for row in rows[~finite]:
            result.reasons[row] = "relaxation failed: the energy or the forces are not finite"
        walkers = fire_step(walkers.select(~done), forces[~done])
    return result


def fire_step(walkers: Walkers, forces: np.ndarray) -> Walkers:
    """One step along `forces` [G, 3 + A, 3]: the velocity turns to them, or stops if it opposes."""
    velocity, dt, alpha = walkers.velocity, walkers.dt, walkers.alpha
    downhill = (forces * velocity).sum((1, 2)) > 0
    uphill = ~downhill & (walkers.steps > 0)  # at the start there is no velocity to judge
    fast = downhill & (walkers.downhill > PATIENCE)

    length = _norm(velocity) / np.maximum(_norm(forces), 1e-300)
    turn = alpha[:, None, None]
    turned = (1 - turn) * velocity + turn * length[:, None, None] * forces
    velocity = np.where(downhill[:, None, None], turned, 0.0)
    dt = np.where(fast, np.minimum(dt * GROW, DT_MAX), np.where(uphill, dt * SHRINK, dt))
    alpha = np.where(fast, alpha * MIXING_DECAY, np.where(uphill, MIXING, alpha))

    velocity = velocity + dt[:, None, None] * forces
    move = dt[:, None, None] * velocity
    move = move * np.minimum(1.0, MAX_STEP / np.maximum(_norm(move), 1e-300))[:, None, None]
    return walkers._replace(
        place=walkers.place + move,
        velocity=velocity,
        dt=dt,
        alpha=alpha,
        downhill=np.where(downhill, walkers.downhill + 1, 0),
        steps=walkers.steps + 1,
    )


def filter_forces(walkers: Walkers, outcome: Evaluation) -> np.ndarray:
    """Forces [G, 3 + A, 3] on the places, eV/Å; zero where there is no atom.

    As ASE's `FrechetCellFilter` has them. The force on log F is the adjoint of the Fréchet
    derivative of exp at log F, which is that at its transpose, applied to the force on F; and
    that derivative is a block of one exponential (Mathias, SIAM J. Matrix Anal. Appl. 17, 610,
    1996).
    """
    assert outcome.forces is not None and outcome.stress is not None
    log = _log_deformation(walkers)
    deformation = _exponential(log)
    volume = np.abs(np.linalg.det(walkers.matrix @ deformation.swapaxes(1, 2)))
    virial = -volume[:, None, None] * outcome.stress
    on_cell = virial @ np.linalg.inv(deformation).swapaxes(1, 2)
    size = np.maximum(_norm(on_cell), 1e-300)[:, None, None]  # exp is best at small numbers
    blocks = np.zeros((len(log), 6, 6))
    blocks[:, :3, :3] = blocks[:, 3:, 3:] = log.swapaxes(1, 2)
    blocks[:, :3, 3:] = on_cell / size

    forces = np.zeros_like(walkers.place)
    forces[:, :3] = size * _exponential(blocks)[:, :3, 3:] / walkers.n_atoms[:, None, None]
    is_atom = np.arange(forces.shape[1] - 3) < walkers.n_atoms[:, None]
    forces[:, 3:][is_atom] = outcome.forces
    forces[:, 3:] = forces[:, 3:] @ deformation
    return forces


def _symmetric(forces: np.ndarray, items: np.ndarray, symmetry: Symmetry) -> np.ndarray:
    """That part of the forces that keeps each space group; all items have a row, for few shapes."""
    full = np.zeros((len(symmetry.system), *forces.shape[1:]), np.float32)
    full[items] = forces
    strain, atoms = _projected(symmetry, full[:, :3], full[:, 3:])
    return np.concatenate([strain, atoms], axis=1)[items].astype(np.float64)


@jax.jit
def _projected(symmetry: Symmetry, strain: Array, atoms: Array) -> tuple[Array, Array]:
    return symmetry.strain(strain), symmetry.forces(atoms)


def room_for(cells: Sequence[AtomicCell]) -> int:
    """Atoms that walkers of these cells have room for: one of the few sizes of `screening`."""
    largest = max((len(cell.species) for cell in cells), default=1)
    return slots_for(largest)


def _cells(walkers: Walkers, cells: Sequence[AtomicCell]) -> list[AtomicCell]:
    """The structures as they stand."""
    deformation = _exponential(_log_deformation(walkers))
    matrix = walkers.matrix @ deformation.swapaxes(1, 2)
    frac = walkers.place[:, 3:] @ np.linalg.inv(walkers.matrix)
    return [
        AtomicCell(matrix[g], frac[g, : walkers.n_atoms[g]], cells[i].species)
        for g, i in enumerate(walkers.item)
    ]


def _log_deformation(walkers: Walkers) -> np.ndarray:
    return walkers.place[:, :3] / walkers.n_atoms[:, None, None]


def _exponential(matrices: np.ndarray) -> np.ndarray:
    import torch

    return torch.matrix_exp(torch.from_numpy(matrices)).numpy()


def _norm(x: np.ndarray) -> np.ndarray:
    """[G] of [G, 3 + A, 3]."""
    return np.sqrt((x * x).sum((1, 2)))


def _prepare(
    potential: Model, cells: Sequence[AtomicCell]
) -> tuple[list[AtomicCell], list[Neighbors], Reasons]:
    """The cells that the potential can take, their neighbours, and why not for each of all."""
    kept, lists, problems = [], [], []
    for cell in cells:
        problem = shape_problem(cell.matrix, len(cell.species))
        if problem is None:
            edges = neighbors(cell, potential.cutoff)
            problem = overlap_problem(edges.closest) or potential.problem(cell, edges)
        if problem is None:
            kept.append(cell)
            lists.append(edges)
        problems.append(problem)
    return kept, lists, problems


def _drop(walkers: Walkers, problems: Reasons, screened: Screened, result: Relaxed) -> Walkers:
    """Those without a problem; the others' problems are noted."""
    for item, problem in zip(walkers.item, problems, strict=True):
        if problem is not None:
            result.reasons[screened.rows[item]] = f"relaxation failed: {problem}"
    return walkers.select(np.array([problem is None for problem in problems], bool))


def _next(waiting: deque[int], sizes: np.ndarray, free: int, *, alone: bool) -> list[int]:
    """Take as many as there is room for; the first one anyway if it would be alone."""
    taken: list[int] = []
    while waiting and (sizes[waiting[0]] <= free or (alone and not taken)):
        taken.append(waiting.popleft())
        free -= int(sizes[taken[-1]])
    return taken


def _start(items: Sequence[int], cells: Sequence[AtomicCell]) -> Walkers:
    """Walkers for some of the cells, at rest."""
    place = np.zeros((len(items), 3 + room_for(cells), 3))
    for g, i in enumerate(items):
        place[g, 3 : 3 + len(cells[i].species)] = cells[i].frac @ cells[i].matrix
    return Walkers(
        item=np.array(items, int),
        matrix=np.array([cells[i].matrix for i in items], float).reshape(-1, 3, 3),
        n_atoms=np.array([len(cells[i].species) for i in items], int),
        place=place,
        velocity=np.zeros_like(place),
        dt=np.full(len(items), DT),
        alpha=np.full(len(items), MIXING),
        downhill=np.zeros(len(items), int),
        steps=np.zeros(len(items), int),
    )


def _join(some: Walkers, others: Walkers) -> Walkers:
    return Walkers(*(np.concatenate(pair) for pair in zip(some, others, strict=True)))
