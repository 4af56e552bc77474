"""Roles of tokens in candidates, and KL divergence by role (A.6 of arXiv 2511.12036)."""

from __future__ import annotations

import csv
import re
from collections.abc import Mapping
from os import PathLike
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from crystaljax.alloys.composition import TAGS, Tags
from crystaljax.data.files import replacing

if TYPE_CHECKING:  # importing it needs the extra llm
    from crystaljax.text.divergence import TokenDivergence

ALLOY_TOKENS = re.compile(
    rb"(?P<tag></?\w[\w ]*>)|(?P<element>[A-Z][a-z]?)|(?P<number>\d+\.?\d*|\.\d+)"
)
"""Regular expression whose named groups are the kinds of tokens of a candidate."""

_PLACES = {(0, "element"): 0, (0, "number"): 1, (1, "element"): 2, (1, "number"): 3}


def columns(tags: Tags = TAGS) -> tuple[str, ...]:
    """Positions of a symbol, or of the amount after it: "BCC element", "BCC amount" ..."""
    phases = tags.matrix, tags.precipitate
    return tuple(f"{phase} {what}" for phase in phases for what in ("element", "amount"))


class ElementDivergence(NamedTuple):
    """Mean divergences over all occurrences of an element, or of its amount."""

    symbols: tuple[str, ...]
    """E elements, in alphabetical order."""
    mean: np.ndarray
    """float64 [E, 4]: nats per occurrence, by `columns`; nan without one."""
    places: np.ndarray
    """int [E, 4]: numbers of occurrences."""


def by_element(divergence: TokenDivergence, tags: Tags = TAGS) -> ElementDivergence:
    """Divergence by element, for tokens with the kinds of `ALLOY_TOKENS`.

    A symbol or number of several tokens is one occurrence, with the sum over its tokens.
    """
    sums: dict[tuple[str, int], list[float]] = {}
    before = (-1, "", "")
    tag = symbol = ""
    phases = {f"<{tags.matrix}>": 0, f"<{tags.precipitate}>": 1}
    pieces = (divergence.sample.tolist(), divergence.kind.tolist(), divergence.span.tolist())
    for *here, nats in zip(*pieces, divergence.divergence.tolist(), strict=True):
        sample, kind, span = here
        if sample != before[0]:
            tag = symbol = ""
        tag = span if kind == "tag" else tag
        symbol = span if kind == "element" else symbol
        place = _PLACES.get((phases.get(tag, -1), kind))
        if place is not None and symbol:
            nats_of = sums.setdefault((symbol, place), [])
            if tuple(here) == before:
                nats_of[-1] += nats
            else:
                nats_of.append(nats)
        before = sample, kind, span
    symbols = tuple(sorted({symbol for symbol, _ in sums}))
    mean = np.full((len(symbols), len(_PLACES)), np.nan)
    count = np.zeros(mean.shape, int)
    for (symbol, place), values in sums.items():
        row = symbols.index(symbol)
        mean[row, place], count[row, place] = np.mean(values), len(values)
    return ElementDivergence(symbols, mean, count)


NUMERALS = "numerals"
"""Numbers of two digits or more, in tables of elements."""

_TABLE = ("model", "element", "count", "KL")


class ElementTable(NamedTuple):
    """KL(model ‖ SFT) at tokens of elements and numerals: table 3 of the paper.

    Over texts sampled from SFT (teacher-forced), without their end tokens.
    """

    symbols: tuple[str, ...]
    """S elements, the most frequent first, and `NUMERALS` at the end if there are any."""
    places: np.ndarray
    """int [S]: number of occurrences."""
    mean: np.ndarray
    """float64 [S]: nats, mean over its tokens."""

    def values(self) -> dict[str, float]:
        """Nats by symbol."""
        return dict(zip(self.symbols, self.mean.tolist(), strict=True))


def element_table(divergence: TokenDivergence) -> ElementTable:
    """Divergence by element, in both phases together; see `ElementTable`.

    For SFT's texts, with the kinds of `ALLOY_TOKENS`. Unlike in `by_element`, the tokens of a
    symbol are counted one by one, as in the paper.
    """
    nats: dict[str, list[float]] = {}
    count: dict[str, int] = {}
    before = None
    pieces = (divergence.sample.tolist(), divergence.kind.tolist(), divergence.span.tolist())
    for *here, value in zip(*pieces, divergence.divergence.tolist(), strict=True):
        _, kind, span = here
        name = span if kind == "element" else NUMERALS
        if kind == "element" or (kind == "number" and sum(c.isdigit() for c in span) > 1):
            nats.setdefault(name, []).append(value)
            count[name] = count.get(name, 0) + (here != before)
        before = here
    symbols = sorted(nats, key=lambda name: (name == NUMERALS, -count[name], name))
    return ElementTable(
        tuple(symbols),
        np.array([count[name] for name in symbols], int),
        np.array([np.mean(nats[name]) for name in symbols], float),
    )


def write_element_tables(path: str | PathLike[str], tables: Mapping[str, ElementTable]) -> None:
    """Write tables of several models as a CSV, to compare with those of other runs."""
    with (
        replacing(Path(path)) as temporary,
        temporary.open("w", encoding="utf-8", newline="") as file,
    ):
        writer = csv.writer(file)
        writer.writerow(_TABLE)
        for label, (symbols, places, mean) in tables.items():
            rows = zip(symbols, places.tolist(), mean.tolist(), strict=True)
            writer.writerows([label, *row] for row in rows)


def read_element_tables(path: str | PathLike[str]) -> dict[str, ElementTable]:
    """Tables of `write_element_tables`, by model. ValueError for another file."""
    with Path(path).open(encoding="utf-8", newline="") as file:
        reader = csv.DictReader(file)
        if tuple(reader.fieldnames or ()) != _TABLE:
            raise ValueError(f"{path} is no table of elements: its columns must be {_TABLE}")
        found: dict[str, list[tuple[str, int, float]]] = {}
        for line in reader:
            row = line["element"], int(line["count"]), float(line["KL"])
            found.setdefault(line["model"], []).append(row)
    tables = {}
    for label, rows in found.items():
        symbols, places, mean = zip(*rows, strict=True)
        tables[label] = ElementTable(symbols, np.array(places), np.array(mean))
    return tables
