"""Numbers as texts: with decimals, or with significant digits where decimals would hide them."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np

SMALL, LARGE = 0.01, 1e5
"""Numbers of sizes between these are clear with three decimals."""


def number_format(values: Iterable[float]) -> str:
    """Format specification of numbers that stand together: ".3f", or ".4g" by their largest size.

    Those that are not finite do not count.
    """
    sizes = np.abs(np.fromiter(values, np.float64))
    largest = np.max(sizes[np.isfinite(sizes)], initial=0.0)
    return ".3f" if largest == 0 or SMALL <= largest < LARGE else ".4g"


def number_text(value: float) -> str:
    """One number with the format that suits it."""
    return f"{value:{number_format([value])}}"
