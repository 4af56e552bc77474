"""Pretraining: maximum likelihood of a dataset's crystals."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import jax
import optax

from crystaljax.crystal import Array, Crystals
from crystaljax.models.wyckoff.likelihood import LogProb
from crystaljax.objectives import Metrics, negative_log_likelihood
from crystaljax.policies.wyckoff import Params, WyckoffPolicy
from crystaljax.ranges import at_least, check
from crystaljax.training.batches import Batches, Packed
from crystaljax.training.fit import FitConfig, Track, fit
from crystaljax.training.optimizer import TrainState


@dataclass(frozen=True)
class PretrainConfig(FitConfig):
    """A pretraining run."""

    batch_size: int = 100
    """Crystals in a step, on all devices together."""
    augment: bool = False
    """Train on a random equivalent description of each crystal, another one every epoch."""
    dropout: bool = True
    """Use dropout, at the model's rate. Off for fine-tuning."""

    def __post_init__(self) -> None:
        super().__post_init__()
        check(self, batch_size=at_least(1))


def pretrain(
    policy: WyckoffPolicy,
    train: Crystals,
    validation: Crystals,
    config: PretrainConfig,
    folder: Path,
    track: Track,
    *,
    start: Params | None = None,
    run_id: str | None = None,
    validate: Callable[[Params], dict[str, float]] | None = None,
) -> TrainState:
    """Train to the end, from the folder's last checkpoint if there is one; see `fit.fit`.

    Batches are split over all devices of all hosts.

    Args:
      folder: where checkpoints go, and the batch whose loss is not finite.
      track: takes metrics and the step, e.g. `Tracker.log`.
      start: parameters to start from, for fine-tuning; random ones if not given.
      run_id: the W&B run, kept in the checkpoints.
      validate: metrics of the averaged weights, "nll" among them, instead of the densities of the
        validation data.
    """
    batches = Batches(
        train, policy.codec, config.batch_size, config.seed, policy.mesh, config.augment
    )
    encoded = policy.codec.encode(validation)
    optimizer = config.optimizer.build(config.total_steps(batches))

    def densities(params: Params) -> dict[str, float]:
        parts = policy.log_prob_parts(params, encoded, config.batch_size)
        return {"nll": -parts.total.mean()} | _part_means(parts)

    params = policy.init(config.seed) if start is None else start
    return fit(
        make_update(policy, optimizer, config),
        policy.place(TrainState.create(params, optimizer, bool(config.optimizer.ema_decay))),
        batches,
        config,
        folder,
        track,
        title="maximum likelihood",
        loss="nll",
        unit="crystals",
        identity=policy.identity,
        place=policy.place,
        validate=lambda state: (validate or densities)(state.averaged),
        run_id=run_id,
    )


def make_update(
    policy: WyckoffPolicy, optimizer: optax.GradientTransformation, config: PretrainConfig
) -> Callable[[TrainState, Packed], tuple[TrainState, Metrics]]:
    """One step on a batch of packed crystals, jitted; it uses the state's memory."""

    @partial(jax.jit, donate_argnums=0)
    def update(state: TrainState, packed: Packed) -> tuple[TrainState, dict[str, Array]]:
        key = None
        if config.dropout:
            key = jax.random.fold_in(jax.random.key(config.seed), state.step)

        def loss(params: Params) -> tuple[Array, LogProb]:
            parts = policy.packed_log_prob(params, packed, config.batch_size, key)
            return negative_log_likelihood(parts.total), parts

        (value, parts), gradient = jax.value_and_grad(loss, has_aux=True)(state.params)
        metrics = {"nll": value} | _part_means(parts)
        metrics["gradient_norm"] = optax.tree.norm(gradient)
        return state.apply(gradient, optimizer, config.optimizer.ema_decay), metrics

    return update


def _part_means(parts: LogProb) -> dict[str, Array]:
    """Mean negative log-likelihood of each part, in nats per crystal."""
    return {f"nll_{name}": -x.mean() for name, x in parts._asdict().items()}
