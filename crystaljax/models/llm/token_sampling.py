"""Draws tokens from logits with temperature, top-k, top-p and grammar; with log-probabilities.

The vocabulary is never sorted. A radix search, with one sum over the vocabulary per bit, finds the
threshold above which tokens have a given total weight. It is used for top-k (weights 1), top-p
(probabilities) and the draw itself (ordered by token).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import jax
import jax.numpy as jnp

from crystaljax.crystal import Array
from crystaljax.models.rules import exclude


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class LogitsWarper:
    """Changes of the model's distribution for sampling, in this order."""

    temperature: Array | None
    """[]: logits are divided by it; None: the most likely token is taken."""
    top_k: Array | None
    """int []: only the k most likely tokens (and those as likely as the last of them) are drawn."""
    top_p: Array | None
    """[]: only the fewest tokens whose total probability reaches this are drawn; of equally likely
    tokens the first."""


class TokenDraw(NamedTuple):
    """Tokens of B rows."""

    token: Array
    """int32 [B]"""
    logp: Array
    """float32 [B]: ln p under the sampling distribution; 0 if the most likely token is taken."""
    logp_model: Array
    """float32 [B]: ln p under the model itself."""


def draw_tokens(
    uniform: Array, logits: Array, allowed: Array | None, warper: LogitsWarper
) -> TokenDraw:
    """A token for each row of float32 logits [B, V].

    uniform: [B] in [0, 1), random numbers. allowed: bool [B, V], tokens that a grammar allows.
    """
    wanted = logits if allowed is None else exclude(logits, allowed)
    normaliser = jax.nn.logsumexp(logits, axis=-1)
    if warper.temperature is None:
        token = jnp.argmax(wanted, axis=-1).astype(jnp.int32)
        logp = jnp.zeros_like(normaliser)
    else:
        wanted = wanted / warper.temperature
        peak = wanted.max(axis=-1)
        weight = keep_likely(wanted, jnp.exp(wanted - peak[:, None]), warper)
        token = _draw_index(uniform, weight)
        logp = _at(wanted, token) - peak - jnp.log(weight.sum(axis=-1))
    return TokenDraw(token, logp, _at(logits, token) - normaliser)


def keep_likely(logits: Array, weight: Array, warper: LogitsWarper) -> Array:
    """Weights [B, V], proportional to probabilities; 0 for tokens that top-k or top-p excludes."""
    if warper.top_k is None and warper.top_p is None:
        return weight
    order = _ordered(logits)
    if warper.top_k is not None:
        target = jnp.broadcast_to(warper.top_k.astype(jnp.float32), order.shape[:1])
        least = _threshold(order, jnp.ones_like(weight), target, 32)
        weight = jnp.where(order >= least[:, None], weight, 0)
    if warper.top_p is not None:
        target = warper.top_p * weight.sum(axis=-1)
        least = _threshold(order, weight, target, 32)[:, None]
        among = jnp.where(order == least, _first_first(order.shape[1]), 0)
        among = jnp.where(order > least, jnp.uint32(order.shape[1] + 1), among)
        least = _threshold(among, weight, target, order.shape[1].bit_length())[:, None]
        weight = jnp.where(among >= jnp.maximum(least, 1), weight, 0)
    return weight


def _draw_index(uniform: Array, weight: Array) -> Array:
    """int32 [B]: index i with probability proportional to weight [B, V]; never one of weight 0."""
    size = weight.shape[1]
    order = jnp.broadcast_to(_first_first(size), weight.shape)
    target = (1 - uniform) * weight.sum(axis=-1)
    return (size - _threshold(order, weight, target, size.bit_length())).astype(jnp.int32)


def _threshold(order: Array, weight: Array, target: Array, bits: int) -> Array:
    """uint32 [B]: the highest t for which the weights of all with order >= t reach the target.

    order uint32 [B, V] below 2**bits; weight [B, V], not negative; target [B]; 0 if not reached.
    The sums never grow with t, rounding included, so t is never an entry of weight 0 for a positive
    target.
    """

    def try_bit(i: Array, found: Array) -> Array:
        higher = found | (jnp.uint32(1) << (bits - 1 - i).astype(jnp.uint32))
        total = jnp.where(order >= higher[:, None], weight, 0).sum(axis=-1)
        return jnp.where(total >= target, higher, found)

    return jax.lax.fori_loop(0, bits, try_bit, jnp.zeros(len(order), jnp.uint32))


def _ordered(x: Array) -> Array:
    """uint32 with the order of float32 numbers (-0 as 0)."""
    # Not x + 0, which XLA simplifies to x.
    bits = jax.lax.bitcast_convert_type(jnp.where(x == 0, 0.0, x), jnp.uint32)
    return jnp.where(bits >> 31 == 1, ~bits, bits | jnp.uint32(1 << 31))


def _first_first(size: int) -> Array:
    """uint32 [V]: V, V − 1, ..., 1, so that earlier tokens are higher."""
    return size - jnp.arange(size, dtype=jnp.uint32)


def _at(x: Array, index: Array) -> Array:
    return jnp.take_along_axis(x, index[:, None], axis=-1)[:, 0]
