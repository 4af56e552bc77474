"""Peaks of the device: a matrix product in each type, and a copy."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial

import jax
import jax.numpy as jnp

from accelerator_sections.run import Budget, Found, Measurement, Run, Timing, timed
from accelerator_sections.sizes import Size
from crystaljax.roofline import FULL, Peak

REPEATS = 8
"""Number of products or copies that are started before waiting for the last one."""


def peaks(run: Run, budget: Budget, size: Size) -> Iterator[Measurement]:
    """Operations and bytes per second, stored as the run's peaks if all could be measured."""
    yield "peaks", partial(_peaks, run, budget, size)


def _peaks(run: Run, budget: Budget, size: Size) -> dict[str, Found]:
    n = size.product
    flops, rows = {}, {}
    for dtype, precision, kind in (
        ("bfloat16", None, "bfloat16"),
        ("float32", None, "float32"),
        ("float32", "highest", "float32" + FULL),
    ):
        timing = _timed_products(n, dtype, precision, budget)
        flops[kind] = 2.0 * n**3 / timing.median
        title = f"product of {n} x {n}, {kind}"
        rows[title] = Found(flops[kind] / 1e12, "TFLOP/s", first_s=timing.first)
    timing = _timed_copies(size.copied, budget)
    bandwidth = 2.0 * size.copied / timing.median
    title = f"reading and writing {size.copied / 2**20:.0f} MiB"
    rows[title] = Found(bandwidth / 1e9, "GB/s", first_s=timing.first)
    run.peak = Peak(flops, bandwidth)
    return rows


def _timed_products(n: int, dtype: str, precision: str | None, budget: Budget) -> Timing:
    """Seconds of one product, of several that are started without waiting."""
    x = jax.random.uniform(jax.random.key(0), (n, n), dtype)
    product = jax.jit(partial(jnp.matmul, precision=precision))
    return _each(lambda: jax.block_until_ready([product(x, x) for _ in range(REPEATS)]), budget)


def _timed_copies(size: int, budget: Budget) -> Timing:
    """Seconds of reading and writing bytes in place (allocating new memory would take longer)."""
    x = jnp.ones(size // 4, jnp.float32)
    add = jax.jit(lambda x: x + 1, donate_argnums=0)

    def copy() -> None:
        nonlocal x
        for _ in range(REPEATS):
            x = add(x)
        jax.block_until_ready(x)

    return _each(copy, budget)


def _each(repeat: Callable[[], object], budget: Budget) -> Timing:
    timing = timed(repeat, budget, at_least=5)
    return timing._replace(median=timing.median / REPEATS)
