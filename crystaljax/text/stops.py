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
    """Where a text ends."""

    n_tokens: int
    """Tokens that the text takes, the last of them maybe in part."""
    text: str


class StopStrings:
    """Finds the first of some strings, which may span tokens.

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
        """Where each sequence is to end; None if nowhere.

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
        text = self.decode([tokens])[0]
        ends = [end for stop in self.stops if (end := text.find(stop)) >= 0]
        if not ends:
            return None
        kept = text[: min(ends)]

        def reaches(n: int) -> bool:
            return self.decode([tokens[:n]])[0].startswith(kept)

        return Cut(bisect_left(range(len(tokens)), True, key=reaches), kept)
