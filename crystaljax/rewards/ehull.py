"""The stability reward: minus the energy above hull from an interatomic potential."""

from __future__ import annotations

from dataclasses import dataclass
from os import PathLike

import numpy as np

from crystaljax.composition import element_counts
from crystaljax.crystal import Crystals
from crystaljax.rewards.base import RewardBatch, register
from crystaljax.rewards.formation import formation_energy, missing_elements
from crystaljax.rewards.hull import Hull
from crystaljax.rewards.potentials import Potential, create_potential


@dataclass(frozen=True)
class EnergyAboveHull:
    """Minus the energy above hull (eV/atom) of crystals as they stand, not relaxed.

    The potential's energy per atom less the hull's elemental references is the formation energy;
    less the hull at the same composition, the energy above hull. `info` has all three in eV/atom:
    "energy_per_atom", "formation_energy", "e_above_hull". Not ok: an element the hull lacks, a
    structure the potential cannot take (overlapping atoms, a collapsed cell, ...).
    """

    potential: Potential
    hull: Hull

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
        formation = formation_energy(counts, energy, self.hull.references)
        above = self.hull.energy_above_hull(counts, formation)
        info = {
            "energy_per_atom": energy,
            "formation_energy": formation,
            "e_above_hull": above,
        }
        return RewardBatch.from_values(-above, info, reasons)


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
