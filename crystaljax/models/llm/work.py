"""Matrix products of a language model's steps, from the shapes of its arrays."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx

from crystaljax.models.llm.decoder import LanguageModel
from crystaljax.roofline import Work, count


def decoding_step(graph: Any, params: Any, frozen: Any, rows: int, slots: int) -> Work:
    """Work of decoding one token per row: all weights and a cache of `slots` slots are read.

    graph, params, frozen: the model as `nnx.split` gives it.
    """

    def step(params: Any, frozen: Any, token: jax.Array) -> jax.Array:
        model: LanguageModel = nnx.merge(graph, params, frozen)
        seen = jnp.broadcast_to(jnp.arange(slots), (rows, slots))
        position = jnp.full(rows, slots - 1)
        cache = model.empty_cache(rows, slots)
        hidden, _ = model.step(token, position, cache, seen, jnp.int32(slots - 1))
        return model.logits(hidden)

    return count(step, params, frozen, jax.ShapeDtypeStruct((rows,), jnp.int32))
