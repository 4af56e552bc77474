"""Ranges that settings must lie in, checked where a configuration is made."""

from __future__ import annotations

import math
from typing import Any, NamedTuple


class Range(NamedTuple):
    """Numbers between two ends; nan lies in no range."""

    low: float
    high: float = math.inf
    with_low: bool = True
    """Whether the lower end belongs to it."""
    with_high: bool = True
    """Whether the upper end belongs to it."""

    def holds(self, value: float) -> bool:
        """Whether the value lies in the range."""
        above = self.low <= value if self.with_low else self.low < value
        return above and (value <= self.high if self.with_high else value < self.high)

    def __str__(self) -> str:
        """The range in words, after "must be"."""
        low = f"at least {self.low:g}" if self.with_low else f"above {self.low:g}"
        if self.low == -math.inf:
            low = "finite"
        if self.high == math.inf:
            return low if self.with_high or low == "finite" else f"{low} and finite"
        return f"{low} and {'at most' if self.with_high else 'below'} {self.high:g}"


FINITE = Range(-math.inf, with_low=False, with_high=False)
"""Any number but nan and the infinities."""
NOT_NEGATIVE = Range(0, with_high=False)
"""0 and above."""
POSITIVE = Range(0, with_low=False, with_high=False)
"""Above 0."""
SHARE = Range(0, 1)
"""Shares and probabilities."""
POSITIVE_SHARE = Range(0, 1, with_low=False)
"""Shares that are not nothing."""
DECAY = Range(0, 1, with_high=False)
"""Decays of moving averages: at 1 they would never move."""


def at_least(low: float) -> Range:
    """Finite numbers from `low` on."""
    return Range(low, with_high=False)


def require(owner: str, name: str, value: float, allowed: Range) -> None:
    """ValueError that names the setting and its owner, if the value is outside the range."""
    if not allowed.holds(value):
        raise ValueError(f"{owner}: {name} must be {allowed}, not {value}")


def check(config: Any, **ranges: Range) -> None:
    """`require` of some fields of a configuration; None stands for a default and is allowed.

    The elements of tuples are checked one by one.
    """
    for name, allowed in ranges.items():
        value = getattr(config, name)
        for x in value if isinstance(value, tuple) else (value,):
            if x is not None:
                require(type(config).__name__, name, x, allowed)
