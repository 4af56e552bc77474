"""Structures per second of potentials, energies alone and with forces and stresses.

    python experiments/benchmarks/potentials.py --source mp20_bt/test.csv.gz \\
        --potentials chgnet nequix:nequix-mp-1.nqx

Cost: a few minutes on one core. The others are compared with the first potential. Each potential
first gets the same number of other crystals, for compilation; later compilations are counted. The
last line printed is one JSON object.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import jax
import numpy as np

from crystaljax.crystal import Crystals
from crystaljax.data.dataset import load
from crystaljax.experiment.main import run
from crystaljax.hardware import hardware
from crystaljax.rewards.potentials import create_potential


@dataclass(frozen=True)
class Config:
    source: str = "prototypes"
    """Crystals: a file, a folder or a registered dataset."""
    potentials: tuple[str, ...] = ("chgnet", "nequix")
    """Potentials, with weights after a colon."""
    n: int = 100
    """Number of crystals in the timed batch, and in the batch before it."""
    n_forces: int = 50
    """Number of crystals with forces and stresses, likewise."""
    seed: int = 0
    """Random seed for the draw."""


class Compilations:
    """Counts JAX's compilations."""

    def __init__(self) -> None:
        self.count = 0
        jax.monitoring.register_event_duration_secs_listener(self._note)

    def _note(self, event: str, duration_secs: float, **_: Any) -> None:
        self.count += "backend_compile" in event


def speed(
    work: Callable[[Crystals], Any], warm: Crystals, timed: Crystals, compiled: Compilations
) -> dict[str, float]:
    """Structures per second, seconds of the first pass, and compilations in the timed one."""
    start = time.perf_counter()
    work(warm)
    first = time.perf_counter() - start
    before = compiled.count
    start = time.perf_counter()
    work(timed)
    seconds = time.perf_counter() - start
    return {
        "per_s": round(len(timed) / seconds, 2),
        "first_pass_s": round(first, 1),
        "compiled_after": compiled.count - before,
    }


def main(config: Config) -> None:
    crystals = load(config.source).crystals
    rng = np.random.default_rng(config.seed)
    rows = rng.permutation(len(crystals))
    n, m = config.n, config.n_forces
    if len(rows) < 2 * max(n, m):
        raise ValueError(f"{config.source} has {len(rows)} crystals, fewer than {2 * max(n, m)}")
    compiled = Compilations()
    found: dict[str, Any] = {}
    for name in config.potentials:
        potential = create_potential(name)

        def forces(crystals: Crystals, potential: Any = potential) -> None:
            potential.relax(crystals, max_steps=0)  # one evaluation of the forces

        found[potential.name] = {
            "energies": speed(
                potential.energies, crystals[rows[:n]], crystals[rows[-n:]], compiled
            ),
            "forces": speed(forces, crystals[rows[:m]], crystals[rows[-m:]], compiled),
        }
    peer = next(iter(found.values()))
    for result in found.values():
        for kind in ("energies", "forces"):
            ratio = result[kind]["per_s"] / peer[kind]["per_s"]
            result[kind]["ratio"] = round(ratio, 3)
    report = {
        "name": "potentials",
        "unit": "structures/s",
        "hardware": hardware(),
        "source": config.source,
        "n": n,
        "n_forces": m,
        "potentials": found,
    }
    print(json.dumps(report))


if __name__ == "__main__":
    run(main, Config, __doc__, prepared=False)
