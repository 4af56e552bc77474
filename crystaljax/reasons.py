"""Why items were lost, in words: reasons with their counts."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable

N_SHOWN = 5
"""Reasons that are told, where no other number is asked for."""

_DECIMAL = re.compile(r"\d+\.\d+")


def in_words(reasons: Iterable[str | None], shown: int = N_SHOWN) -> str:
    """The most frequent reasons and how often each occurs, for a sentence; "" without any.

    Reasons that differ only in a decimal number, such as a distance, are counted together.

    Args:
      reasons: one of each item (None or "" for an item that is not lost), or a Counter of reasons.
      shown: reasons that are told; "..." stands for the others.
    """
    alike: dict[str, Counter[str]] = {}
    for reason, count in Counter(reasons).items():
        if reason:
            alike.setdefault(_DECIMAL.sub("", reason), Counter())[reason] += count
    told = [
        f"{group.total()} × {group.most_common(1)[0][0]}{' (or similar)' * (len(group) > 1)}"
        for group in sorted(alike.values(), key=Counter.total, reverse=True)
    ]
    return "; ".join(told[:shown] + ["..."] * (len(told) > shown))
