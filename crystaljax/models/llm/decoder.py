"""Decoder-only language models of the Hugging Face families: blocks and the whole model."""

from __future__ import annotations

from typing import Literal, NamedTuple, cast

import jax
import jax.numpy as jnp
from flax import nnx
from jax.typing import DTypeLike

from crystaljax.crystal import Array
from crystaljax.models.llm.attention import (
    Attend,
    Attention,
    LayerCache,
    cache_mask,
    over_cache,
    over_rows,
    row_mask,
)
from crystaljax.models.llm.config import LlmConfig
from crystaljax.models.llm.linear import PRODUCT, STD, AdapterParam, Linear
from crystaljax.models.llm.norm import RMSNorm
from crystaljax.models.llm.rotary import Turn, rotation

Cache = tuple[LayerCache, ...]
"""Keys and values of every layer."""

Remat = Literal["none", "products", "all"]
"""Activations that are recomputed for the gradient: none, all except matrix products with weights,
or everything inside the blocks."""

POLICIES = {
    "products": jax.checkpoint_policies.save_from_both_policies(
        jax.checkpoint_policies.dots_with_no_batch_dims_saveable,
        jax.checkpoint_policies.save_only_these_names(PRODUCT),
    ),
    "all": jax.checkpoint_policies.nothing_saveable,
}

N_LINEAR = 7
"""Matrices of a block."""


class Dropout(NamedTuple):
    """Dropout in training."""

    key: Array
    residual: float = 0.0
    """Rate on the outputs of attention and feed-forward layers; adapters have their own rates."""

    def layer(self, i: int) -> Dropout:
        """Dropout of the i-th block."""
        return self._replace(key=jax.random.fold_in(self.key, i))

    def __call__(self, x: Array, i: int) -> Array:
        """Dropout of x, with the rest scaled up; `i` numbers the dropouts of a block."""
        if not self.residual:
            return x
        key = jax.random.fold_in(self.key, N_LINEAR + i)
        kept = jax.random.bernoulli(key, 1 - self.residual, x.shape)
        return jnp.where(kept, x / (1 - self.residual), 0).astype(x.dtype)


class Mlp(nnx.Module):
    """Gated feed-forward layer (arXiv 2002.05202)."""

    def __init__(self, config: LlmConfig, *, dtype: jnp.dtype, rngs: nnx.Rngs) -> None:
        self.activation = config.activation

        def linear(n_in: int, n_out: int) -> Linear:
            return Linear(n_in, n_out, bias=config.mlp_bias, dtype=dtype, rngs=rngs)

        self.gate_proj = linear(config.width, config.mlp_width)
        self.up_proj = linear(config.width, config.mlp_width)
        self.down_proj = linear(config.mlp_width, config.width)

    def __call__(self, x: Array, dropout_keys: list[Array | None]) -> Array:
        """[N, width] from x [N, width]; one key for each of gate, up, down."""
        gate = self.gate_proj(x, dropout_keys[0])
        if self.activation == "silu":
            gate = jax.nn.silu(gate)
        else:
            gate = jax.nn.gelu(gate, approximate=self.activation == "gelu_pytorch_tanh")
        return self.down_proj(gate * self.up_proj(x, dropout_keys[1]), dropout_keys[2])


class Block(nnx.Module):
    """Attention and feed-forward layer, each with its norms and a residual around.

    It takes tokens as one flat list, for which matrix products are faster on CPU.
    """

    def __init__(self, config: LlmConfig, *, dtype: jnp.dtype, rngs: nnx.Rngs) -> None:
        def norm(there: bool) -> RMSNorm | None:
            return nnx.data(RMSNorm(config, config.width, dtype=dtype) if there else None)

        traits = config.traits
        self.attention = Attention(config, dtype=dtype, rngs=rngs)
        self.mlp = Mlp(config, dtype=dtype, rngs=rngs)
        self.before_attention = norm(traits.pre_norm)
        self.after_attention = norm(traits.post_norm)
        self.before_mlp = norm(traits.pre_norm)
        self.after_mlp = norm(traits.post_norm)

    def __call__(
        self, x: Array, turn: Turn, attend: Attend, dropout: Dropout | None
    ) -> tuple[Array, LayerCache | None]:
        """New residual stream [N, width] from x [N, width]; the cache from `attend`."""
        keys: list[Array | None] = [None] * N_LINEAR
        if dropout is not None:
            keys = list(jax.random.split(dropout.key, N_LINEAR))

        def output(h: Array, norm: RMSNorm | None, i: int) -> Array:
            h = h if norm is None else norm(h)
            return h if dropout is None else dropout(h, i)

        h = x if self.before_attention is None else self.before_attention(x)
        h, kept = self.attention(h, turn, attend, keys[:4])
        x = x + output(h, self.after_attention, 0)
        h = x if self.before_mlp is None else self.before_mlp(x)
        h = self.mlp(h, keys[4:])
        return x + output(h, self.after_mlp, 1), kept


class TokenRows(nnx.Module):
    """Trained rows of some tokens, which replace those of the frozen embedding or head.

    PEFT's `trainable_token_indices`.

    Args:
      tokens: the K tokens, each once.
      rows: float [K, width], their initial values.
    """

    def __init__(self, tokens: tuple[int, ...], rows: Array) -> None:
        self.tokens = tokens
        self.rows = AdapterParam(rows)

    def embedded(self, tokens: Array, x: Array) -> Array:
        """Embeddings [N, width] of tokens int [N], from the base's x [N, width]."""
        same = tokens[:, None] == jnp.asarray(self.tokens)
        rows = self.rows[...].astype(x.dtype)[same.argmax(axis=1)]
        return jnp.where(same.any(axis=1)[:, None], rows, x)

    def scored(self, hidden: Array, logits: Array) -> Array:
        """float32 [..., V]: logits of outputs [..., width], from the base's logits."""
        rows = self.rows[...].astype(hidden.dtype)
        own = jnp.einsum("...d,kd->...k", hidden, rows, preferred_element_type=jnp.float32)
        return logits.at[..., jnp.asarray(self.tokens)].set(own)

    def put(self, table: Array) -> Array:
        """The base's table [V, width] with these rows replaced."""
        return table.at[jnp.asarray(self.tokens)].set(self.rows[...].astype(table.dtype))


class LanguageModel(nnx.Module):
    """Embedding, blocks and last layer of a language model.

    Args:
      dtype: type of parameters and activations; norms, rotary angles, softmax and logits are
        computed in float32.
    """

    def __init__(self, config: LlmConfig, rngs: nnx.Rngs, dtype: DTypeLike = jnp.float32) -> None:
        self.config = config
        self.dtype = jnp.dtype(dtype)
        self.embed = nnx.Embed(
            config.vocabulary,
            config.width,
            dtype=self.dtype,
            param_dtype=self.dtype,
            embedding_init=nnx.initializers.normal(STD),
            rngs=rngs,
        )
        self.blocks = nnx.List(
            [Block(config, dtype=self.dtype, rngs=rngs) for _ in range(config.n_layers)]
        )
        self.norm = RMSNorm(config, config.width, dtype=self.dtype)
        head = None
        if not config.tied:
            head = Linear(config.width, config.vocabulary, dtype=self.dtype, rngs=rngs)
        self.head = nnx.data(head)
        self.embed_rows: TokenRows | None = nnx.data(None)
        # A tied head has the embedding's rows.
        self.head_rows: TokenRows | None = nnx.data(None)
        self.tables_of_adapter = False
        """Whether embedding and head came with an adapter; they are saved with it."""

    @property
    def head_kernel(self) -> nnx.Param | None:
        """Kernel [width, V] of a head that is not tied; it is never quantised."""
        return None if self.head is None else cast(nnx.Param, self.head.kernel)

    def hidden(
        self,
        tokens: Array,
        position: Array,
        segment: Array,
        dropout: Dropout | None = None,
        remat: Remat = "none",
    ) -> Array:
        """Outputs [R, T, width] of tokens int [R, T] in packed rows.

        `position` int [R, T] counts within each segment; `segment` int [R, T] is 0 for padding
        and 1, 2, ... for the texts of a row, which do not attend to each other.
        """
        return self._over_rows(tokens, position, segment, dropout, remat, keep=False)[0]

    def prefill(self, tokens: Array, position: Array, segment: Array) -> tuple[Array, Cache]:
        """`hidden`, and every layer's keys and values [R, KV, T, D]."""
        x, kept = self._over_rows(tokens, position, segment, None, "none", keep=True)
        return x, tuple(cache for cache in kept if cache is not None)

    def step(
        self, tokens: Array, position: Array, cache: Cache, slot_position: Array, clock: Array
    ) -> tuple[Array, Cache]:
        """Outputs [B, width] of one new token int [B] of each of B sequences, and the new cache.

        position: int [B], of the new tokens; -1 in a row that is not in use.
        cache: S slots; the new tokens' keys and values go to slot `clock` % S of all rows.
        slot_position: int [B, S], the position of the token in each slot, the new one included;
          -1 where there is none.
        """
        config, n_slots = self.config, slot_position.shape[1]
        masks = {w: cache_mask(position, slot_position, w) for w in self._windows()}
        attends = [
            over_cache(masks[config.window(i)], config.attention_cap, layer, clock % n_slots)
            for i, layer in enumerate(cache)
        ]
        x, kept = self._run(tokens, position, attends, None, "none")
        return x, tuple(layer for layer in kept if layer is not None)

    def empty_cache(self, size: int, slots: int) -> Cache:
        """An empty cache of `slots` slots for `size` sequences."""
        config = self.config
        shape = size, config.n_kv_heads, slots, config.head_size
        return tuple(
            LayerCache(jnp.zeros(shape, self.dtype), jnp.zeros(shape, self.dtype))
            for _ in range(config.n_layers)
        )

    def logits(self, hidden: Array) -> Array:
        """float32 [..., V]: logits of the next token, from outputs [..., width]."""
        if self.head is None:
            table = self.embed.embedding[...].astype(hidden.dtype)
            logits = jnp.einsum("...d,vd->...v", hidden, table, preferred_element_type=jnp.float32)
        else:
            logits = self.head(hidden, out_dtype=jnp.dtype("float32"))
        rows = self.embed_rows if self.head is None else self.head_rows
        if rows is not None:
            logits = rows.scored(hidden, logits)
        cap = self.config.logit_cap
        return logits if cap is None else cap * jnp.tanh(logits / cap)

    def _windows(self) -> set[int]:
        return {self.config.window(i) for i in range(self.config.n_layers)}

    def _over_rows(
        self,
        tokens: Array,
        position: Array,
        segment: Array,
        dropout: Dropout | None,
        remat: Remat,
        keep: bool,
    ) -> tuple[Array, list[LayerCache | None]]:
        config = self.config
        masks = {w: row_mask(position, segment, w) for w in self._windows()}
        attends = [
            over_rows(masks[config.window(i)], config.attention_cap, keep)
            for i in range(config.n_layers)
        ]
        x, kept = self._run(tokens.ravel(), position.ravel(), attends, dropout, remat)
        return x.reshape(*tokens.shape, -1), kept

    def _run(
        self,
        tokens: Array,
        position: Array,
        attends: list[Attend],
        dropout: Dropout | None,
        remat: Remat,
    ) -> tuple[Array, list[LayerCache | None]]:
        """Outputs [N, width] of N tokens, int [N], and each layer's cache."""
        x = self.embed(tokens)
        if self.embed_rows is not None:
            x = self.embed_rows.embedded(tokens, x)
        if self.config.traits.scaled_embedding:
            x = x * jnp.asarray(self.config.width**0.5, x.dtype)
        turn = rotation(position, self.config)
        kept = []
        for i, (block, attend) in enumerate(zip(self.blocks, attends, strict=True)):
            some = None if dropout is None else dropout.layer(i)

            def run(
                x: Array, block: Block = block, attend: Attend = attend, some: Dropout | None = some
            ) -> tuple[Array, LayerCache | None]:
                return block(x, turn, attend, some)

            if remat != "none":
                run = jax.checkpoint(run, policy=POLICIES[remat])
            x, layer = run(x)
            kept.append(layer)
        return self.norm(x), kept
