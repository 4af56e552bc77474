"""Operations and bytes against closed forms and XLA's own count."""

from collections.abc import Iterator

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from crystaljax.roofline import FULL, NOTHING, Peak, Share, Work, count, share

A, B = jnp.zeros((4, 5)), jnp.zeros((5, 6))


@pytest.fixture(autouse=True)
def usual_precision() -> Iterator[None]:
    """What other test modules set for their comparisons does not count here."""
    with jax.default_matmul_precision("default"):
        yield


def test_a_product_of_matrices() -> None:
    work = count(jnp.matmul, A, B)
    assert work.flops == {"float32": 2 * 4 * 5 * 6}
    assert work.bytes == 4 * (4 * 5 + 5 * 6 + 4 * 6)


def test_batches_and_the_type_of_the_factors() -> None:
    x = jax.ShapeDtypeStruct((3, 4, 5), jnp.bfloat16)
    y = jax.ShapeDtypeStruct((3, 5, 6), jnp.bfloat16)

    def product(x: jax.Array, y: jax.Array) -> jax.Array:
        return jnp.einsum("bij,bjk->bik", x, y, preferred_element_type=jnp.float32)

    work = count(product, x, y)
    assert work.flops == {"bfloat16": 2 * 3 * 4 * 5 * 6}
    assert work.bytes == 2 * 3 * (4 * 5 + 5 * 6) + 4 * 3 * 4 * 6


def test_full_precision_is_told_apart() -> None:
    with jax.default_matmul_precision("highest"):
        assert set(count(jnp.matmul, A, B).flops) == {"float32" + FULL}
    by_argument = count(lambda x, y: jnp.matmul(x, y, precision="highest"), A, B)
    assert set(by_argument.flops) == {"float32" + FULL}
    assert set(count(jnp.matmul, A.astype("bfloat16"), B.astype("bfloat16")).flops) == {"bfloat16"}


def test_scans_conditionals_and_what_is_compiled_or_computed_again() -> None:
    square = jnp.zeros((5, 5))
    one = 2 * 5**3

    def repeated(x: jax.Array) -> jax.Array:
        return jax.lax.scan(lambda y, _: (y @ x, None), x, length=7)[0]

    assert count(repeated, square).total_flops == 7 * one
    assert count(jax.jit(repeated), square).total_flops == 7 * one
    assert count(lambda x: jax.lax.fori_loop(0, 3, lambda _, y: y @ x, x), square).flops == {
        "float32": 3 * one
    }

    def either(x: jax.Array) -> jax.Array:
        return jax.lax.cond(x[0, 0] > 0, lambda y: y @ y, lambda y: y @ y @ y, x)

    assert count(either, square).total_flops == 2 * one
    # The gradient of x @ x @ x as a function of the first factor, with its products made again.
    again = jax.grad(lambda x: jax.checkpoint(lambda y: y @ square @ square)(x).sum())
    assert count(again, square).total_flops == 4 * one


def test_the_count_is_that_of_xla_where_it_can_count() -> None:
    def network(x: jax.Array, w: jax.Array) -> jax.Array:
        return ((x @ w) @ w).sum()

    x, w = jnp.zeros((64, 128)), jnp.zeros((128, 128))
    step = jax.value_and_grad(network, argnums=1)
    by_xla = jax.jit(step).lower(x, w).cost_analysis()["flops"]
    # XLA counts the sums too, which are few.
    np.testing.assert_allclose(count(step, x, w).total_flops, by_xla, rtol=0.02)


def test_work_adds_up() -> None:
    one = Work({"float32": 2.0}, 3.0)
    both = one + Work({"float32": 1.0, "bfloat16": 4.0}, 1.0) * 2
    assert both == Work({"float32": 4.0, "bfloat16": 8.0}, 5.0)
    assert one + NOTHING == one


def test_shares_of_the_peaks() -> None:
    peak = Peak({"float32": 100.0, "bfloat16": 1000.0}, 10.0)
    found = share(Work({"float32": 50.0, "bfloat16": 250.0}, 2.0), 1.0, peak)
    assert found == Share(0.75, 0.2)
    assert found.bound == "compute" and "limited by arithmetic" in str(found)
    assert "limited by memory" in str(Share(0.1, 0.6))
    assert "limited by neither" in str(Share(0.1, 0.2))
    with pytest.raises(ValueError, match="int8"):
        share(Work({"int8": 1.0}, 0.0), 1.0, peak)
