"""Relaxation with a potential in JAX: whole batches on the device, without finished structures."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from crystaljax.crystal import Array, Cells
from crystaljax.progress import finished
from crystaljax.rewards.base import Reasons
from crystaljax.rewards.potentials.base import Relaxed
from crystaljax.rewards.potentials.edges import Room
from crystaljax.rewards.potentials.fire import (
    FAILED,
    MOVING,
    Search,
    advance,
    choose,
    filtered_forces,
    relaxed,
)
from crystaljax.rewards.potentials.groups import GroupEnergies, in_groups, take
from crystaljax.rewards.potentials.projection import Symmetry
from crystaljax.validity import MIN_DISTANCE, has_plausible_shape

STEPS_AT_A_TIME = 20
"""Steps on the device between two checks of which structures have finished."""

Model = Callable[[Any, Cells, Room], GroupEnergies]
"""From weights, G cells and the sizes of a group to energies, forces and stresses."""


class Part(NamedTuple):
    """A group of structures after some steps."""

    search: Search
    fits: Array
    """bool []: the group's lists were long enough in every step."""


def relax(
    model: Model,
    weights: Any,
    cells: Cells,
    reasons: Reasons,
    *,
    symmetry: Symmetry | None,
    cutoff: float,
    room: Room,
    fmax: float,
    max_steps: int,
) -> Relaxed:
    """Relax the cells whose reason (why they cannot be relaxed) is None.

    There may be more cells than reasons (padding). `symmetry`, with a row for each cell, is kept.
    """
    n = len(reasons)
    moving = np.zeros(len(cells), bool)
    moving[:n] = [reason is None for reason in reasons]
    search = Search.start(jax.tree.map(jnp.asarray, cells), jnp.asarray(moving))
    go_on = partial(_advance, model)
    limits = jnp.float32(fmax), jnp.int32(max_steps)
    n_moving = int(moving.sum())
    while len(rows := np.flatnonzero(np.asarray(search.status) == MOVING)):
        n_before, n_moving = n_moving, len(rows)
        finished(n_before - n_moving)
        now = search

        def start(part: np.ndarray, size: Room, now: Search = now) -> Part:
            free = None if symmetry is None else take(symmetry, part)
            return go_on(weights, take(now, part), free, size, *limits)

        for part, (moved, _) in in_groups(start, now.cells, rows, cutoff, room):
            search = _put(search, part, moved)
    return relaxed(search, reasons)


@jax.jit
def _put_padded(search: Search, rows: Array, part: Search) -> Search:
    return jax.tree.map(lambda x, new: x.at[rows].set(new, mode="drop"), search, part)


def _put(search: Search, rows: np.ndarray, part: Search) -> Search:
    beyond = np.full(len(part), len(search))
    beyond[: len(rows)] = rows
    return _put_padded(search, beyond, part)


@partial(jax.jit, static_argnames=("model", "room"))
def _advance(
    model: Model,
    weights: Any,
    group: Search,
    free: Symmetry | None,
    room: Room,
    fmax: Array,
    max_steps: Array,
) -> Part:
    """Take some steps of G structures; rows of zeros are padding."""
    empty = (group.species == 0).all(1)
    group = replace(
        group,
        matrix=jnp.where(empty[:, None, None], jnp.eye(3), group.matrix),
        status=jnp.where(empty, FAILED, group.status),
    )

    def goes_on(state: tuple[Array, Search, Array]) -> Array:
        i, part, fits = state
        return (i < STEPS_AT_A_TIME) & fits & (part.status == MOVING).any()

    def go_on(state: tuple[Array, Search, Array]) -> tuple[Array, Search, Array]:
        i, part, _ = state
        cells = part.cells
        sane = has_plausible_shape(cells.matrix, cells.n_atoms) & (part.status == MOVING)
        present = Cells(
            cells.frac,
            jnp.where(sane[:, None], cells.species, 0),
            jnp.where(sane[:, None, None], cells.matrix, jnp.eye(3)),
        )
        outcome = model(weights, present, room)
        forces = _forces(part, outcome, free)
        sane &= outcome.closest >= MIN_DISTANCE
        new = advance(part, outcome.energy, forces, sane, fmax, max_steps)
        kept = choose(jnp.broadcast_to(outcome.fits, new.status.shape), new, part)
        return i + 1, kept, outcome.fits

    _, group, fits = jax.lax.while_loop(goes_on, go_on, (0, group, jnp.bool_(True)))
    return Part(group, fits)


def _forces(part: Search, outcome: GroupEnergies, symmetry: Symmetry | None) -> Array:
    """Filtered forces [G, N + 3, 3] from those of all atoms in one list; 0 in empty slots."""
    assert outcome.forces is not None and outcome.stress is not None
    slot = jnp.arange(part.species.shape[1])
    forces = outcome.forces.at[outcome.start[:, None] + slot].get(mode="fill", fill_value=0)
    forces = jnp.where((part.species > 0)[..., None], forces, 0)
    filtered = filtered_forces(part, forces, outcome.stress)
    return filtered if symmetry is None else symmetry(filtered)
