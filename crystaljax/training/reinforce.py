"""Reinforcement learning against a reward of whole samples, by PPO or GRPO.

PPO as in CrystalFormer-RL (arXiv 2504.02367, appendix C), GRPO as in DeepSeekMath (arXiv
2402.03300), which compares samples of the same prompt.
"""

from __future__ import annotations

import dataclasses
import logging
import math
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from inspect import signature
from pathlib import Path
from typing import Any, Literal

import jax
import jax.numpy as jnp
import numpy as np
import optax

from crystaljax import user_code
from crystaljax.checkpoints import About, RunCheckpoints
from crystaljax.crystal import Array
from crystaljax.objectives import (
    Metrics,
    action_weights,
    group_advantages,
    grpo,
    kl_regularized,
    ppo,
    update_baseline,
)
from crystaljax.progress import progress_bar
from crystaljax.ranges import DECAY, NOT_NEGATIVE, POSITIVE, at_least, check
from crystaljax.training.optimizer import OptimizerConfig, TrainState, fine_tuning
from crystaljax.training.rollouts import Clock, Unjudged
from crystaljax.training.tasks import (
    LogProbs,
    Params,
    Task,
    mean_over_parts,
    over_parts,
    part_size,
    sequence_log_probs,
)

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class ReinforceConfig:
    """A run; the defaults of τ, baseline, clip and inner steps are those of CrystalFormer-RL."""

    algorithm: Literal["ppo", "grpo"] = "ppo"
    """ppo: advantages over a moving average, KL penalty in the reward, one probability ratio per
    sample. grpo: advantages among the samples of one prompt, KL penalty in the loss, one ratio per
    action (a token of a text; a crystal of the Wyckoff transformer is one action)."""
    objective: str = ""
    """A loss of your own with the algorithm's advantages, as FILE.py:FUNCTION with the arguments
    and results of `objectives.grpo`. For ppo its kl_weight is 0."""
    n_steps: int = 100
    """Training steps. Each samples a rollout and makes `inner_steps` passes through it."""
    batch_size: int = 100
    """Samples in a rollout."""
    tau: float = 0.1
    """KL penalty weight τ: the cost of a nat of divergence from the base model. For ppo in the
    reward's unit (eV/atom for energies), for grpo in standard deviations of the rewards within a
    group."""
    baseline_decay: float = 0.95
    """ppo: decay of the moving average of the reward that is subtracted as the baseline."""
    group_size: int = 10
    """grpo: samples of one prompt whose rewards are compared. Divides the batch size."""
    std_floor: float = 0.02
    """grpo: rewards of a group are divided by their standard deviation, or by this if that is
    smaller."""
    clip: float = 0.2
    """PPO clip ε: probability ratios count only within 1 ± ε."""
    inner_steps: int = 3
    """Passes through each rollout."""
    n_minibatches: int = 1
    """Updates in a pass, each on an equal share of the rollout. Divides the number of micro-batches
    (n_parts)."""
    optimizer: OptimizerConfig = field(default_factory=fine_tuning)
    """The optimiser."""
    seed: int = 0
    """Random seed for the rollouts."""
    save_every: int = 10
    """Steps between checkpoints. The first one is written within two minutes, and the last step is
    saved."""

    def __post_init__(self) -> None:
        one = at_least(1)
        check(self, n_steps=one, batch_size=one, inner_steps=one, save_every=one)
        check(self, n_minibatches=one)
        check(self, tau=NOT_NEGATIVE, baseline_decay=DECAY, group_size=at_least(2))
        check(self, std_floor=POSITIVE, clip=POSITIVE)
        if self.objective:
            user_code.load_called(self.objective, *signature(grpo).parameters)
        if self.algorithm == "grpo" and self.batch_size % self.group_size:
            raise ValueError(
                f"rollouts of {self.batch_size} cannot be split into groups of {self.group_size}:"
                " give a batch size that the group size divides"
            )


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class ReinforceState:
    """State that a step changes."""

    train: TrainState
    """Parameters and optimiser; its step counts updates."""
    baseline: Array
    """float32 []: moving average of the returns."""
    rollouts: Array
    """int32 []: steps done."""

    @staticmethod
    def create(params: Params, optimizer: optax.GradientTransformation) -> ReinforceState:
        """The state before the first rollout."""
        return ReinforceState(
            TrainState.create(params, optimizer, averaged=False), jnp.float32(0), jnp.int32(0)
        )


Update = Callable[[ReinforceState, Params, Any, Any, Array], tuple[ReinforceState, Metrics]]


def make_update(
    log_probs: LogProbs, optimizer: optax.GradientTransformation, config: ReinforceConfig
) -> Update:
    """One step on a rollout, for any policy that has log-probabilities; jitted inside.

    The update takes the state, the base model's parameters, the frozen arrays, the B samples drawn
    with the state's parameters as A micro-batches, and their rewards [B]; it makes `inner_steps`
    passes of `n_minibatches` updates. It uses the state's memory: only the new state is of use
    afterwards.
    """

    own = None
    if config.objective:
        own = user_code.load_called(config.objective, *signature(grpo).parameters)

    def advantages(
        state: ReinforceState, reward: Array, logp_old: Array, logp_base: Array, tau: Array
    ) -> tuple[Array, Array, Metrics]:
        """The new baseline, advantages [B], and metrics, from log-probabilities [B]."""
        if config.algorithm == "grpo":
            advantage, metrics = group_advantages(reward, config.group_size, config.std_floor)
            return state.baseline, advantage, metrics
        returns = kl_regularized(reward, logp_old, logp_base, tau)
        is_first = state.rollouts == 0
        baseline = update_baseline(state.baseline, returns, config.baseline_decay, is_first)
        return baseline, returns - baseline, {"return": returns.mean(), "baseline": baseline}

    def actions(params: Params, frozen: Any, part: Any) -> tuple[Array, Array]:
        """Log-probabilities that ratios are of, and their shares, [b, T]; T = 1 for PPO."""
        logp, is_action = log_probs(params, frozen, part)
        if config.algorithm == "ppo":
            logp = sequence_log_probs((logp, is_action))[:, None]
            is_action = jnp.ones(logp.shape, bool)
        return jnp.where(is_action, logp, 0), action_weights(is_action)

    @jax.jit  # compiled once for both models
    def score(params: Params, frozen: Any, parts: Any) -> tuple[Array, Array]:
        return over_parts(partial(actions, params, frozen), parts)

    def update(
        state: ReinforceState, base: Params, frozen: Any, parts: Any, reward: Array
    ) -> tuple[ReinforceState, Metrics]:
        logp_old, _ = score(state.train.params, frozen, parts)
        logp_base, _ = score(base, frozen, parts)
        # τ is an argument, so that runs that differ in it alone share what is compiled.
        tau = jnp.float32(config.tau)
        return improve(state, frozen, parts, reward, logp_old, logp_base, tau)

    @partial(jax.jit, donate_argnums=0)
    def improve(
        state: ReinforceState,
        frozen: Any,
        parts: Any,
        reward: Array,
        logp_old: Array,
        logp_base: Array,
        tau: Array,
    ) -> tuple[ReinforceState, Metrics]:
        whole_old, whole_base = (
            x.sum(axis=-1).reshape(reward.shape) for x in (logp_old, logp_base)
        )
        baseline, advantage, found = advantages(state, reward, whole_old, whole_base, tau)
        everything = parts, logp_old, logp_base, advantage.reshape(logp_old.shape[:2])

        def inner(train: TrainState, batch: Any) -> tuple[TrainState, Metrics]:
            def loss(params: Params, part: Any) -> tuple[Array, Metrics]:
                samples, logp_old, logp_base, advantage = part
                logp, weight = actions(params, frozen, samples)
                if own is not None:
                    kl_weight = tau if config.algorithm == "grpo" else 0.0
                    return own(logp, logp_old, logp_base, advantage, weight, config.clip, kl_weight)
                if config.algorithm == "grpo":
                    return grpo(logp, logp_old, logp_base, advantage, weight, config.clip, tau)
                return ppo(logp, logp_old, advantage, weight, config.clip)

            with_gradient = jax.value_and_grad(loss, has_aux=True)
            (value, metrics), gradient = mean_over_parts(
                partial(with_gradient, train.params), batch
            )
            new = train.apply(gradient, optimizer)
            return new, metrics | {"loss": value}

        n = config.n_minibatches
        minibatches = jax.tree.map(lambda x: x.reshape(n, -1, *x.shape[1:]), everything)

        def whole(train: TrainState, _: None) -> tuple[TrainState, Metrics]:
            return jax.lax.scan(inner, train, minibatches)

        train, inner_metrics = jax.lax.scan(whole, state.train, length=config.inner_steps)
        metrics = {name: x[-1].mean() for name, x in inner_metrics.items()} | found
        metrics |= {"kl_base": (whole_old - whole_base).mean(), "entropy": -whole_old.mean()}
        return ReinforceState(train, baseline, state.rollouts + 1), metrics

    return update


def reinforce(
    task: Task,
    base: Params,
    config: ReinforceConfig,
    folder: Path,
    track: Callable[[dict[str, Any], int], None],
    *,
    run_id: str | None = None,
) -> Params:
    """Fine-tune from `base`, going on from the folder's last checkpoint if there is one.

    Args:
      task: the policy, its prompts and its reward.
      folder: where checkpoints go.
      track: takes metrics and the step, e.g. `Tracker.log`.
      run_id: the W&B run, kept in the checkpoints.

    Returns the last parameters. FloatingPointError if they stop being finite; NothingJudged if the
    reward cannot judge any sample (see `Unjudged`). A rollout of which nothing could be judged is
    skipped. ValueError if the task's micro-batches cannot be split into mini-batches.
    """
    if task.n_parts % config.n_minibatches:
        raise ValueError(
            f"{task.n_parts} micro-batches cannot be split into {config.n_minibatches}"
            " mini-batches: give a number of micro-batches (n_parts) that is a multiple of these"
        )
    optimizer = config.optimizer.build(config.n_steps * config.inner_steps * config.n_minibatches)
    base = task.place(base)
    state = task.place(ReinforceState.create(base, optimizer))
    about = About(task.identity, {"config": dataclasses.asdict(config), "wandb_run_id": run_id})
    n_samples = part_size(config.batch_size, task)
    repeat = config.group_size if config.algorithm == "grpo" else 1
    update = make_update(partial(task.log_probs, n_samples=n_samples), optimizer, config)
    with RunCheckpoints(folder / "checkpoints") as checkpoints, progress_bar() as progress:
        if checkpoints.latest is not None:
            state = task.place(checkpoints.restore(state, about)[0])
            log.info("going on from step %d", int(state.rollouts))
        task.remember(checkpoints.memory())
        first, title = int(state.rollouts), config.algorithm.upper()
        bar = progress.add_task(title, total=config.n_steps, completed=first)
        unjudged = Unjudged(first)
        for step in range(first, config.n_steps):
            clock = Clock()
            seed = int(np.random.default_rng([config.seed, 2, step]).integers(2**31))
            rollout = task.rollout(state.train.params, config.batch_size, seed, clock, repeat)
            numbers = dict(rollout.metrics)
            skipped = unjudged(rollout.judged)
            with clock("update"):
                if skipped:
                    state = dataclasses.replace(state, rollouts=state.rollouts + 1)
                else:
                    parts = task.parts(rollout.samples, np.arange(config.batch_size))
                    reward = jnp.asarray(rollout.reward, jnp.float32)
                    state, metrics = update(state, base, task.frozen, parts, reward)
                    numbers |= {f"rl/{name}": float(x) for name, x in metrics.items()}
            numbers["reward/skipped"] = float(skipped)
            if not math.isfinite(numbers.get("rl/loss", 0.0)):
                raise FloatingPointError(
                    f"the loss of step {step} is {numbers['rl/loss']}: lower the learning "
                    f"rate; the last checkpoint in {folder} is from before it"
                )
            done = step + 1
            track(numbers | clock.seconds, done)
            text = f"{title}, reward {numbers['reward/mean']:.4g}"
            progress.update(bar, completed=done, description=text)
            if checkpoints.due(done, config.save_every) or done == config.n_steps:
                checkpoints.save(done, state, about, task.memory)
    return state.train.params
