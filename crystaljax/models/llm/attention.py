"""Attention of language models, over packed rows and over a cache of earlier tokens."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
from flax import nnx

from crystaljax.crystal import Array
from crystaljax.models.llm.config import LlmConfig
from crystaljax.models.llm.linear import Linear
from crystaljax.models.llm.norm import RMSNorm
from crystaljax.models.llm.rotary import Turn, rotate
from crystaljax.models.rules import NEVER

BLOCK = 128
"""Size of a block of queries in a row. Scores with keys after the block are not computed, so that
long rows take little more than half the time and memory."""


class LayerCache(NamedTuple):
    """Keys, already rotated, and values of one layer."""

    key: Array
    """[B, KV, S, D]: B sequences, KV heads, S slots, D a head's width"""
    value: Array
    """[B, KV, S, D]"""


Attend = Callable[[Array, Array, Array], tuple[Array, LayerCache | None]]
"""From queries [N, H, D], keys and values [N, KV, D] of N tokens to attention outputs [N, H, D] and
a cache (or None). The queries are scaled."""


def row_mask(position: Array, segment: Array, window: int) -> Array:
    """bool [R, T, T], query by key: attention mask of packed rows.

    position, segment: int [R, T]. A token attends to the last `window` tokens of its segment,
    itself included (0: all).
    """
    back = position[:, :, None] - position[:, None, :]
    seen = (segment[:, :, None] == segment[:, None, :]) & (back >= 0)
    return seen & (back < window) if window else seen


def cache_mask(position: Array, slot_position: Array, window: int) -> Array:
    """bool [B, S]: cache slots that tokens at `position` int [B] attend to.

    slot_position: int [B, S], the position of the token that a slot holds, -1 for none.
    """
    back = position[:, None] - slot_position
    seen = (slot_position >= 0) & (back >= 0)
    return seen & (back < window) if window else seen


def attend(query: Array, key: Array, value: Array, mask: Array, cap: float | None) -> Array:
    """Softmax attention [B, KV, G, T, D] of scaled queries; G heads of them share keys and values.

    query [B, KV, G, T, D]; key, value [B, KV, S, D]; mask bool [B, T, S]; scores s are capped to
    c tanh(s / c). With heads as the leading axes it is several times faster on CPU than
    `jax.nn.dot_product_attention`.
    """
    scores = jnp.einsum("bkgtd,bksd->bkgts", query, key, preferred_element_type=jnp.float32)
    if cap is not None:
        scores = cap * jnp.tanh(scores / cap)
    weights = jax.nn.softmax(jnp.where(mask[:, None, None], scores, NEVER), axis=-1)
    return jnp.einsum("bkgts,bksd->bkgtd", weights.astype(value.dtype), value)


def _causal(query: Array, key: Array, value: Array, mask: Array, cap: float | None) -> Array:
    """Causal `attend`: in blocks of queries, without the keys after each block."""
    parts = [
        attend(
            *(query[..., start : start + BLOCK, :], key[:, :, : start + BLOCK]),
            *(value[:, :, : start + BLOCK], mask[:, start : start + BLOCK, : start + BLOCK], cap),
        )
        for start in range(0, query.shape[-2], BLOCK)
    ]
    return jnp.concatenate(parts, axis=-2)


def over_rows(mask: Array, cap: float | None, keep: bool) -> Attend:
    """Attention of the tokens of R rows of T to each other; mask bool [R, T, T].

    With `keep`, also keys and values [R, KV, T, D].
    """
    rows, length = mask.shape[:2]

    def heads_first(x: Array) -> Array:
        return x.reshape(rows, length, *x.shape[1:]).swapaxes(1, 2)

    def run(query: Array, key: Array, value: Array) -> tuple[Array, LayerCache | None]:
        n, heads, size = query.shape
        q, k, v = heads_first(query), heads_first(key), heads_first(value)
        y = _causal(q.reshape(rows, k.shape[1], -1, length, size), k, v, mask, cap)
        y = y.reshape(rows, heads, length, size).swapaxes(1, 2).reshape(n, heads, size)
        return y, LayerCache(k, v) if keep else None

    return run


def over_cache(mask: Array, cap: float | None, cache: LayerCache, slot: Array) -> Attend:
    """Attention of B new tokens, put into `slot` (int []), to a cache; mask bool [B, S].

    They are written before the cache is read, so that XLA need not copy it.
    """

    def run(query: Array, key: Array, value: Array) -> tuple[Array, LayerCache]:
        size, heads, width = query.shape
        new = LayerCache(
            *(
                jax.lax.dynamic_update_slice(old, x[:, :, None].astype(old.dtype), (0, 0, slot, 0))
                for old, x in zip(cache, (key, value), strict=True)
            )
        )
        query = query.reshape(size, key.shape[1], -1, 1, width)
        y = attend(query, new.key, new.value, mask[:, None], cap)
        return y.reshape(size, heads, width), new

    return run


class Attention(nnx.Module):
    """Projections to queries, keys and values, and back; grouped-query attention between."""

    def __init__(self, config: LlmConfig, *, dtype: jnp.dtype, rngs: nnx.Rngs) -> None:
        self.config = config
        inner, inner_kv = (n * config.head_size for n in (config.n_heads, config.n_kv_heads))

        def linear(n_in: int, n_out: int, bias: bool) -> Linear:
            return Linear(n_in, n_out, bias=bias, dtype=dtype, rngs=rngs)

        self.q_proj = linear(config.width, inner, config.attention_bias)
        self.k_proj = linear(config.width, inner_kv, config.attention_bias)
        self.v_proj = linear(config.width, inner_kv, config.attention_bias)
        self.o_proj = linear(
            inner, config.width, config.attention_bias and config.traits.output_bias
        )
        qk_norm = config.traits.qk_norm
        self.q_norm = nnx.data(RMSNorm(config, inner, dtype=dtype) if qk_norm else None)
        self.k_norm = nnx.data(RMSNorm(config, inner_kv, dtype=dtype) if qk_norm else None)

    def __call__(
        self, x: Array, turn: Turn, attend: Attend, dropout_keys: list[Array | None]
    ) -> tuple[Array, LayerCache | None]:
        """Outputs [N, width] from x [N, width]; the cache from `attend`.

        `turn` is the `rotation` of the tokens' positions; one key for each of q, k, v, o.
        """
        config, dtype = self.config, x.dtype
        query = self.q_proj(x, dropout_keys[0])
        key = self.k_proj(x, dropout_keys[1])
        value = self.v_proj(x, dropout_keys[2])
        if self.q_norm is not None and self.k_norm is not None:
            query, key = self.q_norm(query), self.k_norm(key)
        query, key, value = (y.reshape(len(x), -1, config.head_size) for y in (query, key, value))
        scale = (config.query_scale or config.head_size) ** -0.5
        query = (scale * rotate(query, turn)).astype(dtype)
        y, kept = attend(query, rotate(key, turn).astype(dtype), value)
        return self.o_proj(y.reshape(len(x), -1), dropout_keys[3]), kept
