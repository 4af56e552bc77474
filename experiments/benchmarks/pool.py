"""Overhead of a pool of processes per item, and its speed-up with CHGNet.

    python experiments/benchmarks/pool.py --workers 1 2

Cost: two minutes on two cores. Expect, on two 2.5 GHz cores: 0.05 ms per item in chunks of 16 for a
reward that does nothing, 40 crystals per second with one worker and 1.9 times that with two, and
the same rewards as inline to 1e-6 eV/atom. The last line printed is one JSON object.
"""

from __future__ import annotations

import json
import time
from dataclasses import dataclass, replace
from functools import partial

import numpy as np

from crystaljax.crystal import Crystals
from crystaljax.data.dataset import load
from crystaljax.experiment.main import run
from crystaljax.hardware import hardware
from crystaljax.rewards import Reward, RewardBatch, create
from crystaljax.rewards.pool import Pool, PoolConfig


@dataclass(frozen=True)
class Config:
    workers: tuple[int, ...] = (1, 2)
    """Numbers of workers to compare."""
    crystals: int = 320
    """Crystals for CHGNet, drawn from the embedded prototypes."""
    trivial_crystals: int = 10_000
    """Crystals for the reward that does nothing."""
    chunk: int = 16
    """Crystals in one task."""
    seed: int = 0
    """Random seed for the draw."""


def nothing(crystals: Crystals) -> RewardBatch:
    return RewardBatch.from_values(np.zeros(len(crystals)))


def make_nothing() -> Reward:
    return nothing


def draw(n: int, seed: int) -> Crystals:
    crystals = load("prototypes").crystals.to_numpy()
    return crystals[np.random.default_rng(seed).integers(len(crystals), size=n)]


def seconds_of(pool: Pool, crystals: Crystals) -> tuple[float, float, RewardBatch]:
    """Seconds of the first batch, which starts the workers, and of a second one; its rewards."""
    start = time.perf_counter()
    pool(crystals)
    middle = time.perf_counter()
    batch = pool(crystals)
    return middle - start, time.perf_counter() - middle, batch


def main(config: Config) -> None:
    settings = PoolConfig(kind="processes", chunk=config.chunk)
    trivial, crystals = (draw(n, config.seed) for n in (config.trivial_crystals, config.crystals))

    overhead = {}
    for n in config.workers:
        with Pool(make_nothing, replace(settings, n_workers=n)) as pool:
            overhead[n] = 1000 * seconds_of(pool, trivial)[1] / len(trivial)

    make = partial(create, "e_above_hull", potential="chgnet")
    rates, starts, batches = {}, {}, []
    for n in config.workers:
        with Pool(make, replace(settings, n_workers=n)) as pool:
            first, second, batch = seconds_of(pool, crystals)
        rates[n], starts[n] = len(crystals) / second, first - second
        batches.append(batch)
    expected = Pool(make)(crystals)
    assert all(np.array_equal(batch.ok, expected.ok) for batch in batches)
    differences = [np.nanmax(np.abs(batch.value - expected.value)) for batch in batches]

    most, least = max(config.workers), min(config.workers)
    report = {
        "name": "pool",
        "value": round(rates[most] / rates[least], 2),
        "unit": f"speed of {most} workers over {least}",
        "hardware": hardware(),
        "chunk": config.chunk,
        "overhead_ms_per_item": {n: round(ms, 4) for n, ms in overhead.items()},
        "chgnet_crystals_per_s": {n: round(rate, 1) for n, rate in rates.items()},
        "start_s": {n: round(seconds, 1) for n, seconds in starts.items()},
        "max_difference_eV_per_atom": float(max(differences)),
    }
    print(json.dumps(report))


if __name__ == "__main__":
    run(main, Config, __doc__, prepared=False)
