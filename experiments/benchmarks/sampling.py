"""Sampling speed on one core, against CrystalFormer's public code.

    taskset -c 0 python experiments/benchmarks/sampling.py --preset two-layer

The model has random weights, with crystals of about 3 sites; give a trained one with --model.
The peer's speeds are measurements of its public code on one core of an Intel Xeon at 2.5 GHz, batch
100, n_max 21 (it computes all 105 tokens of every sample): the ratio holds for that processor.
"""

from __future__ import annotations

import json
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import tyro
from presets import MODELS, Preset

from crystaljax.conditions import Condition
from crystaljax.data.dataset import load
from crystaljax.hardware import hardware
from crystaljax.policies.base import Policy, SamplingConfig
from crystaljax.policies.loading import load_policy
from crystaljax.policies.wyckoff import WyckoffPolicy

PEER: dict[Preset, float] = {"two-layer": 0.67, "published": 0.1}
"""Crystals per second of CrystalFormer's sampling."""


@dataclass(frozen=True)
class Config:
    """Seconds of sampling, with the cost of compiling apart."""

    preset: Preset = "two-layer"
    """Size of the model."""
    model: Path | None = None
    """A trained model, in place of random weights of the preset's size."""
    n: int = 1000
    """Samples that are timed."""
    batch_size: int = 250
    """Samples made at a time."""


def main(config: Config) -> None:
    policy: Policy
    if config.model is None:
        policy = WyckoffPolicy(MODELS[config.preset], load("prototypes").space_group_counts)
        params = policy.init(0)
    else:
        policy, params = load_policy(config.model)
    sampling = SamplingConfig(batch_size=config.batch_size)
    start = time.perf_counter()
    policy.sample(params, [Condition()] * config.batch_size, 0, sampling)
    first = time.perf_counter() - start
    free = [Condition()] * config.n
    policy.sample(params, free, 1, sampling)  # compiles what rare long samples need
    start = time.perf_counter()
    rollout = policy.sample(params, free, 1, sampling)
    seconds = time.perf_counter() - start
    speed = config.n / seconds
    report = {
        "name": "sampling",
        "value": round(speed, 1),
        "unit": "crystals/s",
        "hardware": hardware(),
        "preset": config.preset if config.model is None else config.model.name,
        "batch_size": config.batch_size,
        "mean_sites": round(float(np.mean(rollout.crystals.n_sites)), 2),
        "first_batch_s": round(first, 1),
    }
    if config.model is None:
        report |= {
            "peer_crystals_per_s": PEER[config.preset],
            "ratio": round(speed / PEER[config.preset], 1),
        }
    print(json.dumps(report))


if __name__ == "__main__":
    main(tyro.cli(Config))
