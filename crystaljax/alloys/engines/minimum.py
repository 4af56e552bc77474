"""Gibbs energy minima of one set of elements, by pycalphad's solver from a given start.

A single minimum may be wrong: `search.find_minima` tests and improves them.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from crystaljax.alloys.engines.database import (
    VACANCY,
    AlloyDatabase,
    substitutional_pair,
    usable_phases,
)
from crystaljax.alloys.engines.hull import lowest_simplices
from crystaljax.alloys.engines.sampling import (
    FICTITIOUS,
    Ordering,
    Points,
    Surface,
    from_light_dataset,
    from_parts,
)

PRESSURE = 101325.0
"""Pa."""

_SAME_SET = 2e-3  # largest difference of site fractions within one composition set
_NEIGHBOURS = 6  # temperatures whose phases a lost one is started from
_BALANCE = 1e-5  # largest error of the mass balance
_PACE = 2  # of the first solve
_SOLVES = 11  # of one point, each with a composition set more than the last
_LEAST_AMOUNT = 1e-6  # of a composition set that a solve starts from
_NEW_AMOUNT = 1e-6  # of one that joins
_LOWER = 1e-4  # J/mol: what lies this far below the plane joins
_DISTINCT = 1e-2  # site fractions by which a new set differs from one of the same phase


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
        from pycalphad.core.utils import instantiate_models

        self.elements = tuple(sorted(element.upper() for element in elements))
        self.temperatures = np.asarray(temperatures, float)
        self._density = density
        self._source = database.source
        self._names = [*self.elements, VACANCY]
        self.phases = usable_phases(self._source, self._names)
        self.models = instantiate_models(self._source, self._names, self.phases, model=Model)
        state = OrderedDict([(v.N, 1.0), (v.P, PRESSURE), (v.T, 300.0)])
        self._records = PhaseRecordFactory(self._source, self._names, state, self.models)
        self._grids: dict[int, Points] = {}
        self.surfaces = {
            name: Surface(self._records[name], _sublattices(model), (1.0, PRESSURE))
            for name, model in self.models.items()
        }
        self.orderings: dict[str, Ordering] = {
            name: ordering
            for name in self.phases
            if (ordering := _ordering(self._source.phases[name], self.models[name])) is not None
        }

    def equilibria(self, x: np.ndarray, grid: Points, rows: np.ndarray) -> list[Minimum]:
        """Solve from the lowest points of a grid that is given at the temperatures `rows`."""
        indices, amounts = lowest_simplices(x, grid.compositions, grid.energy)
        minima = []
        for n, row in enumerate(rows.tolist()):
            real = [
                (str(grid.names[i]), amount, grid.sites[i])
                for i, amount in zip(indices[n], amounts[n], strict=True)
                if grid.names[i] != FICTITIOUS
            ]
            minima.append(self._solved(x, real, row, grid.at(np.array([n]))))
        return minima

    def continued(self, x: np.ndarray, minima: list[Minimum], row: int) -> Minimum:
        """The lowest of what the solver finds from the phases of other temperatures, near first."""
        best = minima[row]
        others = [n for n, minimum in enumerate(minima) if not failed(minimum)]
        for n in sorted(others, key=lambda n: abs(n - row))[:_NEIGHBOURS]:
            best = lower(best, self._solved(x, _phases(minima[n]), row))
        return best

    def resumed(self, x: np.ndarray, minima: list[Minimum], grid: Points, row: int) -> Minimum:
        """Solve from a solution's own phases, which points of a grid below its plane join.

        `grid`: at this temperature alone. Without a solution see `continued`.
        """
        if failed(minima[row]):
            return self.continued(x, minima, row)
        return self._solved(x, _phases(minima[row]), row, grid)

    def _solved(
        self,
        x: np.ndarray,
        start: Sequence[tuple[str, float, np.ndarray]],
        row: int,
        grid: Points | None = None,
    ) -> Minimum:
        """The minimum that the solver finds from phases, amounts and site fractions.

        A point of the grid, given at this temperature alone, that lies below the plane of the
        solution joins it, and it is solved again. The lowest that converged counts: one with
        another phase may not.
        """
        from pycalphad.core.composition_set import CompositionSet

        from crystaljax.alloys.engines.solver import BoundedSolver

        conditions = self._conditions(x, [self.temperatures[row]])
        values = {key: value[0] for key, value in conditions.items()}
        state = np.array([values[key] for key in self._records.state_variables])
        lost = Minimum(np.nan, np.full(len(x), np.nan), (), np.zeros(0), np.zeros((0, len(x))), ())

        def composition_set(name: str, amount: float, sites: np.ndarray) -> Any:
            made = CompositionSet(self._records[name])
            width = made.phase_record.phase_dof
            made.update(np.ascontiguousarray(sites[:width]), amount, state)
            return made

        def state_of(sets: Sequence[Any], result: Any) -> Minimum:
            found = Minimum(
                float(sum(one.NP * one.energy for one in sets)),
                np.array(result.chemical_potentials),
                tuple(one.phase_record.phase_name for one in sets),
                np.array([one.NP for one in sets]),
                np.array([one.X for one in sets]),
                tuple(np.array(one.dof)[len(state) :] for one in sets),
            )
            balanced = np.abs(found.fractions @ found.compositions - x).max() < _BALANCE
            return found if balanced else lost

        total = sum(max(amount, _LEAST_AMOUNT) for _, amount, _ in start)

        def descended(solver: BoundedSolver) -> Minimum:
            sets = [composition_set(n, max(a, _LEAST_AMOUNT) / total, y) for n, a, y in start]
            best = lost
            for _ in range(_SOLVES):
                if not sets:
                    break
                result = solver.solve(sets, values)
                if result.converged and sets:
                    best = lower(best, state_of(sets, result))
                if grid is None:
                    break
                new = _below(sets, grid, np.array(result.chemical_potentials))
                if new is None:
                    break
                sets.append(composition_set(str(grid.names[new]), _NEW_AMOUNT, grid.sites[new]))
            return best

        best = descended(BoundedSolver(pace=_PACE))
        return descended(BoundedSolver()) if failed(best) else best

    def _conditions(self, x: np.ndarray, temperatures: list[float]) -> OrderedDict[Any, Any]:
        """Fixed conditions of the solver; the largest mole fraction follows from others."""
        from pycalphad import variables as v

        dependent = int(np.argmax(x))
        conditions = {v.N: [1.0], v.P: [PRESSURE], v.T: temperatures}
        for n, element in enumerate(self.elements):
            if n != dependent:
                conditions[v.X(element)] = [float(x[n])]
        return OrderedDict(sorted(conditions.items(), key=lambda item: str(item[0])))

    def grid(self, factor: int = 1) -> Points:
        """pycalphad's own sample of all phases, and nearly disordered states of some.

        `factor`: how many times as dense as usual.
        """
        if factor not in self._grids:
            density = factor * self._density
            sample = self.sample(density)
            near = {name: order.disordered(density) for name, order in self.orderings.items()}
            if near:
                own = np.arange(len(self.elements), len(sample.names))
                sample = self.points(near).with_phases_of(sample, own)
            self._grids[factor] = sample
        return self._grids[factor]

    def sample(self, density: int) -> Points:
        """pycalphad's own sample of all phases, at all temperatures."""
        from pycalphad import calculate

        grid = calculate(
            self._source,
            self._names,
            self.phases,
            model=self.models,
            phase_records=self._records,
            fake_points=True,
            to_xarray=False,
            pdens=density,
            N=1,
            P=PRESSURE,
            T=self.temperatures.tolist(),
        )
        return from_light_dataset(grid)

    def points(self, sites: Mapping[str, np.ndarray]) -> Points:
        """Site fractions [P, S] of some phases, at all temperatures."""
        n_elements = len(self.elements)
        parts = [
            (n, y, *self.surfaces[n].sampled(y, self.temperatures, n_elements))
            for n, y in sorted(sites.items())
        ]
        return from_parts(parts, n_elements, len(self.temperatures))

    def merged(self, minimum: Minimum) -> Minimum:
        """The same minimum with each composition set once."""
        if failed(minimum):
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


def _below(sets: Sequence[Any], grid: Points, potentials: np.ndarray) -> int | None:
    """The lowest point of a grid over a plane, if below it and unlike the composition sets."""
    force = grid.driving_force(0, potentials)
    lowest = int(np.argmax(force))
    name = grid.names[lowest]
    if not force[lowest] > _LOWER or name == FICTITIOUS:
        return None
    for one in sets:
        width = one.phase_record.phase_dof
        sites = np.asarray(one.dof)[-width:]
        near = one.phase_record.phase_name == name
        if near and np.abs(sites - grid.sites[lowest, :width]).max() <= _DISTINCT:
            return None
    return lowest


def _phases(minimum: Minimum) -> list[tuple[str, float, np.ndarray]]:
    """Name, amount and site fractions of each."""
    return [*zip(minimum.phases, minimum.fractions, minimum.sites, strict=True)]


def lower(first: Minimum, second: Minimum) -> Minimum:
    """The one of lower energy; the first if they are equal."""
    return first if failed(second) or second.energy >= first.energy else second


def failed(minimum: Minimum) -> bool:
    """Whether no solve converged."""
    return bool(np.isnan(minimum.energy))


def _sublattices(model: Any) -> tuple[slice, ...]:
    """Of a phase's site fractions, those of each sublattice."""
    ends = np.cumsum([len(part) for part in model.constituents]).tolist()
    return tuple(slice(start, end) for start, end in zip([0, *ends[:-1]], ends, strict=True))


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
