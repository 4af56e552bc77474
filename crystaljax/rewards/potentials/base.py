"""Interface of interatomic potentials."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np

from crystaljax.crystal import AtomicCell, Crystals
from crystaljax.rewards.base import Reasons

MPTRJ_ELEMENTS = np.array([z for z in range(1, 95) if z not in range(84, 89)])
"""The 89 elements of MPtrj, OMat24 and MatPES: hydrogen to plutonium without Po, At, Rn, Fr, Ra."""


@dataclass(frozen=True)
class Energies:
    """Energies of B items."""

    energy: np.ndarray
    """float64 [B]: eV/atom; nan where `ok` is False."""
    ok: np.ndarray
    """bool [B]: whether the potential could take the item."""
    reasons: Reasons
    """Reason that an item is not ok, None where it is."""


@dataclass(frozen=True)
class Relaxed:
    """Relaxed structures of B items."""

    cells: list[AtomicCell | None]
    """The relaxed cells; None where `ok` is False."""
    energy: np.ndarray
    """float64 [B]: eV/atom after relaxation."""
    initial_energy: np.ndarray
    """float64 [B]: eV/atom before relaxation."""
    steps: np.ndarray
    """int [B]: optimiser steps taken."""
    converged: np.ndarray
    """bool [B]: whether the forces fell below the threshold."""
    ok: np.ndarray
    """bool [B]: whether there is a relaxed structure, converged or not."""
    reasons: Reasons
    """Reason that an item is not ok, None where it is."""


def no_relaxation(reasons: Reasons) -> Relaxed:
    """Results of B items none of which was relaxed, for the reasons given."""
    n = len(reasons)
    nothing: list[AtomicCell | None] = [None] * n
    nan, no = np.full(n, np.nan), np.zeros(n, bool)
    return Relaxed(nothing, nan, nan.copy(), np.zeros(n, np.int64), no, no.copy(), list(reasons))


def put_relaxed(all_items: Relaxed, rows: np.ndarray, some: Relaxed) -> None:
    """Write the results of the items `rows` int [n] into those of all items, in place."""
    for row, cell, reason in zip(rows.tolist(), some.cells, some.reasons, strict=True):
        all_items.cells[row], all_items.reasons[row] = cell, reason
    for name in ("energy", "initial_energy", "steps", "converged", "ok"):
        getattr(all_items, name)[rows] = getattr(some, name)


class Potential(Protocol):
    """An interatomic potential; an item it cannot take costs that item, never the batch."""

    name: str
    """Name in reports, like "CHGNet 0.3.0"."""
    level: str | None
    """Level of theory of its energies (see `levels.LEVELS`); None if it is unknown."""
    elements: np.ndarray
    """int [K]: the atomic numbers that it was trained on."""

    def energies(self, crystals: Crystals | Sequence[AtomicCell]) -> Energies:
        """Potential energies of a batch as it stands."""
        ...

    def relax(
        self,
        crystals: Crystals | Sequence[AtomicCell],
        *,
        fmax: float = 0.02,
        max_steps: int = 500,
    ) -> Relaxed:
        """Relax atoms and cell until all forces are below `fmax` (eV/Å)."""
        ...


def scatter(values: np.ndarray, rows: np.ndarray, reasons: Reasons) -> Energies:
    """Energies of all items from those [n] of the screened `rows`; not ok where not finite."""
    energy = np.full(len(reasons), np.nan)
    energy[rows] = values
    reasons = [
        reason if reason or np.isfinite(e) else f"the energy is {e}"
        for reason, e in zip(reasons, energy, strict=True)
    ]
    ok = np.array([reason is None for reason in reasons], bool)
    return Energies(np.where(ok, energy, np.nan), ok, reasons)
