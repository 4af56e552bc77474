"""Adapters (LoRA, arXiv 2106.09685) on the projections of a language model.

The embeddings of new tokens can be trained with them.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from math import prod
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx

from crystaljax.crystal import Array
from crystaljax.models.llm.config import LoraConfig
from crystaljax.models.llm.decoder import LanguageModel, TokenRows
from crystaljax.models.llm.linear import AdapterParam, Linear, LoRA, QuantizedKernel
from crystaljax.models.llm.names import Path

log = logging.getLogger(__name__)


def projections(model: LanguageModel) -> dict[Path, Linear]:
    """The linear layers of the blocks, by path, such as ("blocks", 0, "attention", "q_proj")."""
    return {
        ("blocks", i, *path): layer
        for i, block in enumerate(model.blocks)
        for path, layer in nnx.iter_modules(block)
        if isinstance(layer, Linear)
    }


def adapters(model: LanguageModel) -> dict[Path, LoRA]:
    """The adapters that the model has, by the path of their projection."""
    layers = projections(model)
    return {path: layer.lora for path, layer in layers.items() if layer.lora is not None}


def add_lora(
    model: LanguageModel, config: LoraConfig, rngs: nnx.Rngs, tokens: Sequence[int] = ()
) -> None:
    """Put a new adapter on every target; the model's outputs do not change.

    Args:
      tokens: tokens whose rows of the embedding and of the head are trained too. New tokens must
        be among them, or they are not learnt.

    The base may be quantised before or after. ValueError for a rank below one, a target that is no
    projection, a token that the model does not have, and a model that has adapters.
    """
    layers = projections(model)
    names = {str(path[-1]) for path in layers}
    if unknown := set(config.targets) - names or not config.targets:
        what = sorted(unknown) if isinstance(unknown, set) else "none"
        raise ValueError(f"targets of LoRA: {what}; the projections are {sorted(names)}")
    if config.rank < 1:
        raise ValueError(f"the rank of LoRA is {config.rank}, and must be positive")
    if adapters(model):
        raise ValueError("the model has adapters already: merge or remove them first")
    check_tokens(model, tokens)
    if tokens:
        model.embed_rows, model.head_rows = _token_rows(model, tuple(tokens), config.dtype)
    for path, layer in layers.items():
        if path[-1] in config.targets:
            layer.lora = LoRA(
                *layer.kernel.shape,
                rank=config.rank,
                alpha=config.alpha,
                rank_stabilized=config.rank_stabilized,
                dropout=config.dropout,
                dtype=jnp.dtype(config.dtype),
                rngs=rngs,
            )


def check_tokens(model: LanguageModel, tokens: Sequence[int]) -> None:
    """ValueError for a repeated token, or one that the model does not have."""
    if len(set(tokens)) < len(tokens):
        raise ValueError(f"tokens to train: {list(tokens)} has one more than once")
    if wrong := [token for token in tokens if not 0 <= token < model.config.vocabulary]:
        raise ValueError(
            f"token {wrong[0]} cannot be trained: the model has the tokens 0 to "
            f"{model.config.vocabulary - 1}; its vocabulary must be resized first"
        )


def _token_rows(
    model: LanguageModel, tokens: tuple[int, ...], dtype: str
) -> tuple[TokenRows, TokenRows | None]:
    """Trainable rows of the embedding, and of a head that is not tied, copied from the base."""

    def rows(table: Array) -> TokenRows:
        return TokenRows(tokens, table[jnp.asarray(tokens)].astype(dtype))

    head = model.head_kernel
    return rows(model.embed.embedding[...]), None if head is None else rows(head[...].T)


def remove_lora(model: LanguageModel) -> None:
    """Remove the adapters; the base remains, for example as the reference of DPO."""
    for path in adapters(model):
        projections(model)[path].lora = None
    model.embed_rows = model.head_rows = None


def merge_lora(model: LanguageModel) -> None:
    """Merge the adapters into the kernels, and rows of tokens into their tables; remove them.

    A quantised kernel with an adapter becomes a plain one, in the type that it was quantised from,
    with a warning: quantising it again would round the adapter away.
    """
    quantized = 0
    for layer in projections(model).values():
        if layer.lora is None:
            continue
        kernel = layer.kernel
        if isinstance(kernel, QuantizedKernel):
            quantized += 1
            kernel = nnx.Param(kernel.dense())
        merged = kernel[...].astype(jnp.float32) + layer.lora.product().astype(jnp.float32)
        layer.kernel, layer.lora = nnx.Param(merged.astype(kernel.dtype)), None
    table, head = model.embed.embedding, model.head_kernel
    if model.embed_rows is not None:
        table.set_value(model.embed_rows.put(table.get_value()))
    if model.head_rows is not None and head is not None:
        head.set_value(model.head_rows.put(head.get_value().T).T)
    model.embed_rows = model.head_rows = None
    if quantized:
        log.warning(
            "%d quantised kernels became plain ones of %s as adapters were merged into them",
            quantized,
            kernel.dtype,
        )


def trained_filter(model: LanguageModel) -> Any:
    """The nnx filter of the trained parameters: adapters if there are any, else all.

    ValueError for a quantised base without adapters, since quantised kernels cannot be trained.
    """
    if adapters(model):
        return AdapterParam
    if any(isinstance(layer.kernel, QuantizedKernel) for layer in projections(model).values()):
        raise ValueError("a quantised model cannot be trained: give it adapters (add_lora) first")
    return nnx.Param


def count_parameters(model: LanguageModel) -> tuple[int, int]:
    """Numbers of (trained, all) parameters; the model may be abstract.

    Scales of a quantised base do not count. The ratio is the trainable fraction that PEFT prints,
    with adapters counted in both.
    """
    every = sum(x.size for x in jax.tree.leaves(nnx.state(model, nnx.Param)))
    kernels = (layer.kernel for layer in projections(model).values())
    every += sum(prod(kernel.shape) for kernel in kernels if isinstance(kernel, QuantizedKernel))
    chosen = AdapterParam if adapters(model) else nnx.Param
    return sum(x.size for x in jax.tree.leaves(nnx.state(model, chosen))), every
