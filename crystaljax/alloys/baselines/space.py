"""The grid of candidates for searches without a model, and random draws from it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property
from math import comb

import numpy as np

from crystaljax.alloys.composition import TAGS, Candidate, Tags, write_candidate
from crystaljax.alloys.grid import GridConfig, Shares

_PATIENCE = 10_000  # draws in a row without a new candidate before giving up


@dataclass(frozen=True)
class Space:
    """Candidates on a grid, as in appendix A.1.1 of arXiv 2511.12036.

    ValueError for volumes out of range.
    """

    grid: GridConfig = field(default_factory=GridConfig)
    """Both phases."""
    volume_range: tuple[float, float] = (0.20, 0.70)
    """Least and largest B2 volume fraction."""
    volume_step: float = 0.01
    """Step of the B2 volume fraction."""

    def __post_init__(self) -> None:
        low, high = self.volume_range
        if not 0 < low <= high < 1 or not self.volume_step > 0:
            raise ValueError(
                f"B2 volumes must be fractions between 0 and 1 in steps above 0, not"
                f" {self.volume_range} in steps of {self.volume_step}"
            )

    @cached_property
    def volumes(self) -> tuple[float, ...]:
        """B2 volumes in per cent, ascending."""
        low, high = self.volume_range
        n = int((high - low) / self.volume_step + 1e-6) + 1
        return tuple(round(100 * (low + i * self.volume_step), 4) for i in range(n))

    def candidate(
        self,
        bcc: dict[str, float],
        first: dict[str, float],
        second: dict[str, float],
        volume: float,
    ) -> Candidate | None:
        """The candidate with these shares on each sublattice; None if an element is on both.

        Elements are in the order of the space, so that equal candidates are the same text.
        """
        if first.keys() & second.keys():
            return None
        roles = self.grid.roles
        b2 = self.grid.occupied(first, second)
        sites = dict.fromkeys((*roles.first_site, *roles.second_site))
        return Candidate(
            {element: bcc[element] for element in roles.bcc if element in bcc},
            {element: b2[element] for element in sites if element in b2},
            volume,
        )


def random_candidates(space: Space, n: int, rng: np.random.Generator) -> list[Candidate]:
    """n different candidates, or all if the grid has fewer.

    Every BCC composition of the grid, every occupation of the B2's sites and every volume are
    equally likely.
    """
    return new_candidates(space, n, rng, set())


def new_candidates(
    space: Space, n: int, rng: np.random.Generator, known: set[str], tags: Tags = TAGS
) -> list[Candidate]:
    """The same as `random_candidates`, without the texts `known`, which have these tags."""
    grid, roles = space.grid, space.grid.roles
    found: dict[str, Candidate] = {}
    seen = set()  # points drawn before: a draw is cheaper than writing a candidate
    idle = 0
    while len(found) < n and idle < _PATIENCE:
        idle += 1
        point = (
            _draw(roles.bcc, grid.bcc_shares, rng),
            _draw(roles.first_site, grid.first_shares, rng),
            _draw(roles.second_site, grid.second_shares, rng),
            space.volumes[rng.integers(len(space.volumes))],
        )
        if point in seen:
            continue
        seen.add(point)
        bcc, first, second, volume = point
        candidate = space.candidate(dict(bcc), dict(first), dict(second), volume)
        if candidate is None:
            continue
        text = write_candidate(candidate, tags)
        if text not in known and text not in found:
            found[text] = candidate
            idle = 0
    return list(found.values())


def _draw(
    elements: Sequence[str],
    grids: Shares,
    rng: np.random.Generator,
) -> tuple[tuple[str, float], ...]:
    """Some of the elements, with shares; every point of the grid is equally likely."""
    sizes = [comb(len(elements), i) * len(grid) for i, grid in enumerate(grids, 1)]
    place = rng.integers(sum(sizes))
    size = int(np.searchsorted(np.cumsum(sizes), place, side="right"))
    chosen = sorted(rng.permutation(len(elements))[: size + 1].tolist())
    point = grids[size][int(rng.integers(len(grids[size])))]
    return tuple((elements[i], share) for i, share in zip(chosen, point, strict=True))
