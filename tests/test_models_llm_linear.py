"""Quantised kernels against their definitions, and adapters on top."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from hypothesis import given
from hypothesis import strategies as st

from crystaljax.models.llm.linear import AdapterParam, Linear, LoRA, QuantizedKernel

NF4 = [-1.0, -0.6961928009986877, -0.5250730514526367, -0.39491748809814453]
NF4 += [-0.28444138169288635, -0.18477343022823334, -0.09105003625154495, 0.0]
NF4 += [0.07958029955625534, 0.16093020141124725, 0.24611230194568634, 0.33791524171829224]
NF4 += [0.44070982933044434, 0.5626170039176941, 0.7229568362236023, 1.0]
"""The levels of QLoRA (arXiv 2305.14314, appendix E)."""


def normal(*shape: int, seed: int = 0) -> jax.Array:
    return jax.random.normal(jax.random.key(seed), shape)


def tiles(kernel: np.ndarray, tile: int) -> np.ndarray:
    """[n_in / tile, tile, n_out]"""
    return kernel.reshape(-1, tile, kernel.shape[1])


def kernels(n_in: int, n_out: int) -> st.SearchStrategy[np.ndarray]:
    """Kernels whose columns are of very different size, some of them zero."""
    scales = st.lists(st.sampled_from([0.0, 1e-6, 1.0, 1e6]), min_size=n_out, max_size=n_out)
    seeds = st.integers(0, 1000)
    return st.builds(
        lambda seed, scale: np.float32(
            np.random.default_rng(seed).normal(size=(n_in, n_out)) * np.array(scale)
        ),
        seeds,
        scales,
    )


@given(kernels(24, 3), st.sampled_from([0, 8]))
def test_int8_is_within_half_a_step(kernel: np.ndarray, tile: int) -> None:
    coded = QuantizedKernel(jnp.asarray(kernel), "int8", tile)
    assert coded.codes.dtype == jnp.int8
    assert coded.shape == kernel.shape
    error = tiles(np.abs(np.asarray(coded.dense()) - kernel), tile or 24)
    largest = np.abs(tiles(kernel, tile or 24)).max(1, keepdims=True)
    assert np.all(error <= 0.5001 * largest / 127.5)


@given(kernels(128, 2))
def test_nf4_has_the_nearest_level_in_half_a_byte(kernel: np.ndarray) -> None:
    coded = QuantizedKernel(jnp.asarray(kernel), "nf4")
    assert coded.codes.get_value().nbytes == kernel.size / 2
    assert coded.shape == kernel.shape
    largest = np.abs(tiles(kernel, 64)).max(1, keepdims=True)
    share = tiles(kernel, 64) / np.where(largest, largest, 1)
    nearest = np.array(NF4)[np.abs(share[..., None] - np.array(NF4)).argmin(-1)]
    np.testing.assert_allclose(coded.dense(), (nearest * largest).reshape(128, 2), rtol=1e-5)


@pytest.mark.parametrize("form", [("int8", 0), ("int8", 16), ("nf4", 32)])
@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_products_and_gradients_are_those_of_the_decoded_kernel(form: tuple, dtype: str) -> None:
    layer = Linear(64, 24, bias=True, dtype=jnp.dtype(dtype), rngs=nnx.Rngs(0))
    layer.kernel = QuantizedKernel(normal(64, 24).astype(dtype), *form)
    dense, x = layer.kernel.dense(), normal(3, 5, 64, seed=1).astype(dtype)
    assert dense.dtype == dtype
    graph, state = nnx.split(layer)

    @jax.jit
    @jax.value_and_grad
    def ours(x: jax.Array) -> jax.Array:
        run = jax.checkpoint(lambda state, x: nnx.merge(graph, state)(x))
        return jnp.sin(run(state, x)).astype(jnp.float32).sum()

    @jax.jit
    @jax.value_and_grad
    def expected(x: jax.Array) -> jax.Array:
        return jnp.sin(x @ dense).astype(jnp.float32).sum()

    for a, b in zip(ours(x), expected(x), strict=True):
        assert a.dtype == b.dtype
        tolerance = 1e-5 if dtype == "float32" else 2e-2
        np.testing.assert_allclose(*(np.asarray(y, np.float32) for y in (a, b)), atol=tolerance)


@pytest.mark.parametrize("form", ["int8", "nf4"])
def test_no_decoded_kernel_is_kept_for_the_gradient(form: str) -> None:
    layer = Linear(128, 64, dtype=jnp.dtype("float32"), rngs=nnx.Rngs(0))
    layer.kernel = QuantizedKernel(layer.kernel[...], form)
    _, pullback = jax.vjp(layer, normal(2, 128))
    kept = sum(x.nbytes for x in jax.tree.leaves(pullback))
    parts = jax.tree.leaves(nnx.state(layer))
    assert kept <= sum(x.nbytes for x in parts) < 128 * 64 * 2


@pytest.mark.parametrize("form", ["int8", "nf4"])
def test_tiles_that_do_not_fit(form: str) -> None:
    with pytest.raises(ValueError, match=r"tile of 48 rows does not divide the 64"):
        QuantizedKernel(normal(64, 8), form, 48)
    with pytest.raises(ValueError, match="tile of -1 rows"):
        QuantizedKernel(normal(64, 8), form, -1)


def test_nf4_of_odd_width() -> None:
    with pytest.raises(ValueError, match="even number of rows"):
        QuantizedKernel(normal(15, 8), "nf4", 15)
    with pytest.raises(ValueError, match="tile of 64 rows does not divide the 32"):
        QuantizedKernel(normal(32, 8), "nf4")


def adapter(**options: object) -> LoRA:
    settings = {"rank": 4, "alpha": 6.0, "dtype": jnp.dtype("float32"), "rngs": nnx.Rngs(1)}
    return LoRA(16, 8, **{**settings, **options})


def test_an_adapter_starts_at_zero_and_can_learn() -> None:
    layer = Linear(16, 8, dtype=jnp.dtype("float32"), rngs=nnx.Rngs(0))
    x = normal(3, 16)
    before = layer(x)
    layer.lora = adapter()
    np.testing.assert_array_equal(layer(x), before)
    assert np.all(layer.lora.b[...] == 0)
    assert np.ptp(layer.lora.a[...]) > 0.25  # uniform within 1/sqrt(16)
    assert np.abs(layer.lora.a[...]).max() <= 0.25
    graph, factors, rest = nnx.split(layer, AdapterParam, ...)
    slope = jax.grad(lambda f: jnp.sin(nnx.merge(graph, f, rest)(x)).sum())(factors)
    assert np.all(slope["lora"]["b"][...] != 0)


def test_scales() -> None:
    x = normal(3, 16)
    for stabilized, scale in ((False, 6 / 4), (True, 6 / 2)):
        lora = adapter(rank_stabilized=stabilized)
        lora.b[...] = normal(4, 8, seed=2)
        expected = scale * (np.asarray(x) @ np.asarray(lora.a[...]) @ np.asarray(lora.b[...]))
        np.testing.assert_allclose(lora(x), expected, rtol=1e-5, atol=1e-6)
        np.testing.assert_allclose(x @ lora.product(), expected, rtol=1e-5, atol=1e-6)


def test_dropout_is_of_the_adapters_input_alone() -> None:
    layer = Linear(16, 8, dtype=jnp.dtype("float32"), rngs=nnx.Rngs(0))
    layer.lora = adapter(dropout=0.25)
    layer.lora.b[...] = normal(4, 8, seed=2)
    x = normal(3, 16)
    draws = jax.vmap(lambda key: layer(x, key))(jax.random.split(jax.random.key(0), 20000))
    plain = layer(x)
    one = layer(x, jax.random.split(jax.random.key(0), 20000)[7])
    np.testing.assert_allclose(draws[7], one, rtol=1e-5)  # a batch is rounded otherwise than one
    spread = np.asarray(draws.std(0))
    assert np.all(spread > 0.01)
    assert np.all(np.abs(draws.mean(0) - plain) < 6 * spread / 20000**0.5)
    # Each input is dropped on its own: its variance is x^2 p / (1 - p).
    kernel = layer.lora.product()
    expected = np.sqrt((np.asarray(x) ** 2 / 3) @ np.asarray(kernel) ** 2)
    np.testing.assert_allclose(spread, expected, rtol=0.05)


def test_factors_in_float32_on_a_bfloat16_base() -> None:
    layer = Linear(16, 8, dtype=jnp.dtype("bfloat16"), rngs=nnx.Rngs(0))
    layer.lora = adapter()
    y = layer(normal(3, 16).astype(jnp.bfloat16))
    assert layer.lora.a.dtype == layer.lora.b.dtype == jnp.float32
    assert y.dtype == jnp.bfloat16
