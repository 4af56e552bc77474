"""PPO: on toy token problems it reaches the optimum known in closed form; runs resume."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from resuming import killed_and_resumed
from small import SMALL
from token_problem import LENGTH, SEQUENCES, actions, distance, probabilities, tables, tilted

from crystaljax.crystal import Crystals
from crystaljax.data.dataset import load
from crystaljax.objectives import action_weights, group_advantages, grpo
from crystaljax.policies.base import SamplingConfig
from crystaljax.policies.wyckoff import WyckoffPolicy
from crystaljax.rewards.base import RewardBatch
from crystaljax.symmetry.orbits import volume
from crystaljax.training.crystal_task import CrystalTask
from crystaljax.training.optimizer import OptimizerConfig
from crystaljax.training.reinforce import ReinforceConfig, ReinforceState, make_update, reinforce
from crystaljax.training.rollouts import judge

DECAYING = OptimizerConfig(
    learning_rate=0.02,
    schedule="linear",
    warmup_steps=0,
    weight_decay=0.0,
    ema_decay=0.0,
    final_fraction=0.02,
)


@pytest.mark.parametrize(("tau", "n_parts"), [(0.5, 1), (2.0, 1), (2.0, 4)])
def test_ppo_reaches_the_closed_form_optimum(tau: float, n_parts: int) -> None:
    """The optimum of E[r] - τ KL(p ‖ p_base) is p_base exp(r/τ)/Z."""
    base = tables(0)
    reward = np.random.default_rng(1).normal(size=len(SEQUENCES))
    start = probabilities(base)
    optimum = tilted(start, reward, tau)
    reached, metrics = train(
        base, reward, ReinforceConfig(tau=tau, optimizer=DECAYING), n_parts=n_parts
    )
    assert distance(start, optimum) > 0.1  # there was something to learn
    assert distance(reached, optimum) < 0.03
    # At the optimum the return is the same for every sequence: τ ln Z.
    log_z = np.log(np.sum(start * np.exp(reward / tau)))
    assert float(metrics["return"]) == pytest.approx(tau * log_z, abs=0.1)


def train(
    base: dict, reward: np.ndarray, config: ReinforceConfig, n_steps: int = 400, n_parts: int = 1
) -> tuple[np.ndarray, dict]:
    """Probabilities and last metrics after updates on 512 samples each."""
    optimizer = config.optimizer.build(n_steps * config.inner_steps)
    update = make_update(actions, optimizer, config)
    state = ReinforceState.create(base, optimizer)
    rng = np.random.default_rng(2)
    for _ in range(n_steps):
        drawn = rng.choice(len(SEQUENCES), 512, p=probabilities(state.train.params))
        batch = jnp.asarray(SEQUENCES[drawn]).reshape(n_parts, -1, LENGTH)
        state, metrics = update(state, base, (), batch, jnp.asarray(reward[drawn]))
    return probabilities(state.train.params), metrics


def test_grpo_reaches_its_fixed_point() -> None:
    """Where its mean gradient vanishes: p = p_base τ / (τ − A), A the advantage in one group."""
    base, tau = tables(0), 4.0
    reward = np.random.default_rng(1).normal(size=len(SEQUENCES))
    start = probabilities(base)
    optimum = start
    for _ in range(200):  # mean and deviation of the rewards depend on p
        mean = optimum @ reward
        advantage = (reward - mean) / np.sqrt(optimum @ (reward - mean) ** 2)
        optimum = 0.5 * optimum + 0.5 * start * tau / (tau - advantage)
    assert optimum.sum() == pytest.approx(1)
    config = ReinforceConfig(
        algorithm="grpo", tau=tau, batch_size=512, group_size=512, optimizer=DECAYING
    )
    reached, metrics = train(base, reward, config)
    assert distance(start, optimum) > 0.05
    assert distance(reached, optimum) < 0.015
    assert float(metrics["zero_variance"]) == 0


def test_grpo_without_a_penalty_finds_the_best() -> None:
    base = tables(0)
    reward = np.random.default_rng(1).normal(size=len(SEQUENCES))
    config = ReinforceConfig(
        algorithm="grpo", tau=0.0, batch_size=512, group_size=8, optimizer=DECAYING
    )
    reached, _ = train(base, reward, config, n_steps=200)
    assert reached[reward.argmax()] > 0.95


def test_mini_batches_are_updates_one_after_the_other() -> None:
    """Two passes of two mini-batches are four gradient steps by hand, on ratios to the start."""
    base = tables(0)
    rng = np.random.default_rng(1)
    tokens = jnp.asarray(SEQUENCES[rng.integers(len(SEQUENCES), size=8)])
    reward = jnp.asarray(rng.normal(size=8), jnp.float32)
    config = ReinforceConfig(
        algorithm="grpo",
        batch_size=8,
        group_size=4,
        tau=0.3,
        inner_steps=2,
        n_minibatches=2,
        optimizer=DECAYING,
    )
    optimizer = config.optimizer.build(4)
    state = ReinforceState.create(base, optimizer)
    update = make_update(actions, optimizer, config)
    found, _ = update(state, base, (), tokens.reshape(4, 2, LENGTH), reward)

    advantage, _ = group_advantages(reward, 4, config.std_floor)
    old, mask = actions(base, (), tokens)

    def loss(params: dict, rows: slice) -> jax.Array:
        logp, _ = actions(params, (), tokens[rows])
        weight = action_weights(mask[rows])
        given = old[rows], old[rows], advantage[rows]  # the start is the reference, too
        return grpo(logp, *given, weight, config.clip, config.tau)[0]

    params, moments = base, optimizer.init(base)
    for rows in (slice(0, 4), slice(4, 8)) * 2:
        updates, moments = optimizer.update(jax.grad(loss)(params, rows), moments, params)
        params = optax.apply_updates(params, updates)
    for name, table in params.items():
        assert np.abs(table - base[name]).max() > 1e-3
        np.testing.assert_allclose(found.train.params[name], table, atol=1e-5)
    assert int(found.train.step) == 4


def test_groups_that_do_not_divide_the_rollout_are_refused() -> None:
    with pytest.raises(ValueError, match="rollouts of 100 cannot be split into groups of 7"):
        ReinforceConfig(algorithm="grpo", group_size=7)


def test_without_reward_the_base_model_stays() -> None:
    base = tables(0)
    config = ReinforceConfig(tau=1.0)
    optimizer = config.optimizer.build(30)
    update = make_update(actions, optimizer, config)
    state = ReinforceState.create(base, optimizer)
    tokens = jnp.asarray(SEQUENCES)[None]
    first = state
    for _ in range(10):
        state, metrics = update(state, base, (), tokens, jnp.zeros(len(SEQUENCES)))
    # Its memory was used for the next one; the base has its own.
    assert all(x.is_deleted() for x in jax.tree.leaves(first.train.params))
    assert float(metrics["kl_base"]) == pytest.approx(0.0, abs=1e-6)
    for name, table in base.items():
        np.testing.assert_allclose(state.train.params[name], table, atol=1e-6)


def large_cells(crystals: Crystals) -> RewardBatch:
    """A reward without physics: bigger is better; odd space groups cannot be judged."""
    size = np.log(np.asarray(volume(crystals.lattice), np.float64))
    reasons = [None if g % 2 == 0 else "odd group" for g in crystals.space_group]
    return RewardBatch.from_values(size, {"size": size}, reasons)


def test_what_cannot_be_judged_is_not_ok() -> None:
    crystals = load("prototypes").crystals[np.arange(20)]
    ok = np.arange(20) != 3
    judged = judge(large_cells, crystals, ok)
    expected = ok & (crystals.space_group % 2 == 0)
    np.testing.assert_array_equal(judged.ok, expected)
    assert judged.reasons[3] == "no crystal"
    assert np.isnan(judged.value[~expected]).all()


@pytest.mark.slow
@pytest.mark.parametrize("algorithm", ["ppo", "grpo"])
def test_a_resumed_run_has_the_same_metrics(tmp_path: Path, algorithm: Any) -> None:
    policy = WyckoffPolicy(SMALL, load("prototypes").space_group_counts)
    base = policy.init(0)
    config = ReinforceConfig(
        algorithm=algorithm,
        group_size=8,
        n_steps=4,
        batch_size=16,
        save_every=1,
    )

    def judge_all(crystals: Crystals) -> RewardBatch:
        return RewardBatch.from_values(np.asarray(volume(crystals.lattice), np.float64))

    task = CrystalTask(policy, base, judge_all, sampling=SamplingConfig(batch_size=16))

    def run(folder: Path, track: Any) -> None:
        reinforce(task, base, config, folder, track)

    whole, first, second = killed_and_resumed(run, tmp_path, stop_after=3)
    assert sorted(second) == [3, 4]  # step 3 was tracked but not saved
    assert first | second == whole
