"""Roles of the tokens of candidates, and a model's changes by role (A.6 of arXiv 2511.12036)."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

if TYPE_CHECKING:  # it needs the extra llm, and a divergence at hand does not
    from crystaljax.text.divergence import TokenDivergence

ALLOY_TOKENS = re.compile(
    rb"(?P<tag></?\w[\w ]*>)|(?P<element>[A-Z][a-z]?)|(?P<number>\d+\.?\d*|\.\d+)"
)
"""Kinds of tokens of a candidate as it is written."""

COLUMNS = ("BCC element", "BCC amount", "B2 element", "B2 amount")
"""Positions of a symbol, or of the amount after it."""

_PLACES = {("<BCC>", "element"): 0, ("<BCC>", "number"): 1} | {
    ("<B2>", "element"): 2,
    ("<B2>", "number"): 3,
}


class ElementDivergence(NamedTuple):
    """Means over all places where an element, or its amount, is written."""

    symbols: tuple[str, ...]
    """E elements, in alphabetical order."""
    mean: np.ndarray
    """float64 [E, 4]: nats at one place, by `COLUMNS`; nan where there is none."""
    places: np.ndarray
    """int [E, 4]: how many there are."""


def by_element(divergence: TokenDivergence) -> ElementDivergence:
    """Divergence by element, of tokens that `ALLOY_TOKENS` told the kinds of.

    A symbol or number of several tokens is one place, with the sum over them.
    """
    sums: dict[tuple[str, int], list[float]] = {}
    before = (-1, "", "")
    tag = symbol = ""
    columns = (divergence.sample.tolist(), divergence.kind.tolist(), divergence.span.tolist())
    for *here, nats in zip(*columns, divergence.divergence.tolist(), strict=True):
        sample, kind, span = here
        if sample != before[0]:
            tag = symbol = ""
        tag = span if kind == "tag" else tag
        symbol = span if kind == "element" else symbol
        place = _PLACES.get((tag, kind))
        if place is not None and symbol:
            nats_of = sums.setdefault((symbol, place), [])
            if tuple(here) == before:
                nats_of[-1] += nats
            else:
                nats_of.append(nats)
        before = sample, kind, span
    symbols = tuple(sorted({symbol for symbol, _ in sums}))
    mean = np.full((len(symbols), len(COLUMNS)), np.nan)
    count = np.zeros(mean.shape, int)
    for (symbol, place), values in sums.items():
        row = symbols.index(symbol)
        mean[row, place], count[row, place] = np.mean(values), len(values)
    return ElementDivergence(symbols, mean, count)
