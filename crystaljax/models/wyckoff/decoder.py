"""Sampling a batch of Wyckoff sequences token by token, with a key-value cache.

All sequences of a batch are at the same token. The random numbers come from the sample's own key
and the site, so a sample does not depend on its batch.

Each function is compiled on its own, and one block of the network serves all layers and tokens:
what is compiled stays small, and no cache is copied, as it would be in a scan over the layers.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from crystaljax.crystal import Array, Batch
from crystaljax.models.rules import allowed_letters, exclude
from crystaljax.models.wyckoff.constraints import Constraints, Progress
from crystaljax.models.wyckoff.importance import effective_size
from crystaljax.models.wyckoff.token_sampling import (
    Choice,
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
from crystaljax.symmetry.tables import N_LETTERS, tables
from crystaljax.tokenizations.wyckoff import N_SPECIES, TOKENS_PER_SITE, WyckoffTokens

Graph = Any  # of the network, as `nnx.split` gives it


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class Rollout(Batch):
    """N samples with their log-probabilities."""

    tokens: WyckoffTokens
    """[N]"""
    logp: Array
    """float32 [N]: ln of the probability (density) under the distribution that it was drawn from,
    token by token, with its temperature, top-p, masks and look-ahead. Under constraints samples
    are selected from such draws: this is the proposal's, not that of the selected ones."""
    logp_model: Array
    """float32 [N]: ln p under the model itself; `log_prob` of the tokens gives the same."""
    log_weight: Array
    """float32 [N]: ln of the weight that the sample should have in averages, up to a constant; all
    equal where samples are exact, −inf where the demands are not met."""
    satisfied: Array
    """bool [N]: the sample does what the constraints demand."""

    @property
    def weight(self) -> np.ndarray:
        """float64 [N]: what samples count for in averages, 1 on average; all 0 if none is met."""
        log_weight = np.asarray(self.log_weight, np.float64)
        if not np.isfinite(log_weight).any():
            return np.zeros(len(log_weight))
        weight = np.exp(log_weight - log_weight.max())
        return weight / weight.mean()

    @property
    def effective_size(self) -> float:
        """Samples of equal weight that are worth as much: (Σw)²/Σw² (Kong, JASA 89, 278, 1994)."""
        return effective_size(self.weight)

    @staticmethod
    def empty(group: Array, max_sites: int) -> Rollout:
        """Nothing sampled yet, for N space groups."""
        n = len(group)
        tokens = WyckoffTokens(
            np.asarray(group, np.int32),
            np.zeros((n, max_sites), np.int32),
            np.zeros((n, max_sites), np.int32),
            np.zeros((n, max_sites, 3), np.float32),
            np.zeros((n, 6), np.float32),
        )
        zeros = np.zeros(n, np.float32)
        return Rollout(tokens, zeros, zeros.copy(), zeros.copy(), np.zeros(n, bool))


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class DecodeState:
    """B sequences after some tokens, all but the cache."""

    rollout: Rollout
    """The sampled sequences."""
    constraints: Constraints
    """Demands on each sample."""
    progress: Progress
    """Progress of the sites so far towards the demands."""
    key: Array
    """key [B]: each sample's own."""
    alive: Array
    """bool [B]: not ended yet."""
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
      fewest: the table of `Occupations` that constraints refer to, if they demand compositions.
    """

    def __init__(
        self, graph: Graph, params: Any, tempering: Tempering, fewest: Array | None
    ) -> None:
        model: WyckoffTransformer = nnx.merge(graph, params)
        self.config = model.config
        self._model = graph, params
        self._how = tempering, fewest
        self._block, weights = nnx.split(model.blocks)
        self._layers = _unstack(weights, self.config.n_layers)

    def start(self, key: Array, group: Array, constraints: Constraints) -> DecodeState:
        """B empty sequences; key [B], group int [B]."""
        batch = len(group)
        return DecodeState(
            rollout=Rollout.empty(group, self.config.max_sites),
            constraints=constraints,
            progress=Progress.start(batch),
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
        """Sample the letter of the `site`-th site (from 0), and the lattice where none follows."""
        was_alive = state.alive
        state = replace(state, uniform=draw_uniforms(state.key, np.int32(site)))
        state = _letter(*self._model, state, np.int32(site), *self._how)
        state, caches = self._advance(state, caches, site * TOKENS_PER_SITE)
        return _lattice(*self._model, state, was_alive, self._how[0]), caches

    def sites(
        self, state: DecodeState, caches: list[Cache], site: int
    ) -> tuple[DecodeState, list[Cache]]:
        """Sample the element and the coordinates of the `site`-th site."""
        at = np.int32(site)
        place = site * TOKENS_PER_SITE + 1
        state = _species(*self._model, state, at, *self._how)
        state, caches = self._advance(state, caches, place)
        for axis in range(3):
            state = _coordinate(*self._model, state, at, np.int32(axis), self._how[0])
            state, caches = self._advance(state, caches, place + 1 + axis)
        return state, caches

    def _advance(
        self, state: DecodeState, caches: list[Cache], place: int
    ) -> tuple[DecodeState, list[Cache]]:
        """The last token, which is at `place`, through all blocks."""
        hidden, longer = state.hidden, []
        for weights, cache in zip(self._layers, caches, strict=True):
            hidden, kept = _advance(
                self._block, self.config, weights, hidden, np.int32(place), cache
            )
            longer.append(kept)
        return replace(state, hidden=hidden), longer


@jax.jit
def take(state: DecodeState, caches: list[Cache], rows: Array) -> tuple[DecodeState, list[Cache]]:
    """Some of the sequences."""
    return jax.tree.map(lambda x: x[rows], (state, caches))


@partial(jax.jit, static_argnums=1)
def grow(caches: list[Cache], tokens: int) -> list[Cache]:
    """Caches with room for more tokens."""
    return jax.tree.map(lambda x: jnp.pad(x, [(0, 0), (0, 0), (0, tokens), (0, 0)]), caches)


@partial(jax.jit, static_argnums=1)
def _unstack(weights: Any, n_layers: int) -> list[Any]:
    """The weights of each layer."""
    return [jax.tree.map(lambda x: x[i], weights) for i in range(n_layers)]  # noqa: B023


@partial(jax.jit, static_argnums=(0, 1), donate_argnums=5)
def _advance(
    graph: Graph, config: ModelConfig, weights: Any, x: Array, place: Array, cache: Cache
) -> tuple[Array, Cache]:
    """Tokens x [B, width] at `place` (int []) through one block; its longer cache."""
    block: Block = nnx.merge(graph, weights)

    def attend(query: Array, key: Array, value: Array) -> tuple[Array, Cache]:
        return attend_cache(query, key, value, cache, place)

    return block(x, rotation(place[None], config), attend, None)


@partial(jax.jit, static_argnums=0)
def _letter(
    graph: Graph,
    params: Any,
    state: DecodeState,
    site: Array,
    tempering: Tempering,
    fewest: Array | None,
) -> DecodeState:
    """Letters for those that are alive, and their tokens."""
    model: WyckoffTransformer = nnx.merge(graph, params)
    group = state.rollout.tokens.space_group
    logits = model.letter_logits(model.outputs(state.hidden))
    logits = jnp.where(site == 0, model.first_letter_logits(group), logits)
    possible = allowed_letters(group, state.letter, jnp.broadcast_to(site == 0, group.shape))
    is_full = site >= model.config.max_sites
    possible = jnp.where(is_full, jnp.arange(N_LETTERS) == 0, possible)
    sites_left = model.config.max_sites - site
    wanted = state.constraints.letters(fewest, state.progress, group, site, possible, sites_left)
    choice = draw_choice(state.uniform.letter, logits, possible, possible, wanted, tempering)
    letter = jnp.where(state.alive, choice.index, 0)
    rollout = _add_choice(state.rollout, state.alive, choice)
    wyckoff = rollout.tokens.wyckoff.at[:, site].set(letter, mode="drop")
    return replace(
        state,
        rollout=replace(rollout, tokens=replace(rollout.tokens, wyckoff=wyckoff)),
        alive=letter > 0,
        letter=letter,
        hidden=model.embed_letter(group, letter).astype(model.config.dtype),
    )


@partial(jax.jit, static_argnums=0)
def _lattice(
    graph: Graph,
    params: Any,
    state: DecodeState,
    was_alive: Array,
    tempering: Tempering,
) -> DecodeState:
    """Lattices for those that just ended, from their end tokens."""
    model: WyckoffTransformer = nnx.merge(graph, params)
    ends = was_alive & ~state.alive
    tokens = state.rollout.tokens
    lattice, logp, logp_model = draw_lattice(
        state.uniform.lattice,
        model.lattice_mixture(model.outputs(state.hidden)),
        tokens.space_group,
        tempering,
    )
    rollout = _add_logp(state.rollout, ends, logp, logp_model)
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
    graph: Graph,
    params: Any,
    state: DecodeState,
    site: Array,
    tempering: Tempering,
    fewest: Array | None,
) -> DecodeState:
    """Elements for those that are alive, and their tokens."""
    model: WyckoffTransformer = nnx.merge(graph, params)
    tokens = state.rollout.tokens
    group = tokens.space_group
    possible = jnp.broadcast_to(jnp.arange(N_SPECIES) > 0, (len(group), N_SPECIES))
    sites_left = model.config.max_sites - site
    constraints = state.constraints
    wanted = constraints.species(fewest, state.progress, group, state.letter, site, sites_left)
    logits = model.species_logits(model.outputs(state.hidden))
    choice = draw_choice(
        state.uniform.species,
        logits,
        possible,
        constraints.known,
        wanted,
        tempering,
        constraints.favour(state.progress, exclude(logits, possible) / tempering.temperature),
    )
    species = jnp.where(state.alive, choice.index, 0)
    rollout = _add_choice(state.rollout, state.alive, choice)
    return replace(
        state,
        rollout=replace(
            rollout, tokens=replace(tokens, species=tokens.species.at[:, site].set(species))
        ),
        progress=state.progress.after(group, state.letter, species),
        hidden=model.embed_species(group, species).astype(model.config.dtype),
    )


@partial(jax.jit, static_argnums=0)
def _coordinate(
    graph: Graph, params: Any, state: DecodeState, site: Array, axis: Array, tempering: Tempering
) -> DecodeState:
    """One coordinate for those that are alive, and its tokens; compiled once for the three."""
    model: WyckoffTransformer = nnx.merge(graph, params)
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
    rollout = _add_logp(state.rollout, counts, logp, logp_model)
    token = model.embed_coordinate(axis, group, frac[:, axis])
    return replace(
        state,
        rollout=replace(rollout, tokens=replace(tokens, frac=tokens.frac.at[:, site].set(frac))),
        hidden=token.astype(model.config.dtype),
    )


def _add_choice(rollout: Rollout, where: Array, choice: Choice) -> Rollout:
    rollout = _add_logp(rollout, where, choice.logp, choice.logp_model)
    log_weight = rollout.log_weight + jnp.where(where, choice.log_weight, 0)
    return replace(rollout, log_weight=log_weight)


def _add_logp(rollout: Rollout, where: Array, logp: Array, logp_model: Array) -> Rollout:
    return replace(
        rollout,
        logp=rollout.logp + jnp.where(where, logp, 0),
        logp_model=rollout.logp_model + jnp.where(where, logp_model, 0),
    )
