"""Time of a whole S.U.N. evaluation (stable, unique, novel) of unrelaxed samples, by phase.

    python experiments/benchmarks/sun.py --reference mp20_bt/train.csv.gz --hull mp20_bt

Samples of checkpoints/wyckoff-mp20bt get energies from CHGNet in worker processes, and are compared
with each other and with the reference. Cost: about ten minutes on two cores. The last line printed
is one JSON object.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from crystaljax.conditions import Condition
from crystaljax.data.dataset import load
from crystaljax.evaluation.matching import StructureSet, clusters, novel_mask, once
from crystaljax.experiment.main import run
from crystaljax.hardware import hardware, usable_cores
from crystaljax.policies.loading import load_policy
from crystaljax.rewards.pool import PoolConfig
from crystaljax.rewards.stability import StabilityConfig, StabilityReward
from crystaljax.training.rollouts import Clock, judge


@dataclass(frozen=True)
class Config:
    reference: str = "prototypes"
    """Crystals that do not count as new."""
    hull: str = "demonstration"
    """Convex hull."""
    n: int = 10_000
    """Samples."""
    n_workers: int = usable_cores()
    """Number of processes that compute energies."""
    seed: int = 0
    """Random seed for the samples."""


def main(config: Config) -> None:
    policy, params = load_policy(Path(__file__).parents[2] / "checkpoints" / "wyckoff-mp20bt")
    known = StructureSet.from_crystals(load(config.reference).crystals, config.reference)
    pool = PoolConfig(kind="processes", n_workers=config.n_workers, chunk=64)
    clock = Clock()
    with StabilityReward(StabilityConfig(hull=config.hull, pool=pool)) as stability:
        with clock("sampling"):
            drawn = policy.sample(params, [Condition()] * config.n, config.seed)
        with clock("energies and hull"):
            judged = judge(stability, drawn.crystals, drawn.ok)
    samples = StructureSet.from_crystals(drawn.crystals, "samples")
    with clock("unique"):
        cluster = clusters(samples)
    with clock("novel"):
        novel = novel_mask(samples, known) & drawn.ok
    stable = judged.ok & (-judged.value <= 0)
    total = sum(clock.seconds.values())
    report = {
        "name": "sun",
        "value": round(total, 1),
        "unit": "s",
        "hardware": hardware(),
        "n": config.n,
        "reference": f"{config.reference} ({len(known)} crystals)",
        "limit_s": 600,
        "ratio": round(600 / total, 2),
        "seconds": {phase: round(x, 1) for phase, x in clock.seconds.items()},
        "rates": {
            "stable": float(np.mean(stable)),
            "unique": float(np.mean(once(drawn.ok, cluster))),
            "novel": float(np.mean(novel)),
            "S.U.N.": float(np.mean(once(stable & novel, cluster))),
        },
    }
    print(json.dumps(report))


if __name__ == "__main__":
    run(main, Config, __doc__)
