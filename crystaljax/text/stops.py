"""Strings that end a text, found among tokens."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np

Decode = Callable[[Sequence[np.ndarray]], list[str]]
"""The text of each of some sequences of tokens."""

MARGIN = 4
"""Tokens more that are looked at, where a character may have been cut in two (in UTF-8)."""


class Cut(NamedTuple):
    """End of a text."""

    n_tokens: int
    """Tokens up to the one that completes the stop string: a model that is trained on them learns
    to stop."""
    text: str
    """Text before the stop string."""


class StopStrings:
    """Finds where a text first has one of some strings, which may span tokens.

    Args:
      stops: strings; ValueError if one is empty.
      decode: of the tokenizer.
    """

    def __init__(self, stops: Sequence[str], decode: Decode) -> None:
        if not all(stops):
            raise ValueError("an empty stop string would end every text: leave it out")
        self.stops = tuple(stops)
        self.decode = decode
        # A token is one byte or more of text.
        self._margin = max((len(stop.encode()) for stop in stops), default=0) + MARGIN

    def cuts(self, sequences: Sequence[np.ndarray], checked: Sequence[int]) -> list[Cut | None]:
        """End of each sequence; None if it has no stop string.

        checked: how many tokens of each are known to have no stop string.
        """
        if not self.stops:
            return [None] * len(sequences)
        recent = [
            tokens[max(0, n - self._margin) :] for tokens, n in zip(sequences, checked, strict=True)
        ]
        texts = self.decode(recent)
        return [
            self._cut(tokens) if any(stop in text for stop in self.stops) else None
            for tokens, text in zip(sequences, texts, strict=True)
        ]

    def _cut(self, tokens: np.ndarray) -> Cut | None:
        """The fewest tokens whose text has a stop string, and what is before it; None for none."""

        def place(n: int) -> int:
            """Position of the first stop string in the text of n tokens; -1 for none."""
            text = self.decode([tokens[:n]])[0]
            return min((at for stop in self.stops if (at := text.find(stop)) >= 0), default=-1)

        if place(len(tokens)) < 0:  # a text may begin another way than a part of it
            return None
        n = bisect_left(range(len(tokens)), True, key=lambda n: place(n) >= 0)
        return Cut(n, self.decode([tokens[:n]])[0][: place(n)])
