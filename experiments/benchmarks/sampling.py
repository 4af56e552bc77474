"""Sampling speed on one core: against CrystalFormer's public code, and under conditions.

    taskset -c 0 python experiments/benchmarks/sampling.py --preset two-layer
    taskset -c 0 python experiments/benchmarks/sampling.py --model checkpoints/wyckoff-mp20bt \\
        --conditions

The model has random weights and makes crystals of about 3 sites; --model takes a trained one. The
peer's speeds were measured with its public code on one core of an Intel Xeon at 2.5 GHz, batch 100,
n_max 21 (it computes all 105 tokens of every sample), so the ratio holds for that processor. With
--conditions, one sample is drawn for each of many different conditions: the space groups, Wyckoff
templates, formulas and elements of the model's own samples.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from presets import MODELS, Preset

from crystaljax.composition import symbol
from crystaljax.conditions import Condition
from crystaljax.data.dataset import load
from crystaljax.experiment.main import run
from crystaljax.hardware import hardware
from crystaljax.models.wyckoff.rollout import TokenRollout
from crystaljax.policies.base import SamplingConfig
from crystaljax.policies.wyckoff import WyckoffPolicy, load_wyckoff
from crystaljax.symmetry.tables import letter, tables

PEER: dict[Preset, float] = {"two-layer": 0.67, "published": 0.1}
"""Crystals per second of CrystalFormer's sampling."""


@dataclass(frozen=True)
class Config:
    """Seconds of sampling, with compilation timed separately."""

    preset: Preset = "two-layer"
    """Size of the model."""
    model: Path | None = None
    """A trained model, in place of random weights of the preset's size."""
    n: int = 1000
    """Number of timed samples."""
    batch_size: int = 250
    """Number of samples per batch."""
    conditions: bool = False
    """Also time this number of samples under different conditions of each kind."""


def main(config: Config) -> None:
    if config.model is None:
        policy = WyckoffPolicy(MODELS[config.preset], load("prototypes").space_group_counts)
        params = policy.init(0)
    else:
        policy, params = load_wyckoff(config.model)

    def sample(conditions: list[Condition], seed: int) -> TokenRollout:
        sampling = SamplingConfig(batch_size=config.batch_size)
        return policy.draw(params, conditions, seed, sampling, repeat=1)

    free = [Condition()] * config.n
    start = time.perf_counter()
    sample(free[: config.batch_size], 0)
    first = time.perf_counter() - start
    sample(free, 1)  # compiles the sizes of rare long samples
    seconds, rollout = timed(sample, free, 1)
    speed = config.n / seconds
    report = {
        "name": "sampling",
        "value": round(speed, 1),
        "unit": "crystals/s",
        "hardware": hardware(),
        "preset": config.preset if config.model is None else config.model.name,
        "batch_size": config.batch_size,
        "mean_sites": round(float(np.mean(rollout.tokens.n_sites)), 2),
        "first_batch_s": round(first, 1),
    }
    if config.model is None:
        report |= {
            "peer_crystals_per_s": PEER[config.preset],
            "ratio": round(speed / PEER[config.preset], 1),
        }
    print(json.dumps(report))
    for kind in KINDS if config.conditions else ():
        print(json.dumps(under_conditions(sample, kind, config, rollout)))


def timed(
    sample: Callable[[list[Condition], int], TokenRollout], conditions: list[Condition], seed: int
) -> tuple[float, TokenRollout]:
    start = time.perf_counter()
    rollout = sample(conditions, seed)
    return time.perf_counter() - start, rollout


def under_conditions(
    sample: Callable[[list[Condition], int], TokenRollout],
    kind: str,
    config: Config,
    rollout: TokenRollout,
) -> dict[str, object]:
    """Speed with a different condition for each sample, and without conditions before and after."""
    free = [Condition()] * config.n
    other = sample(free, 2)
    others = [KINDS[kind](other, i) for i in range(config.n)]
    conditions = [KINDS[kind](rollout, i) for i in range(config.n)]
    sample(others, 3)
    before, _ = timed(sample, free, 1)
    seconds, found = timed(sample, conditions, 4)
    after, _ = timed(sample, free, 1)
    return {
        "name": f"sampling_{kind}",
        "value": round(config.n / seconds, 1),
        "unit": "crystals/s",
        "of_free": round(0.5 * (before + after) / seconds, 2),
        "different": len(set(conditions)),
        "met": round(float(found.satisfied.mean()), 4),
        "mean_sites": round(float(np.mean(found.tokens.n_sites)), 2),
    }


def space_group(rollout: TokenRollout, i: int) -> Condition:
    return Condition(space_group=int(rollout.tokens.space_group[i]))


def template(rollout: TokenRollout, i: int) -> Condition:
    letters = rollout.tokens.wyckoff[i]
    return Condition(template=tuple(letter(int(x)) for x in letters[letters > 0]))


def formula(rollout: TokenRollout, i: int) -> Condition:
    return Condition(formula=_formula(rollout, i), formula_units=1)


def open_formula(rollout: TokenRollout, i: int) -> Condition:
    return Condition(formula=_formula(rollout, i))


def _formula(rollout: TokenRollout, i: int) -> str:
    tokens = rollout.tokens
    group, sites = tokens.space_group[i] - 1, int(tokens.n_sites[i])
    atoms = tables().multiplicity[group, tokens.wyckoff[i]] // tables().n_centering[group]
    counts = np.bincount(tokens.species[i, :sites], atoms[:sites])
    return "".join(f"{symbol(int(z))}{int(counts[z])}" for z in np.flatnonzero(counts))


def required(rollout: TokenRollout, i: int) -> Condition:
    """One element of a sample, or two in every other one that has more."""
    species = sorted({int(z) for z in rollout.tokens.species[i] if z})
    return Condition(required=tuple(symbol(z) for z in species[-1 - i % 2 :]))


KINDS: dict[str, Callable[[TokenRollout, int], Condition]] = {
    "space_group": space_group,
    "template": template,
    "formula": formula,
    "open_formula": open_formula,
    "required": required,
}


if __name__ == "__main__":
    run(main, Config, __doc__, prepared=False)
