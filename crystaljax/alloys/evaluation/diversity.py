"""Diversity of candidates: distinct pairs of phases, sets of elements, single elements."""

from __future__ import annotations

from collections import Counter
from collections.abc import Hashable, Mapping, Sequence
from functools import lru_cache
from typing import Literal

import numpy as np
from scipy.special import gammaln

from crystaljax.alloys.composition import Candidate
from crystaljax.alloys.engines.table import composition_key
from crystaljax.composition import atomic_number

Phase = Literal["bcc", "b2"]

Candidates = Sequence[Candidate | None]
"""Candidates of N samples; None for texts without one."""


def pair_keys(candidates: Candidates) -> list[str | None]:
    """Key of the pair of a BCC and a B2, independent of the order of elements and the volume."""
    return [
        None if one is None else " | ".join(_key(tuple(p.items())) for p in (one.bcc, one.b2))
        for one in candidates
    ]


@lru_cache(maxsize=1 << 16)
def _key(amounts: tuple[tuple[str, float], ...]) -> str:
    """Key of one phase; cached, as models often repeat phases."""
    return composition_key(dict(amounts))


def expected_unique(keys: Sequence[Hashable | None], draw: int) -> float:
    """Mean number of distinct keys in `draw` of the N, over all draws without replacement.

    None can be drawn but is not counted. nan if there are fewer than `draw`. Rarefaction:
    S. H. Hurlbert, Ecology 52 (1971), 577.
    """
    n = len(keys)
    if n < draw:
        return float("nan")
    counts = np.array(list(Counter(key for key in keys if key is not None).values()), float)
    left = n - counts  # samples with another key
    can_miss = left >= draw
    log_missed = (
        gammaln(left + 1) - gammaln(np.maximum(left - draw, 0) + 1)
        - gammaln(n + 1) + gammaln(n - draw + 1)
    )  # fmt: skip
    return float((1 - np.where(can_miss, np.exp(log_missed), 0.0)).sum())


def element_frequencies(candidates: Candidates, phase: Phase | None = None) -> np.ndarray:
    """float64 [119]: fraction of candidates with each element, by atomic number.

    In one phase, or in either if `phase` is None.
    """
    known = [one for one in candidates if one is not None]
    parts = ((one.bcc, one.b2) if phase is None else (getattr(one, phase),) for one in known)
    return amount_frequencies([dict.fromkeys(set().union(*each), 1.0) for each in parts])


def amount_frequencies(mixtures: Sequence[Mapping[str, float]]) -> np.ndarray:
    """float64 [119]: fraction of compositions with each element, by atomic number."""
    counts = np.zeros(119)
    for mixture in mixtures:
        counts[[atomic_number(element) for element in mixture]] += 1
    return counts / max(len(mixtures), 1)
