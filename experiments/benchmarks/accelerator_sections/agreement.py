"""Agreement of a device's results with those of a CPU in full precision.

Rounding errors are proportional to the unit roundoff of the factors of products: 2⁻²⁴ in float32,
2⁻¹¹ in TF32 (the default of GPUs for float32 products), 2⁻⁹ in bfloat16. They grow with the depth
of a network and the length of sums.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

import numpy as np

Mode = Literal["full", "bfloat16", "default"]
"""Precision of a device: float32 in full precision, bfloat16, or float32 with JAX's default (TF32
in matrix products on GPUs)."""


@dataclass(frozen=True)
class Tolerance:
    """Tolerances of a device's results, compared with a CPU's."""

    error: float
    """For numbers: norm of the difference over the norm."""
    changed: float
    """For sampled tokens: share of the samples that differ."""


TOLERANCES: dict[Mode, Tolerance] = {
    "full": Tolerance(1e-4, 0.05),
    "bfloat16": Tolerance(2e-2, 1.0),
    "default": Tolerance(5e-3, 0.25),
}
"""In bfloat16 three times the largest error observed on a CPU (6e-3, the norm of a gradient); in
the others at least this error scaled by the unit roundoff. A sample changes if a number that
decides it is within the error of a threshold. In bfloat16 most samples change, and only the others
are compared.
"""


Results = Mapping[str, np.ndarray]
"""Arrays of a check by name. Integer arrays are [N, ...], of N samples."""


@dataclass(frozen=True)
class Comparison:
    """The largest deviations of some results."""

    error: float
    """Over all arrays of numbers; see `Tolerance`."""
    changed: float
    """Over all arrays of tokens."""
    worst: str
    """The array with the largest error."""

    def within(self, tolerance: Tolerance) -> bool:
        return self.error <= tolerance.error and self.changed <= tolerance.changed

    def __str__(self) -> str:
        changed = f", {self.changed:.1%} of the samples differ" if self.changed else ""
        return f"largest relative error {self.error:.1e} ({self.worst}){changed}"


def compare(found: Results, expected: Results) -> Comparison:
    """Compare results with those of the CPU.

    Numbers [N, ...] of samples with different tokens are left out, since they differ, too.
    ValueError if arrays are missing or have other shapes: the stored ones are of another version.
    """
    shapes = {name: x.shape for name, x in found.items()}
    stored = {name: x.shape for name, x in expected.items()}
    if shapes != stored:
        raise ValueError(
            f"the CPU results stored are {stored}, and these {shapes}: write them again with "
            "--write-expected"
        )
    tokens = [name for name, x in found.items() if x.dtype.kind in "iub"]
    same = None
    for name in tokens:
        n = len(found[name])
        equal = (found[name] == expected[name]).reshape(n, -1).all(axis=1)
        same = equal if same is None else same & equal
    errors = {
        name: _error(found[name], expected[name], same) for name in found if name not in tokens
    }
    worst = max(errors, key=lambda name: errors[name])
    return Comparison(errors[worst], 0.0 if same is None else float((~same).mean()), worst)


def _error(found: np.ndarray, expected: np.ndarray, same: np.ndarray | None) -> float:
    """Norm of the difference over the norm; infinite if a number is not finite."""
    if same is not None and found.ndim and len(found) == len(same):
        found, expected = found[same], expected[same]
    if not np.isfinite(found).all():
        return float("inf")
    size = float(np.linalg.norm(expected.astype(np.float64)))
    difference = float(np.linalg.norm(found.astype(np.float64) - expected))
    return difference / size if size else difference
