"""What every interatomic potential offers."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, Protocol

import numpy as np

from crystaljax.crystal import AtomicCell, Crystals
from crystaljax.rewards.base import Reasons

Corrections = Literal["included", "mp2020", "none"]
"""How a potential's energies meet the Materials Project's hull.

"included": it was trained on corrected (MP2020) energies, which go straight to the hull.
"mp2020": it was trained on energies with the Materials Project's PBE and PBE+U settings as they
come; the MP2020 corrections must be added (Wang et al., Scientific Reports 11, 15496, 2021).
"none": it was trained on another kind of calculation, which has no place on that hull.
"""


@dataclass(frozen=True)
class Energies:
    """Energies of B items."""

    energy: np.ndarray
    """float64 [B]: eV/atom; nan where `ok` is False."""
    ok: np.ndarray
    """bool [B]: whether the potential could take the item."""
    reasons: Reasons
    """Why an item is not ok, None where it is."""


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
    """Why an item is not ok, None where it is."""


class Potential(Protocol):
    """An interatomic potential; an item it cannot take costs that item, never the batch."""

    name: str
    """A label for reports, as "CHGNet 0.3.0"."""
    corrections: Corrections
    """How its energies meet the Materials Project's hull."""
    elements: np.ndarray
    """int [K]: the atomic numbers it knows; items with others are not ok and say so."""

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
    """Energies [n] of the screened `rows` among all items; a value not finite costs its item."""
    energy = np.full(len(reasons), np.nan)
    energy[rows] = values
    reasons = [
        reason if reason or np.isfinite(e) else f"the energy is {e}"
        for reason, e in zip(reasons, energy, strict=True)
    ]
    ok = np.array([reason is None for reason in reasons], bool)
    return Energies(np.where(ok, energy, np.nan), ok, reasons)
