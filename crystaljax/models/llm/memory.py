"""Estimates of a language model's memory, from the shapes of its arrays."""

from __future__ import annotations

from dataclasses import dataclass
from math import prod
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import nnx

from crystaljax.models.llm.attention import BLOCK
from crystaljax.models.llm.decoder import LanguageModel, Remat
from crystaljax.models.llm.likelihood import CHUNK
from crystaljax.models.llm.linear import AdapterParam, QuantizedKernel
from crystaljax.models.llm.lora import (
    adapters,
    count_parameters,
    projections,
    trained_filter,
)

SCORES = 2
"""Number of float32 arrays of attention scores, of `attention.BLOCK` queries each, that are in
memory for the gradient of one layer, beside the weights of all queries."""


@dataclass(frozen=True)
class MemoryReport:
    """Bytes by purpose, and parameters."""

    weights: dict[str, int]
    """The base's weights, by type; scales of quantised kernels separately. If all parameters are
    trained, this is the initial model, the reference of DPO and of rewards."""
    adapters: int
    """Initial LoRA factors and rows of tokens."""
    masters: int
    """Trained parameters in float32; twice if their average is kept."""
    working: int
    """Copy of the trained parameters in the network's types, if these are not float32."""
    gradients: int
    """Gradients in float32, and of one micro-batch in the network's types if there are several."""
    optimizer: int
    """State of the optimiser."""
    cache: int
    """Keys and values in sampling, with the positions of their slots."""
    activations: int
    """Activations in a training step (an estimate; the others are exact)."""
    trained: int
    """Number of trained parameters."""
    parameters: int
    """Number of all parameters, adapters included."""

    @property
    def total(self) -> int:
        """Bytes of everything."""
        training = self.masters, self.working, self.gradients, self.optimizer, self.activations
        return sum(self.weights.values()) + self.adapters + self.cache + sum(training)

    @property
    def trained_fraction(self) -> float:
        """Trained parameters over all."""
        return self.trained / self.parameters

    @property
    def by_purpose(self) -> dict[str, int]:
        """Bytes by the words of tables, and their "total"."""
        rows = {f"weights, {kind}": size for kind, size in sorted(self.weights.items())}
        return rows | {
            "adapters": self.adapters,
            "float32 copy of trained": self.masters,
            "working copy of trained": self.working,
            "gradients": self.gradients,
            "optimiser": self.optimizer,
            "KV cache": self.cache,
            "activations (estimate)": self.activations,
            "total": self.total,
        }

    def __str__(self) -> str:
        """A table, in GB of 10⁹ bytes."""
        lines = [f"{name:<24}{size / 1e9:>10.3f} GB" for name, size in self.by_purpose.items()]
        lines.append(
            f"{'trained':<24}{self.trained / 1e6:>10.3f} M of {self.parameters / 1e6:.1f} M "
            f"({100 * self.trained_fraction:.3f} %)"
        )
        return "\n".join(lines)


def memory_report(
    model: LanguageModel,
    optimizer: optax.GradientTransformation | None = None,
    *,
    averaged: bool = False,
    n_parts: int = 1,
    rows: int = 1,
    length: int = 0,
    remat: Remat = "all",
    sequences: int = 0,
    slots: int = 0,
) -> MemoryReport:
    """Memory of training the model, or of sampling from it.

    Args:
      model: with arrays, or with their shapes as from `nnx.eval_shape`; nothing is allocated.
      optimizer: of a training run; without it the memory of training is zero.
      averaged: an average of the weights is kept.
      n_parts: micro-batches of a training step.
      rows, length, remat: of the packed texts of a micro-batch.
      sequences, slots: of the cache in sampling.
    """
    masters = working = gradients = state = activations = 0
    if optimizer is not None:
        trained = nnx.to_pure_dict(nnx.state(model, trained_filter(model)))
        exact = jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, jnp.float32), trained)
        masters = _bytes(exact) * (2 if averaged else 1)
        gradients = _bytes(exact) + (_bytes(trained) if n_parts > 1 else 0)
        working = _bytes([x for x in jax.tree.leaves(trained) if x.dtype != jnp.float32])
        state = _bytes(jax.eval_shape(optimizer.init, exact))
        activations = _activations(model, rows, length, remat) if rows * length else 0
    cache = jax.eval_shape(lambda: model.empty_cache(sequences, slots))
    n_trained, n_parameters = count_parameters(model)
    return MemoryReport(
        weights=_weights(model),
        adapters=_bytes(nnx.state(model, AdapterParam)),
        masters=masters,
        working=working,
        gradients=gradients,
        optimizer=state,
        cache=_bytes(cache) + 4 * sequences * slots,
        activations=activations,
        trained=n_trained,
        parameters=n_parameters,
    )


def _bytes(tree: Any) -> int:
    return sum(x.size * x.dtype.itemsize for x in jax.tree.leaves(tree))


def _weights(model: LanguageModel) -> dict[str, int]:
    """Bytes of the base by type."""
    sizes: dict[str, int] = {}

    def add(kind: str, tree: Any) -> None:
        sizes[kind] = sizes.get(kind, 0) + _bytes(tree)

    for x in jax.tree.leaves(nnx.state(model, nnx.All(nnx.Param, nnx.Not(AdapterParam)))):
        add(x.dtype.name, x)
    for layer in projections(model).values():
        if isinstance(layer.kernel, QuantizedKernel):
            add(layer.kernel.format, layer.kernel.codes)
            add("scales", layer.kernel.scale)
    return sizes


def _activations(model: LanguageModel, rows: int, length: int, remat: Remat) -> int:
    """Estimate of the bytes that one step's gradient needs beside parameters.

    Every block keeps its input; with "products" also the matrix products, with "none" everything.
    The block whose gradient is computed needs all its activations with their cotangents, the
    attention weights and some scores of all heads in float32, and two decoded kernels. The logits
    of a chunk of each row are added.
    """
    config, size, n = model.config, model.dtype.itemsize, rows * length
    layers = {p: layer for p, layer in projections(model).items() if p[1] == 0}
    outputs = sum(layer.kernel.shape[1] for layer in layers.values())
    products = n * outputs * size
    products += n * 4 * sum(x.rank + x.b.shape[1] for p, x in adapters(model).items() if p[1] == 0)
    starts = np.arange(0, length, BLOCK)
    seen = int((np.minimum(BLOCK, length - starts) * np.minimum(starts + BLOCK, length)).sum())
    scores = rows * config.n_heads * (seen + SCORES * min(BLOCK, length) * length) * 4
    inside = products + n * size * (4 * config.width + 2 * config.mlp_width) + scores
    kept = {"all": 0, "products": products, "none": inside}[remat] + n * config.width * size
    decoded = max(
        (prod(x.kernel.shape) for x in layers.values() if isinstance(x.kernel, QuantizedKernel)),
        default=0,
    )
    logits = 2 * rows * min(CHUNK, length) * config.vocabulary * 4
    return config.n_layers * kept + 2 * inside + 2 * decoded * size + logits
