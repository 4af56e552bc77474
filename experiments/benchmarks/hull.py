"""Energy above hull for a batch of compositions, against pymatgen's PhaseDiagram.

    python experiments/benchmarks/hull.py --hull ../shared/data/mp20_bt

Cost: under a minute on one core. Expect, on one core with the 14,258 entries of mp20_bt: about
2,400 queries/s if nearly every query has a new chemical system, 45,000 if systems repeat, 50 for
pymatgen (with cached diagrams of the systems), and the same energies to 1e-9 eV/atom. The last line
printed is one JSON object.
"""

from __future__ import annotations

import json
import time
from collections import defaultdict
from dataclasses import dataclass, replace
from itertools import combinations
from pathlib import Path
from typing import Any

import numpy as np

from crystaljax.experiment.main import run
from crystaljax.hardware import hardware
from crystaljax.rewards.ehull import load_hull
from crystaljax.rewards.hull import Hull


@dataclass(frozen=True)
class Config:
    hull: Path = Path("demonstration")
    """A table of formulas and formation energies (or a folder of them), or "demonstration"."""
    queries: int = 1000
    """Number of compositions, drawn from those of the hull's entries."""
    peer_queries: int = 300
    """Number of these that pymatgen computes."""
    repeats: int = 20
    """Number of times that the batch of repeated chemical systems has each query."""
    seed: int = 0
    """Random seed for the draw."""


def draw_queries(hull: Hull, n: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """`n` compositions [n, 119] of entries, with energies [n] close to theirs (eV/atom)."""
    rng = np.random.default_rng(seed)
    counts, energies = [], []
    for system, (fractions, formation) in hull.entries.items():
        rows = np.zeros((len(fractions), 119))
        rows[:, system] = fractions
        counts.append(rows)
        energies.append(formation)
    all_counts, all_energies = np.concatenate(counts), np.concatenate(energies)
    drawn = rng.choice(len(all_counts), n, replace=n > len(all_counts))
    return all_counts[drawn], all_energies[drawn] + rng.normal(0, 0.2, n)


def seconds_of(hull: Hull, counts: np.ndarray, energies: np.ndarray) -> float:
    start = time.perf_counter()
    hull.energy_above_hull(counts, energies)
    return time.perf_counter() - start


def by_pymatgen(hull: Hull, counts: np.ndarray, energies: np.ndarray) -> np.ndarray:
    """The same energies above hull by PhaseDiagram, cached by chemical system."""
    from pymatgen.analysis.phase_diagram import PDEntry, PhaseDiagram
    from pymatgen.core import Composition, Element

    def entry(system: tuple[int, ...], fractions: np.ndarray, energy: float) -> Any:
        atoms = {Element.from_Z(z): x for z, x in zip(system, fractions, strict=True)}
        return PDEntry(Composition(atoms), energy)  # of one atom in total

    diagrams: dict[tuple[int, ...], Any] = {}
    known: dict[tuple[int, ...], list[Any]] = defaultdict(list)
    for system, (fractions, formation) in hull.entries.items():
        known[system] = [entry(system, x, e) for x, e in zip(fractions, formation, strict=True)]
    result = []
    for row, energy in zip(counts, energies, strict=True):
        system = tuple(np.flatnonzero(row).tolist())
        if system not in diagrams:
            entries = [entry((z,), np.ones(1), 0.0) for z in system]
            for size in range(1, len(system) + 1):
                for part in combinations(system, size):
                    entries += known[part]
            diagrams[system] = PhaseDiagram(entries)
        query = entry(system, row[list(system)], energy)
        result.append(diagrams[system].get_e_above_hull(query, allow_negative=True))
    return np.array(result)


def main(config: Config) -> None:
    hull = load_hull(str(config.hull))
    counts, energies = draw_queries(hull, config.queries, config.seed)
    n_systems = len(np.unique(counts > 0, axis=0))

    import scipy.spatial  # noqa: F401  (imported before the clock starts)

    first = seconds_of(hull, counts, energies)
    repeated = np.repeat(counts, config.repeats, axis=0), np.repeat(energies, config.repeats)
    fresh = replace(hull, _facets={})
    many = seconds_of(fresh, *repeated)

    part = slice(config.peer_queries)
    start = time.perf_counter()
    expected = by_pymatgen(hull, counts[part], energies[part])
    peer = time.perf_counter() - start
    difference = np.abs(hull.energy_above_hull(counts[part], energies[part]) - expected).max()

    report = {
        "name": "hull",
        "value": round(config.queries / first, 1),
        "unit": "queries/s",
        "hardware": hardware(),
        "hull": f"{hull.name} ({hull.n_entries} entries)",
        "queries": config.queries,
        "systems": n_systems,
        "repeated_systems_queries_per_s": round(config.queries * config.repeats / many, 1),
        "pymatgen_queries_per_s": round(len(expected) / peer, 1),
        "ratio": round(config.queries / first * peer / len(expected), 1),
        "max_difference_eV_per_atom": float(difference),
    }
    print(json.dumps(report))


if __name__ == "__main__":
    run(main, Config, __doc__, prepared=False)
