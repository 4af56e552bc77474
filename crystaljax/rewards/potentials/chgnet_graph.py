"""CHGNet's batched crystal graph, built from arrays instead of one Python object per edge.

Deng et al., Nature Machine Intelligence 5, 1031 (2023): an atom graph of all pairs within 6 Å,
whose undirected bonds carry features, and a bond graph of the angles between bonds up to 3 Å that
share an atom.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from crystaljax.crystal import AtomicCell
from crystaljax.rewards.potentials.screening import Neighbors

if TYPE_CHECKING:
    import torch

ATOM_CUTOFF = 6.0  # Å
BOND_CUTOFF = 3.0  # Å


class Topology(NamedTuple):
    """Bonds and angles of G structures of N atoms in total, with E directed edges."""

    owner: np.ndarray
    """int64 [N]: the structure of each atom."""
    center: np.ndarray
    """int64 [E]"""
    neighbor: np.ndarray
    """int64 [E]"""
    image: np.ndarray
    """int64 [E, 3]: lattice translation of the neighbour."""
    undirected: np.ndarray
    """int64 [E]: the undirected bond of each edge, of U = E / 2."""
    representative: np.ndarray
    """int64 [U]: one directed edge of each undirected bond."""
    angles: np.ndarray
    """int64 [A, 2]: pairs of different short edges that leave the same atom."""


def topology(n_atoms: Sequence[int], neighbor_lists: Sequence[Neighbors]) -> Topology:
    """Join the neighbour lists of G structures, pair their edges and list their angles.

    `neighbor_lists` must hold every pair within 6 Å in both directions; an edge without its
    reverse (a distance of exactly the cutoff, where its weight is 0) is dropped.
    """
    offsets = np.cumsum(n_atoms) - n_atoms
    pairs = list(zip(neighbor_lists, offsets, strict=True))
    center = np.concatenate([edges.center + offset for edges, offset in pairs])
    neighbor = np.concatenate([edges.neighbor + offset for edges, offset in pairs])
    image = np.concatenate([edges.image for edges in neighbor_lists])
    distance = np.concatenate([edges.distance for edges in neighbor_lists])

    key = _undirected_key(center, neighbor, image, int(np.sum(n_atoms)))
    _, first, undirected, count = np.unique(
        key, return_index=True, return_inverse=True, return_counts=True
    )
    if (count != 2).any():
        whole = (count == 2)[undirected]
        paired = [
            Neighbors(*(x[whole[part]] for x in edges))
            for edges, part in zip(neighbor_lists, _slices(neighbor_lists), strict=True)
        ]
        return topology(n_atoms, paired)
    return Topology(
        owner=np.repeat(np.arange(len(n_atoms)), n_atoms),
        center=center,
        neighbor=neighbor,
        image=image,
        undirected=undirected,
        representative=first,
        angles=_angles(center, distance, int(np.sum(n_atoms))),
    )


def _slices(neighbor_lists: Sequence[Neighbors]) -> list[slice]:
    ends = np.cumsum([len(edges.center) for edges in neighbor_lists])
    starts = ends - [len(edges.center) for edges in neighbor_lists]
    return [slice(start, end) for start, end in zip(starts, ends, strict=True)]


def _undirected_key(
    center: np.ndarray, neighbor: np.ndarray, image: np.ndarray, n_atoms: int
) -> np.ndarray:
    """An integer for each undirected edge, the same for (i, j, T) and its reverse (j, i, -T)."""
    reach = int(np.abs(image).max(initial=0))
    base = np.array([(2 * reach + 1) ** 2, 2 * reach + 1, 1])

    def key(i: np.ndarray, j: np.ndarray, shift: np.ndarray) -> np.ndarray:
        return (i * n_atoms + j) * (2 * reach + 1) ** 3 + (shift + reach) @ base

    return np.minimum(key(center, neighbor, image), key(neighbor, center, -image))


def _angles(center: np.ndarray, distance: np.ndarray, n_atoms: int) -> np.ndarray:
    """All ordered pairs [A, 2] of different edges shorter than 3 Å with the same center."""
    short = np.flatnonzero(distance < BOND_CUTOFF)
    short = short[np.argsort(center[short], kind="stable")]
    degree = np.bincount(center[short], minlength=n_atoms)
    start = (np.cumsum(degree) - degree)[center[short]]  # first short edge of the same atom
    partners = degree[center[short]]
    left = np.repeat(np.arange(len(short)), partners)
    within = np.arange(len(left)) - np.repeat(np.cumsum(partners) - partners, partners)
    right = np.repeat(start, partners) + within
    different = left != right
    return np.stack([short[left[different]], short[right[different]]], axis=1)


class GraphInputs(NamedTuple):
    """A batch for the model, with the tensors that its energy is differentiated by."""

    graph: Any
    """CHGNet's BatchedGraph."""
    composition: torch.Tensor
    """float32 [G, 94]: atomic fractions."""
    positions: torch.Tensor
    """float32 [N, 3]: Cartesian coordinates in Å."""
    strain: torch.Tensor
    """float32 [G, 3, 3]: strain of each structure, zero."""


def batched_graph(
    cells: Sequence[AtomicCell],
    neighbor_lists: Sequence[Neighbors],
    model: Any,
    *,
    device: str,
    gradients: bool = False,
) -> GraphInputs:
    """The model's input for G structures; with `gradients` positions and strain are leaves."""
    import torch
    from chgnet.model.model import BatchedGraph

    n_atoms = [len(cell.species) for cell in cells]
    top = topology(n_atoms, neighbor_lists)

    def integers(x: np.ndarray) -> torch.Tensor:
        return torch.as_tensor(np.ascontiguousarray(x, np.int32), device=device)

    def floats(x: np.ndarray) -> torch.Tensor:
        return torch.as_tensor(np.ascontiguousarray(x, np.float32), device=device)

    matrices = np.stack([cell.matrix for cell in cells])
    species = np.concatenate([cell.species for cell in cells])
    cartesian = np.concatenate([cell.frac @ cell.matrix for cell in cells])
    positions = floats(cartesian).requires_grad_(gradients)
    strain = floats(np.zeros_like(matrices)).requires_grad_(gradients)
    if gradients:
        shift = np.einsum("ec,ecd->ed", top.image, matrices[top.owner[top.center]])
        center, neighbor = integers(top.center), integers(top.neighbor)
        vectors = positions[center] - positions[neighbor] - floats(shift)
        owner = integers(top.owner)[center]
        vectors = vectors + torch.bmm(vectors[:, None], strain[owner])[:, 0]
    else:  # differences in double precision
        shift = np.einsum("ec,ecd->ed", top.image, matrices[top.owner[top.center]])
        vectors = floats(cartesian[top.center] - cartesian[top.neighbor] - shift)

    lengths = torch.linalg.vector_norm(vectors, dim=1)
    directions = vectors / lengths[:, None]
    bond_lengths = lengths[integers(top.representative)]
    left, right = integers(top.angles[:, 0]), integers(top.angles[:, 1])
    encoder = model.bond_basis_expansion
    bond_graph = [
        top.center[top.angles[:, 0]],
        top.undirected[top.angles[:, 0]],
        top.undirected[top.angles[:, 1]],
    ]
    graph = BatchedGraph(
        atomic_numbers=integers(species),
        bond_bases_ag=encoder.rbf_expansion_ag(bond_lengths),
        bond_bases_bg=encoder.rbf_expansion_bg(bond_lengths),
        angle_bases=model.angle_basis_expansion(directions[left], directions[right]),
        batched_atom_graph=integers(np.stack([top.center, top.neighbor], axis=1)),
        batched_bond_graph=integers(np.stack(bond_graph, axis=1)),
        atom_owners=integers(top.owner),
        directed2undirected=integers(top.undirected),
        atom_positions=[positions],
        strains=[strain],
        volumes=floats(np.abs(np.linalg.det(matrices))),
    )
    counts = np.zeros((len(cells), model.composition_model.max_num_elements))
    np.add.at(counts, (top.owner, species - 1), 1)
    return GraphInputs(graph, floats(counts / counts.sum(axis=1)[:, None]), positions, strain)
