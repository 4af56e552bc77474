"""Pretraining: maximum likelihood of a dataset's crystals."""

from __future__ import annotations

import dataclasses
import logging
import math
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import jax
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from crystaljax.checkpoints import RunCheckpoints
from crystaljax.crystal import Array, Crystals
from crystaljax.models.wyckoff_likelihood import LogProb
from crystaljax.objectives import negative_log_likelihood
from crystaljax.policies import Params, WyckoffPolicy
from crystaljax.scoring import Scorer
from crystaljax.tokenizations.packing import plan_rows
from crystaljax.training.batches import Batches, Packed, data_mesh
from crystaljax.training.optimizer import OptimizerConfig, TrainState
from crystaljax.training.progress import progress_bar

log = logging.getLogger(__name__)

BAD_BATCH_FILE = "bad_batch.npz"


@dataclass(frozen=True)
class PretrainConfig:
    """A pretraining run."""

    n_epochs: int = 100
    """Passes through the training crystals."""
    batch_size: int = 100
    """Crystals in a step, over all devices."""
    augment: bool = False
    """Give each crystal in a random equivalent description, another one every epoch."""
    optimizer: OptimizerConfig = field(default_factory=OptimizerConfig)
    """The optimiser."""
    seed: int = 0
    """Of the weights, the order of the crystals and the dropout."""
    log_every: int = 20
    """Steps between lines of metrics."""
    save_every: int = 500
    """Steps between checkpoints; the last step is always saved."""
    validate_every: int = 500
    """Steps between validations."""


def pretrain(
    policy: WyckoffPolicy,
    train: Crystals,
    validation: Crystals,
    config: PretrainConfig,
    folder: Path,
    track: Callable[[dict[str, Any], int], None],
    *,
    run_id: str | None = None,
) -> TrainState:
    """Train to the end, going on from the folder's last checkpoint if there is one.

    A run that was killed and started again has the same losses as one that was not. Batches are
    split over all devices of all hosts.

    Args:
      folder: where checkpoints go.
      track: takes metrics and the step, e.g. `Tracker.log`.
      run_id: the W&B run, kept in the checkpoints.

    FloatingPointError if a loss is not finite; the batch is then in `folder`/bad_batch.npz.
    """
    mesh = data_mesh()
    batches = Batches(
        train,
        policy.tokenization,
        config.batch_size,
        config.seed,
        config.augment,
    )
    n_steps = config.n_epochs * batches.steps_per_epoch
    optimizer = config.optimizer.build(n_steps)
    metadata = dataclasses.replace(
        policy.metadata, run={"config": dataclasses.asdict(config), "wandb_run_id": run_id}
    )
    replicated = NamedSharding(mesh, PartitionSpec())
    state = jax.device_put(TrainState.create(policy.init(config.seed), optimizer), replicated)

    @jax.jit
    def train_step(state: TrainState, packed: Packed) -> tuple[TrainState, dict[str, Array]]:
        key = jax.random.fold_in(jax.random.key(config.seed), state.step)

        def loss(params: Params) -> tuple[Array, LogProb]:
            parts = policy.log_prob(params, packed, config.batch_size, key)
            return negative_log_likelihood(parts.total), parts

        (value, parts), gradient = jax.value_and_grad(loss, has_aux=True)(state.params)
        metrics = {"nll": value} | _part_means(parts)
        norm = jax.tree.reduce(lambda a, b: a + b, jax.tree.map(lambda g: (g**2).sum(), gradient))
        metrics["gradient_norm"] = norm**0.5
        return state.apply(gradient, optimizer, config.optimizer.ema_decay), metrics

    with RunCheckpoints(folder / "checkpoints") as checkpoints, progress_bar() as progress:
        if checkpoints.latest is not None:
            state, _ = checkpoints.restore(state, metadata)
            state = jax.device_put(state, replicated)
            log.info("going on from step %d", int(state.step))
        first = int(state.step)
        bar = progress.add_task("pretraining", total=n_steps, completed=first)
        clock, counted = time.perf_counter(), first
        for step, packed in batches.stream(first, n_steps, mesh):
            state, metrics = train_step(state, packed)
            done = step + 1
            _require_finite(float(metrics["nll"]), step, batches, folder)
            progress.update(bar, completed=done, description=f"nll {float(metrics['nll']):.2f}")
            if done % config.log_every == 0 or done == n_steps:
                seconds = time.perf_counter() - clock
                speed = (done - counted) * config.batch_size / seconds
                clock, counted = time.perf_counter(), done
                epoch = done / batches.steps_per_epoch
                numbers = {f"train/{name}": float(x) for name, x in metrics.items()}
                track(numbers | {"epoch": epoch, "train/crystals_per_second": speed}, done)
            if done % config.validate_every == 0 or done == n_steps:
                parts = score(policy, state.ema, validation, config.batch_size, mesh)
                numbers = {"nll": -parts.total.mean()} | _part_means(parts)
                track({f"validation/{name}": float(x) for name, x in numbers.items()}, done)
                clock, counted = time.perf_counter(), done
            if done % config.save_every == 0 or done == n_steps:
                checkpoints.save(done, state, metadata)
    return state


def score(
    policy: WyckoffPolicy,
    params: Params,
    crystals: Crystals,
    batch_size: int,
    mesh: Mesh | None = None,
) -> LogProb:
    """Log-probabilities (numpy [B] by part) of any number of crystals, in batches."""
    tokens = policy.tokenization.encode(crystals)
    n_sites = np.asarray(tokens.n_sites)
    plan = plan_rows([n_sites[i : i + batch_size] for i in range(0, len(n_sites), batch_size)])
    return Scorer(policy, plan, batch_size, mesh)(params, tokens)


def _part_means(parts: LogProb) -> dict[str, Array]:
    """Mean negative log-likelihood of each part, in nats per crystal."""
    return {f"nll_{name}": -x.mean() for name, x in parts._asdict().items()}


def _require_finite(loss: float, step: int, batches: Batches, folder: Path) -> None:
    """FloatingPointError, with the batch saved, if the loss is not finite."""
    if math.isfinite(loss):
        return
    tokens = batches.tokens(step)
    path = folder / BAD_BATCH_FILE
    np.savez(path, **{f.name: getattr(tokens, f.name) for f in dataclasses.fields(tokens)})
    raise FloatingPointError(
        f"the loss of step {step} is {loss}; its batch is in {path}. The last checkpoint is from "
        "before it: lower the learning rate, or look for odd crystals in the batch"
    )
