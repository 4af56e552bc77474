"""The grid of candidates for searches without a model, and random draws from it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from math import comb
from typing import Any

import numpy as np

from crystaljax.alloys.composition import TAGS, Candidate, Tags, fractions, write_candidate
from crystaljax.alloys.grid import GridConfig, Shares

_PATIENCE = 10_000  # draws in a row without a new candidate before giving up


@dataclass(frozen=True)
class Listed:
    """Compositions (amounts of elements) of both phases, such as those known to be single-phase."""

    bcc: tuple[Mapping[str, float], ...]
    b2: tuple[Mapping[str, float], ...]

    def nearest(
        self, bcc: Mapping[str, float], b2: Mapping[str, float]
    ) -> tuple[Mapping[str, float], Mapping[str, float]]:
        """The listed compositions that are nearest to given ones, by their fractions of atoms."""
        return _nearest(self.bcc, bcc), _nearest(self.b2, b2)


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
    listed: Listed | None = None
    """Compositions that candidates are held to: the nearest takes the place of one of the grid."""

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

        Elements are in the order of the space, so that equal candidates are the same text. With
        `listed`, it has the nearest compositions of the lists.
        """
        if first.keys() & second.keys():
            return None
        roles = self.grid.roles
        b2 = self.grid.occupied(first, second)
        sites = dict.fromkeys((*roles.first_site, *roles.second_site))
        matrix: Mapping[str, float] = {e: bcc[e] for e in roles.bcc if e in bcc}
        precipitate: Mapping[str, float] = {e: b2[e] for e in sites if e in b2}
        if self.listed is not None:
            matrix, precipitate = self.listed.nearest(matrix, precipitate)
        return Candidate(matrix, precipitate, volume)


def random_candidates(space: Space, n: int, rng: np.random.Generator) -> list[Candidate]:
    """n different candidates, or all if the grid has fewer.

    Every BCC composition of the grid, every occupation of the B2's sites and every volume are
    equally likely; of a space with lists, every composition of them.
    """
    return new_candidates(space, n, rng, set())


def new_candidates(
    space: Space, n: int, rng: np.random.Generator, known: set[str], tags: Tags = TAGS
) -> list[Candidate]:
    """The same as `random_candidates`, without the texts `known`, which have these tags."""
    found: dict[str, Candidate] = {}
    seen = set()  # points drawn before: a draw is cheaper than writing a candidate
    idle = 0
    while len(found) < n and idle < _PATIENCE:
        idle += 1
        point = _point(space, rng)
        if point in seen:
            continue
        seen.add(point)
        candidate = _candidate(space, point)
        if candidate is None:
            continue
        text = write_candidate(candidate, tags)
        if text not in known and text not in found:
            found[text] = candidate
            idle = 0
    return list(found.values())


def _point(space: Space, rng: np.random.Generator) -> tuple[Any, ...]:
    """A random point of a space: compositions of both phases, or their places in the lists."""
    grid, roles, listed = space.grid, space.grid.roles, space.listed
    phases: tuple[Any, ...]
    if listed is None:
        phases = (
            _draw(roles.bcc, grid.bcc_shares, rng),
            _draw(roles.first_site, grid.first_shares, rng),
            _draw(roles.second_site, grid.second_shares, rng),
        )
    else:
        phases = int(rng.integers(len(listed.bcc))), int(rng.integers(len(listed.b2)))
    return *phases, space.volumes[rng.integers(len(space.volumes))]


def _candidate(space: Space, point: tuple[Any, ...]) -> Candidate | None:
    """The candidate of a point; None if an element is on both sites."""
    if space.listed is None:
        bcc, first, second, volume = point
        return space.candidate(dict(bcc), dict(first), dict(second), volume)
    matrix, precipitate, volume = point
    return Candidate(space.listed.bcc[matrix], space.listed.b2[precipitate], volume)


def _nearest(
    listed: Sequence[Mapping[str, float]], amounts: Mapping[str, float]
) -> Mapping[str, float]:
    """The listed composition nearest to one, by the squares of the fractions' differences."""
    wanted = fractions(amounts)

    def distance(one: Mapping[str, float]) -> float:
        known = fractions(one)
        return sum((known.get(e, 0.0) - wanted.get(e, 0.0)) ** 2 for e in {*known, *wanted})

    return min(listed, key=distance)


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
