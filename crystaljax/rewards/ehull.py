"""The stability reward: minus the energy above hull from an interatomic potential."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from os import PathLike
from pathlib import Path
from typing import NamedTuple

import numpy as np

from crystaljax.composition import element_counts
from crystaljax.crystal import AtomicCell, Crystals
from crystaljax.data.registry import RESOURCES, fetch
from crystaljax.rewards.base import Reasons, RewardBatch, register
from crystaljax.rewards.bounds import Quantity, RewardBounds
from crystaljax.rewards.cell_energies import relaxation_columns
from crystaljax.rewards.corrections import mp2020_correction
from crystaljax.rewards.formation import formation_energy, missing_elements
from crystaljax.rewards.hull import Hull
from crystaljax.rewards.levels import needs_correction, split_level
from crystaljax.rewards.potentials import (
    Potential,
    Relaxed,
    create_potential,
    potential_level,
)
from crystaljax.rewards.potentials.base import no_relaxation, put_relaxed
from crystaljax.rewards.potentials.screening import primitive_cells

MAX_ATOMS = 10_000
"""Largest primitive cell that is corrected (atoms); potentials have narrower limits."""


E_ABOVE_HULL = Quantity("minus energy above hull", "eV/atom", RewardBounds(low=-1.0, high=0.5))
"""Crystals more than 1 eV/atom above the hull all count the same, and no energy counts as more than
0.5 eV/atom below it."""

LOWEST_FORMATION_ENERGY = -10.0
"""eV/atom: a potential that gives less extrapolates, such as to atoms 0.6 Å apart. The lowest of
the Materials Project is -4.5, of ErF3."""


class AboveHull(NamedTuple):
    """Intermediate energies of B crystals, all float64 [B] in eV/atom."""

    correction: np.ndarray
    """Corrections added to the potential's energy."""
    formation_energy: np.ndarray
    """Corrected energy less that of the elements."""
    e_above_hull: np.ndarray
    """Formation energy less that of the hull at the same composition; nan if `extrapolated`."""

    @property
    def extrapolated(self) -> np.ndarray:
        """bool [B]: the formation energy is below `LOWEST_FORMATION_ENERGY`."""
        with np.errstate(invalid="ignore"):
            return self.formation_energy < LOWEST_FORMATION_ENERGY

    def reasons(self, known: Reasons) -> Reasons:
        """[B]: reasons that there is no energy above hull, those `known` first."""
        found = list(known)
        for row in np.flatnonzero(self.extrapolated).tolist():
            energy = self.formation_energy[row]
            found[row] = found[row] or f"formation energy {energy:.3g} eV/atom: no crystal has that"
        return found


@dataclass(frozen=True)
class EnergyAboveHull:
    """Minus the energy above hull (eV/atom) of crystals, as generated or after relaxation.

    The formation energy is the potential's energy per atom minus the hull's elemental references;
    the MP2020 correction is added if the hull's energies have it and the potential's do not. The
    energy above hull is the formation energy minus that of the hull at the same composition. `info`
    has them in eV/atom: "energy_per_atom", "correction", "formation_energy", "e_above_hull". Not
    ok: an element that the hull lacks, or a structure that the potential cannot take (overlapping
    atoms, a collapsed cell, an element it was not trained on).

    With `relax_steps`, crystals are first relaxed for at most so many steps (`Potential.relax`,
    which keeps their space groups); they count whether or not they have converged. `info` then also
    has "initial_energy_per_atom", "relaxation_steps", "converged" and "relaxed", which
    `relaxation_of` reads. A structure that became unphysical in relaxation is not ok. LevelError if
    the energies are of another level of theory than the hull's.
    """

    potential: Potential
    hull: Hull
    relax_steps: int = 0
    _lacks_correction: bool = field(init=False, repr=False)
    quantity = E_ABOVE_HULL

    def __post_init__(self) -> None:
        potential, hull = self.potential, self.hull
        lacks = needs_correction(potential.name, potential.level, hull.name, hull.level)
        object.__setattr__(self, "_lacks_correction", lacks)

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
        if self.relax_steps:
            relaxed = self._relaxed(crystals, reasons)
            found = self.above(counts, relaxed.energy, relaxed.cells)
            info = {
                "energy_per_atom": relaxed.energy,
                **found._asdict(),
                **relaxation_columns(relaxed),
            }
            reasons = found.reasons(relaxed.reasons)
            return RewardBatch.from_values(-found.e_above_hull, info, reasons)
        rows = _without_reason(reasons)
        energy = np.full(len(crystals), np.nan)
        if len(rows):
            energies = self.potential.energies(crystals[rows])
            energy[rows] = energies.energy
            for row, reason in zip(rows, energies.reasons, strict=True):
                reasons[row] = reason
        found = self.above(counts, energy, crystals)
        info = {"energy_per_atom": energy, **found._asdict()}
        return RewardBatch.from_values(-found.e_above_hull, info, found.reasons(reasons))

    def _relaxed(self, crystals: Crystals, reasons: Reasons) -> Relaxed:
        """The relaxed crystals; those with a reason against it are left as they are."""
        result, rows = no_relaxation(reasons), _without_reason(reasons)
        if len(rows):
            some = self.potential.relax(crystals[rows], max_steps=self.relax_steps)
            put_relaxed(result, rows, some)
        return result

    def above(
        self,
        counts: np.ndarray,
        energy: np.ndarray,
        crystals: Crystals | Sequence[AtomicCell | None],
    ) -> AboveHull:
        """Energies above hull from the potential's energies [B] (eV/atom, nan where there is none).

        `counts` [B, 119]: atoms of each element; `crystals`: the structures of the energies, which
        determine the corrections.
        """
        correction = np.zeros(len(energy))
        rows = np.flatnonzero(np.isfinite(energy))
        if self._lacks_correction and len(rows):
            if isinstance(crystals, Crystals):
                cells = primitive_cells(crystals[rows], MAX_ATOMS)[0]
            else:
                cells = [crystals[row] for row in rows.tolist()]
            correction[rows] = mp2020_correction(cells)
        formation = formation_energy(counts, energy + correction, self.hull.references)
        found = AboveHull(correction, formation, self.hull.energy_above_hull(counts, formation))
        return found._replace(e_above_hull=np.where(found.extrapolated, np.nan, found.e_above_hull))


def _without_reason(reasons: Reasons) -> np.ndarray:
    """int [n]: the items without a reason against them."""
    return np.array([row for row, reason in enumerate(reasons) if reason is None], np.int64)


def relaxation_state(relaxed: Relaxed | None, max_steps: int) -> str:
    """Description for tables: whether crystals were relaxed, and for how many steps."""
    if relaxed is None:
        return "unrelaxed"
    return (
        f"relaxed by FIRE to 0.02 eV/Å in at most {max_steps} steps"
        f" ({relaxed.converged.sum()} of {relaxed.ok.sum()} converged)"
    )


@register("e_above_hull")
def create_e_above_hull(
    potential: str | Potential = "chgnet",
    hull: str | PathLike | Hull = "demonstration",
    relax_steps: int = 0,
) -> EnergyAboveHull:
    """`EnergyAboveHull` from the name of a potential, and the name or file of a hull.

    LevelError, before the potential is loaded, if the hull is of another level of theory.
    """
    hull = load_hull(hull)
    if isinstance(potential, str):
        needs_correction(potential, potential_level(potential), hull.name, hull.level)
        potential = create_potential(potential)
    return EnergyAboveHull(potential, hull, relax_steps)


def load_hull(source: str | PathLike | Hull) -> Hull:
    """A hull by name, from a file or folder (`Hull.from_file`), or as it is.

    Names are "demonstration" and those of `registry.RESOURCES`, such as "mp-energies", which is
    downloaded once. Columns of unusual names, and a level of theory that the file does not state,
    follow the path: FILE:formula=COLUMN,energy=COLUMN@LEVEL.
    """
    if isinstance(source, Hull):
        return source
    if source == "demonstration":
        from crystaljax.rewards.demo_hull import demonstration_hull

        return demonstration_hull()
    from crystaljax.rewards.hull_files import split_columns

    rest, level = split_level(str(source))
    path, columns = split_columns(rest)
    if path in RESOURCES and not Path(path).exists():
        path = str(fetch(path))
    return Hull.from_file(path, **columns, level=level)


def hull_path(source: str) -> str:
    """The file that a hull is read from, without columns and level, for provenance."""
    from crystaljax.rewards.hull_files import split_columns

    return split_columns(split_level(source)[0])[0]
