"""Gibbs energy minima of one set of elements at many temperatures, by pycalphad.

One solve from a sampled grid is silently wrong at some points: the sampler misses weakly ordered
states, and a state of exactly equal sublattices is stationary, so the solver does not leave it. So
every solution is tested: nothing may lie below the plane of its chemical potentials, neither a
state found at another temperature, nor its own ordered phases ordered a little more, less or
otherwise, nor any point of the grid. What does starts the next solve.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from crystaljax.alloys.database import VACANCY, AlloyDatabase, substitutional_pair
from crystaljax.alloys.sampling import Ordering, Points, Surface, from_light_dataset

PRESSURE = 101325.0
"""Pa."""

_DRIVING_FORCE = 0.5  # J/mol: a point further below the plane than this shows a wrong minimum
_NEAR = 4000.0  # J/mol: how far above the plane a phase's lowest point is worth a closer look
_APART = (0.05, 0.15)  # of mole fractions: from stable states, and between two closer looks
_LOOKS = 2  # points of a phase that are looked at more closely
_ROUNDS = 4
_GAIN = 1e-3  # J/mol: what a new solution must be lower by
_SAME_SET = 2e-3  # largest difference of site fractions within one composition set
_NEIGHBOURS = 6  # temperatures whose phases a lost one is started from
_BALANCE = 1e-5  # largest error of the mass balance


@dataclass(frozen=True)
class Minimum:
    """The equilibrium at one temperature; if no solve converged its energy is nan."""

    energy: float
    """J/mol of atoms."""
    potentials: np.ndarray
    """[E]: chemical potentials of the system's elements in J/mol."""
    phases: tuple[str, ...]
    """Names; a phase with a miscibility gap occurs several times."""
    fractions: np.ndarray
    """[P]: moles of atoms in each phase, of one mole."""
    compositions: np.ndarray
    """[P, E]: mole fractions."""
    sites: tuple[np.ndarray, ...]
    """Site fractions of each phase, in the order of its model."""


class System:
    """The phases of one set of elements, compiled once and sampled at fixed temperatures."""

    def __init__(
        self,
        database: AlloyDatabase,
        elements: Sequence[str],
        temperatures: np.ndarray,
        density: int = 40,
    ) -> None:
        """`density`: points of the grid a degree of freedom; temperatures [T] in K."""
        from pycalphad import Model
        from pycalphad import variables as v
        from pycalphad.codegen.phase_record_factory import PhaseRecordFactory
        from pycalphad.core.utils import filter_phases, instantiate_models, unpack_species

        self.elements = tuple(sorted(element.upper() for element in elements))
        self.temperatures = np.asarray(temperatures, float)
        self._density = density
        self._source = database.source
        self._names = [*self.elements, VACANCY]
        usable = filter_phases(self._source, unpack_species(self._source, self._names))
        self.phases = [name for name in usable if not name.startswith("GAS")]
        self.models = instantiate_models(self._source, self._names, self.phases, model=Model)
        state = OrderedDict([(v.N, 1.0), (v.P, PRESSURE), (v.T, 300.0)])
        self._records = PhaseRecordFactory(self._source, self._names, state, self.models)
        self._grids: dict[int, Points] = {}
        self._surfaces = {
            name: Surface(self._records[name], _sublattices(model), (1.0, PRESSURE))
            for name, model in self.models.items()
            if len(model.site_fractions) > len(model.constituents)
        }
        self.orderings = {
            name: ordering
            for name in self.phases
            if (ordering := _ordering(self._source.phases[name], self.models[name])) is not None
        }

    def solve(self, composition: Sequence[float]) -> list[Minimum]:
        """Equilibria at all temperatures of a composition [E], in the order of `elements`.

        The mole fractions must be above zero: leave absent elements out of the system.
        """
        x = np.asarray(composition, float)
        rows = np.arange(len(self.temperatures))
        grid = self._grid(self._density)
        minima = self._equilibria(x, grid, rows)
        self._improve(x, minima, grid)
        lost = rows[[_failed(minimum) for minimum in minima]]
        if len(lost):
            finer = self._grid(2 * self._density + 1)
            found = self._equilibria(x, finer.at(lost), lost)
            for row, minimum in zip(lost, found, strict=True):
                minima[row] = self._continued(x, minima, row) if _failed(minimum) else minimum
            self._improve(x, minima, grid)
        return [self._merged(minimum) for minimum in minima]

    def _improve(self, x: np.ndarray, minima: list[Minimum], grid: Points) -> None:
        """Replace minima that are wrong, as long as better ones are found."""
        fresh = set(range(len(minima)))
        probes = {
            name: ordering.at(self._occupation(x, ordering))
            for name, ordering in self.orderings.items()
        }
        for _ in range(_ROUNDS):
            if all(_failed(minimum) for minimum in minima):
                return
            known = [row for row in sorted(fresh) if not _failed(minima[row])]
            pool = self._sample(_joined(probes, self._probes(minima)))
            hidden = [self._hidden(minima, known, source) for source in (grid, pool)]
            if found := _joined(*hidden):
                own = np.arange(len(self.elements), len(pool.names))
                pool = self._sample(found).with_phases_of(pool, own)
                probes = _joined(probes, found)
            suspects = [
                row
                for row, minimum in enumerate(minima)
                if _below(pool, row, minimum.potentials)
                or (row in fresh and _below(grid, row, minimum.potentials))
            ]
            if not suspects:
                return
            rows = np.array(suspects)
            extra = np.unique(np.concatenate([_lowest(grid, row, minima) for row in suspects]))
            start = pool.with_phases_of(grid, extra).at(rows)
            fresh = set()
            for row, better in zip(suspects, self._equilibria(x, start, rows), strict=True):
                if not better.energy > minima[row].energy - _GAIN and not _failed(better):
                    minima[row] = better
                    fresh.add(row)
            if not fresh:
                return

    def _hidden(
        self, minima: list[Minimum], rows: list[int], grid: Points
    ) -> dict[str, np.ndarray]:
        """Phase name -> states [P, S] near planes, where the grid's points are too far apart.

        Of each phase the grid's lowest points away from the stable states, moved downwards.
        """
        seeds: dict[str, list[tuple[int, int]]] = {}
        for row in rows:
            force = grid.driving_force(row, minima[row].potentials)
            for name, part in grid.slices.items():
                if force[part].max() < -_NEAR or name not in self._surfaces:
                    continue
                stable = [
                    sites
                    for phase, sites in zip(minima[row].phases, minima[row].sites, strict=True)
                    if phase == name
                ]
                width = self._surfaces[name].sublattices[-1].stop
                chosen = _apart(force[part], grid.sites[part, :width], stable)
                if chosen:
                    seeds.setdefault(name, []).extend((row, part.start + n) for n in chosen)
        found = {}
        for name, pairs in seeds.items():
            at, points = np.array(pairs).T
            surface = self._surfaces[name]
            potentials = np.array([minima[row].potentials for row in at])
            state = grid.sites[points, : surface.sublattices[-1].stop], self.temperatures[at]
            refined = surface.refined(*state, potentials)
            force = surface.driving_force(refined, state[1], potentials)
            if (force > _DRIVING_FORCE).any():
                found[name] = refined[force > _DRIVING_FORCE]
        return found

    def _occupation(self, x: np.ndarray, ordering: Ordering) -> np.ndarray:
        """Mole fractions [E] -> the mean occupation [K] of sublattices that order."""
        shares = dict(zip(self.elements, x, strict=True))
        mean = np.array([shares.get(name, 0.0) for name in ordering.constituents])
        return mean / max(mean.sum(), 1e-9)

    def _equilibria(self, x: np.ndarray, grid: Points, rows: np.ndarray) -> list[Minimum]:
        """Solve from the lowest points of a grid that is given at the temperatures `rows`."""
        from pycalphad.core.eqsolver import _solve_eq_at_conditions
        from pycalphad.core.starting_point import starting_point

        ordered = self._conditions(x, self.temperatures[rows].tolist())
        state = self._records.state_variables
        light = grid.light_dataset()
        start = starting_point(ordered, state, self._records, light)
        result = _solve_eq_at_conditions(
            start, self._records, light, list(ordered), state, verbose=False
        )
        shape = (len(rows), *result.NP.shape[-1:])
        energy, potentials = result.GM.reshape(-1), result.MU.reshape(len(rows), -1)
        names, amounts = result.Phase.reshape(shape), result.NP.reshape(shape)
        compositions = result.X.reshape(*shape, -1)
        sites = result.Y.reshape(*shape, -1)
        return [
            self._minimum(x, *row)
            for row in zip(energy, potentials, names, amounts, compositions, sites, strict=True)
        ]

    def _continued(self, x: np.ndarray, minima: list[Minimum], row: int) -> Minimum:
        """The lowest of what the solver finds from the phases of other temperatures, near first."""
        from pycalphad.core.composition_set import CompositionSet
        from pycalphad.core.solver import Solver

        conditions = self._conditions(x, [self.temperatures[row]])
        values = {key: value[0] for key, value in conditions.items()}
        state = np.array([values[key] for key in self._records.state_variables])
        best = minima[row]
        others = [n for n, minimum in enumerate(minima) if not _failed(minimum)]
        for n in sorted(others, key=lambda n: abs(n - row))[:_NEIGHBOURS]:
            sets = []
            for name, amount, sites in zip(
                minima[n].phases, minima[n].fractions, minima[n].sites, strict=True
            ):
                sets.append(CompositionSet(self._records[name]))
                sets[-1].update(np.ascontiguousarray(sites), amount, state)
            result = Solver().solve(sets, values)
            if not result.converged:
                continue
            amounts = np.array([one.NP for one in sets])
            found = Minimum(
                float(sum(one.NP * one.energy for one in sets)),
                np.array(result.chemical_potentials),
                tuple(one.phase_record.phase_name for one in sets),
                amounts,
                np.array([one.X for one in sets]),
                tuple(np.array(one.dof)[len(state) :] for one in sets),
            )
            balanced = np.abs(amounts @ found.compositions - x).max() < _BALANCE
            if balanced and not found.energy >= best.energy:
                best = found
        return best

    def _conditions(self, x: np.ndarray, temperatures: list[float]) -> OrderedDict[Any, Any]:
        """What is fixed, as the solver takes it; the largest mole fraction follows from others."""
        from pycalphad import variables as v

        dependent = int(np.argmax(x))
        conditions = {v.N: [1.0], v.P: [PRESSURE], v.T: temperatures}
        for n, element in enumerate(self.elements):
            if n != dependent:
                conditions[v.X(element)] = [float(x[n])]
        return OrderedDict(sorted(conditions.items(), key=lambda item: str(item[0])))

    def _minimum(self, x: np.ndarray, energy: float, *arrays: np.ndarray) -> Minimum:
        """One temperature of the solver's arrays; what breaks the mass balance is no minimum."""
        potentials, names, amounts, compositions, sites = arrays
        real = np.flatnonzero(names != "")
        found = Minimum(
            float(energy),
            potentials.copy(),
            tuple(names[real].tolist()),
            amounts[real].copy(),
            compositions[real].copy(),
            tuple(sites[n, : len(self.models[names[n]].site_fractions)].copy() for n in real),
        )
        error = np.abs(found.fractions @ found.compositions - x).max() if len(real) else np.inf
        return found if error < _BALANCE else replace(found, energy=np.nan)

    def _probes(self, minima: list[Minimum]) -> dict[str, np.ndarray]:
        """Phase name -> site fractions [P, S] to be tested at every temperature."""
        found: dict[str, dict[bytes, np.ndarray]] = {}
        for minimum in minima:
            if _failed(minimum):
                continue
            for name, sites in zip(minimum.phases, minimum.sites, strict=True):
                found.setdefault(name, {})[np.round(sites, 3).tobytes()] = sites
        probes = {}
        for name, distinct in found.items():
            points = list(distinct.values())
            if name in self.orderings:
                points = [
                    *points,
                    *np.concatenate([self.orderings[name].ordered(y) for y in points]),
                ]
            probes[name] = np.array(points)
        return probes

    def _grid(self, density: int) -> Points:
        """pycalphad's own sample of all phases, and nearly disordered states of some."""
        if density not in self._grids:
            sample = self._sample(None, density)
            near = {name: order.disordered(density) for name, order in self.orderings.items()}
            if near:
                own = np.arange(len(self.elements), len(sample.names))
                sample = self._sample(near).with_phases_of(sample, own)
            self._grids[density] = sample
        return self._grids[density]

    def _sample(self, points: dict[str, np.ndarray] | None, density: int = 1) -> Points:
        """Energies of some phases' points, or of all phases' own grids, at all temperatures."""
        from pycalphad import calculate

        grid = calculate(
            self._source,
            self._names,
            self.phases if points is None else sorted(points),
            model=self.models,
            phase_records=self._records,
            fake_points=True,
            to_xarray=False,
            points=points,
            pdens=density,
            N=1,
            P=PRESSURE,
            T=self.temperatures.tolist(),
        )
        return from_light_dataset(grid)

    def _merged(self, minimum: Minimum) -> Minimum:
        """The same minimum with each composition set once."""
        if _failed(minimum):
            return minimum
        sites = [self._standard(*pair) for pair in zip(minimum.phases, minimum.sites, strict=True)]
        kept: list[int] = []
        amounts = minimum.fractions.copy()
        for n in np.argsort(-amounts):
            for m in kept:
                same = minimum.phases[n] == minimum.phases[m]
                if same and np.abs(sites[n] - sites[m]).max() < _SAME_SET:
                    amounts[m] += amounts[n]
                    break
            else:
                kept.append(int(n))
        return replace(
            minimum,
            phases=tuple(minimum.phases[n] for n in kept),
            fractions=amounts[kept],
            compositions=minimum.compositions[kept],
            sites=tuple(sites[n] for n in kept),
        )

    def _standard(self, name: str, sites: np.ndarray) -> np.ndarray:
        """Of the two ways to number equal sublattices the one whose first is larger."""
        ordering = self.orderings.get(name)
        if ordering is None or ordering.ratio != 1:
            return sites
        first, second = sites[ordering.first], sites[ordering.second]
        if tuple(np.round(first, 4)) >= tuple(np.round(second, 4)):
            return sites
        swapped = sites.copy()
        swapped[ordering.first], swapped[ordering.second] = second, first
        return swapped


def _failed(minimum: Minimum) -> bool:
    return bool(np.isnan(minimum.energy))


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


def _sublattices(model: Any) -> tuple[slice, ...]:
    """Of a phase's site fractions, those of each sublattice."""
    ends = np.cumsum([len(part) for part in model.constituents]).tolist()
    return tuple(slice(start, end) for start, end in zip([0, *ends[:-1]], ends, strict=True))


def _lowest(grid: Points, row: int, minima: list[Minimum]) -> np.ndarray:
    """Each phase's lowest point of the grid over the plane, a neighbour's where there is none."""
    known = [n for n, minimum in enumerate(minima) if not np.isnan(minimum.potentials).any()]
    nearest = min(known, key=lambda n: abs(n - row))
    force = grid.driving_force(row, minima[nearest].potentials)
    return np.array([part.start + int(np.argmax(force[part])) for part in grid.slices.values()])


def _ordering(phase: Any, model: Any) -> Ordering | None:
    """The sublattices that order, if the phase is the ordered one of a pair with two of them."""
    hints = phase.model_hints
    pair = substitutional_pair(phase) if hints.get("ordered_phase") == phase.name else None
    if pair is None:
        return None
    first, second = pair
    slices = _sublattices(model)
    ratio = float(phase.sublattices[first]) / float(phase.sublattices[second])
    constituents = tuple(str(name) for name in sorted(model.constituents[first]))
    return Ordering(slices[first], slices[second], ratio, slices[-1].stop, constituents)
