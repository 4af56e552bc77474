"""Projections of forces and strains onto the degrees of freedom of a crystal's space group."""

from __future__ import annotations

from typing import NamedTuple

import jax.numpy as jnp
import numpy as np

from crystaljax.crystal import Array, Crystals
from crystaljax.symmetry.orbits import lattice_matrix, orbits
from crystaljax.symmetry.tables import tables

STRAIN_MASK = np.ones((7, 3, 3), np.float32)
STRAIN_MASK[1] = np.array([[1, 0, 1], [0, 1, 0], [1, 0, 1]])  # monoclinic, b along y
STRAIN_MASK[2:] = np.eye(3)
"""Components of a strain that a crystal system allows, for cells as `lattice_matrix` puts them."""

STRAIN_MEAN = np.tile(np.eye(3, dtype=np.float32), (7, 1, 1))
STRAIN_MEAN[3:6] = np.array([[0.5, 0.5, 0], [0.5, 0.5, 0], [0, 0, 1]])
STRAIN_MEAN[6] = 1 / 3
"""Projection of a strain's diagonal onto allowed ones, by crystal system."""


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
        """Projections for the primitive cells, as `orbits.expand` makes them."""
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

    def __call__(self, forces: Array) -> Array:
        """Part [B, N + 3, 3] of the forces on atoms and strain that keeps the space groups."""
        return jnp.concatenate([self.forces(forces[:, :-3]), self.strain(forces[:, -3:])], axis=1)

    def forces(self, forces: Array) -> Array:
        """Part [B, N, 3] of the Cartesian forces that keeps atoms on their Wyckoff positions."""
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
        """Part [B, 3, 3] of the force on a strain that keeps the crystal system."""
        mean = jnp.asarray(STRAIN_MEAN)[self.system]
        diagonal = jnp.einsum("bij,bj->bi", mean, jnp.diagonal(force, axis1=1, axis2=2))
        off = force * jnp.asarray(STRAIN_MASK)[self.system] * (1 - jnp.eye(3))
        return off + diagonal[:, :, None] * jnp.eye(3)
