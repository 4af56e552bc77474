"""Markov chains: the stationary distribution on a toy problem and on a model, and resuming."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from resuming import killed_and_resumed
from small import SMALL
from token_problem import (
    LENGTH,
    SEQUENCES,
    VOCABULARY,
    distance,
    log_probs,
    probabilities,
    tables,
    tilted,
)

from crystaljax.composition import SYMBOLS
from crystaljax.conditions import Condition
from crystaljax.crystal import Crystals
from crystaljax.data.dataset import load
from crystaljax.mcmc import Chains, MCMCConfig, Moves, metropolis, run_chains
from crystaljax.policies.base import SamplingConfig
from crystaljax.policies.wyckoff import WyckoffPolicy
from crystaljax.rewards.base import RewardBatch
from crystaljax.rewards.bounds import RewardBounds
from crystaljax.tokenizations.wyckoff import WyckoffTokenization
from crystaljax.training.crystal_task import CrystalTask

NO_BOUNDS = RewardBounds()
SAMPLING = SamplingConfig(batch_size=300)


def test_chains_reach_the_tilted_distribution() -> None:
    base, tau, n = tables(0), 0.5, 20_000
    reward = np.random.default_rng(1).normal(size=len(SEQUENCES))
    start = probabilities(base)
    target = tilted(start, reward, tau)
    powers = VOCABULARY ** np.arange(LENGTH)[::-1]

    def evaluate(tokens: np.ndarray) -> Chains[np.ndarray]:
        index = tokens @ powers
        return Chains(tokens, np.log(start)[index] + reward[index] / tau, {"index": index})

    def propose(tokens: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        new = tokens.copy()
        new[np.arange(n), rng.integers(LENGTH, size=n)] = rng.integers(VOCABULARY, size=n)
        return new

    rng = np.random.default_rng(0)
    chains = evaluate(np.zeros((n, LENGTH), int))
    for _ in range(120):
        chains, accepted = metropolis(chains, propose, evaluate, rng)
    reached = np.bincount(chains.found["index"], minlength=len(SEQUENCES)) / n
    assert distance(start, target) > 0.2
    assert distance(reached, target) < 0.02
    assert 0 < accepted.mean() < 1
    np.testing.assert_allclose(np.asarray(log_probs(base, SEQUENCES)), np.log(start), atol=1e-5)


def test_a_chain_never_goes_where_it_may_not() -> None:
    def evaluate(x: np.ndarray) -> Chains[np.ndarray]:
        return Chains(x, np.where(x < 0, -np.inf, 0.0), {})

    chains = evaluate(np.zeros(100))
    rng = np.random.default_rng(0)
    for _ in range(20):
        chains, _ = metropolis(chains, lambda x, rng: x + rng.normal(size=100), evaluate, rng)
    assert (chains.items >= 0).all() and (chains.items > 0).any()


def test_moves_change_one_thing_at_a_time() -> None:
    crystals = load("prototypes").crystals
    crystals = crystals[np.asarray(crystals.n_sites) > 1].to_numpy()
    moved = Moves().propose(crystals, np.array([3, 8]), np.random.default_rng(0))
    np.testing.assert_array_equal(moved.wyckoff, crystals.wyckoff)
    np.testing.assert_array_equal(moved.species > 0, crystals.species > 0)
    changed = np.stack(
        [
            (np.abs(getattr(moved, name) - getattr(crystals, name)) > 2e-6)
            .reshape(len(crystals), -1)
            .any(axis=1)
            for name in ("species", "frac", "lattice")
        ]
    )
    assert (changed.sum(axis=0) <= 1).all()
    assert (changed.mean(axis=1) > 0.05).all()
    tokenization = WyckoffTokenization(21)
    assert tokenization.decode(tokenization.encode(moved)).ok.mean() > 0.9


def nothing(crystals: Crystals) -> RewardBatch:
    return RewardBatch.from_values(np.zeros(len(crystals)))


@pytest.mark.slow
def test_a_model_s_own_samples_stay_its_samples(tmp_path: Path) -> None:
    """Without reward the chains start in their stationary distribution and must stay there."""
    policy = WyckoffPolicy(SMALL, load("prototypes").space_group_counts)
    params = policy.init(0)
    config = MCMCConfig(
        n_chains=600,
        n_steps=15,
        elements=SYMBOLS[:118],
    )
    lines: list[dict[str, float]] = []
    task = CrystalTask(policy, params, nothing, sampling=SAMPLING, bounds=NO_BOUNDS)
    start = policy.sample(params, [Condition()] * config.n_chains, config.seed, task.sampling)
    end = run_chains(task, params, config, tmp_path, lambda m, _: lines.append(m))
    assert 0.05 < np.mean([line["mcmc/accepted"] for line in lines]) < 0.95
    for name in ("frac", "lattice"):
        before, after = (getattr(x, name)[start.ok] for x in (start.crystals, end))
        assert (before != after).reshape(len(before), -1).any(axis=1).mean() > 0.1
    before, after = (np.sort(x.lattice[start.ok, 0]) for x in (start.crystals, end))
    from scipy.stats import ks_2samp

    assert ks_2samp(before, after).pvalue > 1e-3


@pytest.mark.slow
def test_chains_resume(tmp_path: Path) -> None:
    policy = WyckoffPolicy(SMALL, load("prototypes").space_group_counts)
    params = policy.init(0)
    config = MCMCConfig(n_chains=8, n_steps=4, save_every=2)
    task = CrystalTask(policy, params, nothing, sampling=SAMPLING)

    def run(folder: Path, track: Any) -> None:
        run_chains(task, params, config, folder, track)

    whole, first, second = killed_and_resumed(run, tmp_path, stop_after=3)
    assert sorted(second) == [3, 4]
    assert first | second == whole
