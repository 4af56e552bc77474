"""What the device can do: a product of matrices in each type, and a copy."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial

import jax
import jax.numpy as jnp

from accelerator_sections.run import Budget, Found, Measurement, Run, timed
from accelerator_sections.sizes import Size
from crystaljax.crystal import Array
from crystaljax.roofline import FULL, Peak

Product = Callable[[Array, Array], Array]

REPEATS = 8
"""Products and copies that are started before the last one is waited for."""


def peaks(run: Run, budget: Budget, size: Size) -> Iterator[Measurement]:
    """Operations and bytes per second, kept as the run's peaks."""
    found: dict[str, float] = {}

    def measured(name: str, repeat: Callable[[], object], per_call: float) -> Found:
        timing = timed(repeat, budget, at_least=5, most_s=2.0)
        found[name] = REPEATS * per_call / timing.median
        flops = {kind: x for kind, x in found.items() if kind != "copy"}
        run.peak = Peak(flops, found.get("copy", float("inf")))
        scale, unit = (1e9, "GB/s") if name == "copy" else (1e12, "TFLOP/s")
        return Found(found[name] / scale, unit, first_s=timing.first)

    n = size.product
    for dtype, precision, kind in (
        ("bfloat16", None, "bfloat16"),
        ("float32", None, "float32"),
        ("float32", "highest", "float32" + FULL),
    ):
        x = jax.random.uniform(jax.random.key(0), (n, n), dtype)
        product = jax.jit(partial(jnp.matmul, precision=precision))

        def multiply(product: Product = product, x: Array = x) -> None:
            jax.block_until_ready([product(x, x) for _ in range(REPEATS)])

        yield f"product of {n} x {n}, {kind}", partial(measured, kind, multiply, 2.0 * n**3)
    copied = jnp.ones(size.copied // 4, jnp.float32)
    add = jax.jit(lambda x: x + 1, donate_argnums=0)  # new memory would be what takes its time

    def copy() -> None:
        nonlocal copied
        for _ in range(REPEATS):
            copied = add(copied)
        jax.block_until_ready(copied)

    title = f"reading and writing {size.copied / 2**20:.0f} MiB"
    yield title, partial(measured, "copy", copy, 2.0 * size.copied)
