"""DPO: pairs, the optimum of a toy token problem, and runs that resume."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from resuming import killed_and_resumed
from small import SMALL
from token_problem import SEQUENCES, actions, distance, log_probs, probabilities, tables, tilted

from crystaljax.crystal import Crystals
from crystaljax.data.dataset import load
from crystaljax.policies.base import SamplingConfig
from crystaljax.policies.wyckoff import WyckoffPolicy
from crystaljax.rewards.base import RewardBatch
from crystaljax.rewards.bounds import RewardBounds
from crystaljax.symmetry.orbits import volume
from crystaljax.training.crystal_task import CrystalTask
from crystaljax.training.optimizer import OptimizerConfig, TrainState
from crystaljax.training.preference import (
    DpoConfig,
    PreferenceConfig,
    make_update,
    prefer,
    preference_pairs,
    ranked_pairs,
)

REWARDS = st.sampled_from([-1.0, 0.0, 0.1, 0.15, 0.5])


@given(
    st.lists(st.tuples(REWARDS, st.integers(1, 3)), max_size=30),
    st.sampled_from([0.0, 0.05, 0.3]),
)
def test_pairs_are_of_one_group_and_the_right_way_round(
    samples: list[tuple[float, int]], gap: float
) -> None:
    reward = np.array([r for r, _ in samples], float)
    group = np.array([g for _, g in samples], int)
    pairs = preference_pairs(reward, group, gap, np.random.default_rng(0))
    chosen, rejected = pairs.T
    assert (group[chosen] == group[rejected]).all()
    assert (reward[chosen] - reward[rejected] >= gap).all()
    assert (reward[chosen] > reward[rejected]).all()
    assert len(np.unique(pairs)) == pairs.size


@given(
    st.lists(REWARDS, max_size=30),
    st.floats(0.01, 1.0),
    st.floats(0.01, 1.0),
    st.integers(1, 12),
)
def test_the_best_are_paired_with_some_of_the_worst(
    rewards: list[float], best: float, worst: float, n_rejected: int
) -> None:
    reward = np.array(rewards, float)
    pairs = ranked_pairs(reward, best, worst, n_rejected, np.random.default_rng(0))
    chosen, rejected = pairs.T
    assert (reward[chosen] > reward[rejected]).all()
    assert len(np.unique(pairs, axis=0)) == len(pairs)
    n_best = round(best * len(reward))
    n_worst = round(worst * len(reward))
    ordered = np.sort(reward)
    least = ordered[len(reward) - n_best] if n_best else np.inf
    most = ordered[n_worst - 1] if n_worst else -np.inf
    assert (reward[chosen] >= least).all() and (reward[rejected] <= most).all()
    for one in np.flatnonzero(reward > max(least, most)):  # surely among the best
        assert (chosen == one).sum() == min(n_rejected, n_worst)


def test_the_best_meet_all_that_are_worse() -> None:
    """With all as `worst`, as in arXiv 2511.12036: rank j > i, of the best quarter too."""
    reward = np.arange(8.0)[::-1]
    pairs = ranked_pairs(reward, 0.25, 1.0, 100, np.random.default_rng(0))
    assert {(int(a), int(b)) for a, b in pairs} == {
        (i, j) for i in range(2) for j in range(i + 1, 8)
    }


@pytest.mark.parametrize("worst", [1.0, 0.5])
def test_by_rank_equal_rewards_are_ordered_too(worst: float) -> None:
    """The earlier sample is preferred; no sample to itself, none to one before it."""
    reward = np.array([0.0, 1.0, 1.0, 1.0])  # in order: 1, 2, 3, 0
    rng = np.random.default_rng(0)
    pairs = ranked_pairs(reward, 0.5, worst, 9, rng, by_rank=True)
    every = {(1, 2), (1, 3), (1, 0), (2, 3), (2, 0)}
    others = {1, 2, 3, 0} if worst == 1 else {3, 0}
    assert {(int(a), int(b)) for a, b in pairs} == {(a, b) for a, b in every if b in others}
    without = ranked_pairs(reward, 0.5, worst, 9, rng)
    assert {(int(a), int(b)) for a, b in without} == {(1, 0), (2, 0)}


def test_the_paper_s_number_of_pairs_with_equal_rewards() -> None:
    reward = np.zeros(5000)
    rng = np.random.default_rng(0)
    assert len(ranked_pairs(reward, 0.25, 1.0, 100, rng, by_rank=True)) == 125_000


@pytest.mark.parametrize(("best", "worst"), [(0.0, 0.5), (0.5, 0.0), (1.1, 0.5), (0.5, 1.1)])
def test_shares_out_of_range_are_told(best: float, worst: float) -> None:
    with pytest.raises(ValueError, match="above 0, 1 at most"):
        ranked_pairs(np.arange(4.0), best, worst, 1, np.random.default_rng(0))


@pytest.mark.parametrize("n_parts", [1, pytest.param(4, marks=pytest.mark.slow)])
def test_dpo_reaches_the_closed_form_optimum(n_parts: int) -> None:
    """With preferences by Bradley and Terry it is p_reference exp(r/β)/Z."""
    base, beta = tables(0), 1.0
    reward = np.random.default_rng(1).normal(size=len(SEQUENCES))
    start = probabilities(base)
    optimum = tilted(start, reward, beta)
    config = OptimizerConfig(
        learning_rate=0.03, schedule="linear", warmup_steps=0, weight_decay=0.0, ema_decay=0.0
    )
    n_steps, n_pairs = 600, 512
    optimizer = config.build(n_steps)
    update = make_update(actions, optimizer, DpoConfig(beta), 0.0)
    state = TrainState.create(base, optimizer)
    known = log_probs(base, jnp.asarray(SEQUENCES))
    rng, first = np.random.default_rng(2), state
    for _ in range(n_steps):
        a, b = rng.integers(len(SEQUENCES), size=(2, n_pairs))
        a_wins = rng.random(n_pairs) < 1 / (1 + np.exp(reward[b] - reward[a]))
        chosen, rejected = np.where(a_wins, a, b), np.where(a_wins, b, a)
        both = np.stack([chosen, rejected], axis=1).reshape(n_parts, -1)
        state, metrics = update(state, (), jnp.asarray(SEQUENCES[both]), known[both])
    assert all(x.is_deleted() for x in jax.tree.leaves(first.params))  # the update took them
    assert distance(start, optimum) > 0.1
    assert distance(probabilities(state.params), optimum) < 0.03
    assert 0.5 < float(metrics["accuracy"]) < 1


def large_cells(crystals: Crystals) -> RewardBatch:
    """A reward without physics: bigger is better."""
    size = np.log(np.asarray(volume(crystals.lattice), np.float64))
    return RewardBatch.from_values(size, {"size": size})


CONFIG = PreferenceConfig(
    n_iterations=3,
    n_samples=24,
    group_size=8,
    batch_size=4,
    temperature_step=0.1,
)
SAMPLING = SamplingConfig(batch_size=16)


@pytest.mark.slow
def test_a_run_learns_and_resumes_with_the_same_metrics(tmp_path: Path) -> None:
    policy = WyckoffPolicy(SMALL, load("prototypes").space_group_counts)
    base = policy.init(0)

    bounds = RewardBounds(invalid=-11.0, low=-10.0, high=20.0)
    task = CrystalTask(policy, base, large_cells, sampling=SAMPLING, bounds=bounds)

    def run(folder: Path, track: Any) -> None:
        prefer(task, base, CONFIG, folder, track)

    whole, first, second = killed_and_resumed(run, tmp_path, stop_after=2)
    assert sorted(second) == [2, 3]  # iteration 2 was tracked but not saved
    assert first | second == whole
    assert whole[1]["dpo/kl_base"] == pytest.approx(0, abs=1e-3)
    assert whole[3]["samples/temperature"] == pytest.approx(1.2)
    assert all(line["dpo/pairs"] > 0 for line in whole.values())


@pytest.mark.slow
def test_without_differences_nothing_is_learnt(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    policy = WyckoffPolicy(SMALL, load("prototypes").space_group_counts)
    base = policy.init(0)

    def nothing(crystals: Crystals) -> RewardBatch:
        return RewardBatch.from_values(np.zeros(len(crystals)))

    lines: list[dict[str, float]] = []
    config = PreferenceConfig(
        n_iterations=1,
        n_samples=24,
        group_size=8,
        batch_size=4,
    )
    task = CrystalTask(policy, base, nothing, sampling=SAMPLING, bounds=RewardBounds(0.0))
    prefer(task, base, config, tmp_path, lambda metrics, _: lines.append(metrics))
    assert lines[0]["dpo/pairs"] == 0
    assert "nothing to learn from" in caplog.text
