"""Texts of crystals in which one element is hidden."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Callable, Sequence

import numpy as np

from crystaljax.composition import atomic_number
from crystaljax.crystal import Crystals

MASK = "?"
"""Placeholder for the symbol of the hidden element."""

STAND_INS = (("Ts", "Og"), ("Np", "Pu"), ("He", "Ne"), ("Rf", "Rg"))
"""Pairs of rare elements that are neighbours in atomic number, in electronegativity or in the
alphabet, so that both have the same place in formulas.
"""


def masked(
    write: Callable[[Crystals], list[str]], crystals: Crystals, species: np.ndarray
) -> list[str]:
    """The text of each of B crystals with `MASK` in place of the symbol of one element.

    Each crystal is written twice, with two other elements in place of the hidden one. The texts
    differ only in the symbols of these two, and `MASK` is put there. So texts are not searched for
    symbols, which other words may contain. And the order of elements, in a formula for example,
    does not reveal the hidden one.

    Args:
      write: writes texts of crystals, such as `TextFormat.encode`. A random one must write the same
        text when it is called again.
      species: int [B], atomic number of the element to hide.

    ValueError naming the first crystal that has no such element, or whose texts differ in more.
    """
    crystals = crystals.to_numpy()
    hidden = crystals.species == np.asarray(species)[:, None]
    hidden &= crystals.species > 0
    if not hidden.any(axis=1).all():
        row = int(np.argmin(hidden.any(axis=1)))
        raise ValueError(f"crystal {row} has no element {int(species[row])} to hide")
    found: list[str | None] = [None] * len(crystals)
    reason = ""
    for pair in STAND_INS:
        numbers = [atomic_number(name) for name in pair]
        absent = ~np.isin(crystals.species, numbers).any(axis=1)
        rows = np.array([i for i in np.flatnonzero(absent).tolist() if found[i] is None], int)
        if not len(rows):
            continue
        some, places = crystals[rows], hidden[rows]
        try:
            one, other = (
                write(dataclasses.replace(some, species=np.where(places, z, some.species)))
                for z in numbers
            )
        except ValueError as error:
            reason = f" ({error})"
            continue
        for row, *texts in zip(rows.tolist(), one, other, strict=True):
            found[row] = _compared(texts, pair)
    for row, text in enumerate(found):
        if text is None:
            raise ValueError(
                f"crystal {row}: an element of its text cannot be hidden, since the text of another"
                f" element differs in more than its symbol{reason}"
            )
    return [text for text in found if text is not None]


def _compared(texts: Sequence[str], pair: Sequence[str]) -> str | None:
    """The text with `MASK` where two texts have the two symbols; None if they differ in more."""
    one, other = texts
    starts = [m.start() for m in re.finditer(pair[0], one) if other.startswith(pair[1], m.start())]
    ends = [0, *(start + len(pair[0]) for start in starts)]
    pieces = [one[end:start] for end, start in zip(ends, [*starts, len(one)], strict=True)]
    return MASK.join(pieces) if starts and pair[1].join(pieces) == other else None
