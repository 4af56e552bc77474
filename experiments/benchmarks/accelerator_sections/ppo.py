"""One step of PPO by phase."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from accelerator_sections.checks import CHECKPOINT
from accelerator_sections.run import Budget, Found, Measurement, Run
from accelerator_sections.sizes import Size
from crystaljax.conditions import Condition
from crystaljax.crystal import Array, Crystals
from crystaljax.objectives import kl_regularized, update_baseline
from crystaljax.policies.base import Params, SamplingConfig
from crystaljax.policies.loading import load_policy
from crystaljax.rewards.base import Reward, RewardBatch
from crystaljax.roofline import Work, count
from crystaljax.symmetry.orbits import n_atoms, volume
from crystaljax.training.crystal_task import CrystalTask
from crystaljax.training.reinforce import LogProbs, ReinforceConfig, ReinforceState, make_update
from crystaljax.training.rollouts import Clock, RewardBounds, judge

STEPS = 3
"""Number of timed steps, after one that compiles."""

NOTES = {
    "sample": "see the section sampling; decoded too",
    "reward": "the reward's own speed",
    "pack": "on the host",
    "advantage": "scores under both models",
    "update": "three inner steps, and the scores that the phase before times separately",
}
"""Limits of the phases, or their contents."""


def density(crystals: Crystals) -> RewardBatch:
    """Minus the deviation of the volume per atom from 15 Å³, over 15 Å³: a very cheap reward."""
    atoms = np.asarray(n_atoms(crystals))
    per_atom = np.asarray(volume(crystals.lattice)) / np.maximum(atoms, 1)
    return RewardBatch.from_values(-np.abs(per_atom / 15 - 1))


def _reward(weights: Path | None) -> tuple[str, Reward]:
    if weights is None:
        return "density", density
    from crystaljax.rewards.potentials.nequix import NequixPotential

    potential = NequixPotential(weights)

    def energy(crystals: Crystals) -> RewardBatch:
        found = potential.energies(crystals)
        return RewardBatch.from_values(-found.energy, None, found.reasons)

    return potential.name, energy


def ppo(run: Run, budget: Budget, size: Size, weights: Path | None) -> Iterator[Measurement]:
    """Seconds of each phase, with rollouts of the shipped model."""
    try:
        name, reward = _reward(weights)
    except ImportError:
        name, reward = "density", density
    n = size.sampled
    yield f"PPO step of {n}, {name}", partial(_step, run, budget, n, name, reward)


def _step(run: Run, budget: Budget, n: int, name: str, reward: Reward) -> dict[str, Found]:
    """One step for compilation, then timed steps: the whole, and each phase."""
    policy, base = load_policy(CHECKPOINT)
    sampling, config = SamplingConfig(batch_size=n), ReinforceConfig(batch_size=n)
    task = CrystalTask(policy, base, reward, sampling=sampling)
    log_probs = partial(task.log_probs, n_samples=n)
    optimizer = config.optimizer.build(config.inner_steps * (STEPS + 1))
    update = make_update(log_probs, optimizer, config)
    advantage = jax.jit(partial(_advantage, log_probs, config))
    state = task.place(ReinforceState.create(jax.tree.map(jnp.copy, base), optimizer))
    base = task.place(base)
    clocks: list[dict[str, float]] = []
    work: dict[str, Work] = {}
    for step in range(STEPS + 1):
        clock, params = Clock(), state.train.params
        with clock("sample"):
            drawn = policy.sample(params, [Condition()] * n, step, sampling)
        with clock("reward"):
            value = RewardBounds()(judge(task.reward, drawn.crystals, drawn.ok))
        with clock("pack"):
            parts = task.parts(drawn, np.arange(n))
            given = jax.block_until_ready((parts, jnp.asarray(value, jnp.float32)))
        with clock("advantage"):
            jax.block_until_ready(advantage(params, base, *given))
        if step == 0:
            work["advantage"] = count(advantage, params, base, *given)
            work["update"] = count(update, state, base, (), *given)
        with clock("update"):
            state, _ = jax.block_until_ready(update(state, base, (), *given))
        clocks.append({phase.split("/")[1]: x for phase, x in clock.seconds.items()})
        if step and budget.left < sum(clocks[-1].values()):
            break
    return _rows(run, n, name, clocks, work)


def _rows(
    run: Run, n: int, name: str, clocks: list[dict[str, float]], work: dict[str, Work]
) -> dict[str, Found]:
    """Seconds of the first step (mostly compiling), and medians of the others."""
    first, *later = clocks
    seconds = {phase: float(np.median([x[phase] for x in later])) for phase in first}
    # The update also scores the samples, which the phase "advantage" times separately.
    total = sum(seconds.values()) - seconds["advantage"]
    longest = max(seconds, key=lambda phase: seconds[phase])
    note = f"{total:.3g} s, of which {seconds[longest] / total:.0%} {longest}"
    whole = Found(n / total, "crystals/s", note, sum(first.values()))
    rows = {f"PPO step of {n}, {name}": whole}
    for phase, x in seconds.items():
        limits, details = NOTES.get(phase, ""), dict[str, float]()
        if phase in work:
            limit, details = run.limit(work[phase], x)
            limits = f"{limit}; {limits}"
        rows[f"PPO, {phase}"] = Found(1000 * x, "ms", limits, first[phase], None, details)
    return rows


def _advantage(
    log_probs: LogProbs,
    config: ReinforceConfig,
    params: Params,
    base: Params,
    parts: Any,
    reward: Array,
) -> Array:
    """Advantages [B], from the log-probabilities under both models."""
    part = jax.tree.map(lambda x: x[0], parts)
    logp, logp_base = (log_probs(each, (), part)[0][:, 0] for each in (params, base))
    returns = kl_regularized(reward, logp, logp_base, config.tau)
    return returns - update_baseline(jnp.float32(0), returns, config.baseline_decay, True)
