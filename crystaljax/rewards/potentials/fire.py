"""FIRE in a Fréchet cell filter for many structures at once, with numpy or jax arrays.

FIRE (Bitzek et al., Phys. Rev. Lett. 97, 170201, 2006) moves the atoms of the undeformed cell and
the logarithm of the deformation, times the number of atoms (as in ASE's `FrechetCellFilter`). The
steps of each structure are those of ASE, and do not depend on the rest of the batch.

TorchSim (0.3) is not used for three reasons. A force of nan, or a structure that joins, makes it
skip FIRE's mixing for the whole batch. Its forces on left-handed cells have the wrong sign. It
counts steps for the batch, not for each structure.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import jax
import numpy as np
import scipy.linalg

from crystaljax.crystal import Array, AtomicCell, Batch, Cells, wrapped
from crystaljax.rewards.base import Reasons
from crystaljax.rewards.potentials.base import Relaxed
from crystaljax.rewards.potentials.screening import geometry_problem

DT, DT_MAX = 0.1, 1.0
GROW, SHRINK = 1.1, 0.5
"""Factors of the time step while the energy falls, and where it rises."""
MIXING, MIXING_DECAY = 0.1, 0.99
PATIENCE = 5
"""Steps of falling energy before the time step grows."""
MAX_STEP = 0.2
"""Å: the longest step, as the norm over all degrees of freedom of a structure."""

MOVING, CONVERGED, EXHAUSTED, FAILED = range(4)
"""Status of a structure: moving, converged, out of steps, unphysical."""

_TINY = 1e-30  # in place of lengths of zero


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class Search(Batch):
    """State of the optimisation of B structures of up to N atoms, in the cells' precision."""

    frac: Array
    """float [B, N, 3]"""
    species: Array
    """int [B, N]: 0 in empty slots."""
    matrix: Array
    """float [B, 3, 3]: the cell before it was deformed, Å."""
    log_strain: Array
    """float [B, 3, 3]: logarithm of the deformation."""
    velocity: Array
    """float [B, N + 3, 3]: of atoms, then of the deformation."""
    dt: Array
    """float [B]"""
    mixing: Array
    """float [B]: FIRE's α, the share of the velocity that is turned along the forces."""
    downhill: Array
    """int32 [B]: steps since the energy last rose."""
    steps: Array
    """int32 [B]: steps taken."""
    status: Array
    """int32 [B]: see `MOVING`."""
    energy: Array
    """float [B]: eV, of the whole cell, now."""
    initial: Array
    """float [B]: eV, of the whole cell, at the start."""

    @staticmethod
    def start(cells: Cells, moving: Array) -> Search:
        """Structures at rest; those not `moving` bool [B] are left alone."""
        n, width = cells.species.shape
        xp, kind = cells.matrix.__array_namespace__(), cells.matrix.dtype
        return Search(
            frac=cells.frac,
            species=cells.species,
            matrix=cells.matrix,
            log_strain=xp.zeros((n, 3, 3), kind),
            velocity=xp.zeros((n, width + 3, 3), kind),
            dt=xp.full(n, DT, kind),
            mixing=xp.full(n, MIXING, kind),
            downhill=xp.zeros(n, xp.int32),
            steps=xp.zeros(n, xp.int32),
            status=xp.where(moving, MOVING, FAILED).astype(xp.int32),
            energy=xp.full(n, xp.nan, kind),
            initial=xp.full(n, xp.nan, kind),
        )

    @property
    def n_atoms(self) -> Array:
        """int [B]: atoms of each structure."""
        return (self.species > 0).sum(1)

    @property
    def cells(self) -> Cells:
        """The structures as they are now."""
        return Cells(self.frac, self.species, _deformed(self.matrix, _expm(self.log_strain)))


def filtered_forces(search: Search, forces: Array, stress: Array) -> Array:
    """Forces [B, N + 3, 3] (eV/Å) on FIRE's variables, from those on atoms and the stress.

    The variables are the atoms of the undeformed cell, and the logarithm of the deformation divided
    by the number of atoms. The force on log F is the adjoint of the Fréchet derivative of exp at
    log F, applied to the force on F. The adjoint is the derivative at the transpose of log F, a
    block of one matrix exponential (Mathias, SIAM J. Matrix Anal. Appl. 17, 610, 1996).

    Args:
      forces: [B, N, 3] eV/Å, zero where there is no atom.
      stress: [B, 3, 3] eV/Å³, positive under tension.
    """
    xp = forces.__array_namespace__()
    deformation = _expm(search.log_strain)
    volume = xp.abs(xp.linalg.det(_deformed(search.matrix, deformation)))
    virial = -volume[:, None, None] * stress
    on_cell = _product(virial, xp.linalg.inv(deformation).swapaxes(1, 2))
    size = xp.maximum(_norm(on_cell), _TINY)[:, None, None]  # exp is best at small numbers
    log = search.log_strain.swapaxes(1, 2)
    blocks = xp.concatenate(
        [
            xp.concatenate([log, on_cell / size], axis=2),
            xp.concatenate([xp.zeros_like(log), log], axis=2),
        ],
        axis=1,
    )
    on_strain = size * _expm(blocks)[:, :3, 3:] / _per_structure(search)
    return xp.concatenate([_product(forces, deformation), on_strain], axis=1)


def advance(
    search: Search, energy: Array, forces: Array, sane: Array, fmax: Array, max_steps: Array
) -> Search:
    """Record energies, update the status of moving structures, and step those not finished.

    Args:
      energy: [B] eV, of the whole cells.
      forces: [B, N + 3, 3], as of `filtered_forces`.
      sane: bool [B]: the structure is physical.
      fmax: eV/Å: converged when every force is below.
      max_steps: of a structure.
    """
    xp = forces.__array_namespace__()
    moving = search.status == MOVING
    largest = xp.linalg.norm(forces, axis=-1).max(1)
    status = xp.where(search.steps >= max_steps, EXHAUSTED, MOVING)
    status = xp.where(largest < fmax, CONVERGED, status)
    sane = sane & xp.isfinite(energy) & xp.isfinite(largest)
    status = xp.where(moving, xp.where(sane, status, FAILED), search.status)
    energy = xp.where(moving, energy, search.energy)
    initial = xp.where(moving & (search.steps == 0), energy, search.initial)
    search = replace(search, status=status.astype(xp.int32), energy=energy, initial=initial)
    return choose(search.status == MOVING, _step(search, forces), search)


def _step(search: Search, forces: Array) -> Search:
    """One step of FIRE by filtered forces [B, N + 3, 3]."""
    xp = forces.__array_namespace__()
    down = (forces * search.velocity).sum((1, 2)) > 0
    uphill = ~down & (search.steps > 0)  # at the start there is no velocity to judge
    patient = down & (search.downhill > PATIENCE)
    mixing = search.mixing[:, None, None]
    along = forces * (_norm(search.velocity) / xp.maximum(_norm(forces), _TINY))[:, None, None]
    turned = (1 - mixing) * search.velocity + mixing * along
    dt = xp.where(patient, xp.minimum(search.dt * GROW, DT_MAX), search.dt)
    dt = xp.where(uphill, search.dt * SHRINK, dt)
    velocity = xp.where(down[:, None, None], turned, 0) + dt[:, None, None] * forces
    move = dt[:, None, None] * velocity
    move = move * xp.minimum(1, MAX_STEP / xp.maximum(_norm(move), _TINY))[:, None, None]
    decayed = xp.where(patient, search.mixing * MIXING_DECAY, search.mixing)
    return replace(
        search,
        frac=search.frac + _product(move[:, :-3], xp.linalg.inv(search.matrix)),
        log_strain=search.log_strain + move[:, -3:] / _per_structure(search),
        velocity=velocity,
        dt=dt,
        mixing=xp.where(uphill, MIXING, decayed),
        downhill=xp.where(down, search.downhill + 1, 0),
        steps=search.steps + 1,
    )


def choose(mask: Array, yes: Search, no: Search) -> Search:
    """Rows of `yes` where `mask` bool [B], else of `no`."""
    xp = mask.__array_namespace__()
    return jax.tree.map(
        lambda a, b: xp.where(mask.reshape(mask.shape + (1,) * (a.ndim - 1)), a, b), yes, no
    )


def relaxed(search: Search, reasons: Reasons) -> Relaxed:
    """Results, on the host, with reasons for the structures that failed.

    `reasons` [B]: why a structure was not relaxed, or None. Structures after the first B are
    padding.
    """
    n = len(reasons)
    cells = search.cells.to_numpy()
    host = search.to_numpy()
    n_atoms = host.n_atoms[:n]
    found: list[AtomicCell | None] = [None] * n
    reasons = list(reasons)
    for row in range(n):
        if reasons[row] is not None:
            continue
        atoms = slice(int(n_atoms[row]))
        frac = wrapped(cells.frac[row, atoms].astype(float))
        cell = AtomicCell(cells.matrix[row].astype(float), frac, cells.species[row, atoms])
        if host.status[row] == FAILED:
            problem = geometry_problem(cell) or "the energy or the forces are not finite"
            reasons[row] = f"relaxation failed: {problem}"
        else:
            found[row] = cell
    ok = np.array([reason is None for reason in reasons], bool)
    per_atom = np.where(ok, host.energy[:n] / np.maximum(n_atoms, 1), np.nan)
    initial = host.initial[:n].astype(float) / np.maximum(n_atoms, 1)
    converged = ok & (host.status[:n] == CONVERGED)
    return Relaxed(found, per_atom, initial, host.steps[:n], converged, ok, reasons)


def _per_structure(search: Search) -> Array:
    """int [B, 1, 1]: atoms of each structure, at least 1."""
    xp = search.species.__array_namespace__()
    return xp.maximum(search.n_atoms, 1)[:, None, None]


def _norm(x: Array) -> Array:
    """[B]: the Euclidean norm of each row."""
    xp = x.__array_namespace__()
    return xp.sqrt((x**2).sum((1, 2)))


def _deformed(matrix: Array, deformation: Array) -> Array:
    return _product(matrix, deformation.swapaxes(1, 2))


def _product(a: Array, b: Array) -> Array:
    """Products of matrices [B, M, 3] and [B, 3, 3] in full precision on every accelerator."""
    return (a[..., None] * b[:, None]).sum(-2)


def _expm(matrix: Array) -> Array:
    """Exponentials of matrices [B, K, K]."""
    if isinstance(matrix, np.ndarray):
        return scipy.linalg.expm(matrix)
    with jax.default_matmul_precision("highest"):
        return jax.vmap(jax.scipy.linalg.expm)(matrix)
