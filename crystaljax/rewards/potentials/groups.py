"""Splits batches into groups of few shapes, for models in JAX.

Groups are gathered outside the compiled model, which is so independent of the batch size.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple, Protocol, TypeVar

import jax
import jax.numpy as jnp
import numpy as np

from crystaljax.crystal import Array, Cells
from crystaljax.rewards.potentials.edges import Needs, Room, needs, plan_groups

T = TypeVar("T")


class GroupEnergies(NamedTuple):
    """Results of a model for G cells with A atoms in all."""

    energy: Array
    """float32 [G]: eV, of the whole cell."""
    forces: Array | None
    """float32 [A, 3]: eV/Å."""
    stress: Array | None
    """float32 [G, 3, 3]: eV/Å³, positive under tension."""
    closest: Array
    """float32 [G]: shortest distance of two atoms, Å; the cutoff where none is shorter."""
    start: Array
    """int32 [G]: the first atom of each cell."""
    fits: Array
    """bool []: the capacities were large enough; otherwise the results are meaningless."""


class Fitting(Protocol):
    """Results of a model for a group, and whether the group's graph had room for it."""

    @property
    def fits(self) -> Array:
        """bool []: see `edges.Graph`; if False, the other results are meaningless."""
        ...


F = TypeVar("F", bound=Fitting)
Start = Callable[[np.ndarray, Room], F]
"""Starts the computation of some rows, int [G], with given capacities."""


@jax.jit
def take(batch: T, rows: Array) -> T:
    """Rows int [G] of a batch of arrays, on the device; zeros for rows beyond the last."""
    return jax.tree.map(lambda x: jnp.asarray(x).at[rows].get(mode="fill", fill_value=0), batch)


@jax.jit
def take_cells(cells: Cells, rows: Array) -> Cells:
    """Cells of some rows; rows beyond the last become empty boxes of 1 Å."""
    group = take(cells, rows)
    empty = (group.n_atoms == 0)[:, None, None]
    return Cells(group.frac, group.species, jnp.where(empty, jnp.eye(3), group.matrix))


def in_groups(
    start: Start[F], cells: Cells, rows: np.ndarray, cutoff: float, room: Room
) -> list[tuple[np.ndarray, F]]:
    """Compute `rows` of the cells in groups: the rows and the results of each group.

    All groups are started before the first is waited for. A group that does not fit is halved. A
    single cell that does not fit gets larger capacities.
    """
    need: Needs = jax.tree.map(lambda x: np.asarray(x)[rows], needs(cells, cutoff))
    done = []
    waiting = [(size, rows[part]) for size, part in plan_groups(need, room)]
    while waiting:
        started = [
            (size, part, start(_padded(part, size.cells, len(cells)), size))
            for size, part in waiting
        ]
        waiting = []
        for size, part, outcome in started:
            if outcome.fits:
                done.append((part, outcome))
            elif len(part) > 1:
                half = len(part) // 2
                waiting += [(size, part[:half]), (size, part[half:])]
            else:
                waiting.append((size.scaled(1), part))
    return done


def _padded(rows: np.ndarray, size: int, beyond: int) -> np.ndarray:
    """The rows, padded to `size` with the index `beyond` (after the last row)."""
    return np.pad(rows, (0, size - len(rows)), constant_values=beyond)
