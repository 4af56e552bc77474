"""Speed of the equilibrium engine (candidates per CPU hour), and of pycalphad's `Workspace`.

    python experiments/benchmarks/calphad.py

Cost: under a minute on one core; only CPU time counts. Random mixtures of a BCC and a B2 of the
same elements, at 20 temperatures; pycalphad solves each point once, in one `Workspace`. The engine
tests and improves its solutions. Where its energy is lower, the single solve was wrong; the share
of such points is printed with the ratio of speeds. The last line printed is one JSON object.
"""

from __future__ import annotations

import json
import time
from dataclasses import dataclass
from typing import Any

import numpy as np

from crystaljax.alloys.engines.calphad import Calphad
from crystaljax.alloys.engines.database import VACANCY
from crystaljax.alloys.engines.minimum import PRESSURE, System
from crystaljax.alloys.engines.search import find_minima
from crystaljax.alloys.engines.thermodynamics import TEMPERATURES
from crystaljax.experiment.main import run
from crystaljax.hardware import hardware

WRONG = 10.0
"""J/mol: a minimum this far above the engine's energy is wrong."""


@dataclass(frozen=True)
class Config:
    database: str = "alcocrni.tdb"
    """A TDB file, or one of pycalphad's."""
    elements: tuple[str, ...] = ("Al", "Co", "Cr", "Ni")
    """Of all candidates."""
    candidates: int = 40
    """Number of candidates for the engine."""
    peer_candidates: int = 4
    """Number of these candidates that pycalphad solves."""
    seed: int = 0
    """Random seed for the candidates."""


def mixtures(n: int, n_elements: int, seed: int) -> np.ndarray:
    """Mole fractions [n, E] above 1 %."""
    rng = np.random.default_rng(seed)
    amounts = np.clip(rng.dirichlet(np.full(n_elements, 0.8), n), 0.01, None)
    return np.asarray(amounts / amounts.sum(axis=1, keepdims=True))


def by_pycalphad(engine: Calphad, system: System, rows: np.ndarray) -> tuple[np.ndarray, float]:
    """Energies [n, T] in J/mol of single solves in one `Workspace`, and their seconds."""
    from pycalphad import Workspace
    from pycalphad import variables as v

    def conditions(row: np.ndarray) -> dict[Any, Any]:
        free = zip(system.elements[1:], row[1:].tolist(), strict=True)
        at = {v.T: system.temperatures.tolist(), v.P: PRESSURE, v.N: 1}
        return at | {v.X(element): x for element, x in free}

    names = [*system.elements, VACANCY]
    workspace = Workspace(engine.database.source, names, system.phases, conditions(rows[0]))

    def energies() -> np.ndarray:
        return np.asarray(workspace.get("GM")).reshape(-1)

    energies()  # compiles
    start = time.process_time()
    found = []
    for row in rows:
        workspace.conditions = conditions(row)
        found.append(energies())
    return np.array(found), time.process_time() - start


def main(config: Config) -> None:
    engine = Calphad(config.database, config.elements)
    start = time.process_time()
    system = System(engine.database, config.elements, TEMPERATURES)
    rows = mixtures(config.candidates, len(config.elements), config.seed)
    find_minima(system, rows[0])  # samples its grid
    setup = time.process_time() - start
    start = time.process_time()
    found = np.array([[m.energy for m in find_minima(system, row)] for row in rows])
    seconds = (time.process_time() - start) / len(rows)
    once, peer = by_pycalphad(engine, system, rows[: config.peer_candidates])
    peer /= len(once)
    # A point that did not converge counts as wrong, too.
    wrong = ~(once <= found[: len(once)] + WRONG)
    lower = found[: len(once)] > once + WRONG
    report = {
        "name": "calphad",
        "value": round(3600 / seconds),
        "unit": "candidates/h",
        "hardware": hardware(),
        "database": config.database,
        "elements": len(config.elements),
        "temperatures": len(TEMPERATURES),
        "seconds_to_set_up": round(setup, 1),
        "failed_points": int(np.isnan(found).sum()),
        "pycalphad_candidates_per_h": round(3600 / peer),
        "ratio": round(peer / seconds, 2),
        "pycalphad_wrong_points": float(wrong.mean()),
        "engine_wrong_points": float(lower.mean()),
    }
    print(json.dumps(report))


if __name__ == "__main__":
    run(main, Config, __doc__, prepared=False)
