"""Running a model over any number of cells, in groups of static shapes that fit."""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol, TypeVar

import jax
import jax.numpy as jnp
import numpy as np

from crystaljax.crystal import Array, Cells
from crystaljax.rewards.potentials.edges import Room, needs, plan_groups


class Fitting(Protocol):
    """What a model says of a group, and whether the group's graph had room for it."""

    @property
    def fits(self) -> Array:
        """bool []: see `edges.Graph`; nothing else of the outcome counts otherwise."""
        ...


T = TypeVar("T", bound=Fitting)


def evaluate_groups(
    cells: Cells,
    rows: np.ndarray,
    cutoff: float,
    room: Room,
    evaluate: Callable[[Cells, Room], T],
) -> list[tuple[np.ndarray, T]]:
    """The `rows` int [n] of the cells in groups: which ones, and the model's outcome for them.

    `evaluate(group, room)` is called with the cells of a group, filled up to `room.cells` with
    cells without atoms. All groups are started before the first is waited for; one whose graph
    did not fit is halved or, a single cell, given more room.
    """
    need = jax.tree.map(lambda x: np.asarray(x)[rows], needs(cells, cutoff))
    done = []
    waiting = [(size, rows[part]) for size, part in plan_groups(need, room)]
    while waiting:
        started = [
            (size, part, evaluate(take_cells(cells, _filled(part, size, len(cells))), size))
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
                waiting.append((size.larger(4), part))
    return done


def _filled(part: np.ndarray, room: Room, n_cells: int) -> np.ndarray:
    return np.pad(part, (0, room.cells - len(part)), constant_values=n_cells)


@jax.jit
def take_cells(cells: Cells, rows: Array) -> Cells:
    """The cells `rows` int [G]; those beyond the last have no atoms and a unit cell of 1 Å."""
    group = jax.tree.map(lambda x: jnp.asarray(x).at[rows].get(mode="fill", fill_value=0), cells)
    empty = group.n_atoms == 0
    matrix = jnp.where(empty[:, None, None], jnp.eye(3), group.matrix)
    return Cells(group.frac, group.species, matrix)
