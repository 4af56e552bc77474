"""Operations on batches of unfinished sequences: select, gather, and enlarge caches."""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from crystaljax.crystal import Array
from crystaljax.models.wyckoff.decoder import DecodeState
from crystaljax.models.wyckoff.transformer import Cache


def take(state: DecodeState, caches: list[Cache], rows: Array) -> tuple[DecodeState, list[Cache]]:
    """Some of the sequences."""
    found, caches = _take((replace(state, places=None), caches), rows)
    return replace(found, places=state.places), caches


@jax.jit
def _take(batch: Any, rows: Array) -> Any:
    """Rows of a tree of arrays."""
    return jax.tree.map(lambda x: x[rows], batch)


def gather(
    batches: list[tuple[DecodeState, list[Cache]]], batch: np.ndarray, row: np.ndarray
) -> tuple[DecodeState, list[Cache]]:
    """Sequences `row` of `batch` (both int [B]), for batches that refer to the same tables.

    Batches are processed one by one, so that compilation does not depend on their number.
    """
    places = batches[0][0].places
    bare = [(replace(state, places=None), caches) for state, caches in batches]
    first, *others = np.unique(batch)
    found = _take(bare[first], np.where(batch == first, row, 0))
    for i in others:
        here = batch == i
        found = _put(found, bare[i], np.where(here, row, 0), here)
    state, caches = found
    return replace(state, places=places), caches


@jax.jit
def _put(batch: Any, other: Any, rows: Array, here: Array) -> Any:
    """A tree of arrays, with rows of another tree where `here` (bool [B])."""

    def put(mine: Array, theirs: Array) -> Array:
        return jnp.where(here.reshape(-1, *[1] * (mine.ndim - 1)), theirs[rows], mine)

    return jax.tree.map(put, batch, other)


@partial(jax.jit, static_argnums=1)
def grow(caches: list[Cache], tokens: int) -> list[Cache]:
    """Caches with room for more tokens."""
    return jax.tree.map(lambda x: jnp.pad(x, [(0, 0), (0, 0), (0, tokens), (0, 0)]), caches)
