"""Log-probabilities of given tokens under a language model."""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

import jax
import jax.numpy as jnp

from crystaljax.crystal import Array
from crystaljax.models.llm.decoder import Dropout, LanguageModel, Remat

CHUNK = 128
"""Number of tokens of every row whose logits are in memory at a time."""


class Rows(Protocol):
    """Protocol of texts in packed rows (see `text.packing.TextRows`); arrays [R, T]."""

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
    dropout: Dropout | None = None,
    remat: Remat = "none",
    chunk: int = CHUNK,
) -> Array:
    """float32 [R, T]: log p of each trained token given those before it in its text; 0 elsewhere.

    The logits of only `chunk` tokens of every row are in memory at a time, also for the gradient.
    """

    @jax.checkpoint
    def score(hidden: Array, target: Array) -> Array:
        logits = model.logits(hidden)
        chosen = jnp.take_along_axis(logits, target[..., None], axis=-1)[..., 0]
        return chosen - jax.nn.logsumexp(logits, axis=-1)

    hidden = model.hidden(rows.tokens, rows.position, rows.segment, dropout, remat)
    return _of_trained(score, rows, chunk, hidden)


def token_divergences(
    model: LanguageModel, other: LanguageModel, rows: Rows, chunk: int = CHUNK
) -> Array:
    """float32 [R, T]: KL(model ‖ other) in nats at each trained token; 0 elsewhere.

    Between the two distributions of the token given those before it.
    """

    def score(hidden: Array, other_hidden: Array, _: Array) -> Array:
        logp = jax.nn.log_softmax(model.logits(hidden))
        return jnp.sum(jnp.exp(logp) * (logp - jax.nn.log_softmax(other.logits(other_hidden))), -1)

    given = rows.tokens, rows.position, rows.segment
    return _of_trained(score, rows, chunk, model.hidden(*given), other.hidden(*given))


def _of_trained(score: Callable[..., Array], rows: Rows, chunk: int, *hidden: Array) -> Array:
    """float32 [R, T]: scores of trained tokens given those before them; 0 elsewhere.

    `score` maps hidden states [R, C, width] and the next tokens [R, C] to scores [R, C], for C =
    `chunk` tokens of every row at a time.
    """
    n_rows, length = rows.tokens.shape
    chunk = min(chunk, max(length - 1, 1))
    n_chunks = -(-(length - 1) // chunk)
    padding = n_chunks * chunk - (length - 1)

    def in_chunks(x: Array) -> Array:
        x = jnp.pad(x, ((0, 0), (0, padding), *[(0, 0)] * (x.ndim - 2)))
        return x.reshape(n_rows, n_chunks, chunk, *x.shape[2:]).swapaxes(0, 1)

    parts = (*(in_chunks(x[:, :-1]) for x in hidden), in_chunks(rows.tokens[:, 1:]))
    scores = jax.lax.map(lambda part: score(*part), parts)
    scores = scores.swapaxes(0, 1).reshape(n_rows, -1)[:, : length - 1]
    return jnp.where(rows.trained, jnp.pad(scores, ((0, 0), (1, 0))), 0.0)
