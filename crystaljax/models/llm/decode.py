"""Sampling of a batch of sequences at different positions: prefill, insertion, decoding.

All rows of the ring cache write to the same slot in a step, so that no scatter is needed. A prompt
without its last token is prefilled in a separate batch, and its keys and values are put into the
slots just before the clock. Its last token is the first one to be decoded.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from flax import nnx
from jax.sharding import NamedSharding

from crystaljax.crystal import Array
from crystaljax.models.llm.attention import LayerCache
from crystaljax.models.llm.decoder import Cache, LanguageModel
from crystaljax.models.llm.token_grammar import TokenGrammar
from crystaljax.models.llm.token_sampling import LogitsWarper, TokenDraw, draw_tokens
from crystaljax.parallel import replicated

Graph = Any  # of a LanguageModel, as `nnx.split` gives it
Weights = Sequence[Any]  # the states that `nnx.split` gave with it

MAX_STEPS = 64
"""Largest number of tokens that one call decodes."""


class Network:
    """Graph of `nnx.split`, hashed only once, as this is slow for many layers."""

    def __init__(self, graph: Graph) -> None:
        self.graph = graph
        self._hash = hash(graph)

    def __hash__(self) -> int:
        return self._hash

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Network) and self.graph == other.graph

    def model(self, weights: Weights) -> LanguageModel:
        """The model with the given weights."""
        return nnx.merge(self.graph, *weights)


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class DecodeState:
    """State of B rows, each with a sequence or unused, and their cache of S slots."""

    cache: Cache
    """keys and values [B, KV, S, D] of every layer"""
    slot_position: Array
    """int32 [B, S]: position of the token in a slot; -1 for none."""
    clock: Array
    """int32 []: number of steps so far; the next token goes to slot clock % S."""
    token: Array
    """int32 [B]: the last token, not in the cache yet."""
    position: Array
    """int32 [B]: position of that token; -1 in an unused row."""
    sample: Array
    """int32 [B]: number of the sample, for its random numbers."""
    drawn: Array
    """int32 [B]: number of tokens drawn so far."""
    limit: Array
    """int32 [B]: largest number of tokens to draw."""
    grammar_state: Array
    """int32 [B]"""


class Fresh(NamedTuple):
    """F sequences to insert into rows; arrays int32 [F]."""

    row: Array
    """Row of the sequence; B (one past the last) for padding."""
    source: Array
    """Row of the prefilled batch that has the prompt."""
    cached: Array
    """Number of tokens of the prompt without the last one."""
    token: Array
    """The last token of the prompt."""
    sample: Array
    """Number of the sample."""
    limit: Array
    """Largest number of tokens to draw."""
    grammar_state: Array
    """Initial state of the grammar."""


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class DecodeSettings:
    """Settings shared by all samples."""

    key: Array
    """key []: of the seed."""
    warper: LogitsWarper
    """Changes of the model's distribution."""
    end_tokens: Array
    """int32 [E]: tokens that end a sequence."""
    grammar: TokenGrammar | None
    """Tokens that may be drawn."""


class Chunk(NamedTuple):
    """Tokens drawn by one call, at most K for each of B rows."""

    token: Array
    """int32 [K, B]; 0 after a row's last."""
    logp: Array
    """float32 [K, B]: under the distribution drawn from."""
    logp_model: Array
    """float32 [K, B]: under the model."""
    n: Array
    """int32 [B]: number of tokens that each row drew."""
    active: Array
    """bool [B]: rows that have not ended."""


@partial(jax.jit, static_argnames=("network", "size", "slots", "sharding"))
def start(
    network: Network, weights: Weights, size: int, slots: int, sharding: NamedSharding | None
) -> DecodeState:
    """`size` unused rows and a cache of `slots`."""
    model = network.model(weights)
    zero = jnp.zeros(size, jnp.int32)
    state = DecodeState(
        cache=model.empty_cache(size, slots),
        slot_position=jnp.full((size, slots), -1, jnp.int32),
        clock=jnp.int32(0),
        token=zero,
        position=zero - 1,
        sample=zero,
        drawn=zero,
        limit=zero,
        grammar_state=zero,
    )
    return _pinned(state, sharding)


@partial(jax.jit, static_argnames=("network", "sharding"))
def prefill(
    network: Network, weights: Weights, tokens: Array, length: Array, sharding: NamedSharding | None
) -> Cache:
    """Keys and values [P, KV, T, D] of prompts int [P, T], of `length` int [P] tokens each."""
    model = network.model(weights)
    if sharding is not None:
        tokens = jax.lax.with_sharding_constraint(tokens, sharding)
    position = jnp.broadcast_to(jnp.arange(tokens.shape[1]), tokens.shape)
    return model.prefill(tokens, position, (position < length[:, None]).astype(jnp.int32))[1]


@partial(jax.jit, static_argnames="sharding", donate_argnames="state")
def insert(
    state: DecodeState, prefilled: Cache, fresh: Fresh, sharding: NamedSharding | None
) -> DecodeState:
    """The state with F prefilled sequences inserted into their rows, which are overwritten."""
    slots = state.slot_position.shape[1]
    first = state.clock - fresh.cached
    place = (jnp.arange(slots) - first[:, None]) % slots

    def put(old: Array, new: Array) -> Array:
        return old.at[fresh.row].set(new.astype(old.dtype), mode="drop")

    def put_layer(old: LayerCache, new: LayerCache) -> LayerCache:
        return LayerCache(
            *(put(x, _rolled(y, fresh.source, first, slots)) for x, y in zip(old, new, strict=True))
        )

    state = DecodeState(
        cache=tuple(put_layer(*both) for both in zip(state.cache, prefilled, strict=True)),
        slot_position=put(state.slot_position, jnp.where(place < fresh.cached[:, None], place, -1)),
        clock=state.clock,
        token=put(state.token, fresh.token),
        position=put(state.position, fresh.cached),
        sample=put(state.sample, fresh.sample),
        drawn=put(state.drawn, jnp.zeros_like(fresh.row)),
        limit=put(state.limit, fresh.limit),
        grammar_state=put(state.grammar_state, fresh.grammar_state),
    )
    return _pinned(state, sharding)


@partial(jax.jit, static_argnames="sharding")
def take(state: DecodeState, rows: Array, sharding: NamedSharding | None) -> DecodeState:
    """Some rows of the state, int [b]."""
    taken = jax.tree.map(lambda x: x[rows], replace(state, clock=rows[:1]))
    return _pinned(replace(taken, clock=state.clock), sharding)


@partial(jax.jit, static_argnames=("network", "sharding"), donate_argnames="state")
def decode(
    network: Network,
    weights: Weights,
    state: DecodeState,
    settings: DecodeSettings,
    active: Array,
    steps: Array,
    until: Array,
    sharding: NamedSharding | None,
) -> tuple[DecodeState, Chunk]:
    """Draw up to `steps` tokens (int [], `MAX_STEPS` at most) for each row in use.

    active: bool [B], rows to continue. The call ends early when only `until` (int []) rows are in
    use, so that new sequences can be inserted, or the batch be made smaller. A row ends with an end
    token or at its limit. Token t of sample i is drawn with fold_in(fold_in(key, i), t).
    """
    model = network.model(weights)
    state = replace(state, position=jnp.where(active, state.position, -1))
    size = len(state.token)
    blank = jnp.zeros((MAX_STEPS, size), jnp.float32)
    drawn = TokenDraw(blank.astype(jnp.int32), blank, blank)
    before = state.drawn

    def goes_on(carry: tuple[Array, DecodeState, TokenDraw]) -> Array:
        step, state, _ = carry
        return (step < steps) & ((state.position >= 0).sum() > until)

    def go_on(carry: tuple[Array, DecodeState, TokenDraw]) -> tuple[Array, DecodeState, TokenDraw]:
        step, state, drawn = carry
        state, new = _step(model, state, settings)
        drawn = TokenDraw(*(x.at[step].set(y) for x, y in zip(drawn, new, strict=True)))
        return step + 1, _pinned(state, sharding), drawn

    _, state, drawn = jax.lax.while_loop(goes_on, go_on, (jnp.int32(0), state, drawn))
    chunk = Chunk(*drawn, state.drawn - before, state.position >= 0)
    if sharding is not None:
        # Replicated, as every host reads all of it.
        everywhere = replicated(sharding.mesh)
        chunk = jax.lax.with_sharding_constraint(chunk, everywhere)
    return _pinned(state, sharding), chunk


def _step(
    model: LanguageModel, state: DecodeState, settings: DecodeSettings
) -> tuple[DecodeState, TokenDraw]:
    """One token for each row in use; 0, with log-probability 0, for the others."""
    used = state.position >= 0
    slots = state.slot_position.shape[1]
    slot_position = jax.lax.dynamic_update_slice(
        state.slot_position, state.position[:, None], (0, state.clock % slots)
    )
    hidden, cache = model.step(state.token, state.position, state.cache, slot_position, state.clock)
    grammar = settings.grammar
    allowed = None if grammar is None else _allowed(grammar, state, settings.end_tokens)
    new = draw_tokens(_uniform(settings.key, state), model.logits(hidden), allowed, settings.warper)
    new = TokenDraw(*(jnp.where(used, x, 0) for x in new))
    drawn = state.drawn + used
    ended = (new.token[:, None] == settings.end_tokens).any(axis=-1) | (drawn >= state.limit)
    grammar_state = state.grammar_state
    if grammar is not None:
        grammar_state = jnp.maximum(grammar.after(grammar_state, new.token), 0)
    state = replace(
        state,
        cache=cache,
        slot_position=slot_position,
        clock=state.clock + 1,
        token=new.token,
        position=jnp.where(used & ~ended, state.position + 1, -1),
        drawn=drawn,
        grammar_state=grammar_state,
    )
    return state, new


def _allowed(grammar: TokenGrammar, state: DecodeState, end_tokens: Array) -> Array:
    """bool [B, V]: tokens that the grammar allows; end tokens where the text may end."""
    allowed = grammar.allowed(state.grammar_state)
    is_end = jnp.zeros(allowed.shape[1], bool).at[end_tokens].set(True)
    return jnp.where(is_end, grammar.accepting[state.grammar_state][:, None], allowed)


def _uniform(key: Array, state: DecodeState) -> Array:
    """[B] in [0, 1): the random number of each row's next token."""

    def one(sample: Array, drawn: Array) -> Array:
        return jax.random.uniform(jax.random.fold_in(jax.random.fold_in(key, sample), drawn))

    return jax.vmap(one)(state.sample, state.drawn)


def _rolled(prefilled: Array, source: Array, first: Array, slots: int) -> Array:
    """[F, KV, S, D]: rows `source` of [P, KV, T, D], token 0 in slot `first` % S and so on."""
    x = prefilled[source]
    if x.shape[2] < slots:
        x = jnp.pad(x, ((0, 0), (0, 0), (0, slots - x.shape[2]), (0, 0)))
    x = x[:, :, :slots]
    return jax.vmap(lambda y, shift: jnp.roll(y, shift, axis=1))(x, first % slots)


def _pinned(state: DecodeState, sharding: NamedSharding | None) -> DecodeState:
    """The state with its rows sharded over the devices, if there is a mesh."""
    if sharding is None:
        return state
    everywhere = replicated(sharding.mesh)
    placed = jax.tree.map(lambda _: sharding, state)
    return jax.lax.with_sharding_constraint(state, replace(placed, clock=everywhere))
