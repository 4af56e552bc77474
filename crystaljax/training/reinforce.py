"""Reinforcement learning against a reward of whole crystals, by PPO or GRPO.

PPO as in CrystalFormer-RL (arXiv 2504.02367, appendix C), GRPO as in DeepSeekMath (arXiv
2402.03300) with the space group as the prompt.
"""

from __future__ import annotations

import dataclasses
import logging
import math
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax.sharding import NamedSharding, PartitionSpec

from crystaljax.checkpoints import RunCheckpoints
from crystaljax.crystal import Array
from crystaljax.evaluation.matching import StructureSet
from crystaljax.objectives import (
    Metrics,
    group_advantages,
    grpo,
    kl_regularized,
    ppo,
    update_baseline,
)
from crystaljax.policies import Params, WyckoffPolicy
from crystaljax.rewards.base import Reward
from crystaljax.sampling import SamplingConfig
from crystaljax.tokenizations.packing import pack
from crystaljax.training.batches import Packed, data_mesh, place
from crystaljax.training.optimizer import OptimizerConfig, TrainState, fine_tuning
from crystaljax.training.progress import progress_bar
from crystaljax.training.rollouts import (
    Clock,
    RewardBounds,
    judge,
    reward_metrics,
    rows_for,
    sample_metrics,
)

log = logging.getLogger(__name__)

LogProbs = Callable[[Params, Any], Array]
"""Parameters and a batch of B samples -> their log-probabilities [B]."""


@dataclass(frozen=True)
class ReinforceConfig:
    """A run; the defaults of τ, baseline, clip and inner steps are those of CrystalFormer-RL."""

    algorithm: Literal["ppo", "grpo"] = "ppo"
    """ppo: advantages over a moving average, the divergence from the base model in the reward.
    grpo: advantages within groups of one space group, the divergence in the loss."""
    n_steps: int = 100
    """Rollouts, each followed by `inner_steps` updates."""
    batch_size: int = 100
    """Crystals in a rollout."""
    tau: float = 0.1
    """What a nat of divergence from the base model costs: τ in the reward's unit (eV/atom) for
    ppo; for grpo in units of the rewards' standard deviation within a group."""
    baseline_decay: float = 0.95
    """ppo: decay of the moving average that is subtracted from the returns."""
    group_size: int = 10
    """grpo: samples of one space group that are compared; divides the batch size."""
    std_floor: float = 0.02
    """grpo: rewards of a group are divided by their standard deviation, or by this if larger."""
    clip: float = 0.2
    """Ratios of probabilities count only within 1 ± this."""
    inner_steps: int = 3
    """Updates on each rollout."""
    bounds: RewardBounds = field(default_factory=RewardBounds)
    """What rewards are kept within."""
    sampling: SamplingConfig = field(default_factory=SamplingConfig)
    """How rollouts are drawn. The log-probabilities that are trained are the model's own: at
    another temperature, or under constraints, rollouts are off-policy, and PPO only approximate."""
    optimizer: OptimizerConfig = field(default_factory=fine_tuning)
    """The optimiser."""
    seed: int = 0
    """Of the rollouts."""
    save_every: int = 10
    """Steps between checkpoints; the last step is always saved."""

    def __post_init__(self) -> None:
        if self.algorithm == "grpo" and self.batch_size % self.group_size:
            raise ValueError(
                f"rollouts of {self.batch_size} cannot be split into groups of {self.group_size}:"
                " give a batch size that the group size divides"
            )


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class ReinforceState:
    """All that a step changes."""

    train: TrainState
    """Parameters and optimiser; its step counts updates."""
    baseline: Array
    """float32 []: moving average of the returns."""
    rollouts: Array
    """int32 []: steps done."""

    @staticmethod
    def create(params: Params, optimizer: optax.GradientTransformation) -> ReinforceState:
        """The state before the first rollout."""
        return ReinforceState(TrainState.create(params, optimizer), jnp.float32(0), jnp.int32(0))


Update = Callable[[ReinforceState, Params, Any, Array], tuple[ReinforceState, Metrics]]


def make_update(
    log_probs: LogProbs, optimizer: optax.GradientTransformation, config: ReinforceConfig
) -> Update:
    """One step on a rollout, for any policy that has log-probabilities; jitted inside.

    The update takes the state, the base model's parameters, the batch of B samples drawn with
    the state's parameters, and their rewards [B]; it makes `inner_steps` updates.
    """

    def advantages(
        state: ReinforceState, reward: Array, logp_old: Array, logp_base: Array
    ) -> tuple[Array, Array, Metrics]:
        """The new baseline, advantages [B], and metrics."""
        if config.algorithm == "grpo":
            advantage, metrics = group_advantages(reward, config.group_size, config.std_floor)
            return state.baseline, advantage, metrics
        returns = kl_regularized(reward, logp_old, logp_base, config.tau)
        is_first = state.rollouts == 0
        baseline = update_baseline(state.baseline, returns, config.baseline_decay, is_first)
        return baseline, returns - baseline, {"return": returns.mean(), "baseline": baseline}

    score = jax.jit(log_probs)  # compiled once for both models

    def update(
        state: ReinforceState, base: Params, batch: Any, reward: Array
    ) -> tuple[ReinforceState, Metrics]:
        logp_old, logp_base = score(state.train.params, batch), score(base, batch)
        return improve(state, batch, reward, logp_old, logp_base)

    @jax.jit
    def improve(
        state: ReinforceState, batch: Any, reward: Array, logp_old: Array, logp_base: Array
    ) -> tuple[ReinforceState, Metrics]:
        baseline, advantage, found = advantages(state, reward, logp_old, logp_base)

        def inner(train: TrainState, _: None) -> tuple[TrainState, Metrics]:
            def loss(params: Params) -> tuple[Array, Metrics]:
                logp = log_probs(params, batch)
                if config.algorithm == "grpo":
                    return grpo(logp, logp_old, logp_base, advantage, config.clip, config.tau)
                return ppo(logp, logp_old, advantage, config.clip)

            (value, metrics), gradient = jax.value_and_grad(loss, has_aux=True)(train.params)
            new = train.apply(gradient, optimizer, config.optimizer.ema_decay)
            return new, metrics | {"loss": value}

        train, inner_metrics = jax.lax.scan(inner, state.train, length=config.inner_steps)
        metrics = {name: x[-1] for name, x in inner_metrics.items()} | found
        metrics |= {"kl_base": (logp_old - logp_base).mean(), "entropy": -logp_old.mean()}
        return ReinforceState(train, baseline, state.rollouts + 1), metrics

    return update


def reinforce(
    policy: WyckoffPolicy,
    base: Params,
    reward: Reward,
    config: ReinforceConfig,
    folder: Path,
    track: Callable[[dict[str, Any], int], None],
    *,
    reference: StructureSet | None = None,
    run_id: str | None = None,
) -> Params:
    """Fine-tune from `base`, going on from the folder's last checkpoint if there is one.

    Args:
      reward: judges crystals; what it cannot judge gets the penalty.
      folder: where checkpoints go.
      track: takes metrics and the step, e.g. `Tracker.log`.
      reference: training structures, for the share of novel samples.
      run_id: the W&B run, kept in the checkpoints.

    Returns the last parameters. FloatingPointError if they stop being finite.
    """
    mesh = data_mesh()
    replicated = NamedSharding(mesh, PartitionSpec())
    optimizer = config.optimizer.build(config.n_steps * config.inner_steps)
    state = jax.device_put(ReinforceState.create(base, optimizer), replicated)
    base = jax.device_put(base, replicated)
    metadata = dataclasses.replace(
        policy.metadata, run={"config": dataclasses.asdict(config), "wandb_run_id": run_id}
    )
    plan = rows_for(policy, base, config.batch_size, config.seed, config.sampling)

    def log_probs(params: Params, packed: Packed) -> Array:
        return policy.log_prob(params, packed, config.batch_size).total

    repeat = config.group_size if config.algorithm == "grpo" else 1
    update = make_update(log_probs, optimizer, config)
    with RunCheckpoints(folder / "checkpoints") as checkpoints, progress_bar() as progress:
        if checkpoints.latest is not None:
            state, _ = checkpoints.restore(state, metadata)
            state = jax.device_put(state, replicated)
            log.info("going on from step %d", int(state.rollouts))
        first, title = int(state.rollouts), config.algorithm.upper()
        bar = progress.add_task(title, total=config.n_steps, completed=first)
        for step in range(first, config.n_steps):
            clock = Clock()
            with clock("sample"):
                seed = int(np.random.default_rng([config.seed, 2, step]).integers(2**31))
                rollout = policy.sample(
                    state.train.params, config.batch_size, seed, config.sampling, repeat
                )
                decoded = policy.tokenization.decode(rollout.tokens)
            with clock("reward"):
                judged = judge(reward, decoded.crystals, decoded.ok)
                value = config.bounds(judged)
            with clock("update"):
                packed = place(pack(rollout.tokens, plan), mesh)
                state, metrics = update(state, base, packed, jnp.asarray(value, jnp.float32))
                numbers = {f"rl/{name}": float(x) for name, x in metrics.items()}
            with clock("metrics"):
                numbers |= reward_metrics(judged, value)
                numbers |= sample_metrics(decoded.crystals, decoded.ok, reference)
            if not math.isfinite(numbers["rl/loss"]):
                raise FloatingPointError(
                    f"the loss of step {step} is {numbers['rl/loss']}: lower the learning "
                    f"rate; the last checkpoint in {folder} is from before it"
                )
            done = step + 1
            track(numbers | clock.seconds, done)
            text = f"{title}, reward {numbers['reward/mean']:.3f}"
            progress.update(bar, completed=done, description=text)
            if done % config.save_every == 0 or done == config.n_steps:
                checkpoints.save(done, state, metadata)
    return state.train.params
