"""Sampling a batch of Wyckoff sequences token by token, with a key-value cache.

All sequences of a batch are at the same token. The random numbers come from the sample's own key
and the site, so a sample does not depend on its batch.

Each function is compiled separately, and one compiled block of the network is used for all layers
and tokens. So compilation is fast, and no cache is copied, as it would be in a scan over layers.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cache, partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from crystaljax.crystal import Array
from crystaljax.models.rules import NEVER, allowed_letters, exclude
from crystaljax.models.wyckoff.constraints import Constraints, Places, Progress
from crystaljax.models.wyckoff.rollout import TokenRollout
from crystaljax.models.wyckoff.token_sampling import (
    Tempering,
    Uniforms,
    draw_choice,
    draw_coordinate,
    draw_lattice,
    draw_uniforms,
)
from crystaljax.models.wyckoff.transformer import (
    Block,
    Cache,
    ModelConfig,
    WyckoffTransformer,
    attend_cache,
    rotation,
)
from crystaljax.symmetry.orbits import project
from crystaljax.symmetry.tables import N_GROUPS, N_LETTERS, tables
from crystaljax.tokenizations.wyckoff import N_SPECIES, TOKENS_PER_SITE

FIRST_TOKENS = 256
"""Number of first letters that are passed through the network at a time."""

Graph = Any  # of the network, as `nnx.split` gives it


class Structure:
    """The graph of a network as a static argument, hashed only once.

    Equal graphs are the same object (`structure`).
    """

    def __init__(self, graph: Graph) -> None:
        self.graph = graph


@cache
def structure(graph: Graph) -> Structure:
    """The `Structure` of a graph."""
    return Structure(graph)


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class DecodeState:
    """State of B sequences after some tokens, without the cache."""

    rollout: TokenRollout
    """The sampled sequences."""
    constraints: Constraints
    """Demands on each sample."""
    places: Places | None
    """Tables that the constraints refer to, if any; passed only to functions that need them, since
    they would be copied."""
    progress: Progress
    """Progress of the sites so far towards the demands."""
    ahead: Array
    """float32 [B]: ln of the probability that the demand will be met, up to a constant (all
    sequences of a demand are at the same site)."""
    key: Array
    """key [B]: random key of each sample."""
    alive: Array
    """bool [B]: whether the sequence has not ended."""
    letter: Array
    """int32 [B]: letter of the last site; 0 = the end."""
    uniform: Uniforms
    """Random numbers for the site."""
    hidden: Array
    """[B, width]: the last token, before or after the blocks."""


class Decoder:
    """A network that samples; its methods take and give batches of sequences.

    Args:
      graph, params: the network, as `nnx.split` gives it.
      tempering: how to sample.
    """

    def __init__(self, graph: Graph, params: Any, tempering: Tempering) -> None:
        model: WyckoffTransformer = nnx.merge(graph, params)
        self.config = model.config
        self._model = structure(graph), params
        self.tempering = tempering
        block, weights = nnx.split(model.blocks)
        self._block = structure(block)
        self._layers = _unstack(weights, self.config.n_layers)

    def start(
        self, key: Array, group: Array, constraints: Constraints, places: Places | None
    ) -> DecodeState:
        """B empty sequences; key [B], group int [B]; `places` is what constraints refer to."""
        batch = len(group)
        return DecodeState(
            rollout=TokenRollout.empty(group, self.config.max_sites),
            constraints=constraints,
            places=places,
            progress=Progress.start(batch),
            ahead=np.zeros(batch, np.float32),
            key=key,
            alive=np.ones(batch, bool),
            letter=np.zeros(batch, np.int32),
            uniform=draw_uniforms(key, np.int32(0)),
            hidden=np.zeros((batch, self.config.width), self.config.dtype),
        )

    def empty_caches(self, batch: int, length: int) -> list[Cache]:
        """Caches for `length` tokens of `batch` sequences, one for each layer."""
        shape = batch, self.config.n_heads, length, self.config.head_size
        empty = partial(jnp.zeros, shape, self.config.dtype)
        return [Cache(empty(), empty()) for _ in self._layers]

    def letters(
        self, state: DecodeState, caches: list[Cache], site: int
    ) -> tuple[DecodeState, list[Cache]]:
        """Sample the letter of the `site`-th site (from 0), and the lattice if a sequence ends."""
        was_alive, places = state.alive, state.places
        state = replace(state, uniform=draw_uniforms(state.key, np.int32(site)), places=None)
        state = _letter(*self._model, state, places, np.int32(site), self.tempering)
        state, caches = self._advance(state, caches, site * TOKENS_PER_SITE)
        state = _lattice(*self._model, state, was_alive, self.tempering)
        return replace(state, places=places), caches

    def species(self, state: DecodeState, site: int) -> DecodeState:
        """Sample the element of the `site`-th site."""
        places, state = state.places, replace(state, places=None)
        state = _species(*self._model, state, places, np.int32(site), self.tempering)
        return replace(state, places=places)

    def coordinates(
        self, state: DecodeState, caches: list[Cache], site: int
    ) -> tuple[DecodeState, list[Cache]]:
        """Sample the coordinates of the `site`-th site."""
        at = np.int32(site)
        place = site * TOKENS_PER_SITE + 1
        places, state = state.places, replace(state, places=None)
        state, caches = self._advance(state, caches, place)
        for axis in range(3):
            state = _coordinate(*self._model, state, at, np.int32(axis), self.tempering)
            state, caches = self._advance(state, caches, place + 1 + axis)
        return replace(state, places=places), caches

    def _advance(
        self, state: DecodeState, caches: list[Cache], place: int
    ) -> tuple[DecodeState, list[Cache]]:
        """Pass the last token, at position `place`, through all blocks."""
        hidden, longer = state.hidden, []
        for weights, before in zip(self._layers, caches, strict=True):
            hidden, kept = _advance(
                self._block, self.config, weights, hidden, np.int32(place), before
            )
            longer.append(kept)
        return replace(state, hidden=hidden), longer

    def first_choices(
        self, groups: np.ndarray, of_elements: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray]:
        """Tempered logits of the first letter and of the first element on it, by group.

        float32 [230, 28], of `groups` bool [230], and [230, 28, 119], of the groups `of_elements`,
        without the rules of sequences; `NEVER` elsewhere.
        """
        every = np.arange(1, N_GROUPS + 1, dtype=np.int32)
        letters = np.asarray(_first_letters(*self._model, every, self.tempering))
        exists = (tables().multiplicity > 0) & groups[:, None]
        group, letter = np.nonzero(exists & of_elements[:, None])
        group, letter = group.astype(np.int32), letter.astype(np.int32)
        species = np.full((*exists.shape, N_SPECIES), NEVER, np.float32)
        for first in range(0, len(group), FIRST_TOKENS):
            at = group[first : first + FIRST_TOKENS], letter[first : first + FIRST_TOKENS]
            padded = [np.resize(x, FIRST_TOKENS) for x in at]
            found = _first_species(*self._model, padded[0] + 1, padded[1], self.tempering)
            species[at] = np.asarray(found)[: len(at[0])]
        return np.where(exists, letters, NEVER), species


@partial(jax.jit, static_argnums=1)
def _unstack(weights: Any, n_layers: int) -> list[Any]:
    """The weights of each layer."""
    return [jax.tree.map(lambda x: x[i], weights) for i in range(n_layers)]  # noqa: B023


@partial(jax.jit, static_argnums=(0, 1), donate_argnums=5)
def _advance(
    network: Structure, config: ModelConfig, weights: Any, x: Array, place: Array, cache: Cache
) -> tuple[Array, Cache]:
    """Tokens x [B, width] at `place` (int []) through one block; its longer cache."""
    block: Block = nnx.merge(network.graph, weights)

    def attend(query: Array, key: Array, value: Array) -> tuple[Array, Cache]:
        return attend_cache(query, key, value, cache, place)

    return block(x, rotation(place[None], config), attend, None)


@partial(jax.jit, static_argnums=0)
def _first_letters(network: Structure, params: Any, group: Array, tempering: Tempering) -> Array:
    """float32 [B, 28]: logits of the first letters."""
    model: WyckoffTransformer = nnx.merge(network.graph, params)
    return model.first_letter_logits(group) / tempering.temperature


@partial(jax.jit, static_argnums=0)
def _first_species(
    network: Structure, params: Any, group: Array, letter: Array, tempering: Tempering
) -> Array:
    """float32 [B, 119]: logits of the elements on first letters."""
    model: WyckoffTransformer = nnx.merge(network.graph, params)
    token, here = model.embed_letter(group, letter)[:, None], jnp.zeros((len(group), 1), int)
    output = model.transform(token, here, jnp.ones((len(group), 1, 1), bool))[:, 0]
    return model.species_logits(output) / tempering.temperature


@partial(jax.jit, static_argnums=0)
def _letter(
    network: Structure,
    params: Any,
    state: DecodeState,
    places: Places | None,
    site: Array,
    tempering: Tempering,
) -> DecodeState:
    """Letters for those that are alive, and their tokens."""
    model: WyckoffTransformer = nnx.merge(network.graph, params)
    group = state.rollout.tokens.space_group
    logits = model.letter_logits(model.outputs(state.hidden))
    logits = jnp.where(site == 0, model.first_letter_logits(group), logits)
    possible = allowed_letters(group, state.letter, jnp.broadcast_to(site == 0, group.shape))
    is_full = site >= model.config.max_sites
    possible = jnp.where(is_full, jnp.arange(N_LETTERS) == 0, possible)
    wanted, favour, demanded = possible, jnp.float32(0), state.constraints.demanded
    ahead = state.ahead
    if demanded is not None and places is not None:
        sites_left = model.config.max_sites - site
        wanted, favour = demanded.letters(places, state.progress, group, site, possible, sites_left)
    choice = draw_choice(
        state.uniform.letter, logits, possible, possible, wanted, tempering, favour
    )
    letter = jnp.where(state.alive, choice.index, 0)
    if demanded is not None:
        ahead = jnp.where(letter > 0, demanded.ahead_after_letter(ahead, favour, letter), 0)
    rollout = state.rollout.with_choice(state.alive, choice)
    wyckoff = rollout.tokens.wyckoff.at[:, site].set(letter, mode="drop")
    return replace(
        state,
        rollout=replace(rollout, tokens=replace(rollout.tokens, wyckoff=wyckoff)),
        alive=letter > 0,
        letter=letter,
        ahead=ahead,
        hidden=model.embed_letter(group, letter).astype(model.config.dtype),
    )


@partial(jax.jit, static_argnums=0)
def _lattice(
    network: Structure,
    params: Any,
    state: DecodeState,
    was_alive: Array,
    tempering: Tempering,
) -> DecodeState:
    """Lattices for those that just ended, from their end tokens."""
    model: WyckoffTransformer = nnx.merge(network.graph, params)
    ends = was_alive & ~state.alive
    tokens = state.rollout.tokens
    lattice, logp, logp_model = draw_lattice(
        state.uniform.lattice,
        model.lattice_mixture(model.outputs(state.hidden)),
        tokens.space_group,
        tempering,
    )
    rollout = state.rollout.with_logp(ends, logp, logp_model)
    satisfied = state.constraints.satisfied(tokens.space_group, state.progress)
    return replace(
        state,
        rollout=replace(
            rollout,
            tokens=replace(tokens, lattice=jnp.where(ends[:, None], lattice, tokens.lattice)),
            log_weight=jnp.where(ends & ~satisfied, -jnp.inf, rollout.log_weight),
            satisfied=jnp.where(ends, satisfied, rollout.satisfied),
        ),
    )


@partial(jax.jit, static_argnums=0)
def _species(
    network: Structure,
    params: Any,
    state: DecodeState,
    places: Places | None,
    site: Array,
    tempering: Tempering,
) -> DecodeState:
    """Elements for those that are alive, and their tokens."""
    model: WyckoffTransformer = nnx.merge(network.graph, params)
    tokens = state.rollout.tokens
    group = tokens.space_group
    possible = jnp.broadcast_to(jnp.arange(N_SPECIES) > 0, (len(group), N_SPECIES))
    logits = model.species_logits(model.outputs(state.hidden))
    constraints = state.constraints
    wanted, favour, demanded = constraints.allowed, jnp.float32(0), constraints.demanded
    ahead = state.ahead
    if demanded is not None and places is not None:
        fits, favour = demanded.species(
            places,
            state.progress,
            group,
            state.letter,
            site,
            model.config.max_sites - site,
            exclude(logits, possible) / tempering.temperature,
        )
        wanted = wanted & fits
    choice = draw_choice(
        state.uniform.species, logits, possible, constraints.known, wanted, tempering, favour
    )
    species = jnp.where(state.alive, choice.index, 0)
    if demanded is not None:
        ahead = jnp.where(state.alive, demanded.ahead_after_species(favour, species), 0)
    rollout = state.rollout.with_choice(state.alive, choice)
    return replace(
        state,
        rollout=replace(
            rollout, tokens=replace(tokens, species=tokens.species.at[:, site].set(species))
        ),
        progress=state.progress.after(group, state.letter, species),
        ahead=ahead,
        hidden=model.embed_species(group, species).astype(model.config.dtype),
    )


@partial(jax.jit, static_argnums=0)
def _coordinate(
    network: Structure,
    params: Any,
    state: DecodeState,
    site: Array,
    axis: Array,
    tempering: Tempering,
) -> DecodeState:
    """One coordinate for those that are alive, and its tokens; compiled once for the three."""
    model: WyckoffTransformer = nnx.merge(network.graph, params)
    tokens, letter = state.rollout.tokens, state.letter
    group = tokens.space_group
    x, logp, logp_model = draw_coordinate(
        state.uniform.coordinate[:, axis],
        model.coordinate_mixture(model.outputs(state.hidden)),
        tempering,
    )
    frac = project(group, letter, tokens.frac[:, site].at[:, axis].set(x))
    frac = jnp.where(state.alive[:, None], frac, 0)
    counts = state.alive & jnp.asarray(tables().free)[group - 1, letter, axis]
    rollout = state.rollout.with_logp(counts, logp, logp_model)
    token = model.embed_coordinate(axis, group, frac[:, axis])
    return replace(
        state,
        rollout=replace(rollout, tokens=replace(tokens, frac=tokens.frac.at[:, site].set(frac))),
        hidden=token.astype(model.config.dtype),
    )
