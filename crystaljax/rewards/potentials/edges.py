"""Periodic neighbour lists of many cells at once, in JAX, with static shapes.

The cells of a group are concatenated. One list holds their A atoms (nodes), one the C pairs of
atoms and images that may be within the cutoff (candidates), and one the E pairs that are (edges).
So one compiled shape takes any mix of cells that fits into its three lists.
"""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from crystaljax.crystal import Array, Cells
from crystaljax.symmetry.lattices import heights

SMALLER = (-2, -1)
"""Exponents (powers of four) of the sizes smaller than the given one."""

MARGIN = 1.1
"""Factor on the estimated number of edges: the estimate assumes an even density."""


class Room(NamedTuple):
    """Capacities: number of cells of a group and lengths of its lists."""

    cells: int
    """G."""
    nodes: int
    """A."""
    candidates: int
    """C."""
    edges: int
    """E."""

    def scaled(self, exponent: int) -> Room:
        """Capacities with lists 4^exponent times as long, for the same number of cells."""
        return Room(self.cells, *(int(size * 4.0**exponent) for size in self[1:]))


def default_room() -> Room:
    """Default capacities for the platform (CPU or accelerator)."""
    if jax.default_backend() == "cpu":
        return Room(64, 256, 2**17, 2**14)
    return Room(512, 4096, 2**21, 2**18)


class Needs(NamedTuple):
    """Lengths that each of B cells takes in a group's lists."""

    nodes: Array
    """float32 [B]: atoms."""
    candidates: Array
    """float32 [B]: pairs of atoms times images within the cutoff; infinite for a flat cell."""
    edges: Array
    """float32 [B]: edges, estimated from the density."""


class Graph(NamedTuple):
    """The atoms of G cells and their neighbours."""

    cell: Array
    """int32 [A]: which cell each node is of; G where there is none."""
    species: Array
    """int32 [A]: atomic numbers, 0 where there is no atom."""
    frac: Array
    """float32 [A, 3]"""
    start: Array
    """int32 [G]: the first node of each cell."""
    sender: Array
    """int32 [E]: the neighbour; 0 where there is no edge."""
    receiver: Array
    """int32 [E]: the atom whose neighbour it is."""
    image: Array
    """float32 [E, 3]: lattice translation of the sender."""
    is_edge: Array
    """bool [E]"""
    closest: Array
    """float32 [G]: shortest distance of two atoms, Å; the cutoff where none is shorter."""
    fits: Array
    """bool []: every list was long enough."""


def reach(matrix: Array, cutoff: float) -> Array:
    """float [..., 3]: largest index of an image, along each vector, that can be within the cutoff.

    Whole numbers, for differences of fractional coordinates in [−1/2, 1/2); infinite for a flat
    cell.
    """
    return jnp.floor(cutoff / heights(matrix) + 0.5)


@jax.jit
def needs(cells: Cells, cutoff: float) -> Needs:
    """Lengths that each of B cells takes in a group's lists."""
    n = cells.n_atoms.astype(jnp.float32)
    images = (2 * reach(cells.matrix, cutoff) + 1).prod(-1)
    volume = jnp.abs(jnp.linalg.det(cells.matrix))
    edges = n * (n / volume) * (4 / 3 * jnp.pi * cutoff**3)
    return Needs(n, n * n * images, edges)


def plan_groups(need: Needs, room: Room) -> list[tuple[Room, np.ndarray]]:
    """Groups of cells (their numbers, int [n]), each with the smallest capacities that hold it.

    Cells of similar size are in one group. To have few shapes, capacities are the given ones,
    these times a power of four (large cells), or a quarter or a sixteenth. `need` is numpy.
    """
    amounts = _amounts(need)
    share = (amounts[1:] / np.array(room)[1:, None]).max(axis=0)
    level = np.ceil(np.maximum(np.log(np.maximum(share, 1e-9)) / np.log(4), 0)).astype(int)
    groups: list[tuple[Room, np.ndarray]] = []
    for exponent in np.unique(level).tolist():
        rows = np.flatnonzero(level == exponent)
        rows = rows[np.argsort(share[rows], kind="stable")]
        for part in _filled(rows, amounts, room.scaled(exponent)):
            used = amounts[:, part].sum(axis=1)
            lower = [k for k in SMALLER if (used <= room.scaled(k)).all()] if not exponent else []
            groups.append((room.scaled(min(lower, default=exponent)), part))
    return groups


def _amounts(need: Needs) -> np.ndarray:
    """float [4, B]: amounts of the four capacities that each cell takes."""
    return np.stack([np.ones(len(need.nodes)), need.nodes, need.candidates, MARGIN * need.edges])


def _filled(rows: np.ndarray, amounts: np.ndarray, room: Room) -> list[np.ndarray]:
    """Rows in order, split wherever a group would exceed the capacities."""
    limit = np.array(room)[:, None]
    parts = []
    start = 0
    while start < len(rows):
        full = (np.cumsum(amounts[:, rows[start:]], axis=1) > limit).any(axis=0)
        n = max(1, int(full.argmax())) if full.any() else len(rows) - start
        parts.append(rows[start : start + n])
        start += n
    return parts


def build_graph(cells: Cells, cutoff: float, room: Room) -> Graph:
    """The graph of G cells (those without atoms take no room), all pairs up to `cutoff` Å."""
    n = cells.n_atoms
    width = cells.species.shape[1]
    node_end = jnp.cumsum(n)
    cell, slot = _segments(node_end, room.nodes)
    inside = cell < room.cells
    at = (jnp.where(inside, cell, 0), jnp.minimum(slot, width - 1))
    species = jnp.where(inside, cells.species[at], 0)
    frac = jnp.where(inside[:, None], cells.frac[at], 0)

    limit = reach(cells.matrix, cutoff).astype(jnp.int32)
    n_images = 2 * limit + 1
    candidate_end = jnp.cumsum(n * n * n_images.prod(-1))
    owner, rank = _segments(candidate_end, room.candidates)
    exists = owner < room.cells
    owner = jnp.where(exists, owner, 0)
    sizes = [n[owner], n[owner], *(n_images[owner, axis] for axis in range(3))]
    digits = []
    for size in reversed(sizes):  # the rank in its cell as digits (i, j, three of the image)
        rank, digit = jnp.divmod(rank, jnp.maximum(size, 1))
        digits.append(digit)
    image = jnp.stack(digits[:3][::-1], axis=-1) - limit[owner]
    sender, receiver = digits[3], digits[4]
    difference = (
        cells.frac[owner, jnp.minimum(sender, width - 1)]
        - cells.frac[owner, jnp.minimum(receiver, width - 1)]
    )
    image = image - jnp.round(difference)
    vector = ((difference + image)[..., None] * cells.matrix[owner]).sum(-2)
    squared = (vector**2).sum(-1)
    is_self = (sender == receiver) & (image == 0).all(-1)
    near = exists & ~is_self & (squared <= cutoff**2)

    (chosen,) = jnp.nonzero(near, size=room.edges, fill_value=room.candidates)
    is_edge = chosen < room.candidates
    chosen = jnp.where(is_edge, chosen, 0)
    start = node_end - n
    first = start[owner[chosen]]
    closest = jnp.full(room.cells, cutoff**2).at[owner].min(jnp.where(near, squared, cutoff**2))
    fits = (node_end[-1] <= room.nodes) & (candidate_end[-1] <= room.candidates)
    return Graph(
        cell=cell,
        species=species,
        frac=frac,
        start=start,
        sender=jnp.where(is_edge, first + sender[chosen], 0),
        receiver=jnp.where(is_edge, first + receiver[chosen], 0),
        image=jnp.where(is_edge[:, None], image[chosen], 0),
        is_edge=is_edge,
        closest=jnp.sqrt(closest),
        fits=fits & (near.sum() <= room.edges),
    )


def edge_vectors(graph: Graph, matrix: Array) -> Array:
    """Vectors [E, 3] in Å from receivers to senders, in cells [G, 3, 3]; 0 where there is none."""
    owner = graph.cell[graph.receiver]
    frac = graph.frac[graph.sender] - graph.frac[graph.receiver] + graph.image
    return (frac[..., None] * matrix[owner]).sum(-2)


def displacements(graph: Graph, matrix: Array, moved: Array, strain: Array) -> Array:
    """Vectors [E, 3] in Å from receivers to senders; far beyond the cutoff where there is no edge.

    For atoms `moved` [A, 3] (Å) in cells [G, 3, 3] under a `strain` [G, 3, 3], made symmetric.
    """
    vector = edge_vectors(graph, matrix) + moved[graph.sender] - moved[graph.receiver]
    symmetric = (strain + strain.swapaxes(1, 2)) / 2
    vector = vector + (vector[..., None] * symmetric[graph.cell[graph.receiver]]).sum(-2)
    return jnp.where(graph.is_edge[:, None], vector, jnp.array([1e3, 0.0, 0.0]))


def _segments(end: Array, size: int) -> tuple[Array, Array]:
    """Segment (G beyond the last) of each of `size` items, and the item's rank in its segment.

    Segments end at `end` int [G].
    """
    item = jnp.arange(size)
    segment = jnp.searchsorted(end, item, side="right")
    start = jnp.pad(end, (1, 0))[segment]
    return segment, item - start
