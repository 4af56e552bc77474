"""Neighbour lists on the device against those of pymatgen."""

from __future__ import annotations

import jax
import numpy as np
import pytest

from crystaljax.crystal import AtomicCell
from crystaljax.data.dataset import load
from crystaljax.rewards.potentials.edges import (
    Graph,
    Needs,
    Room,
    build_graph,
    needs,
    plan_groups,
)
from crystaljax.rewards.potentials.screening import neighbors
from crystaljax.symmetry.orbits import expand

CUTOFF = 5.0
ROOM = Room(24, 600, 2**18, 2**15)

build = jax.jit(build_graph, static_argnums=(1, 2))


@pytest.fixture(scope="module")
def cells():  # type: ignore[no-untyped-def]
    """Primitive cells of prototypes of all crystal systems, with skewed ones among them."""
    crystals = load("prototypes").crystals
    rows = np.argsort(crystals.space_group, kind="stable")[:: len(crystals) // 24][:24]
    return expand(crystals[rows], 64, primitive=True)


def of_cell(graph: Graph, cell: int) -> set[tuple[int, ...]]:
    """(receiver, sender, image) of one cell's edges, with atoms numbered from 0."""
    owner = np.asarray(graph.cell)
    first = int(np.searchsorted(owner, cell))
    edge = np.flatnonzero(np.asarray(graph.is_edge) & (owner[graph.receiver] == cell))
    columns = [graph.receiver[edge] - first, graph.sender[edge] - first, *graph.image[edge].T]
    rows = np.stack([np.asarray(x, int) for x in columns], axis=1)
    assert len({*map(tuple, rows)}) == len(rows)
    return {*map(tuple, rows)}


def test_every_pair_within_the_cutoff(cells) -> None:  # type: ignore[no-untyped-def]
    graph = build(cells, CUTOFF, ROOM)
    assert graph.fits
    host = cells.to_numpy()
    for row, n in enumerate(host.n_atoms):
        cell = AtomicCell(
            host.matrix[row].astype(float), host.frac[row, :n].astype(float), host.species[row, :n]
        )
        pairs = neighbors(cell, CUTOFF + 1e-4)
        everything = np.column_stack([pairs.center, pairs.neighbor, pairs.image])
        certain = everything[pairs.distance < CUTOFF - 1e-4]  # rounding decides about the others
        found = of_cell(graph, row)
        assert {*map(tuple, certain)} <= found <= {*map(tuple, everything)}
        assert float(graph.closest[row]) == pytest.approx(pairs.distance.min(), abs=1e-4)


@pytest.mark.parametrize(
    "room",
    [ROOM._replace(nodes=50), ROOM._replace(candidates=2**10), ROOM._replace(edges=2**8)],
)
def test_too_little_room_is_noticed(cells, room: Room) -> None:  # type: ignore[no-untyped-def]
    assert not build(cells, CUTOFF, room).fits


def test_plans_are_within_the_room_and_have_all(cells) -> None:  # type: ignore[no-untyped-def]
    need = Needs(*(np.asarray(x) for x in needs(cells, CUTOFF)))
    small = Room(8, 40, 2**13, 2**11)
    groups = plan_groups(need, small)
    assert sorted(np.concatenate([rows for _, rows in groups])) == list(range(24))
    assert len({room for room, _ in groups}) > 1  # large cells have a larger room
    for room, rows in groups:
        assert len(rows) <= room.cells
        for amount, limit in zip(need, room[1:], strict=True):
            assert amount[rows].sum() <= limit
    graph_edges = int(build(cells, CUTOFF, ROOM).is_edge.sum())
    assert float(need.edges.sum()) == pytest.approx(graph_edges, rel=0.15)
