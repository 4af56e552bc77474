"""The true minima at all temperatures: every solution is tested, and improved where it fails.

One solve from a sampled grid is silently wrong at some points: the grid is too coarse for some
phases, and a state of exactly equal sublattices is stationary, so the solver does not leave it. So
nothing may lie below the plane of a solution's chemical potentials: no state found at another
temperature, no ordered phase ordered more, less or otherwise, no point of the grid and no state
below such a point. What does starts the next solve.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from crystaljax.alloys.engines.minimum import Minimum, System, failed
from crystaljax.alloys.engines.sampling import Ordering, Points

_DRIVING_FORCE = 0.5  # J/mol: a point further below the plane than this shows a wrong minimum
_NEAR = 4000.0  # J/mol: how far above the plane a phase's lowest point is worth a closer look
_APART = (0.05, 0.15)  # of site fractions: from stable states, and between two closer looks
_LOOKS = 3  # points of a phase that are looked at more closely
_ROUNDS = 4
_GAIN = 1e-3  # J/mol: what a new solution must be lower by


def find_minima(system: System, composition: Sequence[float]) -> list[Minimum]:
    """Equilibria at all of the system's temperatures, of mole fractions [E] of its elements.

    They must be above zero: leave absent elements out of the system. A temperature where nothing
    converges has the energy nan.
    """
    x = np.asarray(composition, float)
    rows = np.arange(len(system.temperatures))
    minima = system.equilibria(x, system.grid(), rows)
    for row in _lost(minima):
        minima[row] = system.continued(x, minima, row)
    improve(system, x, minima, rows)
    if len(lost := _lost(minima)):
        found = system.equilibria(x, system.grid(2).at(lost), lost)
        for row, minimum in zip(lost, found, strict=True):
            minima[row] = system.continued(x, minima, row) if failed(minimum) else minimum
        improve(system, x, minima, lost)
    return [system.merged(minimum) for minimum in minima]


def _lost(minima: list[Minimum]) -> np.ndarray:
    """The rows where no solve converged."""
    return np.flatnonzero([failed(minimum) for minimum in minima])


def improve(system: System, x: np.ndarray, minima: list[Minimum], rows: np.ndarray) -> None:
    """Replace the minima that are wrong, as long as better ones are found.

    `rows`: those that are new. The others are tested again by what is found from these.
    """
    grid = system.grid()
    fresh = set(rows.tolist())
    probes = {
        name: ordering.at(_occupation(system, x, ordering))
        for name, ordering in system.orderings.items()
    }
    for _ in range(_ROUNDS):
        if all(failed(minimum) for minimum in minima):
            return
        known = [row for row in sorted(fresh) if not failed(minima[row])]
        pool = system.points(_joined(probes, _states(minima)))
        hidden = [_hidden(system, minima, known, source) for source in (grid, pool)]
        if found := _joined(*hidden, _reordered(system, minima, known)):
            own = np.arange(len(system.elements), len(pool.names))
            pool = system.points(found).with_phases_of(pool, own)
            probes = _joined(probes, found)
        suspects = [
            row
            for row, minimum in enumerate(minima)
            if _below(pool, row, minimum.potentials)
            or (row in fresh and _below(grid, row, minimum.potentials))
        ]
        if not suspects:
            return
        suspected = np.array(suspects)
        extra = np.unique(np.concatenate([_lowest(grid, row, minima) for row in suspects]))
        start = pool.with_phases_of(grid, extra).at(suspected)
        fresh = set()
        for n, first in enumerate(system.equilibria(x, start, suspected)):
            row, better = suspects[n], first
            if not _gains(first, minima[row]):  # what shows it to be wrong did not lead on
                better = system.resumed(x, minima, start.at(np.array([n])), row)
            if _gains(better, minima[row]):
                minima[row] = better
                fresh.add(row)
        if not fresh:
            return


def _gains(better: Minimum, minimum: Minimum) -> bool:
    """Whether a solution is lower than another, or the only one."""
    return not (failed(better) or better.energy > minimum.energy - _GAIN)


def _hidden(
    system: System, minima: list[Minimum], rows: list[int], grid: Points
) -> dict[str, np.ndarray]:
    """Phase name -> states [P, S] near planes, where the grid's points are too far apart.

    Of each phase the grid's lowest points away from the stable states, moved downwards.
    """
    seeds: dict[str, list[tuple[int, int]]] = {}
    for row in rows:
        force = grid.driving_force(row, minima[row].potentials)
        for name, part in grid.slices.items():
            if force[part].max() < -_NEAR or system.surfaces[name].rigid:
                continue
            stable = [
                sites
                for phase, sites in zip(minima[row].phases, minima[row].sites, strict=True)
                if phase == name
            ]
            width = system.surfaces[name].sublattices[-1].stop
            chosen = _apart(force[part], grid.sites[part, :width], stable)
            if chosen:
                seeds.setdefault(name, []).extend((row, part.start + n) for n in chosen)
    found = {}
    for name, pairs in seeds.items():
        at, points = np.array(pairs).T
        surface = system.surfaces[name]
        potentials = np.array([minima[row].potentials for row in at])
        state = grid.sites[points, : surface.sublattices[-1].stop], system.temperatures[at]
        refined = surface.refined(*state, potentials)
        force = surface.driving_force(refined, state[1], potentials)
        if (force > _DRIVING_FORCE).any():
            found[name] = refined[force > _DRIVING_FORCE]
    return found


def _occupation(system: System, x: np.ndarray, ordering: Ordering) -> np.ndarray:
    """Mole fractions [E] -> the mean occupation [K] of sublattices that order."""
    shares = dict(zip(system.elements, x, strict=True))
    mean = np.array([shares.get(name, 0.0) for name in ordering.constituents])
    return mean / max(mean.sum(), 1e-9)


def _states(minima: list[Minimum]) -> dict[str, np.ndarray]:
    """Phase name -> the different site fractions [P, S] of all solutions."""
    found: dict[str, dict[bytes, np.ndarray]] = {}
    for minimum in minima:
        if not failed(minimum):
            for name, sites in zip(minimum.phases, minimum.sites, strict=True):
                found.setdefault(name, {})[np.round(sites, 3).tobytes()] = sites
    return {name: np.array([*distinct.values()]) for name, distinct in found.items()}


def _reordered(system: System, minima: list[Minimum], rows: list[int]) -> dict[str, np.ndarray]:
    """Phase name -> states [P, S] below a plane: a solution's, ordered more, less or otherwise."""
    found = {}
    for name, ordering in system.orderings.items():
        if system.surfaces[name].rigid:  # of a single element it has one state
            continue
        pairs = [
            (row, ordering.ordered(sites))
            for row in rows
            for phase, sites in zip(minima[row].phases, minima[row].sites, strict=True)
            if phase == name
        ]
        if not pairs:
            continue
        at = np.repeat([row for row, _ in pairs], [len(variants) for _, variants in pairs])
        variants = np.concatenate([variants for _, variants in pairs])
        potentials = np.array([minimum.potentials for minimum in minima])[at]
        temperatures = system.temperatures[at]
        force = system.surfaces[name].driving_force(variants, temperatures, potentials)
        if (force > _DRIVING_FORCE).any():
            found[name] = variants[force > _DRIVING_FORCE]
    return found


def _below(points: Points, row: int, potentials: np.ndarray) -> bool:
    """Whether a point lies below the plane; also where there is no plane."""
    return not points.driving_force(row, potentials).max() <= _DRIVING_FORCE


def _apart(force: np.ndarray, sites: np.ndarray, stable: list[np.ndarray]) -> list[int]:
    """The points of largest force, away from stable states and from each other."""
    near = np.flatnonzero(force > -_NEAR)
    force, sites = force[near], sites[near]
    for one in stable:
        force[np.abs(sites - one).max(axis=1) < _APART[0]] = -np.inf
    chosen: list[int] = []
    for _ in range(_LOOKS if len(near) else 0):
        best = int(np.argmax(force))
        if np.isneginf(force[best]):
            break
        chosen.append(int(near[best]))
        force[np.abs(sites - sites[best]).max(axis=1) < _APART[1]] = -np.inf
    return chosen


def _joined(*parts: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    names = sorted({name for part in parts for name in part})
    return {name: np.concatenate([p[name] for p in parts if name in p]) for name in names}


def _lowest(grid: Points, row: int, minima: list[Minimum]) -> np.ndarray:
    """Each phase's lowest point of the grid over the plane, a neighbour's where there is none."""
    known = [n for n, minimum in enumerate(minima) if not np.isnan(minimum.potentials).any()]
    nearest = min(known, key=lambda n: abs(n - row))
    force = grid.driving_force(row, minima[nearest].potentials)
    return np.array([part.start + int(np.argmax(force[part])) for part in grid.slices.values()])
