"""Fine-tuning by maximum likelihood on crystals, for any policy."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

from crystaljax.conditions import Condition
from crystaljax.crystal import Array, Crystals
from crystaljax.objectives import Metrics
from crystaljax.policies.base import Params, Policy, Rollout
from crystaljax.ranges import at_least, check
from crystaljax.training.batches import prefetched
from crystaljax.training.fit import FitConfig, Track, fit
from crystaljax.training.optimizer import OptimizerConfig, TrainState, fine_tuning
from crystaljax.training.tasks import mean_over_parts, sequence_log_probs


@dataclass(frozen=True)
class LikelihoodConfig(FitConfig):
    """A run of maximum likelihood on crystals, without dropout."""

    n_epochs: int = 10
    """Passes through the training crystals."""
    optimizer: OptimizerConfig = field(default_factory=fine_tuning)
    """The optimiser."""
    batch_size: int = 100
    """Crystals in a step, on all devices together."""
    n_parts: int = 1
    """Micro-batches that a step is split into, to save memory; divides the batch size."""

    def __post_init__(self) -> None:
        super().__post_init__()
        check(self, batch_size=at_least(1), n_parts=at_least(1))
        if self.batch_size % self.n_parts:
            raise ValueError(
                f"batches of {self.batch_size} cannot be split into {self.n_parts} of one size"
            )


class CrystalBatches:
    """An endless stream of batches as a policy writes them: every epoch all, in a new order.

    A `fit.Data`. ValueError if there are fewer crystals than a batch has, or for a crystal that
    the policy cannot write.
    """

    def __init__(
        self,
        policy: Policy,
        crystals: Crystals,
        config: LikelihoodConfig,
        conditions: Sequence[Condition] | None = None,
    ) -> None:
        if config.batch_size > len(crystals):
            raise ValueError(
                f"a batch of {config.batch_size} from {len(crystals)} crystals: lower the batch"
                " size"
            )
        self.batch_size, self._config = config.batch_size, config
        self._policy = policy
        self._written = policy.encode(crystals, conditions)

    @property
    def steps_per_epoch(self) -> int:
        """Batches of an epoch, which leaves out what is left over."""
        return len(self._written) // self.batch_size

    def rows(self, step: int) -> np.ndarray:
        """int [batch size]: the crystals of a step, the same whenever it is asked for."""
        epoch, part = divmod(step, self.steps_per_epoch)
        rng = np.random.default_rng([self._config.seed, 0, epoch])
        order = rng.permutation(len(self._written))
        return order[part * self.batch_size :][: self.batch_size]

    def stream(self, first: int, last: int) -> Iterator[tuple[int, Any]]:
        """(step, micro-batches on the devices) for steps first ... last − 1."""
        return prefetched(self._parts, first, last)

    def _parts(self, step: int) -> Any:
        n_parts = self._config.n_parts
        return self._policy.parts(self._written, self.rows(step), n_parts, self._typical)

    def _typical(self, n: int) -> Rollout:
        """All crystals: batches are like them."""
        return self._written

    def save_batch(self, step: int, folder: Path) -> Path:
        """Write the crystals of a step to a file in `folder`."""
        crystals, path = self._written.crystals[self.rows(step)], folder / "bad_batch.npz"
        np.savez(path, **{f.name: getattr(crystals, f.name) for f in dataclasses.fields(crystals)})
        return path


def learn(
    policy: Policy,
    train: Crystals,
    validation: Crystals,
    config: LikelihoodConfig,
    folder: Path,
    track: Track,
    *,
    start: Params,
    run_id: str | None = None,
) -> TrainState:
    """Train to the end, from the folder's last checkpoint if there is one; see `fit.fit`.

    The gradient is of the mean −ln p of an action (a crystal of the Wyckoff transformer, a token of
    a text); `nll` is by crystal, in nats. Each crystal is asked for by what the policy needs to be
    told of it.

    Args:
      start: parameters to start from.
    """
    batches = CrystalBatches(policy, train, config)
    written = policy.encode(validation)
    optimizer = config.optimizer.build(config.total_steps(batches))
    update = make_update(policy, optimizer, config)
    averaged = bool(config.optimizer.ema_decay)
    return fit(
        lambda state, parts: update(state, policy.frozen, parts),
        policy.place(TrainState.create(start, optimizer, averaged)),
        batches,
        config,
        folder,
        track,
        title="likelihood",
        loss="nll",
        unit="crystals",
        identity=policy.identity,
        place=policy.place,
        validate=lambda state: {"nll": -policy.log_prob(state.averaged, written).mean()},
        run_id=run_id,
    )


Update = Callable[[TrainState, Any, Any], tuple[TrainState, Metrics]]


def make_update(
    policy: Policy, optimizer: optax.GradientTransformation, config: LikelihoodConfig
) -> Update:
    """One step on micro-batches, jitted; takes the frozen arrays too.

    It uses the state's memory: only the new state is of use afterwards.
    """
    n_samples = config.batch_size // config.n_parts

    @partial(jax.jit, donate_argnums=0)
    def update(state: TrainState, frozen: Any, parts: Any) -> tuple[TrainState, Metrics]:
        def loss(params: Params, part: Any) -> tuple[Array, Array]:
            found = policy.log_probs(params, frozen, part, n_samples)
            return -sequence_log_probs(found).sum(), found[1].sum().astype(jnp.float32)

        with_gradient = partial(jax.value_and_grad(loss, has_aux=True), state.params)
        (value, n_actions), gradient = mean_over_parts(with_gradient, parts)
        gradient = jax.tree.map(lambda x: x / n_actions, gradient)
        metrics = {"nll": value / n_samples, "gradient_norm": optax.tree.norm(gradient)}
        return state.apply(gradient, optimizer, config.optimizer.ema_decay), metrics

    return update
