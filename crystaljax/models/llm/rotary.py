"""Rotary position embeddings (arXiv 2104.09864), with the scaling of Llama 3.1."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np

from crystaljax.crystal import Array
from crystaljax.models.llm.config import LlmConfig

Turn = tuple[Array, Array]
"""Cosines and sines float32 [N, 1, D/2] of the rotary angles of N tokens."""


def frequencies(config: LlmConfig) -> np.ndarray:
    """float32 [D/2]: radians per token.

    Llama 3.1 divides low frequencies by a factor, keeps high ones, and interpolates between
    (arXiv 2407.21783).
    """
    plain = config.rope_theta ** (-np.arange(0, config.head_size, 2) / config.head_size)
    scaling = config.rope_scaling
    if scaling is None:
        return plain.astype(np.float32)
    turns = scaling.original_max_position_embeddings * plain / (2 * np.pi)
    low, high = scaling.low_freq_factor, scaling.high_freq_factor
    kept = np.clip((turns - low) / (high - low), 0, 1)
    return (plain * (kept + (1 - kept) / scaling.factor)).astype(np.float32)


def rotation(position: Array, config: LlmConfig) -> Turn:
    """Cosines and sines [N, 1, D/2] of the rotary angles at the positions int [N] of N tokens."""
    angle = position.astype(jnp.float32)[:, None, None] * frequencies(config)
    # The barrier keeps XLA from computing them again for every head of every layer.
    return jax.lax.optimization_barrier((jnp.cos(angle), jnp.sin(angle)))


def rotate(x: Array, turn: Turn) -> Array:
    """float32 [N, H, D]: x rotated by a `rotation`, which pairs components i and i + D/2."""
    cosine, sine = turn
    first, second = jnp.split(x.astype(jnp.float32), 2, axis=-1)
    return jnp.concatenate([first * cosine - second * sine, second * cosine + first * sine], -1)
