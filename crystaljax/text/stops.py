"""Stop strings: strings that end a text, found in sequences of tokens."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np

Decode = Callable[[Sequence[np.ndarray]], list[str]]
"""The text of each of some sequences of tokens."""

MARGIN = 4
"""Extra tokens that are decoded, since a UTF-8 character may be split between tokens."""


class Cut(NamedTuple):
    """End of a text."""

    n_tokens: int
    """Number of tokens up to the one that completes the stop string, so that a model that is
    trained on them learns to stop."""
    text: str
    """Text before the stop string."""


class StopStrings:
    """Finds the first stop string of a text; it may span several tokens.

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

        checked: number of tokens of each that are known to have no stop string.
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
        """The fewest tokens whose text has a stop string, and the text before it; or None."""

        def place(n: int) -> int:
            """Position of the first stop string in the text of n tokens; -1 for none."""
            text = self.decode([tokens[:n]])[0]
            return min((at for stop in self.stops if (at := text.find(stop)) >= 0), default=-1)

        if place(len(tokens)) < 0:  # a part may decode differently from the whole text
            return None
        n = bisect_left(range(len(tokens)), True, key=lambda n: place(n) >= 0)
        return Cut(n, self.decode([tokens[:n]])[0][: place(n)])
