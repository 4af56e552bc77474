"""Iterated direct preference optimisation of a Wyckoff policy.

Each iteration draws samples, judges them, pairs the better with the worse of the same space group
and trains on the pairs, with the policy that drew them as the reference (as in PLaID++, arXiv
2509.07150, with its rising temperature).
"""

from __future__ import annotations

import dataclasses
import logging
import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax.sharding import NamedSharding, PartitionSpec

from crystaljax.checkpoints import RunCheckpoints
from crystaljax.crystal import Array
from crystaljax.evaluation.matching import StructureSet
from crystaljax.objectives import Metrics, dpo
from crystaljax.policies import Params, WyckoffPolicy
from crystaljax.rewards.base import Reward
from crystaljax.sampling import SamplingConfig
from crystaljax.scoring import Scorer
from crystaljax.tokenizations.packing import pack
from crystaljax.training.batches import Packed, data_mesh, place
from crystaljax.training.optimizer import OptimizerConfig, TrainState, fine_tuning
from crystaljax.training.progress import progress_bar
from crystaljax.training.reinforce import LogProbs
from crystaljax.training.rollouts import (
    Clock,
    RewardBounds,
    judge,
    reward_metrics,
    rows_for,
    sample_metrics,
)

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class PreferenceConfig:
    """A run of iterated DPO."""

    n_iterations: int = 5
    """Times that samples are drawn, paired and trained on."""
    n_samples: int = 500
    """Samples of an iteration."""
    group_size: int = 10
    """Samples drawn in a row for a space group; pairs are of one space group."""
    min_gap: float = 0.05
    """Least difference of the rewards of a pair, in the reward's unit (eV/atom)."""
    beta: float = 0.1
    """β of DPO: what a nat of divergence from the reference costs, in units of preference."""
    label_smoothing: float = 0.0
    """Probability that a preference is the wrong way round."""
    epochs: int = 2
    """Passes over an iteration's pairs."""
    batch_size: int = 25
    """Pairs in an update."""
    temperature_step: float = 0.0
    """Added to the sampling temperature at every iteration."""
    bounds: RewardBounds = field(default_factory=RewardBounds)
    """What rewards are kept within."""
    sampling: SamplingConfig = field(default_factory=SamplingConfig)
    """How samples are drawn in the first iteration."""
    optimizer: OptimizerConfig = field(default_factory=fine_tuning)
    """The optimiser."""
    seed: int = 0
    """Of the samples and of the order of the pairs."""

    def sampling_of(self, iteration: int) -> SamplingConfig:
        """How samples are drawn in an iteration, counted from 0."""
        temperature = self.sampling.temperature + iteration * self.temperature_step
        return dataclasses.replace(self.sampling, temperature=temperature)


def preference_pairs(
    reward: np.ndarray, group: np.ndarray, min_gap: float, rng: np.random.Generator
) -> np.ndarray:
    """int [P, 2]: samples (chosen, rejected) of the same group, no sample in two pairs.

    The better half of each group meets the worse half, at random. Pairs whose rewards [B] differ
    by less than `min_gap`, or not at all, are left out.
    """
    pairs = [np.zeros((0, 2), np.int64)]
    for value in np.unique(group):
        rows = np.flatnonzero(group == value)
        rows = rows[np.argsort(-reward[rows], kind="stable")]
        half = len(rows) // 2
        better, worse = rows[:half], rows[len(rows) - half :]
        pairs.append(np.stack([rng.permutation(better), rng.permutation(worse)], axis=1))
    found = np.concatenate(pairs)
    gap = reward[found[:, 0]] - reward[found[:, 1]]
    return found[(gap >= min_gap) & (gap > 0)]


Update = Callable[[TrainState, Any, Array], tuple[TrainState, Metrics]]


def make_update(
    log_probs: LogProbs, optimizer: optax.GradientTransformation, config: PreferenceConfig
) -> Update:
    """One update on a batch of P pairs, for any policy that has log-probabilities; jitted.

    The update takes the state, the batch of 2 P samples (the chosen ones, then the rejected ones)
    and their log-probabilities [2 P] under the reference.
    """

    @jax.jit
    def update(state: TrainState, batch: Any, reference: Array) -> tuple[TrainState, Metrics]:
        def loss(params: Params) -> tuple[Array, Metrics]:
            chosen, rejected = jnp.split(log_probs(params, batch), 2)
            before = jnp.split(reference, 2)
            return dpo(chosen, rejected, before[0], before[1], config.beta, config.label_smoothing)

        (value, metrics), gradient = jax.value_and_grad(loss, has_aux=True)(state.params)
        new = state.apply(gradient, optimizer, config.optimizer.ema_decay)
        return new, metrics | {"loss": value}

    return update


def prefer(
    policy: WyckoffPolicy,
    base: Params,
    reward: Reward,
    config: PreferenceConfig,
    folder: Path,
    track: Callable[[dict[str, Any], int], None],
    *,
    reference: StructureSet | None = None,
    run_id: str | None = None,
) -> Params:
    """Fine-tune from `base` by iterated DPO, going on from the folder's last checkpoint.

    Arguments as of `reinforce.reinforce`; a step of `track` is an iteration. Returns the last
    parameters. FloatingPointError if they stop being finite.
    """
    mesh = data_mesh()
    replicated = NamedSharding(mesh, PartitionSpec())
    most_updates = config.epochs * max(1, config.n_samples // 2 // config.batch_size)
    optimizer = config.optimizer.build(config.n_iterations * most_updates)
    state = jax.device_put(TrainState.create(base, optimizer), replicated)
    base = jax.device_put(base, replicated)
    metadata = dataclasses.replace(
        policy.metadata, run={"config": dataclasses.asdict(config), "wandb_run_id": run_id}
    )
    plan = rows_for(policy, base, 2 * config.batch_size, config.seed, config.sampling)

    def log_probs(params: Params, packed: Packed) -> Array:
        return policy.log_prob(params, packed, 2 * config.batch_size).total

    update = make_update(log_probs, optimizer, config)
    score = Scorer(policy, plan, 2 * config.batch_size, mesh)
    with RunCheckpoints(folder / "checkpoints") as checkpoints, progress_bar() as progress:
        if checkpoints.latest is not None:
            state, _ = checkpoints.restore(state, metadata)
            state = jax.device_put(state, replicated)
            log.info("going on from iteration %d", checkpoints.latest)
        first = checkpoints.latest or 0
        bar = progress.add_task("DPO", total=config.n_iterations, completed=first)
        for iteration in range(first, config.n_iterations):
            clock = Clock()
            rng = np.random.default_rng([config.seed, 3, iteration])
            with clock("sample"):
                seed, sampling = int(rng.integers(2**31)), config.sampling_of(iteration)
                rollout = policy.sample(
                    state.params, config.n_samples, seed, sampling, config.group_size
                )
                decoded = policy.tokenization.decode(rollout.tokens)
            with clock("reward"):
                judged = judge(reward, decoded.crystals, decoded.ok)
                value = config.bounds(judged)
            with clock("update"):
                group = np.asarray(rollout.tokens.space_group)
                pairs = preference_pairs(value, group, config.min_gap, rng)
                numbers: dict[str, float] = {"dpo/pairs": len(pairs)}
                for both in _batches(pairs, config, rng):
                    packed = place(pack(rollout.tokens[both], plan), mesh)
                    state, metrics = update(state, packed, jnp.asarray(rollout.logp_model[both]))
                    numbers |= {f"dpo/{name}": float(x) for name, x in metrics.items()}
                _require_finite(numbers, iteration, folder)
            with clock("metrics"):
                ratio = rollout.logp_model - score(base, rollout.tokens).total
                numbers |= {"dpo/kl_base": ratio.mean(), "dpo/temperature": sampling.temperature}
                numbers |= reward_metrics(judged, value)
                numbers |= sample_metrics(decoded.crystals, decoded.ok, reference)
            track(numbers | clock.seconds, iteration + 1)
            text = f"DPO, reward {numbers['reward/mean']:.3f}"
            progress.update(bar, completed=iteration + 1, description=text)
            checkpoints.save(iteration + 1, state, metadata)
    return state.params


def _batches(
    pairs: np.ndarray, config: PreferenceConfig, rng: np.random.Generator
) -> Iterator[np.ndarray]:
    """Samples int [2 batch_size] of each update: chosen ones, then as many rejected ones.

    Every epoch has all pairs in a new order; its last batch is filled up with pairs of its first.
    """
    if not len(pairs):
        log.warning("no pair of samples differs by %g: nothing to learn from", config.min_gap)
        return
    for _ in range(config.epochs):
        order = rng.permutation(len(pairs))
        n_batches = -(-len(pairs) // config.batch_size)
        for rows in np.resize(order, (n_batches, config.batch_size)):
            yield pairs[rows].T.ravel()


def _require_finite(numbers: dict[str, float], iteration: int, folder: Path) -> None:
    if not math.isfinite(numbers.get("dpo/loss", 0.0)):
        raise FloatingPointError(
            f"the DPO loss of iteration {iteration + 1} is {numbers['dpo/loss']}: lower the"
            f" learning rate; the last checkpoint in {folder} is from before it"
        )
