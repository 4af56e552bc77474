"""The grid of candidates that searches without a model look through, and random draws from it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import combinations, pairwise
from math import comb

import numpy as np

from crystaljax.alloys.composition import Candidate
from crystaljax.composition import atomic_number

_PATIENCE = 10_000  # draws in a row that bring nothing new, after which none is thought to be left


@dataclass(frozen=True)
class Space:
    """Candidates on a grid, as in appendix A.1.1 of arXiv 2511.12036.

    The paper's steps are not known here: all are options. ValueError: elements that are unknown or
    named twice, no element, numbers out of range.
    """

    bcc_elements: tuple[str, ...] = ("Co", "Cr", "Ni")
    """Elements of the BCC."""
    first_site: tuple[str, ...] = ("Al",)
    """Elements of one sublattice of the B2."""
    second_site: tuple[str, ...] = ("Co", "Cr", "Ni")
    """Elements of the other; none is on both in one candidate."""
    most_bcc: int = 3
    """Most elements of the BCC."""
    most_site: int = 2
    """Most elements of a sublattice."""
    parts: tuple[int, ...] = (10,)
    """Denominators of BCC compositions: (10,) is steps of 10 %, (2, 3) halves and thirds; in whole
    per cent."""
    site_parts: tuple[int, ...] = (2,)
    """Those of a sublattice: (2,) is equal shares of two elements, (4,) steps of a quarter."""
    volume_range: tuple[float, float] = (0.20, 0.70)
    """Least and largest B2 volume fraction."""
    volume_step: float = 0.01
    """Step of the B2 volume fraction."""

    def __post_init__(self) -> None:
        for name in ("bcc_elements", "first_site", "second_site"):
            elements = getattr(self, name)
            if not elements or len(set(elements)) < len(elements):
                raise ValueError(f"{name} must be different elements, not {elements}")
            for element in elements:
                atomic_number(element)
        if len({*self.first_site, *self.second_site}) < 2:
            raise ValueError(f"both sites of the B2 have {self.first_site[0]} alone: name another")
        for name in ("most_bcc", "most_site"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} must be at least 1, not {getattr(self, name)}")
        for name in ("parts", "site_parts"):
            if not getattr(self, name) or not all(1 <= n <= 100 for n in getattr(self, name)):
                raise ValueError(f"{name} must be numbers from 1 to 100, not {getattr(self, name)}")
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

    @cached_property
    def bcc_grids(self) -> tuple[tuple[tuple[float, ...], ...], ...]:
        """Shares, in per cent, of 1, 2, ... elements of the BCC."""
        most = min(self.most_bcc, len(self.bcc_elements))
        return tuple(
            tuple(dict.fromkeys(map(_whole, shares(self.parts, n)))) for n in range(1, most + 1)
        )

    @cached_property
    def first_grids(self) -> tuple[tuple[tuple[float, ...], ...], ...]:
        """Shares of 1, 2, ... elements of the first sublattice."""
        return self._site_grids(len(self.first_site))

    @cached_property
    def second_grids(self) -> tuple[tuple[tuple[float, ...], ...], ...]:
        """Those of the second."""
        return self._site_grids(len(self.second_site))

    def _site_grids(self, n_elements: int) -> tuple[tuple[tuple[float, ...], ...], ...]:
        most = min(self.most_site, n_elements)
        return tuple(tuple(shares(self.site_parts, n)) for n in range(1, most + 1))

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
        b2 = first | second
        sites = dict.fromkeys((*self.first_site, *self.second_site))
        return Candidate(
            {element: bcc[element] for element in self.bcc_elements if element in bcc},
            {element: b2[element] for element in sites if element in b2},
            volume,
        )


def shares(parts: Sequence[int], n: int) -> list[tuple[float, ...]]:
    """All shares above zero of n elements with one of the denominators; no shares twice."""
    found: dict[tuple[float, ...], None] = {}
    for whole in parts:
        for cuts in combinations(range(1, whole), n - 1):
            edges = (0, *cuts, whole)
            found[tuple((b - a) / whole for a, b in pairwise(edges))] = None
    return list(found)


def _whole(of: tuple[float, ...]) -> tuple[float, ...]:
    """Shares in whole per cent; the last takes what is left: thirds are 33, 33 and 34."""
    first = [float(round(100 * share)) for share in of[:-1]]
    return (*first, 100.0 - sum(first))


def random_candidates(space: Space, n: int, rng: np.random.Generator) -> list[Candidate]:
    """n different candidates, or all if the grid has fewer.

    Every BCC composition of the grid, every occupation of the B2's sites and every volume are
    equally likely.
    """
    return new_candidates(space, n, rng, set())


def new_candidates(
    space: Space, n: int, rng: np.random.Generator, known: set[str]
) -> list[Candidate]:
    """As `random_candidates`, none of them among the texts `known`."""
    found: dict[str, Candidate] = {}
    seen = set()  # points that were drawn before: to write a candidate takes longer than a draw
    idle = 0
    while len(found) < n and idle < _PATIENCE:
        idle += 1
        point = (
            _draw(space.bcc_elements, space.bcc_grids, rng),
            _draw(space.first_site, space.first_grids, rng),
            _draw(space.second_site, space.second_grids, rng),
            space.volumes[rng.integers(len(space.volumes))],
        )
        if point in seen:
            continue
        seen.add(point)
        bcc, first, second, volume = point
        candidate = space.candidate(dict(bcc), dict(first), dict(second), volume)
        if candidate is not None and (text := str(candidate)) not in known and text not in found:
            found[text] = candidate
            idle = 0
    return list(found.values())


def _draw(
    elements: Sequence[str],
    grids: Sequence[Sequence[tuple[float, ...]]],
    rng: np.random.Generator,
) -> tuple[tuple[str, float], ...]:
    """Some of the elements, with shares; every point of the grid is equally likely."""
    sizes = [comb(len(elements), i) * len(grid) for i, grid in enumerate(grids, 1)]
    place = rng.integers(sum(sizes))
    size = int(np.searchsorted(np.cumsum(sizes), place, side="right"))
    chosen = sorted(rng.permutation(len(elements))[: size + 1].tolist())
    point = grids[size][int(rng.integers(len(grids[size])))]
    return tuple((elements[i], share) for i, share in zip(chosen, point, strict=True))
