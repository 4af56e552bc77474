"""PPO fine-tuning against a reward of whole crystals (arXiv 2504.02367, appendix C)."""

from __future__ import annotations

import dataclasses
import logging
import math
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax.sharding import NamedSharding, PartitionSpec

from crystaljax.checkpoints import RunCheckpoints
from crystaljax.crystal import Array, Crystals
from crystaljax.evaluation.matching import StructureSet, novel_mask, unique_mask
from crystaljax.evaluation.validity import structure_valid
from crystaljax.objectives import Metrics, kl_regularized, ppo, update_baseline
from crystaljax.policies import Params, WyckoffPolicy
from crystaljax.rewards.base import Reasons, Reward, RewardBatch
from crystaljax.sampling import SamplingConfig
from crystaljax.tokenizations.packing import pack, plan_rows
from crystaljax.training.batches import N_PLANNED, Packed, data_mesh, place
from crystaljax.training.optimizer import OptimizerConfig, TrainState
from crystaljax.training.progress import progress_bar

log = logging.getLogger(__name__)

LogProbs = Callable[[Params, Any], Array]
"""Parameters and a batch of B samples -> their log-probabilities [B]."""


@dataclass(frozen=True)
class PPOConfig:
    """A PPO run; the defaults of τ, baseline, clip and inner steps are the paper's."""

    n_steps: int = 100
    """Rollouts, each followed by `inner_steps` updates."""
    batch_size: int = 100
    """Crystals in a rollout."""
    tau: float = 0.1
    """τ, eV/atom (the reward's unit): what a nat of divergence from the base model costs."""
    baseline_decay: float = 0.95
    """Decay of the moving average that is subtracted from the returns."""
    clip: float = 0.2
    """Ratios of probabilities count only within 1 ± this."""
    inner_steps: int = 3
    """Updates on each rollout."""
    invalid_penalty: float = -1.0
    """Reward of samples that cannot be judged: sequences that are no crystal, atoms too close."""
    reward_low: float = -1.0
    """Rewards below are raised to it, so that single bad samples do not rule the gradient."""
    reward_high: float = 0.5
    """Rewards above are lowered to it: a potential errs most where it promises most."""
    sampling: SamplingConfig = field(default_factory=SamplingConfig)
    """How rollouts are drawn. The log-probabilities that are trained are the model's own: at
    another temperature, or under constraints, rollouts are off-policy, and PPO only approximate."""
    optimizer: OptimizerConfig = field(
        default_factory=lambda: OptimizerConfig(
            learning_rate=3e-5, schedule="constant", warmup_steps=0, weight_decay=0.0, ema_decay=0.0
        )
    )
    """The optimiser."""
    seed: int = 0
    """Of the rollouts."""
    save_every: int = 10
    """Steps between checkpoints; the last step is always saved."""


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class PPOState:
    """All that a PPO step changes."""

    train: TrainState
    """Parameters and optimiser; its step counts updates."""
    baseline: Array
    """float32 []: moving average of the returns."""
    rollouts: Array
    """int32 []: steps done."""

    @staticmethod
    def create(params: Params, optimizer: optax.GradientTransformation) -> PPOState:
        """The state before the first rollout."""
        return PPOState(TrainState.create(params, optimizer), jnp.float32(0), jnp.int32(0))


Update = Callable[[PPOState, Params, Any, Array], tuple[PPOState, Metrics]]


def make_update(
    log_probs: LogProbs, optimizer: optax.GradientTransformation, config: PPOConfig
) -> Update:
    """One PPO step on a rollout, for any policy that has log-probabilities; jitted inside.

    The update takes the state, the base model's parameters, the batch of B samples drawn with
    the state's parameters, and their rewards [B]; it makes `inner_steps` updates.
    """

    score = jax.jit(log_probs)  # compiled once for both models

    def update(
        state: PPOState, base: Params, batch: Any, reward: Array
    ) -> tuple[PPOState, Metrics]:
        logp_old, logp_base = score(state.train.params, batch), score(base, batch)
        return improve(state, batch, reward, logp_old, logp_base)

    @jax.jit
    def improve(
        state: PPOState, batch: Any, reward: Array, logp_old: Array, logp_base: Array
    ) -> tuple[PPOState, Metrics]:
        returns = kl_regularized(reward, logp_old, logp_base, config.tau)
        is_first = state.rollouts == 0
        baseline = update_baseline(state.baseline, returns, config.baseline_decay, is_first)
        advantage = returns - baseline

        def inner(train: TrainState, _: None) -> tuple[TrainState, Metrics]:
            def loss(params: Params) -> tuple[Array, Metrics]:
                return ppo(log_probs(params, batch), logp_old, advantage, config.clip)

            (value, metrics), gradient = jax.value_and_grad(loss, has_aux=True)(train.params)
            new = train.apply(gradient, optimizer, config.optimizer.ema_decay)
            return new, metrics | {"loss": value}

        train, inner_metrics = jax.lax.scan(inner, state.train, length=config.inner_steps)
        metrics = {name: x[-1] for name, x in inner_metrics.items()} | {
            "kl_base": (logp_old - logp_base).mean(),
            "entropy": -logp_old.mean(),
            "return": returns.mean(),
            "baseline": baseline,
        }
        return PPOState(train, baseline, state.rollouts + 1), metrics

    return update


def reinforce(
    policy: WyckoffPolicy,
    base: Params,
    reward: Reward,
    config: PPOConfig,
    folder: Path,
    track: Callable[[dict[str, Any], int], None],
    *,
    reference: StructureSet | None = None,
    run_id: str | None = None,
) -> Params:
    """Fine-tune from `base` by PPO, going on from the folder's last checkpoint if there is one.

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
    state = jax.device_put(PPOState.create(base, optimizer), replicated)
    base = jax.device_put(base, replicated)
    metadata = dataclasses.replace(
        policy.metadata, run={"config": dataclasses.asdict(config), "wandb_run_id": run_id}
    )
    n_sites = np.asarray(policy.sample(base, config.batch_size, config.seed).tokens.n_sites)
    rng = np.random.default_rng(config.seed)
    likely = [rng.choice(n_sites, config.batch_size) for _ in range(N_PLANNED)]
    plan = plan_rows(likely, policy.config.max_sites)

    def log_probs(params: Params, packed: Packed) -> Array:
        return policy.log_prob(params, packed, config.batch_size).total

    update = make_update(log_probs, optimizer, config)
    with RunCheckpoints(folder / "checkpoints") as checkpoints, progress_bar() as progress:
        if checkpoints.latest is not None:
            state, _ = checkpoints.restore(state, metadata)
            state = jax.device_put(state, replicated)
            log.info("going on from step %d", int(state.rollouts))
        bar = progress.add_task("PPO", total=config.n_steps, completed=int(state.rollouts))
        for step in range(int(state.rollouts), config.n_steps):
            clock = _Clock()
            with clock("sample"):
                seed = int(np.random.default_rng([config.seed, 2, step]).integers(2**31))
                rollout = policy.sample(
                    state.train.params, config.batch_size, seed, config.sampling
                )
                decoded = policy.tokenization.decode(rollout.tokens)
            with clock("reward"):
                judged = judge(reward, decoded.crystals, decoded.ok)
                value = np.where(judged.ok, judged.value, config.invalid_penalty)
                value = np.clip(value, config.reward_low, config.reward_high)
            with clock("update"):
                packed = place(pack(rollout.tokens, plan), mesh)
                state, metrics = update(state, base, packed, jnp.asarray(value, jnp.float32))
                numbers = {f"ppo/{name}": float(x) for name, x in metrics.items()}
            with clock("metrics"):
                numbers |= _reward_metrics(judged, value)
                numbers |= _sample_metrics(decoded.crystals, decoded.ok, reference)
            if not math.isfinite(numbers["ppo/loss"]):
                raise FloatingPointError(
                    f"the PPO loss of step {step} is {numbers['ppo/loss']}: lower the learning "
                    f"rate; the last checkpoint in {folder} is from before it"
                )
            done = step + 1
            track(numbers | clock.seconds, done)
            progress.update(
                bar, completed=done, description=f"PPO, reward {numbers['reward/mean']:.3f}"
            )
            if done % config.save_every == 0 or done == config.n_steps:
                checkpoints.save(done, state, metadata)
    return state.train.params


def judge(reward: Reward, crystals: Crystals, ok: np.ndarray) -> RewardBatch:
    """Rewards [B] of those samples that are crystals; the others are not ok."""
    rows = np.flatnonzero(ok)
    value = np.full(len(ok), np.nan)
    reasons: Reasons = ["no crystal"] * len(ok)
    info: dict[str, np.ndarray] = {}
    if len(rows):
        judged = reward(crystals[rows])
        value[rows] = judged.value
        for row, reason in zip(rows, judged.reasons, strict=True):
            reasons[row] = reason
        for name, column in judged.info.items():
            info[name] = np.full(len(ok), np.nan)
            info[name][rows] = column
    return RewardBatch.from_values(value, info, reasons)


def _reward_metrics(judged: RewardBatch, value: np.ndarray) -> dict[str, float]:
    """Mean and quantiles of the rewards as trained, the share judged, means of the infos."""
    low, median, high = np.quantile(value, [0.1, 0.5, 0.9])
    numbers = {
        "reward/mean": value.mean(),
        "reward/q10": low,
        "reward/median": median,
        "reward/q90": high,
        "reward/judged": judged.ok.mean(),
    }
    for name, column in judged.info.items():
        if judged.ok.any():
            numbers[f"reward/median_{name}"] = np.median(column[judged.ok])
    return {name: float(x) for name, x in numbers.items()}


def _sample_metrics(
    crystals: Crystals, ok: np.ndarray, reference: StructureSet | None
) -> dict[str, float]:
    """Shares of all samples of the rollout that are decoded, valid, unique and novel."""
    structures = StructureSet.from_crystals(crystals, "rollout")
    shares = {
        "decoded": ok,
        "valid": structure_valid(crystals) & ok,
        "unique": unique_mask(structures) & ok,
    }
    if reference is not None:
        shares["novel"] = novel_mask(structures, reference) & ok
    return {f"samples/{name}": float(mask.mean()) for name, mask in shares.items()}


class _Clock:
    """Seconds spent in each phase of a step."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = {}

    @contextmanager
    def __call__(self, phase: str) -> Iterator[None]:
        start = time.perf_counter()
        yield
        self.seconds[f"seconds/{phase}"] = time.perf_counter() - start
