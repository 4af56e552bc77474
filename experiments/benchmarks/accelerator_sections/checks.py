"""Every compiled step of the Wyckoff transformer on fixed inputs, for `agreement`."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any, Literal

import jax
import jax.numpy as jnp
import numpy as np
import optax

from accelerator_sections.agreement import Results
from crystaljax.conditions import Condition
from crystaljax.crystal import Array, Crystals
from crystaljax.parallel import make_mesh
from crystaljax.policies.base import Params, SamplingConfig
from crystaljax.policies.wyckoff import WyckoffPolicy, load_wyckoff
from crystaljax.symmetry.orbits import expand
from crystaljax.tokenizations.packing import Rows, pack
from crystaljax.training import preference, reinforce
from crystaljax.training.batches import Packed, place
from crystaljax.training.optimizer import OptimizerConfig, TrainState
from crystaljax.training.pretrain import PretrainConfig, make_update

CHECKPOINT = Path(__file__).parents[3] / "checkpoints" / "wyckoff-mp20bt"
"""The shipped model: its trained weights show errors better than random ones."""

N = 48
"""Number of crystals of a check."""

QUICK = OptimizerConfig(
    learning_rate=1e-4, schedule="constant", warmup_steps=0, weight_decay=0.0, ema_decay=0.0
)

LINEAR = optax.chain(optax.clip_by_global_norm(1.0), optax.sgd(0.003))
"""Optimizer of updates whose log-probabilities are compared. Adam divides gradients by their size,
and so makes large steps of the rounding errors of small ones. In larger steps, PPO clips other
ratios in bfloat16 than in float32."""

DType = Literal["float32", "bfloat16"]

Check = Callable[[Crystals, DType], Results]
"""Results of a step, to be compared with those on a CPU."""

Pair = Callable[[Crystals, DType], tuple[Results, Results]]
"""Two computations of the same results, to be compared on one device."""


def _policy(dtype: DType) -> tuple[WyckoffPolicy, Params]:
    policy, params = load_wyckoff(CHECKPOINT)
    config = dataclasses.replace(policy.config, dtype=dtype)
    return WyckoffPolicy(config, policy.space_group_counts), params


def _numbers(**arrays: Array) -> Results:
    return {name: np.asarray(x) for name, x in arrays.items()}


def likelihood(crystals: Crystals, dtype: DType) -> Results:
    """Log-probabilities by part."""
    policy, params = _policy(dtype)
    tokens = policy.codec.encode(crystals[:N])
    return _numbers(**policy.log_prob_parts(params, tokens, N)._asdict())


def training_step(crystals: Crystals, dtype: DType) -> Results:
    """Loss and norm of the gradient in two steps, with dropout."""
    policy, params = _policy(dtype)
    packed = _packed(policy, policy.codec.encode(crystals[:N]))
    optimizer = QUICK.build(2)
    update = make_update(policy, optimizer, PretrainConfig(batch_size=N, optimizer=QUICK))
    state = TrainState.create(params, optimizer, averaged=False)
    losses, norms = [], []
    for _ in range(2):
        state, metrics = update(state, packed)
        losses.append(metrics["nll"])
        norms.append(metrics["gradient_norm"])
    return _numbers(nll=np.array(losses), gradient_norm=np.array(norms))


def sampling(crystals: Crystals, dtype: DType) -> Results:
    """Samples with their log-probabilities."""
    del crystals
    policy, params = _policy(dtype)
    rollout = policy.sample(params, [Condition()] * N, 0, SamplingConfig(batch_size=N))
    tokens = rollout.sequences.tokens
    return _numbers(
        wyckoff=tokens.wyckoff,
        species=tokens.species,
        frac=tokens.frac,
        lattice=tokens.lattice,
        logp=rollout.logp_model,
    )


def sampled_and_scored(crystals: Crystals, dtype: DType) -> tuple[Results, Results]:
    """Log-probabilities by the sampler, token by token, and by the network, all at once."""
    del crystals
    policy, params = _policy(dtype)
    rollout = policy.sample(params, [Condition()] * N, 0, SamplingConfig(batch_size=N))
    packed = _packed(policy, rollout.sequences.tokens)
    found = jax.jit(lambda params, packed: policy.packed_log_prob(params, packed, N).total)(
        params, packed
    )
    return _numbers(logp=rollout.logp_model), _numbers(logp=found)


def ppo_update(crystals: Crystals, dtype: DType) -> Results:
    """Three inner steps of PPO."""
    return _by_reward(crystals, dtype, reinforce.ReinforceConfig())


def grpo_update(crystals: Crystals, dtype: DType) -> Results:
    """Three inner steps of GRPO."""
    config = reinforce.ReinforceConfig(algorithm="grpo", group_size=6, batch_size=N)
    return _by_reward(crystals, dtype, config)


def dpo_update(crystals: Crystals, dtype: DType) -> Results:
    """One step of DPO on neighbours, from weights that are not the reference's."""
    policy, base, moved, parts, log_probs = _two_models(crystals, dtype)
    before = _totals(policy, base, parts)
    update = preference.make_update(log_probs, LINEAR, preference.DpoConfig(), 0.0)
    state = TrainState.create(moved, LINEAR, averaged=False)
    state, metrics = update(state, (), parts, before[None])
    return _numbers(loss=metrics["loss"], logp=_totals(policy, state.params, parts))


def cells(crystals: Crystals, dtype: DType) -> Results:
    """Full cells; coordinates as sines and cosines, which are continuous at 0 and 1."""
    del dtype
    found = expand(crystals[:N], 64, primitive=True)
    angle = 2 * jnp.pi * found.frac
    return _numbers(
        species=found.species, sine=jnp.sin(angle), cosine=jnp.cos(angle), matrix=found.matrix
    )


def _by_reward(crystals: Crystals, dtype: DType, config: reinforce.ReinforceConfig) -> Results:
    policy, base, moved, parts, log_probs = _two_models(crystals, dtype)
    update = reinforce.make_update(log_probs, LINEAR, config)
    reward = jnp.sin(jnp.arange(N, dtype=jnp.float32))
    state, metrics = update(reinforce.ReinforceState.create(moved, LINEAR), base, (), parts, reward)
    return _numbers(
        entropy=metrics["entropy"],
        logp=_totals(policy, state.train.params, parts),
    )


def _two_models(
    crystals: Crystals, dtype: DType
) -> tuple[WyckoffPolicy, Params, Params, Packed, reinforce.LogProbs]:
    """The policy, its weights and slightly changed ones, a micro-batch of crystals, `LogProbs`."""
    policy, base = _policy(dtype)
    moved = jax.tree.map(lambda x: 1.01 * x, base)
    packed = _packed(policy, policy.codec.encode(crystals[:N]))
    parts = jax.tree.map(lambda x: x[None], packed)

    def log_probs(params: Params, frozen: Any, part: Packed) -> tuple[Array, Array]:
        del frozen
        logp = policy.packed_log_prob(params, part, N).total[:, None]
        return logp, jnp.ones(logp.shape, bool)

    return policy, base, moved, parts, log_probs


def _packed(policy: WyckoffPolicy, tokens: Any) -> Packed:
    """Rows of one width, which compile faster than those of two."""
    sites = policy.config.max_sites
    return place(pack(tokens, (Rows(N // 4, sites, sites),)), make_mesh())


@partial(jax.jit, static_argnums=0)
def _totals(policy: WyckoffPolicy, params: Params, parts: Packed) -> Array:
    return policy.packed_log_prob(params, jax.tree.map(lambda x: x[0], parts), N).total


CHECKS: Mapping[str, Check] = {
    "crystals to cells": cells,
    "likelihood": likelihood,
    "training step": training_step,
    "sampling": sampling,
    "PPO update": ppo_update,
    "GRPO update": grpo_update,
    "DPO update": dpo_update,
}

PAIRS: Mapping[str, Pair] = {"sampling against likelihood": sampled_and_scored}
