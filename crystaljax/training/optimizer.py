"""The optimiser of all training loops: AdamW, a schedule, clipping and averaged weights."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

import jax
import jax.numpy as jnp
import optax

from crystaljax.crystal import Array
from crystaljax.ranges import DECAY, NOT_NEGATIVE, POSITIVE, SHARE, Range, check

Params = Any

LENGTH = Range(0, with_low=False)
"""Range of the length of gradients: above 0; infinite for no clipping."""


@dataclass(frozen=True)
class OptimizerConfig:
    """AdamW with warm-up, decay and clipping."""

    learning_rate: float = 1e-3
    """Peak learning rate."""
    schedule: Literal["constant", "cosine", "linear"] = "cosine"
    """Decay after the warm-up, down to `final_fraction` at the run's last step."""
    warmup_steps: int = 200
    """Steps of linear warm-up from zero."""
    final_fraction: float = 0.02
    """Last learning rate, as a share of the peak."""
    weight_decay: float = 1e-2
    """AdamW's decoupled weight decay; only for matrices."""
    b2: float = 0.99
    """Decay of the second moments."""
    clip_norm: float = 1.0
    """Largest norm of the gradient; longer ones are scaled down."""
    ema_decay: float = 0.999
    """Decay of the averaged weights, which are the result. 0: no average; the last weights are the
    result."""

    def __post_init__(self) -> None:
        check(self, learning_rate=POSITIVE, warmup_steps=NOT_NEGATIVE, weight_decay=NOT_NEGATIVE)
        check(self, final_fraction=SHARE, b2=DECAY, ema_decay=DECAY, clip_norm=LENGTH)

    def build(self, n_steps: int) -> optax.GradientTransformation:
        """The optimiser of a run of `n_steps` steps."""
        peak, final = self.learning_rate, self.learning_rate * self.final_fraction
        rest = max(n_steps - self.warmup_steps, 1)
        after = {
            "constant": optax.constant_schedule(peak),
            "cosine": optax.cosine_decay_schedule(peak, rest, self.final_fraction),
            "linear": optax.linear_schedule(peak, final, rest),
        }[self.schedule]
        warmup = optax.linear_schedule(0.0, peak, self.warmup_steps)
        return optax.chain(
            optax.clip_by_global_norm(self.clip_norm),
            optax.adamw(
                optax.join_schedules([warmup, after], [self.warmup_steps]),
                b2=self.b2,
                weight_decay=self.weight_decay,
                mask=lambda params: jax.tree.map(lambda x: x.ndim > 1, params),
            ),
        )


def fine_tuning(learning_rate: float = 3e-5, b2: float = 0.99) -> OptimizerConfig:
    """Settings for fine-tuning: Adam at a constant rate, without weight decay and averaging."""
    return OptimizerConfig(
        learning_rate,
        schedule="constant",
        warmup_steps=0,
        weight_decay=0.0,
        b2=b2,
        ema_decay=0.0,
    )


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class TrainState:
    """State that a training step changes.

    Parameters are float32 here, whatever the network computes in: in bfloat16 a step of 1e-5 is
    lost beside a weight of 0.01, whose neighbours are 6e-5 away.
    """

    step: Array
    """int32 []: steps done."""
    params: Params
    """float32; arrays of the state's own, so that an update can take their memory."""
    ema: Params | None
    """Exponential moving average of the parameters, if one is kept."""
    opt_state: Any

    @property
    def averaged(self) -> Params:
        """The weights to sample from: the average, or the last where none is kept."""
        return self.params if self.ema is None else self.ema

    @staticmethod
    def create(
        params: Params, optimizer: optax.GradientTransformation, averaged: bool = True
    ) -> TrainState:
        """The state before the first step, with copies of the parameters."""
        params = jax.tree.map(lambda x: jnp.array(x, jnp.float32), params)
        ema = jax.tree.map(jnp.copy, params) if averaged else None
        return TrainState(jnp.int32(0), params, ema, optimizer.init(params))

    def apply(
        self, gradient: Params, optimizer: optax.GradientTransformation, ema_decay: float = 0.0
    ) -> TrainState:
        """The state after one update. The average forgets its start: its decay grows with steps."""
        updates, opt_state = optimizer.update(gradient, self.opt_state, self.params)
        params = optax.apply_updates(self.params, updates)
        decay = jnp.minimum(ema_decay, (1 + self.step) / (10 + self.step))
        ema = None
        if self.ema is not None:
            ema = jax.tree.map(lambda old, new: decay * old + (1 - decay) * new, self.ema, params)
        return TrainState(self.step + 1, params, ema, opt_state)
