"""Sampling crystals from a Wyckoff transformer: what to ask for, and the loop over sites."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from crystaljax.composition import atomic_number, parse_formula
from crystaljax.crystal import Array, Batch
from crystaljax.models.constraints import Composition, Constraints
from crystaljax.models.wyckoff_decoder import (
    DecodedSite,
    DecodeState,
    Sharpness,
    decode_site,
    start,
)
from crystaljax.models.wyckoff_transformer import Cache
from crystaljax.symmetry.tables import N_GROUPS, letter_index, tables
from crystaljax.tokenizations.wyckoff import N_SPECIES, TOKENS_PER_SITE, WyckoffTokens

Graph = Any  # of the network, as `nnx.split` gives it

SHRINK = 4
"""A batch is made smaller when this fraction of it, or less, has not ended."""

SMALLEST_BATCH = 16
"""Batches are not made smaller than this."""

CACHE_SITES = (3, 7)
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


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class Rollout(Batch):
    """N samples with their log-probabilities (numpy)."""

    tokens: WyckoffTokens
    """[N]"""
    logp: np.ndarray
    """float32 [N]: ln of the probability (density) under the distribution that was sampled, with
    its temperature, top-p and constraints."""
    logp_model: np.ndarray
    """float32 [N]: ln p under the model itself; `log_prob` of the tokens gives the same."""
    satisfied: np.ndarray
    """bool [N]: the sample does what the constraints demand. False after a dead end, such as
    atoms left over for which the group has no more positions."""


def make_constraints(config: SamplingConfig, max_sites: int) -> Constraints:
    """The arrays that a sampling configuration asks for; ValueError if it contradicts itself."""
    if config.temperature <= 0:
        raise ValueError(f"temperature {config.temperature}: it must be positive")
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
    config: SamplingConfig, counts: np.ndarray, n: int, rng: np.random.Generator
) -> np.ndarray:
    """int32 [n] space groups by the data's distribution, among those the configuration allows.

    `counts` int [230] of the training data. Groups asked for that it lacks count once. ValueError
    if none is possible.
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
    if weight.sum() == 0:
        raise ValueError("no space group that may be drawn has the positions of the template")
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
    """One sample for each of N space groups (int [N]).

    Sample i depends on the seed and i alone. `graph` is what `nnx.split` gave with the
    parameters.
    """
    sharpness = Sharpness(jnp.float32(config.temperature), jnp.float32(config.top_p))
    base = jax.random.key(seed)
    n = len(groups)
    tokens = WyckoffTokens(
        groups.astype(np.int32),
        np.zeros((n, max_sites), np.int32),
        np.zeros((n, max_sites), np.int32),
        np.zeros((n, max_sites, 3), np.float32),
        np.zeros((n, 6), np.float32),
    )
    logp, logp_model, satisfied = np.zeros(n, np.float32), np.zeros(n, np.float32), np.ones(n, bool)
    for first in range(0, n, config.batch_size):
        rows = np.arange(first, min(first + config.batch_size, n))
        for site, at, found, fine in _decode(
            graph, params, base, groups, rows, sharpness, constraints, config.batch_size, max_sites
        ):
            if site < max_sites:
                tokens.wyckoff[at, site] = found.letter
                tokens.species[at, site] = found.species
                tokens.frac[at, site] = found.frac
            tokens.lattice[at] += found.lattice
            logp[at] += found.logp
            logp_model[at] += found.logp_model
            satisfied[at] = fine
    return Rollout(tokens, logp, logp_model, satisfied)


def _decode(
    graph: Graph,
    params: Any,
    base: Array,
    groups: np.ndarray,
    rows: np.ndarray,
    sharpness: Sharpness,
    constraints: Constraints,
    batch_size: int,
    max_sites: int,
) -> Iterator[tuple[int, np.ndarray, DecodedSite, np.ndarray]]:
    """Decode samples `rows` together: (site, samples, what they got, constraints met) per step."""
    lengths = [n for n in CACHE_SITES if n < max_sites + 1] + [max_sites + 1]
    size = _size(len(rows), batch_size)
    padded = np.concatenate([rows, np.full(size - len(rows), rows[0])])
    keys = jax.vmap(jax.random.fold_in, (None, 0))(base, padded)
    state = _start(graph, params, keys, groups[padded], lengths[0])
    for site in range(max_sites + 1):
        if site >= lengths[0]:
            grown = (lengths[1] - lengths[0]) * TOKENS_PER_SITE
            lengths = lengths[1:]
            state = _grow(state, grown)
        state, found, fine = _step(graph, params, state, jnp.int32(site), sharpness, constraints)
        found, alive, fine = jax.device_get((found, state.alive, fine))
        yield site, rows, found[: len(rows)], fine[: len(rows)]
        left = np.flatnonzero(alive[: len(rows)])
        if len(left) == 0:
            return
        smaller = _size(len(left), size)
        if smaller < size:
            rows, size = rows[left], smaller
            padding = np.full(size - len(left), left[0])
            state = _take(state, np.concatenate([left, padding]))


def _size(n: int, largest: int) -> int:
    """The smallest batch size, in steps of `SHRINK` down from `largest`, that holds n samples."""
    size = largest
    while size // SHRINK >= max(n, SMALLEST_BATCH):
        size //= SHRINK
    return size


@partial(jax.jit, static_argnums=(0, 4))
def _start(graph: Graph, params: Any, keys: Array, groups: Array, cache_sites: int) -> DecodeState:
    return start(nnx.merge(graph, params), keys, groups, cache_sites)


@partial(jax.jit, static_argnums=0, donate_argnums=2)
def _step(
    graph: Graph,
    params: Any,
    state: DecodeState,
    site: Array,
    sharpness: Sharpness,
    constraints: Constraints,
) -> tuple[DecodeState, DecodedSite, Array]:
    model = nnx.merge(graph, params)
    state, found = decode_site(model, state, site, sharpness, constraints)
    return state, found, constraints.satisfied(state.group, state.progress)


@partial(jax.jit, static_argnums=1)
def _grow(state: DecodeState, tokens: int) -> DecodeState:
    """The same sequences with room for more tokens in the cache."""
    padding = [(0, 0)] * 3 + [(0, tokens), (0, 0)]
    return replace(state, cache=Cache(*(jnp.pad(x, padding) for x in state.cache)))


@jax.jit
def _take(state: DecodeState, rows: Array) -> DecodeState:
    """Some of the sequences."""
    cache = Cache(*(x[:, rows] for x in state.cache))
    no_cache = replace(state, cache=Cache(None, None))
    return replace(jax.tree.map(lambda x: x[rows], no_cache), cache=cache)


def _marked(symbols: tuple[str, ...]) -> np.ndarray:
    """bool [119]: which elements are named; ValueError for an unknown one."""
    marked = np.zeros(N_SPECIES, bool)
    marked[[atomic_number(symbol) for symbol in symbols]] = True
    return marked
