"""Encoding of candidates as search parameters: slots with an element and an amount each."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from crystaljax.alloys.baselines.space import Space
from crystaljax.alloys.composition import Candidate, fractions
from crystaljax.alloys.grid import GridConfig, Shares


class Place(NamedTuple):
    """Part of a candidate with its own composition: the matrix, or a site of the precipitate."""

    name: str
    elements: tuple[str, ...]
    shares: Shares
    most: int
    """Largest amount in a slot."""


def places(grid: GridConfig) -> list[Place]:
    """The matrix and both sites."""
    roles, parts, site_parts = grid.roles, max(grid.parts), max(grid.site_parts)
    return [
        Place("bcc", roles.bcc, grid.bcc_shares, parts),
        Place("first", roles.first_site, grid.first_shares, site_parts),
        Place("second", roles.second_site, grid.second_shares, site_parts),
    ]


def distributions(space: Space, of: Any) -> dict[str, Any]:
    """Distributions of the parameters of a candidate; `of`: optuna's module `distributions`."""
    found: dict[str, Any] = {}
    for name, elements, shares, most in places(space.grid):
        for n in range(len(shares)):
            found[f"{name}_{n}"] = of.CategoricalDistribution(elements)
            if len(shares) > 1:
                found[f"{name}_amount_{n}"] = of.IntDistribution(0, most)
    found["volume"] = of.IntDistribution(0, len(space.volumes) - 1)
    return found


def candidate_at(space: Space, parameters: Mapping[str, Any]) -> Candidate | None:
    """The candidate of a point of the search; None if an element is on both sites."""
    chosen = []
    for name, _, shares, _ in places(space.grid):
        amounts: dict[str, float] = {}
        for n in range(len(shares)):
            element = parameters[f"{name}_{n}"]
            amounts[element] = amounts.get(element, 0.0) + parameters.get(f"{name}_amount_{n}", 1)
        chosen.append(closest(amounts, shares))
    bcc, first, second = chosen
    return space.candidate(bcc, first, second, space.volumes[parameters["volume"]])


def parameters_of(space: Space, candidate: Candidate) -> dict[str, Any] | None:
    """Parameters whose candidate is close to a given one; None if there are none.

    There are none if the candidate has more elements than slots, elements with other roles, or an
    element of both sites whose site is ambiguous.
    """
    matrix, first, second = places(space.grid)
    b2 = fractions(candidate.b2)
    sites = _sites(b2, first.elements, second.elements, space.grid.site_ratio)
    if sites is None:
        return None
    found: dict[str, Any] = {}
    for place, amounts in (
        (matrix, fractions(candidate.bcc)),
        (first, sites[0]),
        (second, sites[1]),
    ):
        n_slots = len(place.shares)
        if not 0 < len(amounts) <= n_slots or not amounts.keys() <= set(place.elements):
            return None
        total = sum(amounts.values())
        pairs = [(e, max(round(place.most * x / total), 1)) for e, x in amounts.items()]
        pairs += [(pairs[0][0], 0)] * (n_slots - len(pairs))
        for n, (element, amount) in enumerate(pairs):
            found[f"{place.name}_{n}"] = element
            if n_slots > 1:
                found[f"{place.name}_amount_{n}"] = amount
    near = np.abs(np.array(space.volumes) - candidate.b2_volume)
    return found | {"volume": int(near.argmin())}


def _sites(
    amounts: Mapping[str, float], first: Sequence[str], second: Sequence[str], ratio: int
) -> tuple[dict[str, float], dict[str, float]] | None:
    """Elements of both sublattices, such that the first one has its share of the atoms."""
    share = ratio / (ratio + 1)
    best: tuple[float, tuple[dict[str, float], dict[str, float]] | None] = (np.inf, None)
    elements = list(amounts)
    for mask in range(1, 2 ** len(elements) - 1):
        on = [e for n, e in enumerate(elements) if mask >> n & 1]
        off = [e for e in elements if e not in on]
        if set(on) <= set(first) and set(off) <= set(second):
            wrong = abs(sum(amounts[e] for e in on) - share)
            if wrong < best[0] - 1e-9:
                best = wrong, ({e: amounts[e] for e in on}, {e: amounts[e] for e in off})
    return best[1]


def closest(amounts: Mapping[str, float], grids: Shares) -> dict[str, float]:
    """The shares on the grid that are closest to some amounts; equal amounts if all are zero."""
    used = {element: amount for element, amount in amounts.items() if amount > 0}
    elements = sorted(used, key=used.__getitem__, reverse=True) or sorted(amounts)
    target = np.array([used.get(element, 1.0) for element in elements])
    target /= target.sum()
    best: tuple[float, tuple[float, ...]] = (np.inf, ())
    for n, grid in enumerate(grids[: len(elements)], 1):
        points = np.array(grid).reshape(-1, n)
        wrong = np.square(points / points.sum(1, keepdims=True) - target[:n]).sum(axis=1)
        wrong += np.square(target[n:]).sum()
        if len(wrong) and wrong.min() < best[0]:
            best = float(wrong.min()), grid[int(wrong.argmin())]
    return dict(zip(elements, best[1], strict=False))
