"""A Lennard-Jones potential in JAX, quick to compile, behind the interface of potentials in JAX.

The same as ASE's `LennardJones(sigma=2.5, epsilon=0.4, rc=6, smooth=False)`. Einsteinium has no
energy.
"""

from typing import Any

import jax
import jax.numpy as jnp

from crystaljax.crystal import Array, Cells
from crystaljax.rewards.potentials.edges import Room, build_graph, displacements
from crystaljax.rewards.potentials.groups import GroupEnergies

SIGMA, EPSILON, CUTOFF = 2.5, 0.4, 6.0
EINSTEINIUM = 99


def lennard_jones(weights: Any, cells: Cells, room: Room) -> GroupEnergies:
    """Energies, forces and stresses of G cells."""
    graph = build_graph(cells, CUTOFF, room)

    def pair(squared: Array) -> Array:
        s6 = (SIGMA**2 / squared) ** 3
        return 4 * EPSILON * (s6**2 - s6)

    def total(moved: Array, strain: Array) -> tuple[Array, Array]:
        vector = displacements(graph, cells.matrix, moved, strain)
        energy = (pair((vector**2).sum(-1)) - pair(jnp.float32(CUTOFF**2))) / 2
        owner = jnp.where(graph.is_edge, graph.cell[graph.receiver], room.cells)
        per_cell = jnp.zeros(room.cells).at[owner].add(energy, mode="drop")
        lost = (cells.species == EINSTEINIUM).any(1)
        return per_cell.sum(), jnp.where(lost, jnp.nan, per_cell)

    still = jnp.zeros((room.nodes, 3)), jnp.zeros((room.cells, 3, 3))
    (by_place, by_strain), energy = jax.grad(total, argnums=(0, 1), has_aux=True)(*still)
    volume = jnp.abs(jnp.linalg.det(cells.matrix))[:, None, None]
    return GroupEnergies(
        energy, -by_place, by_strain / volume, graph.closest, graph.start, graph.fits
    )
