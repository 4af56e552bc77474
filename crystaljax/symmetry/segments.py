"""Numpy functions for concatenated lists of unequal length, and comparisons robust to rounding.

`segment` arrays are int [n], sorted, and name every segment 0 ... n_segments - 1.
"""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np

from crystaljax.crystal import wrapped

TOLERANCE = 1e-5
"""Values closer than this (of fractional coordinates, or Å) are equal."""


def ragged(counts: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Segment of each of counts.sum() items, and its rank in it, for `counts` int [n]."""
    segment = np.repeat(np.arange(len(counts)), counts)
    return segment, np.arange(len(segment)) - (np.cumsum(counts) - counts)[segment]


def firsts(segment: np.ndarray) -> np.ndarray:
    """int [n_segments]: index of the first item of each segment."""
    return np.flatnonzero(np.diff(segment, prepend=-1))


def smallest(segment: np.ndarray, columns: Iterable[np.ndarray]) -> np.ndarray:
    """Indices, in order, of all items that equal the lexicographic minimum of their segment.

    `columns` are the keys [n], the most significant first; no value may be nan.
    """
    alive = np.arange(len(segment))
    n_segments = len(firsts(segment))
    for column in columns:
        if len(alive) == n_segments:  # one of each is left
            break
        values, owner = column[alive], segment[alive]
        least = np.minimum.reduceat(values, firsts(owner))
        alive = alive[values <= least[owner] + TOLERANCE]
    return alive


def first_smallest(segment: np.ndarray, columns: Iterable[np.ndarray]) -> np.ndarray:
    """int [n_segments]: index of the first smallest item of each segment."""
    alive = smallest(segment, columns)
    return alive[firsts(segment[alive])]


def tolerant_order(columns: Iterable[np.ndarray]) -> np.ndarray:
    """Indices that sort items by `columns` [n], the most significant first.

    Among items that are equal in the columns before, sorted values count as equal if each differs
    from the next by less than the tolerance.
    """
    columns = list(columns)
    rank = np.zeros(len(columns[0]), int)
    order = np.arange(len(rank))
    for column in columns:
        order = np.lexsort((column, rank))
        step = np.diff(column[order], prepend=0) > TOLERANCE
        step |= np.diff(rank[order], prepend=0) > 0
        rank[order] = np.cumsum(step)
    return order


def snap(frac: np.ndarray) -> np.ndarray:
    """Coordinates modulo 1 in [0, 1), where those within the tolerance below 1 are 0."""
    frac = wrapped(frac)
    return np.where(frac > 1 - TOLERANCE, 0.0, frac)
