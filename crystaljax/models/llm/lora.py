"""Adapters (LoRA, arXiv 2106.09685) on the projections of a language model."""

from __future__ import annotations

import logging
from dataclasses import dataclass
from math import prod
from typing import Any, Literal

import jax
import jax.numpy as jnp
from flax import nnx

from crystaljax.models.llm.decoder import LanguageModel
from crystaljax.models.llm.linear import Linear, LoRA, LoRAParam, QuantizedKernel
from crystaljax.models.llm.names import Path

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class LoraConfig:
    """Which projections have an adapter, and of what size."""

    rank: int = 8
    """Columns of the factors."""
    alpha: float = 32.0
    """α: the product of the factors is multiplied by α/rank."""
    dropout: float = 0.0
    """Rate at which the adapters' inputs are dropped in training."""
    targets: tuple[str, ...] = ("q_proj", "v_proj")
    """Names of the adapted projections, in every block."""
    rank_stabilized: bool = False
    """Multiply by α/√rank instead (rsLoRA, arXiv 2312.03732)."""
    dtype: Literal["float32", "bfloat16"] = "float32"
    """Type of the factors."""


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


def add_lora(model: LanguageModel, config: LoraConfig, rngs: nnx.Rngs) -> None:
    """Put a new adapter on every target, which does not change what the model computes.

    The base may be quantised, before or after. ValueError for a rank below one, a target that is
    no projection, and a model that has adapters.
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


def remove_lora(model: LanguageModel) -> None:
    """Take the adapters off: the base again, such as the reference of DPO."""
    for path in adapters(model):
        projections(model)[path].lora = None


def merge_lora(model: LanguageModel) -> None:
    """Fold the adapters into the kernels and take them off.

    A quantised kernel with an adapter becomes a plain one in the type it was quantised from, and
    a warning says so: quantising it again would round the adapter away.
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
    if quantized:
        log.warning(
            "%d quantised kernels became plain ones of %s as adapters were merged into them",
            quantized,
            kernel.dtype,
        )


def trained_filter(model: LanguageModel) -> Any:
    """The nnx filter of what is trained: adapters if there are any, else all parameters.

    ValueError for a quantised base without adapters, of which little could be trained.
    """
    if adapters(model):
        return LoRAParam
    if any(isinstance(layer.kernel, QuantizedKernel) for layer in projections(model).values()):
        raise ValueError("a quantised model cannot be trained: give it adapters (add_lora) first")
    return nnx.Param


def count_parameters(model: LanguageModel) -> tuple[int, int]:
    """(trained, all) parameters; the model may be abstract. Scales of a quantised base are none.

    Their ratio is the trainable fraction as PEFT prints it, adapters counted in both.
    """
    every = sum(x.size for x in jax.tree.leaves(nnx.state(model, nnx.Param)))
    kernels = (layer.kernel for layer in projections(model).values())
    every += sum(prod(kernel.shape) for kernel in kernels if isinstance(kernel, QuantizedKernel))
    chosen = LoRAParam if adapters(model) else nnx.Param
    return sum(x.size for x in jax.tree.leaves(nnx.state(model, chosen))), every
