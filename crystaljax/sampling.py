"""Sampling crystals from a Wyckoff transformer: what to ask for, and the loop over sites."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from crystaljax.composition import atomic_number, parse_formula
from crystaljax.crystal import Array
from crystaljax.models.constraints import Composition, Constraints
from crystaljax.models.draws import Sharpness
from crystaljax.models.wyckoff_decoder import Decoder, Graph, Rollout, grow, take
from crystaljax.symmetry.tables import N_GROUPS, letter_index, tables
from crystaljax.tokenizations.wyckoff import N_SPECIES, TOKENS_PER_SITE

SHRINK = 4
"""A batch is made smaller when this fraction of it, or less, has not ended."""

SMALLEST_BATCH = 16
"""Batches are not made smaller than this."""

CACHE_SITES = (2, 4, 7, 12)
"""Cache lengths, in sites, before the longest: attention reads no more of it than needed."""


@dataclass(frozen=True)
class SamplingConfig:
    """What to sample and how."""

    temperature: float = 1.0
    """Below 1 likelier crystals, above 1 more varied ones."""
    top_p: float = 1.0
    """Draw letters and elements only from the likeliest that make up this probability."""
    elements: tuple[str, ...] | None = None
    """Elements that may occur; all if not given."""
    required: tuple[str, ...] = ()
    """Elements that must occur."""
    space_groups: tuple[int, ...] | None = None
    """Space groups to draw from, as often as in the training data; all if not given."""
    template: tuple[str, ...] | None = None
    """Wyckoff letters of all sites, such as a a b; only groups that have them are drawn."""
    formula: str | None = None
    """Content of the primitive cell, such as Sr1Ti1O3."""
    batch_size: int = 256
    """Samples made at a time; the result does not depend on it."""


def make_constraints(config: SamplingConfig, max_sites: int) -> Constraints:
    """The arrays that a sampling configuration asks for; ValueError if it contradicts itself."""
    if not 0 < config.temperature < float("inf"):
        raise ValueError(f"temperature {config.temperature}: it must be positive and finite")
    if not 0 < config.top_p <= 1:
        raise ValueError(f"top-p {config.top_p}: it must be above 0, and 1 at most")
    allowed = np.arange(N_SPECIES) > 0
    if config.elements is not None:
        allowed = _marked(config.elements)
    composition = None
    if config.formula is not None:
        content = parse_formula(config.formula)
        if (content % 1 != 0).any():
            raise ValueError(f"{config.formula}: give whole numbers of atoms")
        if (content[~allowed] > 0).any():
            raise ValueError(f"{config.formula} has elements that are not among those allowed")
        composition = Composition.of(content.astype(int))
        allowed = content > 0
    required = _marked(config.required)
    if (required & ~allowed).any():
        raise ValueError("an element is required that is not among those allowed")
    template = None
    if config.template is not None:
        if not 0 < len(config.template) <= max_sites:
            raise ValueError(f"a template of {len(config.template)} sites: 1 to {max_sites} can be")
        letters = [letter_index(x) for x in config.template]
        template = jnp.array(letters + [0] * (max_sites + 1 - len(letters)), jnp.int32)
    return Constraints(jnp.asarray(allowed), jnp.asarray(required), template, composition)


def draw_space_groups(
    config: SamplingConfig,
    constraints: Constraints,
    counts: np.ndarray,
    n: int,
    rng: np.random.Generator,
) -> np.ndarray:
    """int32 [n] space groups by the data's distribution, among those the configuration allows.

    Left out are groups that lack positions of the template, or positions to make up the formula
    of. `counts` int [230] of the training data; groups asked for that it lacks count once.
    ValueError if none is possible.
    """
    weight = counts.astype(float)
    if config.space_groups is not None:
        chosen = np.array(config.space_groups)
        if ((chosen < 1) | (chosen > N_GROUPS)).any():
            raise ValueError(f"space groups {config.space_groups}: they are numbered 1-230")
        weight = np.where(np.isin(np.arange(N_GROUPS), chosen - 1), np.maximum(weight, 1), 0)
    if config.template is not None:
        letters = np.array([letter_index(x) for x in config.template])
        if (np.diff(letters) < 0).any():
            raise ValueError(f"template {' '.join(config.template)}: sort its letters")
        exists = (tables().multiplicity[:, letters] > 0).all(axis=1)
        again = letters[1:][np.diff(letters) == 0]
        weight = np.where(exists & (tables().n_free[:, again] > 0).all(axis=1), weight, 0)
    if constraints.composition is not None:
        weight = np.where(constraints.composition.fits(), weight, 0)
    if weight.sum() == 0:
        raise ValueError(
            "no space group that may be drawn has the positions that the template or the formula "
            "needs: allow more space groups, or give the content of the whole primitive cell"
        )
    return rng.choice(N_GROUPS, n, p=weight / weight.sum()).astype(np.int32) + 1


def sample(
    graph: Graph,
    params: Any,
    groups: np.ndarray,
    seed: int,
    constraints: Constraints,
    config: SamplingConfig,
    max_sites: int,
) -> Rollout:
    """One sample for each of N space groups (int [N]), as numpy arrays.

    Sample i depends on the seed and i alone. `graph` is what `nnx.split` gave with the
    parameters.
    """
    top_p = jnp.float32(config.top_p) if config.top_p < 1 else None
    sharpness = Sharpness(jnp.float32(config.temperature), top_p)
    decoder = Decoder(graph, params, sharpness, constraints)
    base = jax.random.key(seed)
    result = Rollout.empty(groups, max_sites)
    for first in range(0, len(groups), config.batch_size):
        rows = np.arange(first, min(first + config.batch_size, len(groups)))
        for at, found in _decode(decoder, base, groups, rows, config.batch_size):
            jax.tree.map(partial(_put, at), result, found)
    return result


def _put(at: np.ndarray, into: np.ndarray, values: np.ndarray) -> None:
    into[at] = values


def _decode(
    decoder: Decoder, base: Array, groups: np.ndarray, rows: np.ndarray, batch_size: int
) -> Iterator[tuple[np.ndarray, Rollout]]:
    """Decode samples `rows` together; yields some of them, finished, at a time."""
    max_sites = decoder.config.max_sites
    lengths = [_length(n) for n in (*CACHE_SITES, max_sites) if n <= max_sites]
    size = _size(len(rows), batch_size)
    padded = np.concatenate([rows, np.full(size - len(rows), rows[0])])
    keys = jax.vmap(jax.random.fold_in, (None, 0))(base, padded)
    state = decoder.start(keys, groups[padded])
    caches = decoder.empty_caches(size, lengths[0])
    for site in range(max_sites + 1):
        state, caches = decoder.letters(state, caches, site)
        left = np.flatnonzero(np.asarray(state.alive)[: len(rows)])
        smaller = _size(len(left), size)
        if len(left) == 0 or smaller < size:
            done = np.setdiff1d(np.arange(len(rows)), left)
            yield rows[done], jax.device_get(state.rollout)[done]
        if len(left) == 0:
            return
        if smaller < size:
            rows, size = rows[left], smaller
            padding = np.full(size - len(left), left[0])
            state, caches = take(state, caches, np.concatenate([left, padding]))
        if _length(site + 1) > lengths[0]:
            caches = grow(caches, lengths[1] - lengths[0])
            lengths = lengths[1:]
        state, caches = decoder.sites(state, caches, site)


def _length(sites: int) -> int:
    """Tokens of so many sites and of the end."""
    return sites * TOKENS_PER_SITE + 1


def _size(n: int, largest: int) -> int:
    """The smallest batch size, in steps of `SHRINK` down from `largest`, that holds n samples."""
    size = largest
    while size // SHRINK >= max(n, SMALLEST_BATCH):
        size //= SHRINK
    return size


def _marked(symbols: tuple[str, ...]) -> np.ndarray:
    """bool [119]: which elements are named; ValueError for an unknown one."""
    marked = np.zeros(N_SPECIES, bool)
    marked[[atomic_number(symbol) for symbol in symbols]] = True
    return marked
