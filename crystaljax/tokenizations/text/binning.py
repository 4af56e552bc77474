"""Equal bins of numbers, each with the word that stands for it."""

from __future__ import annotations

from dataclasses import dataclass
from decimal import Decimal
from functools import cached_property

import numpy as np

from crystaljax.text.expressions import one_of

MAX_DECIMALS = 6
"""Largest number of decimals of bin widths."""


@dataclass(frozen=True)
class Bins:
    """Bins centred on multiples of their width, and their words."""

    low: float
    """Lower end: the first bin is the one nearest to it."""
    high: float
    """Upper end: the last bin is the one nearest to it."""
    width: float
    unit: str = ""
    """Ends each word."""

    @cached_property
    def decimals(self) -> int:
        """Number of decimals of the words, at least one."""
        exponent = Decimal(repr(float(self.width))).normalize().as_tuple().exponent
        return max(-int(exponent), 1)

    @cached_property
    def words(self) -> list[str]:
        """The word of each bin, from low to high."""
        first, last = round(self.low / self.width), round(self.high / self.width)
        return [f" {k * self.width:.{self.decimals}f}{self.unit}" for k in range(first, last + 1)]

    @cached_property
    def pattern(self) -> str:
        """A regular expression for one word."""
        return one_of(self.words)

    def rounded(self, numbers: np.ndarray) -> np.ndarray:
        """Centres (float64) of the bins that numbers lie in, also beyond the first and last bin."""
        return np.round(np.rint(np.asarray(numbers, float) / self.width) * self.width, MAX_DECIMALS)

    def lacks(self, centres: np.ndarray) -> np.ndarray:
        """bool: whether centres lie beyond the first or last bin."""
        slack = self.width / 4
        first, last = (float(self.rounded(np.array(x))) for x in (self.low, self.high))
        return ~((centres > first - slack) & (centres < last + slack))
