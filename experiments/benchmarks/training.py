"""Training speed on one core, against CrystalFormer's public code.

    taskset -c 0 python experiments/benchmarks/training.py --preset two-layer

The peer's speeds were measured with its public code on one core of an Intel Xeon at 2.5 GHz, batch
100, n_max 21, so the ratio holds for that processor.
"""

from __future__ import annotations

import json
import time
from dataclasses import dataclass
from pathlib import Path

import jax
import numpy as np
from presets import MODELS, Preset

from crystaljax.data.dataset import load
from crystaljax.experiment.main import run
from crystaljax.hardware import hardware
from crystaljax.objectives import negative_log_likelihood
from crystaljax.policies.wyckoff import WyckoffPolicy
from crystaljax.training.batches import Batches, Packed
from crystaljax.training.optimizer import OptimizerConfig, TrainState

PEER: dict[Preset, float] = {"two-layer": 18.0, "published": 2.1}
"""Crystals per second of CrystalFormer's training step."""


@dataclass(frozen=True)
class Config:
    """Seconds of a training step (forward, backward, AdamW, with dropout)."""

    preset: Preset = "two-layer"
    """Size of the model."""
    data: str = "prototypes"
    """Training crystals; the speed depends on their numbers of sites."""
    batch_size: int = 100
    """Number of crystals in a step."""
    steps: int = 8
    """Number of timed steps; the median is reported."""


def main(config: Config) -> None:
    data = load(config.data)
    policy = WyckoffPolicy(MODELS[config.preset], data.space_group_counts)
    batches = Batches(data.crystals, policy.codec, config.batch_size, seed=0)
    optimizer = OptimizerConfig().build(1000)
    state = TrainState.create(policy.init(0), optimizer)

    @jax.jit
    def train_step(state: TrainState, packed: Packed) -> TrainState:
        def loss(params: object) -> jax.Array:
            key = jax.random.fold_in(jax.random.key(0), state.step)
            parts = policy.packed_log_prob(params, packed, config.batch_size, key)
            return negative_log_likelihood(parts.total)

        return state.apply(jax.grad(loss)(state.params), optimizer, 0.999)

    start = time.perf_counter()
    state = jax.block_until_ready(train_step(state, batches.packed(0)))
    first = time.perf_counter() - start
    seconds = []
    for step in range(1, config.steps + 1):
        start = time.perf_counter()
        state = jax.block_until_ready(train_step(state, batches.packed(step)))
        seconds.append(time.perf_counter() - start)
    speed = config.batch_size / float(np.median(seconds))
    tokens = sum(rows.n_rows * (5 * rows.sites + rows.crystals) for rows in batches.plan)
    used = config.batch_size * float(np.mean(5 * np.asarray(data.crystals.n_sites) + 1))
    report = {
        "name": "training",
        "value": round(speed, 1),
        "unit": "crystals/s",
        "hardware": hardware(),
        "preset": config.preset,
        "data": Path(config.data).name,
        "batch_size": config.batch_size,
        "first_step_s": round(first, 1),
        "tokens_used_of_computed": round(used / tokens, 2),
        "peer_crystals_per_s": PEER[config.preset],
        "ratio": round(speed / PEER[config.preset], 1),
    }
    print(json.dumps(report))


if __name__ == "__main__":
    run(main, Config, __doc__, prepared=False)
