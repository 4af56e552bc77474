"""The roofline model: a computation's rates as shares of its device's peaks.

A device is described by two measured peaks, operations and bytes per second; a computation by the
operations and the bytes of its products of matrices. The time of the slower of the two is the
least that the computation can take (Williams et al., Commun. ACM 52, 65, 2009).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from math import prod
from typing import Any, Literal

import jax

from crystaljax.crystal import Array

FULL = " in full precision"
"""After the type of factors, where products of float32 may not be rounded to fewer bits."""

NEAR = 0.5
"""A computation that reaches this share of a peak is called limited by it."""


@dataclass(frozen=True)
class Work:
    """Operations and bytes of a computation's matrix products; convolutions are not counted."""

    flops: Mapping[str, float]
    """Additions and multiplications, by the type of the factors: "bfloat16", "float32" (on GPUs
    rounded to TF32 by default), or "float32" + `FULL`."""
    bytes: float
    """Bytes of all factors and products, each counted as read or written once. Operations between
    products (sums, softmax, random numbers) are assumed to be fused with them."""

    def __mul__(self, times: float) -> Work:
        return Work({kind: n * times for kind, n in self.flops.items()}, self.bytes * times)

    def __add__(self, other: Work) -> Work:
        flops = Counter(self.flops)
        flops.update(other.flops)
        return Work(dict(flops), self.bytes + other.bytes)

    @property
    def total_flops(self) -> float:
        """Over all types."""
        return sum(self.flops.values())


NOTHING = Work({}, 0.0)


@dataclass(frozen=True)
class Peak:
    """Measured peaks of a device."""

    flops: Mapping[str, float]
    """Operations per second of a large product of matrices, by the type of its factors."""
    bandwidth: float
    """Bytes per second that a copy reads and writes."""


@dataclass(frozen=True)
class Share:
    """Rates of a computation as shares of the peaks of its device."""

    compute: float
    """Share of the operations per second."""
    memory: float
    """Share of the bytes per second."""

    @property
    def bound(self) -> Literal["compute", "memory"]:
        """The peak that would limit the computation if nothing else did."""
        return "compute" if self.compute >= self.memory else "memory"

    def __str__(self) -> str:
        shares = f"{self.compute:.1%} of the peak operations, {self.memory:.1%} of the bandwidth"
        if max(self.compute, self.memory) >= NEAR:
            return f"limited by {'arithmetic' if self.bound == 'compute' else 'memory'}: {shares}"
        return f"limited by neither arithmetic nor memory: {shares}"


def share(work: Work, seconds: float, peak: Peak) -> Share:
    """Rates of some work, done in so many seconds, as shares of the peaks.

    ValueError: a type of number whose peak was not measured.
    """
    if missing := set(work.flops) - set(peak.flops):
        raise ValueError(f"no peak was measured for {', '.join(sorted(missing))}")
    busy = sum(n / peak.flops[kind] for kind, n in work.flops.items())
    return Share(busy / seconds, work.bytes / peak.bandwidth / seconds)


def count(function: Callable[..., Any], *args: Any) -> Work:
    """The work of a function of arrays (or of their shapes), which is traced but not run.

    Scans count as often as they go round, of a conditional the branch with most operations. The
    bodies of loops whose length is not known beforehand count once, and products that nothing
    follows from count too.
    """
    return _of_jaxpr(jax.make_jaxpr(function)(*args).jaxpr)


def _of_jaxpr(jaxpr: Any) -> Work:
    total = NOTHING
    for equation in jaxpr.eqns:
        total = total + _of_equation(equation)
    return total


def _of_equation(equation: Any) -> Work:
    name, params = equation.primitive.name, equation.params
    if name == "dot_general":
        return _of_product(equation)
    inner = [_of_jaxpr(jaxpr) for jaxpr in _jaxprs(params)]
    if name == "cond":
        return max(inner, key=lambda work: work.total_flops)
    work = sum(inner, NOTHING)
    return work * params["length"] if name == "scan" else work


def _jaxprs(params: Mapping[str, Any]) -> Iterator[Any]:
    """The programs among the parameters of an operation."""
    for value in params.values():
        for part in value if isinstance(value, tuple | list) else (value,):
            program = getattr(part, "jaxpr", part)  # one may be closed over constants
            if hasattr(program, "eqns"):
                yield program


def _of_product(equation: Any) -> Work:
    (contracted, _), _ = equation.params["dimension_numbers"]
    first, out = equation.invars[0].aval, equation.outvars[0].aval
    precision = equation.params["precision"]
    is_full = isinstance(precision, tuple) and jax.lax.Precision.HIGHEST in precision
    kind = first.dtype.name + (FULL if is_full and first.dtype == "float32" else "")
    flops = 2.0 * prod(out.shape) * prod(first.shape[axis] for axis in contracted)
    moved = sum(_size(x.aval) for x in (*equation.invars, *equation.outvars))
    return Work({kind: flops}, float(moved))


def _size(array: Array) -> int:
    return prod(array.shape) * array.dtype.itemsize
