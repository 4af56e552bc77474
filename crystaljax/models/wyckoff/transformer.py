"""The Wyckoff transformer of CrystalFormer (arXiv 2403.15734, 2504.02367) in Flax NNX.

A pre-LayerNorm decoder with rotary positions over the tokens letter, element, x, y, z of each
site. The output at a token parametrises the distribution of the next one:

  space group -> first letter;  letter -> element;  element -> x;  x -> y;  y -> z;
  z -> next letter or end;  end (the empty letter) -> lattice.

This module has only the network; `likelihood` scores whole crystals with it, and `decoder` samples
them.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from typing import Any, Literal, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from crystaljax.crystal import Array
from crystaljax.models.rules import NEVER
from crystaljax.models.wyckoff.distributions import Mixture
from crystaljax.symmetry.tables import N_GROUPS, N_LETTERS, tables
from crystaljax.tokenizations.wyckoff import N_SPECIES, TOKENS_PER_SITE

ROTARY_BASE = 10000.0
N_LATTICE = 6


@dataclass(frozen=True)
class ModelConfig:
    """Size of the network; the default is the published one, of 4,833,575 parameters."""

    n_layers: int = 16
    """Transformer blocks."""
    n_heads: int = 16
    """Attention heads."""
    head_size: int = 64
    """Width of a head."""
    width: int = 64
    """Width of the residual stream."""
    mlp_factor: int = 4
    """Hidden width of the feed-forward layers, in multiples of `width`."""
    embedding: int = 32
    """Width of the embeddings of space group, letter and element."""
    first_letter_hidden: int = 256
    """Hidden width of the network for the first letter. 0: a plain table."""
    n_frequencies: int = 5
    """Frequencies 1 ... n of the sines and cosines that describe a coordinate."""
    n_von_mises: int = 16
    """Mixture components of a coordinate."""
    n_gaussians: int = 4
    """Mixture components of a lattice parameter."""
    sigma_min: float = 1e-3
    """Smallest standard deviation of a lattice parameter (Å / atoms^(1/3), radians)."""
    max_sites: int = 21
    """Largest number of sites of a crystal."""
    dropout: float = 0.1
    """Dropout rate on the output of every attention and feed-forward layer, in training."""
    dtype: Literal["float32", "bfloat16"] = "float32"
    """Number format of the computations. Parameters, softmax and densities are always float32."""

    @property
    def output_size(self) -> int:
        """Width of the last layer: the largest set of parameters that a token predicts."""
        lattice = self.n_gaussians * (1 + 2 * N_LATTICE)
        return max(N_SPECIES + lattice, 3 * self.n_von_mises, N_LETTERS)


class Cache(NamedTuple):
    """Keys and values of the tokens seen so far, of one layer."""

    key: Array
    """[B, heads, T, head size]"""
    value: Array
    """[B, heads, T, head size]"""


Attend = Callable[[Array, Array, Array], tuple[Array, Any]]
"""From queries, keys and values [N, H, D] of N tokens to outputs [N, H, D] and a cache or None."""


@cache
def _rotary_table(length: int, head_size: int) -> tuple[np.ndarray, np.ndarray]:
    """Cosines and sines, float32 [length, D/2] each, of rotary angles (arXiv 2104.09864)."""
    half = head_size // 2
    angle = np.arange(length)[:, None] * ROTARY_BASE ** (-np.arange(half) / half)
    return np.cos(angle).astype(np.float32), np.sin(angle).astype(np.float32)


def rotation(position: Array, config: ModelConfig) -> tuple[Array, Array]:
    """Cosines and sines [N, 1, D/2] of the rotary angles at the places int [N] of N tokens.

    From a table: XLA would compute the trigonometric functions again for every head and token,
    which took longer than the attention.
    """
    length = TOKENS_PER_SITE * (config.max_sites + 1)
    cosine, sine = _rotary_table(length, config.head_size)
    return jnp.asarray(cosine)[position, None], jnp.asarray(sine)[position, None]


def rotate(x: Array, turn: tuple[Array, Array]) -> Array:
    """x [N, H, D] rotated by a `rotation`, which pairs components i and i + D/2."""
    cosine, sine = (part.astype(x.dtype) for part in turn)
    first, second = jnp.split(x, 2, axis=-1)
    return jnp.concatenate([first * cosine - second * sine, second * cosine + first * sine], -1)


def attend_heads(query: Array, key: Array, value: Array, mask: Array) -> Array:
    """Softmax attention [B, H, T, D]; mask bool broadcasting to [B, H, T, S], query by key.

    The same as `jax.nn.dot_product_attention`, with heads as leading axes: several times faster on
    CPU.
    """
    scores = jnp.einsum("bhtd,bhsd->bhts", query, key, preferred_element_type=jnp.float32)
    scores = jnp.where(mask, scores / query.shape[-1] ** 0.5, NEVER)
    weights = jax.nn.softmax(scores, axis=-1).astype(value.dtype)
    return jnp.einsum("bhts,bhsd->bhtd", weights, value)


def attend_cache(
    query: Array, key: Array, value: Array, cache: Cache, position: Array
) -> tuple[Array, Cache]:
    """Attention [B, H, D] of one new token, at `position` (int []), and the extended cache.

    The new token is written to the cache before the cache is read, so that XLA need not copy it.
    """
    at = (0, 0, position, 0)
    cache = Cache(
        *(
            jax.lax.dynamic_update_slice(old, new[:, :, None], at)
            for old, new in zip(cache, (key, value), strict=True)
        )
    )
    scores = jnp.einsum("bhd,bhtd->bht", query, cache.key, preferred_element_type=jnp.float32)
    seen = jnp.arange(scores.shape[-1]) <= position
    weights = jax.nn.softmax(jnp.where(seen, scores / query.shape[-1] ** 0.5, NEVER), axis=-1)
    return jnp.einsum("bht,bhtd->bhd", weights.astype(value.dtype), cache.value), cache


class Block(nnx.Module):
    """Attention and feed-forward layer, each with a LayerNorm before it and a residual around.

    It takes tokens as one flat list: matrix products with one row per token, and their gradients,
    are several times faster on CPU than with [rows, tokens].
    """

    def __init__(self, config: ModelConfig, rngs: nnx.Rngs) -> None:
        inner, dtype = config.n_heads * config.head_size, jnp.dtype(config.dtype)
        init = nnx.initializers.truncated_normal(0.01)

        def linear(n_in: int, n_out: int) -> nnx.Linear:
            return nnx.Linear(n_in, n_out, dtype=dtype, kernel_init=init, rngs=rngs)

        self.heads = config.n_heads, config.head_size
        self.norm_attention = nnx.LayerNorm(config.width, epsilon=1e-5, dtype=dtype, rngs=rngs)
        self.query = linear(config.width, inner)
        self.key = linear(config.width, inner)
        self.value = linear(config.width, inner)
        self.project = linear(inner, config.width)
        self.norm_mlp = nnx.LayerNorm(config.width, epsilon=1e-5, dtype=dtype, rngs=rngs)
        self.expand = linear(config.width, config.mlp_factor * config.width)
        self.contract = linear(config.mlp_factor * config.width, config.width)
        self.dropout = nnx.Dropout(config.dropout)

    def __call__(
        self, x: Array, turn: tuple[Array, Array], attend: Attend, dropout_key: Array | None
    ) -> tuple[Array, Any]:
        """New residual stream [N, width] from x [N, width]; the cache from `attend`.

        `turn` is the `rotation` of the tokens' positions.
        """

        def drop(x: Array, part: int) -> Array:
            if dropout_key is None:
                return x
            return self.dropout(x, deterministic=False, rngs=jax.random.fold_in(dropout_key, part))

        h = self.norm_attention(x)
        query, key, value = (
            layer(h).reshape(-1, *self.heads) for layer in (self.query, self.key, self.value)
        )
        attended, kept = attend(rotate(query, turn), rotate(key, turn), value)
        x = x + drop(self.project(attended.reshape(len(h), -1)), 0)
        h = self.contract(jax.nn.gelu(self.expand(self.norm_mlp(x))))
        return x + drop(h, 1), kept


class WyckoffTransformer(nnx.Module):
    """Embeddings, blocks and heads; every public method maps arrays with any leading axes."""

    def __init__(self, config: ModelConfig, rngs: nnx.Rngs) -> None:
        self.config = config
        e, width, dtype = config.embedding, config.width, jnp.dtype(config.dtype)
        init = nnx.initializers.truncated_normal(0.01)

        def linear(n_in: int, n_out: int, dtype: jnp.dtype = dtype) -> nnx.Linear:
            return nnx.Linear(n_in, n_out, dtype=dtype, kernel_init=init, rngs=rngs)

        def embed(n: int) -> nnx.Embed:
            return nnx.Embed(n, e, embedding_init=init, rngs=rngs)

        self.group = embed(N_GROUPS)
        self.letter = embed(N_LETTERS)
        self.species = embed(N_SPECIES)
        hidden = config.first_letter_hidden
        if hidden:
            self.first_hidden = linear(e, hidden, jnp.dtype("float32"))
            self.first_letter = linear(hidden, N_LETTERS, jnp.dtype("float32"))
        else:
            self.first_table = nnx.Embed(N_GROUPS, N_LETTERS, embedding_init=init, rngs=rngs)
        self.from_letter = linear(2 * e + 1, width)
        self.from_species = linear(2 * e, width)
        self.from_coordinate = nnx.List(
            [linear(e + 2 * config.n_frequencies, width) for _ in range(3)]
        )

        @nnx.split_rngs(splits=config.n_layers)
        @nnx.vmap
        def stack(rngs: nnx.Rngs) -> Block:
            return Block(config, rngs)

        self.blocks = stack(rngs)
        self.norm = nnx.LayerNorm(width, epsilon=1e-5, rngs=rngs)
        self.head = linear(width, config.output_size, jnp.dtype("float32"))

    def first_letter_logits(self, group: Array) -> Array:
        """float [..., 28]: logits of the first letter in crystals of `group` (1-230)."""
        if not self.config.first_letter_hidden:
            return self.first_table(group - 1)
        return self.first_letter(jax.nn.gelu(self.first_hidden(self.group(group - 1))))

    def embed_letter(self, group: Array, letter: Array) -> Array:
        """[..., width]: input of a letter token; the end token is the letter 0."""
        multiplicity = jnp.asarray(tables().multiplicity)[group - 1, letter].astype(jnp.float32)
        parts = [self.group(group - 1), self.letter(letter), multiplicity[..., None]]
        return self.from_letter(jnp.concatenate(parts, axis=-1))

    def embed_species(self, group: Array, species: Array) -> Array:
        """[..., width]: input of an element token."""
        parts = [self.group(group - 1), self.species(species)]
        return self.from_species(jnp.concatenate(parts, axis=-1))

    def embed_coordinate(self, axis: int | Array, group: Array, x: Array) -> Array:
        """[..., width]: input of a coordinate token along `axis` (0, 1 or 2; may be traced)."""
        angle = 2 * jnp.pi * x[..., None] * jnp.arange(1, self.config.n_frequencies + 1)
        waves = jnp.stack([jnp.sin(angle), jnp.cos(angle)], axis=-1)
        waves = waves.reshape(*angle.shape[:-1], -1)
        layers = [nnx.state(layer) for layer in self.from_coordinate]
        chosen = jax.tree.map(lambda *xs: jnp.stack(xs)[axis], *layers)
        layer = nnx.merge(nnx.graphdef(self.from_coordinate[0]), chosen)
        return layer(jnp.concatenate([self.group(group - 1), waves], axis=-1))

    def transform(self, x: Array, position: Array, mask: Array, key: Array | None = None) -> Array:
        """Outputs [R, T, output size] for given tokens x [R, T, width] (teacher forcing).

        `position` int [R, T] within each sequence; `mask` bool [R, T, T], query by key; `key`
        switches dropout on.
        """

        rows, length = position.shape
        turn = rotation(position.ravel(), self.config)

        def attend(query: Array, keys: Array, values: Array) -> tuple[Array, None]:
            query_, key_, value_ = (
                x.reshape(rows, length, *x.shape[1:]).swapaxes(1, 2) for x in (query, keys, values)
            )
            attended = attend_heads(query_, key_, value_, mask[:, None])
            return attended.swapaxes(1, 2).reshape(query.shape), None

        keys = None if key is None else jax.random.split(key, self.config.n_layers)

        graph, weights = nnx.split(self.blocks)

        def run(x: Array, layer: tuple[nnx.State, Array | None]) -> tuple[Array, None]:
            block: Block = nnx.merge(graph, layer[0])
            return block(x, turn, attend, layer[1])[0], None

        # Only matrix products are kept for the gradient. The rest is recomputed, which is faster
        # than writing it to memory and reading it.
        run = jax.checkpoint(
            run, prevent_cse=False, policy=jax.checkpoint_policies.dots_with_no_batch_dims_saveable
        )
        x = x.reshape(rows * length, -1).astype(self.config.dtype)
        x, _ = jax.lax.scan(run, x, (weights, keys))
        return self.outputs(x).reshape(rows, length, -1)

    def outputs(self, x: Array) -> Array:
        """Outputs [..., output size] of tokens that have passed all blocks, x [..., width]."""
        return self.head(self.norm(x))

    def letter_logits(self, output: Array) -> Array:
        """float [..., 28]: next letters, from outputs at z tokens."""
        return output[..., :N_LETTERS]

    def species_logits(self, output: Array) -> Array:
        """float [..., 119]: elements, from outputs at letter tokens."""
        return output[..., :N_SPECIES]

    def coordinate_mixture(self, output: Array) -> Mixture:
        """Von Mises mixture [..., K] of the next coordinate's angle 2π(x − 1/2)."""
        k = self.config.n_von_mises
        logits, loc, kappa = (output[..., i * k : (i + 1) * k] for i in range(3))
        return Mixture(logits, loc, jax.nn.softplus(kappa))

    def lattice_mixture(self, output: Array) -> Mixture:
        """Gaussian mixtures [..., 6, K] of the scaled lattice parameters, from end tokens.

        The six parameters share the components' weights.
        """
        k = self.config.n_gaussians
        output = output[..., N_SPECIES : N_SPECIES + k * (1 + 2 * N_LATTICE)]
        logits, rest = output[..., None, :k], output[..., k:]
        loc, sigma = (
            part.reshape(*part.shape[:-1], k, N_LATTICE).swapaxes(-1, -2)
            for part in jnp.split(rest, 2, axis=-1)
        )
        logits = jnp.broadcast_to(logits, loc.shape)
        return Mixture(logits, loc, jax.nn.softplus(sigma) + self.config.sigma_min)
