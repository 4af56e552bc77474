"""The stability reward of a run from its configuration: potential, hull, workers and cache."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field
from functools import cached_property, partial
from pathlib import Path

from crystaljax import user_code
from crystaljax.crystal import Crystals
from crystaljax.ranges import at_least, check
from crystaljax.rewards.base import RewardBatch
from crystaljax.rewards.cache import Cached
from crystaljax.rewards.cell_energies import CellEnergies
from crystaljax.rewards.compose import Guarded
from crystaljax.rewards.ehull import (
    E_ABOVE_HULL,
    EnergyAboveHull,
    create_e_above_hull,
    load_hull,
)
from crystaljax.rewards.levels import needs_correction, split_level
from crystaljax.rewards.pool import PoolConfig
from crystaljax.rewards.potentials import potential_level, require_package
from crystaljax.rewards.serving import ServedReward


@dataclass(frozen=True)
class StabilityConfig:
    """Potential, hull and workers that judge stability."""

    potential: str = "chgnet"
    """Interatomic potential, with its weights after a colon: chgnet, sevennet, sevennet:7net-l3i5,
    nequix, nequix:FILE.nqx, matgl:FOLDER, orb:MODEL. Weights of your own need their level of
    theory, as in nequix:FILE.nqx@MP. Or a potential of your own, FILE.py:CLASS, or any calculator
    of ASE, ase:FILE.py:FUNCTION@LEVEL (one crystal at a time: slow)."""
    hull: str = "demonstration"
    """Convex hull: demonstration, mp-energies (the Materials Project's, downloaded once), or a file
    of formulas and formation energies (eV/atom), or of computed entries. Give columns of other
    names as FILE:formula=COLUMN,energy=COLUMN. The hull must have the potential's level of theory.
    A file has the Materials Project's with MP2020 corrections, unless the file states another one,
    or you do, as in FILE@MatPES-PBE."""
    relax_steps: int = 0
    """Largest number of relaxation steps of each crystal before its energy is taken. Its space
    group is kept. 0: no relaxation."""
    cache: Path | None = None
    """File that keeps energies, and rewards of your own, for later runs. None: nothing is kept."""
    pool: PoolConfig = field(default_factory=PoolConfig)
    """Workers that compute energies and rewards of your own."""

    def __post_init__(self) -> None:
        check(self, relax_steps=at_least(0))


class StabilityReward(ServedReward):
    """Minus the energy above hull of crystals, computed as configured; see `EnergyAboveHull`.

    Use it as a context manager, or `close` it, so that workers end. Errors: see
    `create_potential`, `load_hull`, `Pool`; LevelError if the hull is of another level of theory
    than the potential.
    """

    quantity = E_ABOVE_HULL

    def __init__(self, config: StabilityConfig) -> None:
        self.config = config
        self.hull = load_hull(config.hull)
        level = potential_level(config.potential)
        needs_correction(config.potential, level, self.hull.name, self.hull.level)
        require_package(config.potential)  # workers would tell only after the first samples
        make = partial(create_e_above_hull, config.potential, self.hull, config.relax_steps)
        super().__init__(lambda: self.energy, make, config.pool, config.cache, self._identity)

    @cached_property
    def energy(self) -> EnergyAboveHull:
        """The reward in this process, with its potential."""
        return create_e_above_hull(self.config.potential, self.hull, self.config.relax_steps)

    @property
    def potential(self) -> str:
        """Name of the potential, for reports; the name of its class if only workers loaded it."""
        loaded = "energy" in self.__dict__
        return self.energy.potential.name if loaded else self.config.potential

    @property
    def label(self) -> str:
        """The hull, its size and the potential, for reports."""
        return f"{self.hull.label}, {self.potential}"

    def __call__(self, crystals: Crystals, /) -> RewardBatch:
        """Rewards of B crystals."""
        return self.served(crystals)

    @cached_property
    def of_cells(self) -> Guarded | Cached:
        """Minus the energies of atomic cells (`CellEnergies`), in this process; kept likewise."""
        found = Guarded(CellEnergies(self.energy.potential, self.config.relax_steps))
        if self.config.cache is None:
            return found
        return Cached(found, self.config.cache, f"cells: {self._identity()}")

    def close(self) -> None:
        """End the workers and close the cache."""
        super().close()
        kept = self.__dict__.get("of_cells")
        if isinstance(kept, Cached):
            kept.close()

    def _identity(self) -> str:
        """Everything that the energies depend on: the potential with its weights or code, the hull,
        and the relaxation."""
        name = split_level(self.config.potential)[0]
        code = user_code.digests(self.config.potential)
        paths = [] if code else [Path(word) for word in name.split(":")[1:]]
        weights = [
            hashlib.sha256(file.read_bytes()).hexdigest()
            for path in paths
            for file in ([path] if path.is_file() else sorted(path.glob("*")))
            if file.is_file()
        ]
        parts = ["e_above_hull", self.config.potential, *code.values(), *weights, self.hull.digest]
        if self.config.relax_steps:
            parts.append(f"relaxed {self.config.relax_steps}")
        return " ".join(parts)
