"""Log-probabilities of given tokens under a language model."""

from __future__ import annotations

from typing import Protocol

import jax
import jax.numpy as jnp

from crystaljax.crystal import Array
from crystaljax.models.llm.decoder import LanguageModel, Remat

CHUNK = 128
"""Tokens of every row whose logits exist at a time."""


class Rows(Protocol):
    """Texts in packed rows, as `text.packing.TextRows` has them; arrays [R, T]."""

    @property
    def tokens(self) -> Array: ...
    @property
    def position(self) -> Array: ...
    @property
    def segment(self) -> Array: ...
    @property
    def trained(self) -> Array: ...


def token_log_probs(
    model: LanguageModel,
    rows: Rows,
    dropout_key: Array | None = None,
    remat: Remat = "none",
    chunk: int = CHUNK,
) -> Array:
    """float32 [R, T]: log p of each trained token given those before it in its text; 0 of others.

    The logits of `chunk` tokens of every row exist at a time, for the gradient too.
    """
    hidden = model.hidden(rows.tokens, rows.position, rows.segment, dropout_key, remat)
    n_rows, length = rows.tokens.shape
    before, target = hidden[:, :-1], rows.tokens[:, 1:]
    chunk = min(chunk, max(length - 1, 1))
    n_chunks = -(-(length - 1) // chunk)
    padding = n_chunks * chunk - (length - 1)
    before = jnp.pad(before, ((0, 0), (0, padding), (0, 0)))
    target = jnp.pad(target, ((0, 0), (0, padding)))

    @jax.checkpoint
    def score(part: tuple[Array, Array]) -> Array:
        logits = model.logits(part[0])
        chosen = jnp.take_along_axis(logits, part[1][..., None], axis=-1)[..., 0]
        return chosen - jax.nn.logsumexp(logits, axis=-1)

    def in_chunks(x: Array) -> Array:
        return x.reshape(n_rows, n_chunks, chunk, *x.shape[2:]).swapaxes(0, 1)

    scores = jax.lax.map(score, (in_chunks(before), in_chunks(target)))
    scores = scores.swapaxes(0, 1).reshape(n_rows, -1)[:, : length - 1]
    return jnp.where(rows.trained, jnp.pad(scores, ((0, 0), (1, 0))), 0.0)
