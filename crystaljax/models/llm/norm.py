"""Root-mean-square normalisation (arXiv 1910.07467)."""

from __future__ import annotations

import jax
import jax.numpy as jnp
from flax import nnx

from crystaljax.crystal import Array
from crystaljax.models.llm.config import LlmConfig


class RMSNorm(nnx.Module):
    """x / rms(x) * (weight + offset), computed in float32; the family has the offset."""

    def __init__(self, config: LlmConfig, width: int, *, dtype: jnp.dtype) -> None:
        self.epsilon = config.norm_epsilon
        self.offset = config.traits.norm_offset
        self.weight = nnx.Param(jnp.full(width, 1 - self.offset, dtype))

    def __call__(self, x: Array) -> Array:
        """[..., width] from x [..., width], in its type."""
        y = x.astype(jnp.float32)
        y = y * jax.lax.rsqrt(jnp.mean(y * y, axis=-1, keepdims=True) + self.epsilon)
        return (y * (self.weight[...].astype(jnp.float32) + self.offset)).astype(x.dtype)
