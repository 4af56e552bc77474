"""Matrices of a language model: a product, and a bias where the family has one."""

from __future__ import annotations

import jax
import jax.numpy as jnp
from flax import nnx

from crystaljax.crystal import Array

STD = 0.02
"""Standard deviation of new weights (`initializer_range` of the Hugging Face configurations)."""


class Linear(nnx.Module):
    """x @ kernel + bias, in the type of x.

    Args:
      n_in, n_out: widths; `kernel` is [n_in, n_out], the transpose of PyTorch's `weight`.
      dtype: type the parameters are kept in.
    """

    def __init__(
        self, n_in: int, n_out: int, *, bias: bool = False, dtype: jnp.dtype, rngs: nnx.Rngs
    ) -> None:
        self.kernel = nnx.Param(STD * jax.random.normal(rngs.params(), (n_in, n_out), dtype))
        self.bias = nnx.data(nnx.Param(jnp.zeros(n_out, dtype)) if bias else None)

    def __call__(
        self, x: Array, dropout_key: Array | None = None, out_dtype: jnp.dtype | None = None
    ) -> Array:
        """[..., n_out] from x [..., n_in], in `out_dtype` if given.

        `dropout_key` is for layers that drop something.
        """
        kernel = self.kernel[...].astype(x.dtype)
        y = jnp.matmul(x, kernel, preferred_element_type=out_dtype or x.dtype)
        return y if self.bias is None else y + self.bias[...].astype(y.dtype)
