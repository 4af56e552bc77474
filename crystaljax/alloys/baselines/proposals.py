"""Proposals of candidates by an optimiser, and the simplest optimiser: random search."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple, Protocol

import numpy as np

from crystaljax.alloys.baselines.space import Space, new_candidates
from crystaljax.alloys.composition import TAGS, Tags, write_candidate
from crystaljax.alloys.journal import Entry


class Proposal(NamedTuple):
    """A candidate, with data that its proposer needs when it learns the reward."""

    text: str
    note: dict[str, Any]


class Proposer(Protocol):
    """Protocol of optimisers, which propose candidates and learn from their rewards."""

    def propose(self, n: int, known: set[str]) -> list[Proposal]:
        """Up to n different candidates that are not among the texts `known`; none if none is left.

        The draws depend on the seed and on the number of known candidates, so that a resumed search
        gives the same results.
        """
        ...

    def learn(self, entries: Sequence[Entry]) -> None:
        """Record the rewards of proposals, given as lines of the journal."""
        ...


class RandomProposer:
    """Draws from the grid and learns nothing."""

    def __init__(self, space: Space, seed: int, tags: Tags = TAGS) -> None:
        self._space, self._tags = space, tags
        self._seed = seed

    def propose(self, n: int, known: set[str]) -> list[Proposal]:
        """See `Proposer`."""
        rng = np.random.default_rng([self._seed, len(known)])
        found = new_candidates(self._space, n, rng, known, self._tags)
        return [Proposal(write_candidate(one, self._tags), {}) for one in found]

    def learn(self, entries: Sequence[Entry]) -> None:
        """Do nothing."""
