"""Speed from CIF texts to symmetrised crystals and back to full cells, against pymatgen and pyxtal.

    taskset -c 0 python experiments/benchmarks/symmetry.py

Cost: about a minute on one core. Expect, on one core with 1361 Materials Project crystals: about
550 structures/s from text, 750 for the symmetry search alone (pymatgen with pyxtal: 9), and
42,000 cells/s back. The last line printed is one JSON object; `value` is the speed from text to
`Crystals`.
"""

from __future__ import annotations

import json
import time
import warnings
from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from tempfile import TemporaryDirectory

import jax
import numpy as np
from sources import shared_table, title

from crystaljax.crystal import AtomicCell, Crystals
from crystaljax.data.dataset import PROTOTYPES, load
from crystaljax.data.readers import read
from crystaljax.data.writers import write
from crystaljax.experiment.main import run
from crystaljax.hardware import hardware
from crystaljax.symmetry.analysis import symmetrize
from crystaljax.symmetry.orbits import expand, n_atoms


@dataclass(frozen=True)
class Config:
    source: str = field(default_factory=lambda: shared_table("test"))
    """A file of structures, or "prototypes"."""
    n: int = 2000
    """Number of structures to read and symmetrise; fewer if the source has fewer."""
    peer_n: int = 40
    """Number of these, evenly spread, that the peer symmetrises."""
    batch_size: int = 1000
    """Number of crystals expanded at a time."""
    repeats: int = 20
    """Number of timed expansions; the median is reported."""
    symprec: float = 0.01
    """Å, tolerance of the symmetry search."""


def read_cells(source: str, n: int) -> tuple[list[AtomicCell], float]:
    """Up to `n` structures, and the seconds that it took to read them from text."""
    with TemporaryDirectory() as folder:
        if source == PROTOTYPES:
            path = write(load(source).crystals, Path(folder) / "prototypes.csv")
        else:
            path = Path(source)
        start = time.perf_counter()
        records = list(islice(read(path), n))
        seconds = time.perf_counter() - start
    return [record.cell for record in records if record.cell is not None], seconds


def by_peer(cells: Sequence[AtomicCell], symprec: float) -> tuple[list[int], float]:
    """Space groups by pymatgen and pyxtal (structure to Wyckoff sites), and their seconds."""
    from pymatgen.core import Structure
    from pymatgen.symmetry.analyzer import SpacegroupAnalyzer
    from pyxtal import pyxtal

    def space_group(structure: Structure) -> int:
        refined = SpacegroupAnalyzer(structure, symprec=symprec).get_refined_structure()
        crystal = pyxtal()
        crystal.from_seed(refined, tol=symprec)
        return crystal.group.number

    structures = [Structure(cell.matrix, cell.species.tolist(), cell.frac) for cell in cells]
    space_group(structures[0])  # loads tables before the clock starts
    start = time.perf_counter()
    found = [space_group(structure) for structure in structures]
    return found, time.perf_counter() - start


def seconds_to_expand(crystals: Crystals, batch_size: int, repeats: int) -> tuple[float, float]:
    """Seconds to expand one batch to conventional cells: the first (with compiling), the median."""
    batch = crystals[np.resize(np.arange(len(crystals)), batch_size)]
    max_atoms = int(n_atoms(batch).max())
    batch = jax.device_put(batch)
    seconds = []
    for _ in range(1 + repeats):
        start = time.perf_counter()
        jax.block_until_ready(expand(batch, max_atoms))
        seconds.append(time.perf_counter() - start)
    return seconds[0], float(np.median(seconds[1:]))


def main(config: Config) -> None:
    warnings.simplefilter("ignore")  # pymatgen's and pyxtal's
    cells, time_read = read_cells(config.source, config.n)

    start = time.perf_counter()
    crystals, reasons = symmetrize(cells, config.symprec)
    time_symmetrize = time.perf_counter() - start
    good = np.array([reason is None for reason in reasons])

    chosen = np.linspace(0, len(cells) - 1, min(config.peer_n, len(cells))).astype(int)
    groups, time_peer = by_peer([cells[i] for i in chosen], config.symprec)
    first, again = seconds_to_expand(crystals[good], config.batch_size, config.repeats)

    speed = len(cells) / time_symmetrize
    peer_speed = len(chosen) / time_peer
    report = {
        "name": "symmetry",
        "value": round(len(cells) / (time_read + time_symmetrize), 1),
        "unit": "structures/s",
        "hardware": hardware(),
        "source": title(config.source),
        "structures": len(cells),
        "failed": int((~good).sum()),
        "mean_atoms": round(float(np.mean([len(cell.species) for cell in cells])), 1),
        "read_structures_per_s": round(len(cells) / time_read, 1),
        "symmetrize_structures_per_s": round(speed, 1),
        "peer": "pymatgen SpacegroupAnalyzer and pyxtal, from structures in memory",
        "peer_structures": len(chosen),
        "peer_structures_per_s": round(peer_speed, 2),
        "ratio_to_symmetrize": round(speed / peer_speed, 1),
        "peer_finds_our_space_group": int((crystals.space_group[chosen] == groups).sum()),
        "expand_crystals_per_s": round(config.batch_size / again),
        "expand_first_batch_s": round(first, 2),
    }
    print(json.dumps(report))


if __name__ == "__main__":
    run(main, Config, __doc__, prepared=False)
