"""Supervised fine-tuning of language models: maximum likelihood of completions."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any, Self

import jax
import numpy as np
import optax

from crystaljax.crystal import Array
from crystaljax.objectives import Metrics
from crystaljax.policies.text import TextPolicy
from crystaljax.ranges import at_least, check
from crystaljax.text.batches import TextBatches, fixed_batches
from crystaljax.text.packing import PackedTexts, TokenSequence, n_trained
from crystaljax.training.fit import FitConfig, Track, fit
from crystaljax.training.optimizer import OptimizerConfig, TrainState
from crystaljax.training.tasks import Params, mean_over_parts


def adapter_tuning() -> OptimizerConfig:
    """Settings for adapters: AdamW with warm-up and cosine decay, without averaging."""
    return OptimizerConfig(
        learning_rate=2e-4, warmup_steps=20, final_fraction=0.0, weight_decay=0.0, ema_decay=0.0
    )


@dataclass(frozen=True)
class TextFitConfig(FitConfig):
    """A run of a language model over a dataset."""

    optimizer: OptimizerConfig = field(default_factory=adapter_tuning)
    """The optimiser."""
    batch_size: int = 32
    """Examples (or pairs) in a step, on all devices together."""
    n_parts: int = 1
    """Micro-batches that a step is split into, to save memory; divides the batch size."""

    def __post_init__(self) -> None:
        super().__post_init__()
        check(self, batch_size=at_least(1), n_parts=at_least(1))

    def fitting(self, n: int) -> Self:
        """The run with batches of at most n examples."""
        n_parts = min(self.n_parts, n)
        return replace(self, n_parts=n_parts, batch_size=min(self.batch_size, n - n % n_parts))


@dataclass(frozen=True)
class SftConfig(TextFitConfig):
    """A run of supervised fine-tuning."""

    n_epochs: int = 3
    """Passes through the training examples."""


def sft(
    policy: TextPolicy,
    train: Sequence[TokenSequence],
    validation: Sequence[TokenSequence],
    config: SftConfig,
    folder: Path,
    track: Track,
    *,
    start: Params | None = None,
    run_id: str | None = None,
    validate: Callable[[Params], dict[str, float]] | None = None,
    n_drawn: int = 1,
) -> TrainState:
    """Train to the end, going on from the folder's last checkpoint if there is one; see `fit.fit`.

    The loss is the mean of −ln p over all trained tokens of a step, as in transformers, however
    they are split into micro-batches.

    Args:
      train, validation: prompts with completions.
      start: parameters to start from; the policy's own if not given.
      validate: metrics of the averaged weights, "nll" among them, instead of the mean −ln p of the
        validation texts.
      n_drawn: `train` are the texts of so many epochs, one after the other, taken in turns.
    """
    batches = TextBatches(
        [[sequence] for sequence in train],
        config.batch_size,
        config.seed,
        policy.config.width,
        config.n_parts,
        mesh=policy.mesh,
        n_epochs=n_drawn,
    )
    optimizer = config.optimizer.build(config.total_steps(batches))
    start = policy.start if start is None else start
    state = policy.place(TrainState.create(start, optimizer, bool(config.optimizer.ema_decay)))
    update = make_update(policy, optimizer, config)
    if validate is None:
        validate = make_score(policy, validation, config.batch_size // config.n_parts)
    return fit(
        lambda state, packed: update(state, policy.frozen, packed),
        state,
        batches,
        config,
        folder,
        track,
        title="SFT",
        loss="nll",
        unit="texts",
        identity=policy.identity,
        place=policy.place,
        validate=lambda state: validate(state.averaged),
        run_id=run_id,
    )


Update = Callable[[TrainState, Any, PackedTexts], tuple[TrainState, Metrics]]


def make_update(
    policy: TextPolicy, optimizer: optax.GradientTransformation, config: SftConfig
) -> Update:
    """One step on micro-batches [A, R, T], jitted; takes the frozen arrays too.

    It uses the state's memory: only the new state is of use afterwards.
    """

    @partial(jax.jit, donate_argnums=0)
    def update(state: TrainState, frozen: Any, packed: PackedTexts) -> tuple[TrainState, Metrics]:
        n_parts, n_tokens = len(packed[0].tokens), n_trained(packed)
        key = jax.random.fold_in(jax.random.key(config.seed), state.step)

        def loss(params: Params, part: PackedTexts, key: Array) -> Array:
            return -policy.total_log_prob(params, frozen, part, key) * n_parts / n_tokens

        def with_gradient(part: tuple[PackedTexts, Array]) -> tuple[Array, Params]:
            return jax.value_and_grad(loss)(state.params, *part)

        keys = jax.random.split(key, n_parts)
        value, gradient = mean_over_parts(with_gradient, (packed, keys))
        metrics = {"nll": value, "gradient_norm": optax.tree.norm(gradient)}
        return state.apply(gradient, optimizer, config.optimizer.ema_decay), metrics

    return update


def make_score(
    policy: TextPolicy, texts: Sequence[TokenSequence], batch_size: int
) -> Callable[[Params], dict[str, float]]:
    """Mean −ln p by token and by text of some texts, under given parameters."""
    sizes = batch_size, policy.config.width, policy.mesh.size
    batches = [packed for packed, _ in fixed_batches(texts, *sizes)]

    @jax.jit
    def total(params: Params, frozen: Any, packed: PackedTexts) -> tuple[Array, Array]:
        return policy.total_log_prob(params, frozen, packed), n_trained(packed)

    def score(params: Params) -> dict[str, float]:
        found = np.array([total(params, policy.frozen, packed) for packed in batches], float)
        logp, n_tokens = found.sum(axis=0)
        return {"nll": -logp / n_tokens, "nll_text": -logp / len(texts)}

    return score
