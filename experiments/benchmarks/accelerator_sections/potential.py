"""Nequix: energies and relaxations, if its package and a file of weights are available."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import jax
import numpy as np

from accelerator_sections.agreement import Results
from accelerator_sections.checks import DType
from accelerator_sections.run import Budget, Found, Measurement, Run, timed
from accelerator_sections.sizes import Size
from crystaljax.crystal import Crystals
from crystaljax.rewards.potentials.edges import Room
from crystaljax.rewards.potentials.groups import GroupEnergies, in_groups, take_cells
from crystaljax.rewards.potentials.nequix import NequixPotential, predict
from crystaljax.rewards.potentials.screening import stack_cells
from crystaljax.roofline import NOTHING, Work, count

CHECKED = 12
"""Crystals of the check."""


def check(weights: Path, crystals: Crystals, dtype: DType) -> Results:
    """Energies, forces and the energies after some steps of relaxation."""
    del dtype
    potential = NequixPotential(weights)
    some = crystals[:CHECKED]
    found = potential.gradients(some)
    relaxed = potential.relax(some, max_steps=10)
    forces = [x for x in found.forces if x is not None]
    return {
        "ok": np.array([reason is None for reason in found.reasons]),
        "energy": np.nan_to_num(found.energy),
        "forces": np.concatenate([np.zeros((1, 3), np.float32), *forces]),
        "relaxed": np.nan_to_num(relaxed.energy),
    }


def potential(
    run: Run, budget: Budget, size: Size, weights: Path | None, crystals: Crystals
) -> Iterator[Measurement]:
    """Rates of energies, of forces and of relaxation steps."""
    if weights is None:
        raise FileNotFoundError("no weights of Nequix were given: --nequix FILE.nqx")
    nequix = NequixPotential(weights)
    some = crystals[np.arange(size.structures) % len(crystals)]
    n = len(some)

    def rate(work: partial, gradients: bool) -> Found:
        timing = timed(work, budget, at_least=2)
        counted = _work(nequix, some, gradients)
        note, details = run.limit(counted.work, timing.median)
        full = f"{counted.n_groups} groups, {counted.filled:.0%} of their atoms used"
        details |= {"structures": n, "groups": counted.n_groups}
        return Found(
            n / timing.median, "structures/s", f"{note}; {full}", timing.first, None, details
        )

    yield f"energies, {n} structures", partial(rate, partial(nequix.energies, some), False)
    yield f"energies, forces, {n} structures", partial(rate, partial(nequix.gradients, some), True)

    def relaxation() -> Found:
        steps = 0

        def relax() -> None:
            nonlocal steps
            done = nequix.relax(some, max_steps=size.relaxation_steps)
            steps = int(done.steps.sum())

        timing = timed(relax, budget, at_least=1)
        counted = _work(nequix, some, True)
        note, details = run.limit(counted.work * (steps / n), timing.median)
        details |= {"structures_per_s": n / timing.median}
        return Found(steps / timing.median, "steps/s", note, timing.first, None, details)

    yield f"relaxation, {size.relaxation_steps} steps at most", relaxation


@dataclass(frozen=True)
class _Counted:
    work: Work
    n_groups: int
    filled: float
    """Share of the atom slots that have an atom."""


def _work(nequix: NequixPotential, crystals: Crystals, gradients: bool) -> _Counted:
    """Work of the potential for some crystals, summed over its groups."""
    cells, reasons = stack_cells(crystals, max_atoms=nequix.max_atoms, elements=nequix.elements)
    rows = np.flatnonzero([reason is None for reason in reasons])
    rooms: list[Room] = []

    def start(part: np.ndarray, room: Room) -> GroupEnergies:
        del part
        rooms.append(room)
        nothing = np.zeros(0)
        return GroupEnergies(nothing, None, None, nothing, nothing, np.array(True))

    in_groups(start, cells, rows, nequix.weights.cutoff, nequix.room)
    by_room = {}
    for room in set(rooms):
        group = jax.eval_shape(take_cells, cells, np.zeros(room.cells, np.int32))
        model = partial(predict, nequix.weights, room=room, gradients=gradients)
        by_room[room] = count(model, group)
    total = sum((by_room[room] for room in rooms), NOTHING)
    atoms = int(np.asarray(cells.n_atoms)[rows].sum())
    return _Counted(total, len(rooms), atoms / max(sum(room.nodes for room in rooms), 1))
