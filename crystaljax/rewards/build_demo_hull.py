"""Compute the demonstration hull: python -m crystaljax.rewards.build_demo_hull

CHGNet energies of every embedded prototype, at the best of a few volumes, because the variants have
only estimated ones. It takes some minutes on one core. Only entries on the hull are kept.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import tyro

from crystaljax.composition import SYMBOLS, element_counts, formula, parse_formulas
from crystaljax.crystal import Crystals
from crystaljax.data.dataset import load
from crystaljax.rewards.demo_hull import FILE, NAME
from crystaljax.rewards.formation import formation_energy, mp_references
from crystaljax.rewards.hull import Hull
from crystaljax.rewards.levels import MP2020, needs_correction
from crystaljax.rewards.potentials import create_potential, potential_level

OUTPUT = Path(__file__).with_name(FILE)


@dataclass(frozen=True)
class Config:
    output: Path = OUTPUT
    """File to write the hull to."""
    dataset: str = "prototypes"
    """The dataset of crystals for the hull."""
    length_scales: tuple[float, ...] = (0.94, 0.96, 0.98, 1.0, 1.02, 1.04, 1.06)
    """Factors of the cell's edges to try."""
    potential: str = "chgnet"
    """The potential that computes the energies; these must include the MP2020 corrections."""


def best_formation_energies(crystals: Crystals, config: Config) -> np.ndarray:
    """Lowest formation energy [B] (eV/atom) over the volumes; nan where none could be computed."""
    if needs_correction(config.potential, potential_level(config.potential), NAME, MP2020):
        raise ValueError(f"the energies of {config.potential} lack the MP2020 corrections")
    potential = create_potential(config.potential)
    counts = element_counts(crystals)
    best = np.full(len(crystals), np.inf)
    for scale in config.length_scales:
        lattice = crystals.lattice * np.repeat(np.array([scale, 1], np.float32), 3)
        energies = potential.energies(replace(crystals, lattice=lattice)).energy
        best = np.fmin(best, formation_energy(counts, energies))
    return np.where(np.isfinite(best), best, np.nan)


def main(config: Config) -> None:
    """Compute and write the hull."""
    crystals = load(config.dataset).crystals.to_numpy()
    elements = [SYMBOLS[z - 1] for z in np.flatnonzero(np.isfinite(mp_references()))]
    formulas = [formula(row) for row in element_counts(crystals)] + elements
    energies = np.append(best_formation_energies(crystals, config), np.zeros(len(elements)))
    hull = Hull.from_entries(formulas, energies, name=NAME)
    above = hull.energy_above_hull(parse_formulas(formulas), energies)
    kept = {f: round(e, 5) for f, e, h in zip(formulas, energies, above, strict=True) if h < 1e-9}
    content = {
        "name": NAME,
        "description": f"Elements at 0 and, at the best of {len(config.length_scales)} volumes,"
        f" {config.potential} energies of the dataset {config.dataset!r}; eV/atom, against the"
        " Materials Project's elemental references.",
        "formulas": list(kept),
        "formation_energies": list(kept.values()),
    }
    config.output.write_text(json.dumps(content, indent=None) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main(tyro.cli(Config, description=__doc__))
