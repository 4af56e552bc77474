"""Equal bins of numbers, and the word that each is written as."""

from __future__ import annotations

from dataclasses import dataclass
from decimal import Decimal
from functools import cached_property

import numpy as np

from crystaljax.text.expressions import one_of

MAX_DECIMALS = 6
"""Of bin widths."""


@dataclass(frozen=True)
class Bins:
    """Numbers and the words of their bins, which are centred on multiples of the width."""

    low: float
    """The first bin is the one nearest to this."""
    high: float
    """The last bin is the one nearest to this."""
    width: float
    unit: str = ""
    """Ends each word."""

    @cached_property
    def decimals(self) -> int:
        """Decimals that bins are written with, at least one."""
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
        """The centres (float64) of the bins that numbers lie in, were there enough bins."""
        return np.round(np.rint(np.asarray(numbers, float) / self.width) * self.width, MAX_DECIMALS)

    def lacks(self, centres: np.ndarray) -> np.ndarray:
        """bool: there is no such bin."""
        slack = self.width / 4
        first, last = (float(self.rounded(np.array(x))) for x in (self.low, self.high))
        return ~((centres > first - slack) & (centres < last + slack))
