"""Rules of Wyckoff sequences, as masks that exclude impossible crystals."""

from __future__ import annotations

import jax.numpy as jnp

from crystaljax.crystal import Array
from crystaljax.symmetry.tables import N_LETTERS, tables

NEVER = -1e10
"""Logit of an excluded choice: its probability is exactly zero, and gradients stay finite."""


def allowed_letters(group: Array, previous: Array, is_first: Array | bool) -> Array:
    """bool [..., 28]: letters that may follow `previous` [...] in a crystal of `group` [...].

    Letters of the group from the previous letter on; only later ones if the previous position has
    no free coordinate, as it can be occupied only once. The first letter is not the end.
    """
    row = jnp.asarray(group) - 1
    previous = jnp.where(is_first, 0, previous)
    letter = jnp.arange(N_LETTERS)
    repeats = jnp.asarray(tables().n_free > 0)[row, previous]
    lowest = jnp.where(is_first, 1, previous + ~repeats)
    exists = letter <= jnp.asarray(tables().n_letters, jnp.int32)[row][..., None]
    ends = (letter == 0) & ~jnp.asarray(is_first)[..., None]
    return exists & (letter >= lowest[..., None]) & (letter > 0) | ends


def exclude(logits: Array, allowed: Array) -> Array:
    """Logits with `NEVER` where not allowed."""
    return jnp.where(allowed, logits, NEVER)
