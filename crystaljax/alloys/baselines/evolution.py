"""Search by CMA-ES (N. Hansen, arXiv 1604.00772) on continuous shares of elements."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from crystaljax.alloys.baselines.encoding import closest, places
from crystaljax.alloys.baselines.proposals import Proposal
from crystaljax.alloys.baselines.space import Space, new_candidates
from crystaljax.alloys.composition import TAGS, Candidate, Tags, write_candidate
from crystaljax.alloys.journal import Entry

_SIGMA = 1.0  # standard deviation of the first generation
_STEEP = 2.0  # an amount is exp of this factor times a coordinate
_IDLE = 4  # generations without a new candidate, after which the search restarts elsewhere ...
_STARTS = 8  # ... and restarts, after which candidates are drawn at random
_WORST = 1e12  # cost of a point without a candidate: CMA-ES uses only ranks


class Generation(NamedTuple):
    """A generation of points."""

    number: int
    start: int | None
    """Seed of the restart before it, if any."""
    points: list[list[float]]


class Evolution:
    """Proposes candidates by CMA-ES of the package cmaes.

    A point has a coordinate for each element of the matrix and of each site, whose exponentials are
    the amounts, and one for the volume. Its candidate is the closest one on the grid. Rewards of
    known candidates are reused. If there are no new candidates, the search restarts at another
    point.
    """

    def __init__(self, space: Space, population: int, seed: int, tags: Tags = TAGS) -> None:
        """ImportError without cmaes."""
        cmaes_module()
        self._space, self._tags = space, tags
        self._population, self._seed = max(population, 2), seed
        self._cost: dict[str, float] = {"": _WORST}
        self._current: tuple[Generation, list[str]] | None = None
        self._new: list[Generation] = []  # generations that no proposal carries yet
        self._count = 0
        self._search: Any = None
        self._begin(seed)

    def propose(self, n: int, known: set[str]) -> list[Proposal]:
        """See `proposals.Proposer`."""
        for attempt in range(_IDLE * _STARTS):
            texts = [] if self._current is None else self._current[1]
            fresh = [text for text in dict.fromkeys(texts) if text not in self._cost][:n]
            if fresh:
                drawn = [generation._asdict() for generation in self._new]
                self._new = []
                notes = [{"generations": drawn}, *({} for _ in fresh[1:])]
                return [Proposal(text, note) for text, note in zip(fresh, notes, strict=True)]
            self._draw(attempt, len(known))
        rng = np.random.default_rng([self._seed, len(known)])
        found = new_candidates(self._space, n, rng, known, self._tags)
        return [Proposal(write_candidate(one, self._tags), {}) for one in found]

    def learn(self, entries: Sequence[Entry]) -> None:
        """Record rewards; accidental failures count as the worst."""
        for entry in entries:
            for noted in entry["note"].get("generations", ()):
                if noted["number"] == self._count:  # of a resumed search
                    self._adopt(Generation(**noted))
            failed = entry["value"] is None or entry["transient"]
            self._cost[entry["text"]] = _WORST if failed else -entry["value"]
            self._settle()

    def _draw(self, attempt: int, n_known: int) -> None:
        """The next generation."""
        seeds = np.random.default_rng([self._seed, n_known, attempt]).integers(2**31, size=2)
        restart = self._search.should_stop() or (attempt and attempt % _IDLE == 0)
        start = int(seeds[0]) if restart else None
        if start is not None:
            self._begin(start)
        self._search.reseed_rng(int(seeds[1]))
        points = [self._search.ask().tolist() for _ in range(self._search.population_size)]
        generation = Generation(self._count, start, points)
        self._new.append(generation)
        self._adopt(generation, begun=True)

    def _adopt(self, generation: Generation, *, begun: bool = False) -> None:
        """Make a generation the current one."""
        if generation.start is not None and not begun:
            self._begin(generation.start)
        found = (self._candidate(np.array(point)) for point in generation.points)
        texts = ["" if one is None else write_candidate(one, self._tags) for one in found]
        self._current = generation, texts
        self._count += 1
        self._settle()

    def _settle(self) -> None:
        """Update CMA-ES with the current generation if all its rewards are known."""
        if self._current is None or not all(text in self._cost for text in self._current[1]):
            return
        generation, texts = self._current
        costs = (self._cost[text] for text in texts)
        pairs = zip(map(np.array, generation.points), costs, strict=True)
        self._search.tell([*pairs])
        self._current = None

    def _begin(self, seed: int) -> None:
        """Start (again) at the point of a seed."""
        size = sum(len(place.elements) for place in places(self._space.grid)) + 1
        mean = np.random.default_rng(seed).normal(0, 0.5, size)
        self._search = cmaes_module().CMA(mean, _SIGMA, population_size=self._population, seed=seed)

    def _candidate(self, point: np.ndarray) -> Candidate | None:
        """The candidate of a point."""
        amounts = []
        for place in places(self._space.grid):
            here, point = point[: len(place.elements)], point[len(place.elements) :]
            shares = np.exp(_STEEP * (here - here.max()))
            amounts.append(dict(zip(place.elements, (shares / shares.sum()).tolist(), strict=True)))
        matrix, first, second = amounts
        for element in [*first]:  # an element is put on the site with more of it
            if element in second:
                del (second if first[element] >= second[element] else first)[element]
        if not first or not second:
            return None
        grids = [place.shares for place in places(self._space.grid)]
        pairs = zip((matrix, first, second), grids, strict=True)
        bcc, one, other = (closest(*pair) for pair in pairs)
        volumes = self._space.volumes
        step = min(int(len(volumes) / (1 + np.exp(-float(point[0])))), len(volumes) - 1)
        return self._space.candidate(bcc, one, other, volumes[step])


def cmaes_module() -> Any:
    """The package cmaes; ImportError saying how to install it."""
    try:
        import cmaes
    except ImportError as error:
        raise ImportError('cmaes is not installed: run pip install "crystaljax[alloy]"') from error
    return cmaes
