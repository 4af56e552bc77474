"""Room for added tokens in a language model."""

from __future__ import annotations

from dataclasses import replace

import jax.numpy as jnp
from flax import nnx

from crystaljax.crystal import Array
from crystaljax.models.llm.decoder import LanguageModel


def resize_vocabulary(model: LanguageModel, n_tokens: int, multiple: int = 1) -> None:
    """Give the model embeddings, and logits, of at least `n_tokens` tokens.

    New rows of the embedding are the mean of the old ones, and so are new columns of a head of its
    own; what the old tokens have stays. `multiple` rounds the number of rows up, as sharding may
    need it. A table with rows enough is left alone: many models come with more than their
    tokenizer has tokens. ValueError for n_tokens or multiple below one.
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
