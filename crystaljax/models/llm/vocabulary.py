"""Resizing a language model's vocabulary for added tokens."""

from __future__ import annotations

from dataclasses import replace

import jax.numpy as jnp
from flax import nnx

from crystaljax.crystal import Array
from crystaljax.models.llm.decoder import LanguageModel


def resize_vocabulary(model: LanguageModel, n_tokens: int, multiple: int = 1) -> None:
    """Give the model embeddings, and logits, of at least `n_tokens` tokens.

    New rows of the embedding, and new columns of a head that is not tied, are the mean of the old
    ones, which do not change. The number of rows is rounded up to a multiple of `multiple`, for
    sharding. A table with enough rows is not changed: many models have more rows than tokens.
    ValueError for n_tokens or multiple below one.
    """
    if n_tokens < 1 or multiple < 1:
        raise ValueError(f"{n_tokens} tokens in multiples of {multiple}: both must be positive")
    old = model.config.vocabulary
    size = -(-n_tokens // multiple) * multiple
    if n_tokens <= old:
        return

    def grown(x: Array, axis: int) -> Array:
        mean = jnp.mean(x, axis, jnp.float32, keepdims=True).astype(x.dtype)
        return jnp.concatenate([x, jnp.repeat(mean, size - old, axis)], axis)

    table = model.embed.embedding
    table.set_value(grown(table.get_value(), 0))
    model.embed.num_embeddings = size
    if (kernel := model.head_kernel) is not None:
        kernel.set_value(grown(kernel.get_value(), 1))
    for _, module in nnx.iter_modules(model):
        if hasattr(module, "config"):
            module.config = replace(module.config, vocabulary=size)
