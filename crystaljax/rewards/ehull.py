"""The stability reward: minus the energy above hull from an interatomic potential."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from os import PathLike
from typing import NamedTuple

import numpy as np

from crystaljax.composition import element_counts
from crystaljax.crystal import AtomicCell, Crystals
from crystaljax.rewards.base import RewardBatch, register
from crystaljax.rewards.corrections import mp2020_correction
from crystaljax.rewards.formation import formation_energy, missing_elements
from crystaljax.rewards.hull import Hull
from crystaljax.rewards.potentials import Potential, create_potential
from crystaljax.rewards.potentials.screening import primitive_cells

MAX_ATOMS = 10_000
"""Atoms in a primitive cell whose correction is told; potentials have narrower limits."""


class AboveHull(NamedTuple):
    """Energies of B crystals on the way from a potential to a hull, all float64 [B] in eV/atom."""

    correction: np.ndarray
    """What was added to the potential's energy."""
    formation_energy: np.ndarray
    """Corrected energy less that of the elements."""
    e_above_hull: np.ndarray
    """Formation energy less that of the hull at the same composition."""


@dataclass(frozen=True)
class EnergyAboveHull:
    """Minus the energy above hull (eV/atom) of crystals as they stand, not relaxed.

    The potential's energy per atom, with the MP2020 correction if its energies lack it, less the
    hull's elemental references is the formation energy; less the hull at the same composition, the
    energy above hull. `info` has them in eV/atom: "energy_per_atom", "correction",
    "formation_energy", "e_above_hull". Not ok: an element the hull lacks, a structure the
    potential cannot take (overlapping atoms, a collapsed cell, ...).
    """

    potential: Potential
    hull: Hull

    @property
    def label(self) -> str:
        """The hull, its size and the potential, for reports."""
        return f"{self.hull.label}, {self.potential.name}"

    def __call__(self, crystals: Crystals) -> RewardBatch:
        """Rewards of B crystals."""
        crystals = crystals.to_numpy()
        counts = element_counts(crystals)
        reasons = self.hull.reasons(counts)
        for row, missing in enumerate(missing_elements(counts, self.hull.references)):
            if missing and reasons[row] is None:
                reasons[row] = f"no elemental reference energy of {', '.join(missing)}"
        rows = np.array([row for row, reason in enumerate(reasons) if reason is None], np.int64)
        energy = np.full(len(crystals), np.nan)
        if len(rows):
            energies = self.potential.energies(crystals[rows])
            energy[rows] = energies.energy
            for row, reason in zip(rows, energies.reasons, strict=True):
                reasons[row] = reason
        found = self.above(counts, energy, crystals)
        info = {"energy_per_atom": energy, **found._asdict()}
        return RewardBatch.from_values(-found.e_above_hull, info, reasons)

    def above(
        self,
        counts: np.ndarray,
        energy: np.ndarray,
        crystals: Crystals | Sequence[AtomicCell | None],
    ) -> AboveHull:
        """From the potential's energies [B] (eV/atom, nan where there is none) to the hull.

        `counts` [B, 119] atoms of each element; `crystals` what the energies are of, from which
        the corrections are told.
        """
        correction = np.zeros(len(energy))
        rows = np.flatnonzero(np.isfinite(energy))
        if self.potential.corrections == "mp2020" and len(rows):
            if isinstance(crystals, Crystals):
                cells = primitive_cells(crystals[rows], MAX_ATOMS)[0]
            else:
                cells = [crystals[row] for row in rows.tolist()]
            correction[rows] = mp2020_correction(cells)
        formation = formation_energy(counts, energy + correction, self.hull.references)
        return AboveHull(correction, formation, self.hull.energy_above_hull(counts, formation))


@register("e_above_hull")
def create_e_above_hull(
    potential: str | Potential = "chgnet",
    hull: str | PathLike | Hull = "demonstration",
) -> EnergyAboveHull:
    """`EnergyAboveHull` from names: a potential's, and a hull's or the path of a hull file."""
    if isinstance(potential, str):
        potential = create_potential(potential)
    return EnergyAboveHull(potential, load_hull(hull))


def load_hull(source: str | PathLike | Hull) -> Hull:
    """A hull by name ("demonstration"), from a file or folder (`Hull.from_file`), or as it is."""
    if isinstance(source, Hull):
        return source
    if source == "demonstration":
        from crystaljax.rewards.demo_hull import demonstration_hull

        return demonstration_hull()
    return Hull.from_file(source)
