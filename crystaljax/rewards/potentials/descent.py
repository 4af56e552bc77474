"""Relaxation with a potential in JAX: whole batches on the device, finished structures left out."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from crystaljax.crystal import Array, AtomicCell, Cells, wrapped
from crystaljax.rewards.base import Reasons
from crystaljax.rewards.potentials.base import Relaxed
from crystaljax.rewards.potentials.edges import Room
from crystaljax.rewards.potentials.fire import (
    CONVERGED,
    EXHAUSTED,
    FAILED,
    MOVING,
    Search,
    Symmetry,
    choose,
    filtered_forces,
    step,
)
from crystaljax.rewards.potentials.groups import GroupEnergies, in_groups, take
from crystaljax.rewards.potentials.screening import geometry_problem
from crystaljax.validity import MIN_DISTANCE, has_plausible_shape

STEPS_AT_A_TIME = 20
"""Steps between two looks at which structures are done."""

Model = Callable[[Any, Cells, Room], GroupEnergies]
"""Weights, G cells and a room -> energies, forces and stresses."""


class Part(NamedTuple):
    """A group of structures some steps later."""

    search: Search
    fits: Array
    """bool []: no step needed a larger room."""


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
    """Relax those of the cells that have no reason against it.

    There may be more cells than reasons; `symmetry`, of as many rows as there are cells, is kept.
    """
    n = len(reasons)
    moving = np.zeros(len(cells), bool)
    moving[:n] = [reason is None for reason in reasons]
    search = Search.start(cells, jnp.asarray(moving))
    advance = partial(_advance, model)
    limits = jnp.float32(fmax), jnp.int32(max_steps)
    while len(rows := np.flatnonzero(np.asarray(search.status) == MOVING)):
        now = search

        def start(part: np.ndarray, size: Room, now: Search = now) -> Part:
            free = None if symmetry is None else take(symmetry, part)
            return advance(weights, take(now, part), free, size, *limits)

        for part, (moved, _) in in_groups(start, now.cells, rows, cutoff, room):
            search = _put(search, part, moved)
    return _relaxed(search, reasons)


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
    """Some steps of G structures; rows of zeros stand for none."""
    empty = (group.species == 0).all(1)
    group = replace(
        group,
        matrix=jnp.where(empty[:, None, None], jnp.eye(3), group.matrix),
        status=jnp.where(empty, FAILED, group.status),
    )

    def goes_on(state: tuple[Array, Search, Array]) -> Array:
        i, part, fits = state
        return (i < STEPS_AT_A_TIME) & fits & (part.status == MOVING).any()

    def advance(state: tuple[Array, Search, Array]) -> tuple[Array, Search, Array]:
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
        status = _judged(part, outcome, forces, sane, fmax, max_steps)
        energy = jnp.where(part.status == MOVING, outcome.energy, part.energy)
        initial = jnp.where(part.steps == 0, energy, part.initial)
        new = step(replace(part, status=status, energy=energy, initial=initial), forces)
        kept = choose(jnp.broadcast_to(outcome.fits, new.status.shape), new, part)
        return i + 1, kept, outcome.fits

    _, group, fits = jax.lax.while_loop(goes_on, advance, (0, group, jnp.bool_(True)))
    return Part(group, fits)


def _forces(part: Search, outcome: GroupEnergies, symmetry: Symmetry | None) -> Array:
    """Filtered forces [G, N + 3, 3], from the list of all atoms; 0 where there is no atom."""
    assert outcome.forces is not None and outcome.stress is not None
    slot = jnp.arange(part.species.shape[1])
    forces = outcome.forces.at[outcome.start[:, None] + slot].get(mode="fill", fill_value=0)
    forces = jnp.where((part.species > 0)[..., None], forces, 0)
    return filtered_forces(part, forces, outcome.stress, symmetry)


def _judged(
    part: Search, outcome: GroupEnergies, forces: Array, sane: Array, fmax: Array, max_steps: Array
) -> Array:
    """State of each search, int [G]."""
    largest = jnp.linalg.norm(forces, axis=-1).max(1)
    sane &= jnp.isfinite(outcome.energy) & jnp.isfinite(largest)
    sane &= outcome.closest >= MIN_DISTANCE
    status = jnp.where(part.steps >= max_steps, EXHAUSTED, MOVING)
    status = jnp.where(largest < fmax, CONVERGED, status)
    status = jnp.where(sane, status, FAILED)
    return jnp.where(part.status == MOVING, status, part.status)


def _relaxed(search: Search, reasons: Reasons) -> Relaxed:
    """The result on the host, with reasons for what went astray."""
    n = len(reasons)
    cells = search.cells.to_numpy()
    host = search.to_numpy()
    n_atoms = np.asarray(cells.n_atoms)
    found: list[AtomicCell | None] = [None] * n
    reasons = list(reasons)
    for row in range(n):
        if reasons[row] is not None:
            continue
        atoms = slice(int(n_atoms[row]))
        frac = wrapped(cells.frac[row, atoms].astype(float))
        cell = AtomicCell(cells.matrix[row].astype(float), frac, cells.species[row, atoms])
        if host.status[row] == FAILED:
            problem = geometry_problem(cell) or "the energy or the forces are not finite"
            reasons[row] = f"relaxation failed: {problem}"
        else:
            found[row] = cell
    ok = np.array([reason is None for reason in reasons], bool)
    per_atom = np.where(ok, host.energy[:n] / np.maximum(n_atoms[:n], 1), np.nan)
    initial = host.initial[:n].astype(float) / np.maximum(n_atoms[:n], 1)
    converged = ok & (host.status[:n] == CONVERGED)
    return Relaxed(found, per_atom, initial, host.steps[:n], converged, ok, reasons)
