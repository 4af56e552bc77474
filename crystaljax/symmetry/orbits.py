"""Full cells of `Crystals`, and the constraints of symmetry on coordinates and lattices, in JAX.

Every function is jitted and takes mixed space groups in one batch. Empty slots, rows of zeros and
letters that a group lacks give no atoms; they are not errors.
"""

from __future__ import annotations

from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from crystaljax.crystal import Array, Cells, Crystals
from crystaljax.symmetry.tables import tables

FREE_LATTICE = np.array(
    [
        [1, 1, 1, 1, 1, 1],  # triclinic
        [1, 1, 1, 0, 1, 0],  # monoclinic, unique axis b
        [1, 1, 1, 0, 0, 0],  # orthorhombic
        [1, 0, 1, 0, 0, 0],  # tetragonal
        [1, 0, 1, 0, 0, 0],  # trigonal, hexagonal axes
        [1, 0, 1, 0, 0, 0],  # hexagonal
        [1, 0, 0, 0, 0, 0],  # cubic
    ],
    bool,
)
"""Mask of the independent ones of a, b, c, α, β, γ, by crystal system."""

LENGTH_SOURCE = np.array([[0, 1, 2]] * 3 + [[0, 0, 2]] * 3 + [[0, 0, 0]])
"""Index of the length that each of a, b, c is equal to, by crystal system."""

FIXED_ANGLES = np.array([[90, 90, 90]] * 4 + [[90, 90, 120]] * 2 + [[90, 90, 90]], np.float32)
"""α, β, γ in degrees where they are not free, by crystal system."""


def wrap(frac: Array) -> Array:
    """Fractional coordinates modulo 1, in [0, 1) also where rounding would give 1; nan stays."""
    frac = frac - jnp.floor(frac)
    return jnp.where(frac >= 1, 0, frac)


def _apply(operation: Array, frac: Array) -> Array:
    """Apply operations, given by their index in the tables [...], to points [..., 3].

    It multiplies and adds instead of using a matrix product, which accelerators may compute in
    lower precision than coordinates need.
    """
    rotation = jnp.asarray(tables().rotation)[operation].astype(frac.dtype)
    translation = jnp.asarray(tables().translation)[operation].astype(frac.dtype)
    return wrap((rotation * frac[..., None, :]).sum(-1) + translation)


def _multiplicity(crystals: Crystals, primitive: bool) -> Array:
    """int [B, S]: atoms of each site in the conventional or the primitive cell."""
    group = jnp.asarray(crystals.space_group) - 1
    multiplicity = jnp.asarray(tables().multiplicity, jnp.int32)[group[:, None], crystals.wyckoff]
    if primitive:
        multiplicity //= jnp.asarray(tables().n_centering, jnp.int32)[group][:, None]
    return multiplicity


@partial(jax.jit, static_argnames="primitive")
def n_atoms(crystals: Crystals, primitive: bool = False) -> Array:
    """int32 [B]: atoms in the conventional (or primitive) cell of each crystal."""
    return _multiplicity(crystals, primitive).sum(axis=1)


class Orbits(NamedTuple):
    """Site and operation that generate each of the N atoms of B crystals."""

    filled: Array
    """bool [B, N]: whether the slot has an atom."""
    site: Array
    """int32 [B, N]: its site slot."""
    operation: Array
    """int32 [B, N]: index in the tables of the operation that generates it from the site's
    representative; 0 in empty slots."""


@partial(jax.jit, static_argnames=("max_atoms", "primitive"))
def orbits(crystals: Crystals, max_atoms: int, primitive: bool = False) -> Orbits:
    """Site and operation of each atom of `expand`, with the same arguments and order of atoms."""
    group = jnp.asarray(crystals.space_group) - 1
    end = jnp.cumsum(_multiplicity(crystals, primitive), axis=1)
    slot = jnp.arange(max_atoms)
    site = (slot[:, None] >= end[:, None, :]).sum(-1)  # [B, N]
    filled = (slot < end[:, -1:]) & (end[:, -1:] <= max_atoms)

    def of_site(x: Array) -> Array:
        return jnp.take_along_axis(jnp.asarray(x), site, axis=1, mode="clip")

    start = jnp.pad(end, ((0, 0), (1, 0)))
    letter = of_site(crystals.wyckoff)
    operation = jnp.asarray(tables().op_start)[group[:, None], letter] + slot - of_site(start)
    return Orbits(filled, site, jnp.where(filled, operation, 0))


@partial(jax.jit, static_argnames=("max_atoms", "primitive"))
def expand(crystals: Crystals, max_atoms: int, primitive: bool = False) -> Cells:
    """Full cells of B crystals, with N = `max_atoms` slots each.

    Atoms are in the order of their sites, each orbit in the order of the tables' operations. Only
    the free coordinates of representatives are used. A crystal of more than `max_atoms` atoms (see
    `n_atoms`) is returned without atoms.
    """
    filled, site, operation = orbits(crystals, max_atoms, primitive)
    representative = jnp.take_along_axis(
        jnp.asarray(crystals.frac), site[..., None], axis=1, mode="clip"
    )
    species = jnp.take_along_axis(jnp.asarray(crystals.species), site, axis=1, mode="clip")
    frac = _apply(operation, representative)
    matrix = lattice_matrix(crystals.lattice)
    if primitive:
        group = jnp.asarray(crystals.space_group) - 1
        basis = jnp.asarray(tables().primitive, frac.dtype)[group]
        inverse = jnp.asarray(np.linalg.inv(tables().primitive), frac.dtype)[group]
        frac = wrap((frac[..., None] * inverse[:, None]).sum(-2))
        matrix = (basis[..., None] * matrix[:, None]).sum(-2)
    return Cells(
        frac=jnp.where(filled[..., None], frac, 0),
        species=jnp.where(filled, species, 0),
        matrix=matrix,
    )


@jax.jit
def project(space_group: Array, wyckoff: Array, frac: Array) -> Array:
    """Points [..., 3] moved onto their Wyckoff positions by the first operation, in [0, 1).

    Free coordinates are kept, the others computed. `space_group` and `wyckoff` (letter
    indices) broadcast against the leading axes of `frac`; empty slots give zeros.
    """
    group = jnp.asarray(space_group) - 1
    exists = jnp.asarray(tables().multiplicity)[group, wyckoff] > 0
    operation = jnp.where(exists, jnp.asarray(tables().op_start)[group, wyckoff], 0)
    return jnp.where(exists[..., None], _apply(operation, jnp.asarray(frac)), 0)


@jax.jit
def lattice_free(space_group: Array) -> Array:
    """bool [..., 6]: which of a, b, c, α, β, γ the crystal system leaves independent."""
    system = jnp.asarray(tables().crystal_system)[jnp.asarray(space_group) - 1]
    return jnp.asarray(FREE_LATTICE)[system]


@jax.jit
def constrain_lattice(space_group: Array, lattice: Array) -> Array:
    """Lattices [..., 6] (Å, degrees) with the equal lengths and fixed angles of the group.

    Independent parameters are kept; the others follow from them.
    """
    lattice = jnp.asarray(lattice)
    system = jnp.asarray(tables().crystal_system)[jnp.asarray(space_group) - 1]
    lengths = jnp.take_along_axis(lattice[..., :3], jnp.asarray(LENGTH_SOURCE)[system], axis=-1)
    angles = jnp.where(
        jnp.asarray(FREE_LATTICE)[system][..., 3:],
        lattice[..., 3:],
        jnp.asarray(FIXED_ANGLES, lattice.dtype)[system],
    )
    return jnp.concatenate([lengths, angles], axis=-1)


@jax.jit
def lattice_matrix(lattice: Array) -> Array:
    """Lattice vectors [..., 3, 3] in Å (rows) of lattices [..., 6] (Å, degrees).

    a lies along x, b in the xy plane with positive y, c has positive z. Angles that do not form a
    cell give a flat one: its volume is zero.
    """
    lattice = jnp.asarray(lattice)
    a, b, c = (lattice[..., i] for i in range(3))
    cos_alpha, cos_beta, cos_gamma = (jnp.cos(jnp.deg2rad(lattice[..., i])) for i in range(3, 6))
    sin_gamma = jnp.sin(jnp.deg2rad(lattice[..., 5]))
    safe_sine = jnp.where(sin_gamma == 0, 1, sin_gamma)
    x = cos_beta
    y = (cos_alpha - cos_beta * cos_gamma) / safe_sine
    z_squared = 1 - x**2 - y**2
    z = jnp.sqrt(jnp.where(z_squared > 0, z_squared, 1)) * (z_squared > 0)  # finite gradient
    zero = jnp.zeros_like(a)
    rows = [
        jnp.stack([a, zero, zero], -1),
        jnp.stack([b * cos_gamma, b * sin_gamma, zero], -1),
        jnp.stack([c * x, c * y, c * z], -1),
    ]
    return jnp.stack(rows, axis=-2)


@jax.jit
def volume(lattice: Array) -> Array:
    """Cell volumes [...] in Å³ of lattices [..., 6] (Å, degrees)."""
    return jnp.diagonal(lattice_matrix(lattice), axis1=-2, axis2=-1).prod(-1)
