"""FIRE in a Fréchet cell filter for many structures at once, in JAX.

FIRE (Bitzek et al., Phys. Rev. Lett. 97, 170201, 2006) moves the atoms of the undeformed cell and
the logarithm of the deformation, times the number of atoms (as in ASE's `FrechetCellFilter`): the
same steps as ASE's. With symmetry, what moves is projected on what the space group leaves free.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from crystaljax.crystal import Array, Batch, Cells, Crystals
from crystaljax.symmetry.orbits import lattice_matrix, orbits
from crystaljax.symmetry.tables import tables

DT, DT_MAX = 0.1, 1.0
GROW, SHRINK = 1.1, 0.5
"""Factors of the time step downhill and at a turn."""
MIXING, MIXING_DECAY = 0.1, 0.99
PATIENCE = 5
"""Steps downhill before the time step grows."""
MAX_STEP = 0.2
"""Å: the longest step, over all that moves of a structure."""

MOVING, CONVERGED, EXHAUSTED, FAILED = range(4)
"""The states of a search: on its way, forces small enough, out of steps, unphysical."""

STRAIN_MASK = np.ones((7, 3, 3), np.float32)
STRAIN_MASK[1] = np.array([[1, 0, 1], [0, 1, 0], [1, 0, 1]])  # monoclinic, b along y
STRAIN_MASK[2:] = np.eye(3)
"""Components of a strain that a crystal system allows, for cells as `lattice_matrix` puts them."""

STRAIN_MEAN = np.tile(np.eye(3, dtype=np.float32), (7, 1, 1))
STRAIN_MEAN[3:6] = np.array([[0.5, 0.5, 0], [0.5, 0.5, 0], [0, 0, 1]])
STRAIN_MEAN[6] = 1 / 3
"""Projection of a strain's diagonal onto allowed ones, by crystal system."""


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class Search(Batch):
    """B structures of up to N atoms on their way downhill."""

    frac: Array
    """float32 [B, N, 3]"""
    species: Array
    """int32 [B, N]: 0 in empty slots."""
    matrix: Array
    """float32 [B, 3, 3]: the cell before it was deformed, Å."""
    log_strain: Array
    """float32 [B, 3, 3]: logarithm of the deformation."""
    velocity: Array
    """float32 [B, N + 3, 3]: of atoms, then of the deformation."""
    dt: Array
    """float32 [B]"""
    mixing: Array
    """float32 [B]: how much of the velocity is turned downhill."""
    downhill: Array
    """int32 [B]: steps since the last turn."""
    steps: Array
    """int32 [B]: steps taken."""
    status: Array
    """int32 [B]: see `MOVING`."""
    energy: Array
    """float32 [B]: eV, of the whole cell, where the structure is now."""
    initial: Array
    """float32 [B]: eV, where it started."""

    @staticmethod
    def start(cells: Cells, moving: Array) -> Search:
        """Structures at rest; those not `moving` bool [B] are left alone."""
        n, width = cells.species.shape
        return Search(
            frac=jnp.asarray(cells.frac),
            species=jnp.asarray(cells.species),
            matrix=jnp.asarray(cells.matrix),
            log_strain=jnp.zeros((n, 3, 3)),
            velocity=jnp.zeros((n, width + 3, 3)),
            dt=jnp.full(n, DT),
            mixing=jnp.full(n, MIXING),
            downhill=jnp.zeros(n, jnp.int32),
            steps=jnp.zeros(n, jnp.int32),
            status=jnp.where(moving, MOVING, FAILED).astype(jnp.int32),
            energy=jnp.full(n, jnp.nan),
            initial=jnp.full(n, jnp.nan),
        )

    @property
    def cells(self) -> Cells:
        """The structures as they are now."""
        return Cells(self.frac, self.species, _deformed(self.matrix, _expm(self.log_strain)))


class Symmetry(NamedTuple):
    """Projections onto the degrees of freedom of B crystals in S sites, for forces on N atoms."""

    system: Array
    """int32 [B]: crystal system, 0-6."""
    site: Array
    """int32 [B, N]: the site of each atom; S where there is none."""
    linear: Array
    """float32 [B, N, 3, 3]: fractional displacement of the site's representative -> of the atom."""
    compliance: Array
    """float32 [B, S, 3, 3]: sum of the atoms' forces, in that basis -> displacement."""
    matrix: Array
    """float32 [B, 3, 3]: the conventional cell, Å."""

    @staticmethod
    def of(crystals: Crystals, max_atoms: int) -> Symmetry:
        """Of the primitive cells, as `orbits.expand` makes them."""
        crystals = crystals.to_numpy()
        n_sites = crystals.n_slots
        filled, site, operation = map(np.asarray, orbits(crystals, max_atoms, primitive=True))
        linear = tables().rotation[operation].astype(float) * filled[..., None, None]
        matrix = np.asarray(lattice_matrix(crystals.lattice), float)
        square = matrix @ matrix.swapaxes(1, 2)  # of a displacement, in Å²
        each = linear.swapaxes(2, 3) @ square[:, None] @ linear
        total = np.zeros((len(crystals), n_sites, 3, 3))
        rows = np.broadcast_to(np.arange(len(crystals))[:, None], site.shape)[filled]
        np.add.at(total, (rows, site[filled]), each[filled])
        return Symmetry(
            system=tables().crystal_system[crystals.space_group - 1].astype(np.int32),
            site=np.where(filled, site, n_sites),
            linear=linear.astype(np.float32),
            compliance=np.linalg.pinv(total, rcond=1e-9, hermitian=True).astype(np.float32),
            matrix=matrix.astype(np.float32),
        )

    def forces(self, forces: Array) -> Array:
        """That part [B, N, 3] of forces (Cartesian) that keeps every atom on its position."""
        along = jnp.einsum("bic,bnc->bni", self.matrix, forces)
        along = jnp.einsum("bnij,bni->bnj", self.linear, along)
        n, n_sites = self.compliance.shape[:2]
        row = jnp.arange(n)[:, None]
        total = jnp.zeros((n, n_sites, 3)).at[row, self.site].add(along, mode="drop")
        moved = jnp.einsum("bsij,bsj->bsi", self.compliance, total)
        of_atom = jnp.take_along_axis(moved, self.site[..., None], axis=1, mode="clip")
        of_atom = jnp.einsum("bnij,bnj->bni", self.linear, of_atom)
        return jnp.einsum("bni,bic->bnc", of_atom, self.matrix)

    def strain(self, force: Array) -> Array:
        """That part [B, 3, 3] of the force on a strain that keeps the crystal system."""
        mean = jnp.asarray(STRAIN_MEAN)[self.system]
        diagonal = jnp.einsum("bij,bj->bi", mean, jnp.diagonal(force, axis1=1, axis2=2))
        off = force * jnp.asarray(STRAIN_MASK)[self.system] * (1 - jnp.eye(3))
        return off + diagonal[:, :, None] * jnp.eye(3)


def filtered_forces(
    search: Search, forces: Array, stress: Array, symmetry: Symmetry | None
) -> Array:
    """Forces [B, N + 3, 3] (eV/Å) on all that moves, from those on atoms and the stress.

    On the atoms of the undeformed cell, and on the logarithm of the deformation divided by the
    number of atoms.
    """
    deformation, pull_back = jax.vjp(_expm, search.log_strain)
    volume = jnp.abs(jnp.linalg.det(_deformed(search.matrix, deformation)))
    virial = -volume[:, None, None] * stress
    (on_strain,) = pull_back(_product(virial, jnp.linalg.inv(deformation).swapaxes(1, 2)))
    on_atoms = _product(forces, deformation)
    if symmetry is not None:
        on_atoms, on_strain = symmetry.forces(on_atoms), symmetry.strain(on_strain)
    n_atoms = jnp.maximum((search.species > 0).sum(1), 1)[:, None, None]
    return jnp.concatenate([on_atoms, on_strain / n_atoms], axis=1)


def step(search: Search, forces: Array) -> Search:
    """One FIRE step of those that are moving, by their filtered forces [B, N + 3, 3]."""
    is_first = search.steps == 0
    power = (forces * search.velocity).sum((1, 2))
    down = (power > 0) & ~is_first
    speed, strength = _norm(search.velocity), jnp.maximum(_norm(forces), 1e-30)
    mixing = search.mixing
    along = forces * (speed / strength)[:, None, None]
    turned = (1 - mixing)[:, None, None] * search.velocity + mixing[:, None, None] * along
    patient = down & (search.downhill > PATIENCE)
    uphill = ~down & ~is_first
    dt = jnp.where(patient, jnp.minimum(search.dt * GROW, DT_MAX), search.dt)
    dt = jnp.where(uphill, search.dt * SHRINK, dt)
    mixing = jnp.where(patient, mixing * MIXING_DECAY, mixing)
    mixing = jnp.where(uphill, MIXING, mixing)
    velocity = jnp.where(down[:, None, None], turned, 0) + dt[:, None, None] * forces
    move = dt[:, None, None] * velocity
    move = move * jnp.minimum(1, MAX_STEP / jnp.maximum(_norm(move), 1e-30))[:, None, None]
    n_atoms = jnp.maximum((search.species > 0).sum(1), 1)[:, None, None]
    new = replace(
        search,
        frac=search.frac + _product(move[:, :-3], jnp.linalg.inv(search.matrix)),
        log_strain=search.log_strain + move[:, -3:] / n_atoms,
        velocity=velocity,
        dt=dt,
        mixing=mixing,
        downhill=jnp.where(down, search.downhill + 1, 0),
        steps=search.steps + 1,
    )
    return choose(search.status == MOVING, new, search)


def choose(mask: Array, yes: Search, no: Search) -> Search:
    """Row by row, one or the other."""
    return jax.tree.map(
        lambda a, b: jnp.where(mask.reshape(mask.shape + (1,) * (a.ndim - 1)), a, b), yes, no
    )


def _norm(x: Array) -> Array:
    """[B]: the length of all that is in each row."""
    return jnp.sqrt((x**2).sum((1, 2)))


def _deformed(matrix: Array, deformation: Array) -> Array:
    return _product(matrix, deformation.swapaxes(1, 2))


def _product(a: Array, b: Array) -> Array:
    """Products of matrices [B, M, 3] and [B, 3, 3] in full precision on every accelerator."""
    return (a[..., None] * b[:, None]).sum(-2)


def _expm(matrix: Array) -> Array:
    with jax.default_matmul_precision("highest"):
        return jax.vmap(jax.scipy.linalg.expm)(matrix)
