"""Speed of the evaluation of crystal structure prediction on one core, against a direct loop.

    taskset -c 0 python experiments/benchmarks/csp_evaluation.py

Cost: about a minute on one core. Attempts are crystals that are strained and whose atoms are
displaced, so that some do not match; every third is another crystal of the set. They are written to
a table and read again, which is included in the time. With validity, charge balance and features
the time is that of `crystaljax evaluate`. The direct loop reads the same table with pymatgen and
only calls `StructureMatcher.get_rms_dist` for every attempt. The last line printed is one JSON
object; `value` is the number of attempts per second of CPU time.
"""

from __future__ import annotations

import csv
import json
import tempfile
import time
import warnings
from collections.abc import Callable
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
from sources import shared_table, title

from crystaljax.crystal import AtomicCell
from crystaljax.evaluation.attempts import CSP_TOLERANCES, Known, displacements
from crystaljax.evaluation.csp import CSPConfig, evaluate_csp
from crystaljax.evaluation.prediction_files import read_known, read_predictions
from crystaljax.experiment.main import run
from crystaljax.hardware import hardware
from crystaljax.structures import to_structure


@dataclass(frozen=True)
class Config:
    truth: str = field(default_factory=lambda: shared_table("test"))
    """The test crystals."""
    n_crystals: int = 150
    """Number of crystals with attempts."""
    k: int = 4
    """Attempts at each."""
    strain: float = 0.1
    """Largest relative change of a lattice vector."""
    noise: float = 1.0
    """Å: largest displacement of atoms."""
    seed: int = 0
    """Random seed for the draw."""


def write_attempts(path: Path, truth: Known, config: Config) -> None:
    """Write the table of attempts."""
    rng = np.random.default_rng(config.seed)
    structures = [to_structure(cell) for cell in truth.cells]
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(("id", "attempt", "cif"))
        for number in range(len(truth) * config.k):
            row = number // config.k
            other = row if number % 3 else int(rng.integers(len(truth)))
            structure = structures[other].copy()
            structure.apply_strain(rng.uniform(-config.strain, config.strain, 3))
            structure.perturb(rng.uniform(0, config.noise))
            writer.writerow((truth.ids[row], number % config.k, structure.to(fmt="cif")))


def direct(path: Path, truth: Known) -> np.ndarray:
    """RMS displacements by pymatgen, float64 [A]."""
    from pymatgen.analysis.structure_matcher import StructureMatcher
    from pymatgen.core import Structure

    matcher = StructureMatcher(**CSP_TOLERANCES._asdict())
    known = {name: to_structure(cell) for name, cell in zip(truth.ids, truth.cells, strict=True)}
    found = []
    with path.open(newline="", encoding="utf-8") as file, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for row in csv.DictReader(file):
            structure = Structure.from_str(row["cif"], fmt="cif")
            result = matcher.get_rms_dist(structure, known[row["id"]])
            found.append(np.nan if result is None else result[0])
    return np.array(found)


def timed(work: Callable[[], Any]) -> tuple[float, Any]:
    """Seconds of CPU time of some work, and its result."""
    start = time.process_time()
    result = work()
    return time.process_time() - start, result


def main(config: Config) -> None:
    whole = read_known(config.truth)
    cells: list[AtomicCell] = list(islice(whole.cells, config.n_crystals))
    truth = Known(title(config.truth), whole.ids[: len(cells)], cells)
    quiet = CSPConfig(progress=False)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "attempts.csv"
        write_attempts(path, truth, config)
        warm = read_predictions(path, truth)
        evaluate_csp(truth, warm, config=quiet)  # imports, and compiles
        reading, attempts = timed(lambda: read_predictions(path, truth))
        matching, (found, _) = timed(lambda: displacements(truth, attempts))
        judging, result = timed(lambda: evaluate_csp(truth, attempts, config=quiet))
        plain, expected = timed(lambda: direct(path, truth))
    whole_time = reading + judging
    differences = np.abs(found - expected)
    report = {
        "name": "csp_evaluation",
        "value": round(len(attempts) / whole_time, 1),
        "unit": "attempts/s",
        "hardware": hardware(),
        "truth": title(config.truth),
        "attempts": len(attempts),
        "atoms_per_cell": round(float(np.mean([len(cell.species) for cell in cells])), 1),
        "matched": f"{np.isfinite(found).sum()} / {len(found)}",
        "match_rate": {m.name: m.fraction for m in result.rates if "match" in m.name},
        "ms_per_attempt": {
            name: round(1000 * seconds / len(attempts), 2)
            for name, seconds in {
                "reading": reading,
                "matching": matching,
                "all else": judging - matching,
                "direct loop": plain,
            }.items()
        },
        "ratio_to_direct_loop": round(plain / whole_time, 2),
        "ratio_of_reading_and_matching": round(plain / (reading + matching), 2),
        "disagreements": int((np.isnan(found) != np.isnan(expected)).sum()),
        "largest_difference": float(np.nanmax(differences)) if np.isfinite(found).any() else 0.0,
    }
    print(json.dumps(report))


if __name__ == "__main__":
    run(main, Config, __doc__, prepared=False)
