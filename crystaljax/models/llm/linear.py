"""Linear layers of a language model: kernel, optional bias, optional adapter.

The kernel is plain, or quantised and frozen. A LoRA adapter (arXiv 2106.09685) adds a trained
low-rank product to either.
"""

from __future__ import annotations

from functools import partial
from typing import Literal

import jax
import jax.numpy as jnp
from flax import nnx
from jax.ad_checkpoint import checkpoint_name

from crystaljax.crystal import Array

STD = 0.02
"""Standard deviation of new weights (`initializer_range` of the Hugging Face configurations)."""

Format = Literal["int8", "nf4"]
"""Integers of 8 bits, or the 4-bit codes of QLoRA (NF4, arXiv 2305.14314)."""


PRODUCT = "product"
"""Name of the products with quantised kernels, for policies of `jax.checkpoint`, which do not see
matrix products inside a function with a custom gradient."""


class QuantizedParam(nnx.Variable):
    """Part of a quantised kernel; not an `nnx.Param`, as it is never trained."""


class AdapterParam(nnx.Param):
    """Part of an adapter; a type of its own, so that filters can select adapters."""


@partial(jax.jit, static_argnames=("format", "tile"))
def _encode(kernel: Array, format: Format, tile: int) -> tuple[Array, Array]:
    """Codes and float32 scales of a kernel; a byte holds two NF4 codes, of neighbouring rows."""
    import qwix

    axes = {"tiled_axes": {0: tile}} if tile != len(kernel) else {}
    coded = qwix.quantize(kernel.astype(jnp.float32), format, channelwise_axes=[1], **axes)
    codes = coded.qvalue
    if format == "nf4":
        codes = codes.astype(jnp.uint8)
        codes = codes[::2] | codes[1::2] << 4
    return codes, coded.scale


def _decode(codes: Array, scale: Array, format: Format, dtype: jnp.dtype) -> Array:
    """The kernel [n_in, n_out] of some codes and scales."""
    import qwix

    if format == "nf4":
        codes = jnp.stack([codes & 15, codes >> 4], axis=1).reshape(-1, codes.shape[1])
    return qwix.dequantize(qwix.QArray(codes, scale, qtype=format)).astype(dtype)


@partial(jax.custom_vjp, nondiff_argnums=(3,))
def _product(x: Array, codes: Array, scale: Array, format: Format) -> Array:
    """x @ kernel in the type of x; no gradient flows to the kernel."""
    return x @ _decode(codes, scale, format, x.dtype)


def _forward(x: Array, codes: Array, scale: Array, format: Format) -> tuple[Array, tuple]:
    return _product(x, codes, scale, format), (codes, scale)


def _backward(format: Format, kept: tuple, cotangent: Array) -> tuple[Array, None, None]:
    # The kernel is decoded again: kept kernels would be a full copy of the model. The barrier
    # stops XLA from merging the two computations.
    (codes, scale), cotangent = jax.lax.optimization_barrier((kept, cotangent))
    return cotangent @ _decode(codes, scale, format, cotangent.dtype).T, None, None


_product.defvjp(_forward, _backward)


def tile_rows(shape: tuple[int, ...], format: Format, tile: int = 0) -> int:
    """Number of rows that share a scale in a kernel; 0 stands for all in int8, for 64 in NF4.

    ValueError if it does not divide the number of rows.
    """
    rows = tile or (shape[0] if format == "int8" else 64)
    if rows < 1 or shape[0] % rows:
        raise ValueError(
            f"a tile of {rows} rows does not divide the {shape[0]} rows of a kernel {shape}: "
            "choose a divisor of every width that is contracted"
        )
    if format == "nf4" and shape[0] % 2:
        raise ValueError(f"NF4 needs an even number of rows, and a kernel is {shape}")
    return rows


class QuantizedKernel(nnx.Module):
    """A frozen quantised kernel [n_in, n_out].

    Args:
      kernel: float [n_in, n_out].
      format: "int8" (codes int8 [n_in, n_out]) or "nf4" (codes uint8 [n_in / 2, n_out], two of
        4 bits each).
      tile: rows that share a scale (float32 [n_in / tile, n_out]); 0 for all of them in int8 and
        64 in NF4 (ValueError if it does not divide n_in).
    """

    def __init__(self, kernel: Array, format: Format, tile: int = 0) -> None:
        rows = tile_rows(kernel.shape, format, tile)
        self.format: Format = format
        self.dtype = jnp.dtype(kernel.dtype).name
        codes, scale = _encode(kernel, format, rows)
        self.codes, self.scale = QuantizedParam(codes), QuantizedParam(scale)

    @property
    def shape(self) -> tuple[int, int]:
        """(n_in, n_out)."""
        rows, columns = self.codes.shape
        return (2 * rows if self.format == "nf4" else rows), columns

    def dense(self) -> Array:
        """The kernel as floats, in the type it had."""
        return _decode(self.codes[...], self.scale[...], self.format, jnp.dtype(self.dtype))

    def product(self, x: Array) -> Array:
        """x @ kernel [..., n_out] in the type of x [..., n_in]."""
        return checkpoint_name(_product(x, self.codes[...], self.scale[...], self.format), PRODUCT)


class LoRA(nnx.Module):
    """x @ a @ b α/r; b, and so the output, is zero at the start.

    Args:
      n_in, n_out: widths.
      rank: r, columns of a [n_in, r] and rows of b [r, n_out].
      alpha: α.
      rank_stabilized: α/√r in place of α/r (rsLoRA, arXiv 2312.03732).
      dropout: rate at which the adapter's input is dropped, in training.
      dtype: type of the factors and of their products.
    """

    def __init__(
        self,
        n_in: int,
        n_out: int,
        *,
        rank: int,
        alpha: float,
        rank_stabilized: bool = False,
        dropout: float = 0.0,
        dtype: jnp.dtype,
        rngs: nnx.Rngs,
    ) -> None:
        self.alpha, self.rank_stabilized, self.dropout = alpha, rank_stabilized, dropout
        # Kaiming's uniform distribution with a = √5, as in PEFT and PyTorch's linear layers.
        bound = n_in**-0.5
        a = jax.random.uniform(rngs.params(), (n_in, rank), dtype, -bound, bound)
        self.a, self.b = AdapterParam(a), AdapterParam(jnp.zeros((rank, n_out), dtype))

    @property
    def rank(self) -> int:
        """r."""
        return self.a.shape[1]

    @property
    def scale(self) -> float:
        """Scale of the product of the factors."""
        return self.alpha / (self.rank**0.5 if self.rank_stabilized else self.rank)

    def product(self) -> Array:
        """The adapter's contribution to a kernel [n_in, n_out]: a @ b times the scale."""
        return self.a[...] @ (self.b[...] * self.scale)

    def __call__(self, x: Array, dropout_key: Array | None = None) -> Array:
        """[..., n_out] in the type of the factors; a key switches dropout on."""
        a, b = self.a[...], self.b[...]
        x = x.astype(a.dtype)
        if dropout_key is not None and self.dropout:
            kept = jax.random.bernoulli(dropout_key, 1 - self.dropout, x.shape)
            x = jnp.where(kept, x / (1 - self.dropout), 0)
        return (x @ a * self.scale) @ b


class Linear(nnx.Module):
    """x @ kernel + bias + adapter, in the type of x.

    Args:
      n_in, n_out: widths; `kernel` is [n_in, n_out], the transpose of PyTorch's `weight`.
      dtype: type of the parameters.
    """

    def __init__(
        self, n_in: int, n_out: int, *, bias: bool = False, dtype: jnp.dtype, rngs: nnx.Rngs
    ) -> None:
        kernel = STD * jax.random.normal(rngs.params(), (n_in, n_out), dtype)
        self.kernel: nnx.Param | QuantizedKernel = nnx.Param(kernel)
        self.bias = nnx.data(nnx.Param(jnp.zeros(n_out, dtype)) if bias else None)
        self.lora: LoRA | None = nnx.data(None)

    def __call__(
        self, x: Array, dropout_key: Array | None = None, out_dtype: jnp.dtype | None = None
    ) -> Array:
        """[..., n_out] from x [..., n_in], in `out_dtype` if given.

        A key switches the adapter's dropout on.
        """
        dtype = out_dtype or x.dtype
        if isinstance(self.kernel, QuantizedKernel):
            y = self.kernel.product(x).astype(dtype)
        else:
            y = jnp.matmul(x, self.kernel[...].astype(x.dtype), preferred_element_type=dtype)
        if self.bias is not None:
            y = y + self.bias[...].astype(dtype)
        return y if self.lora is None else (y + self.lora(x, dropout_key)).astype(dtype)
