"""Gibbs energy minima of one set of elements, by pycalphad's solver from a given start.

A single minimum may be wrong: `search.find_minima` tests and improves them.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from crystaljax.alloys.engines.database import (
    VACANCY,
    AlloyDatabase,
    substitutional_pair,
    usable_phases,
)
from crystaljax.alloys.engines.sampling import Ordering, Points, Surface, from_light_dataset

PRESSURE = 101325.0
"""Pa."""

_SAME_SET = 2e-3  # largest difference of site fractions within one composition set
_NEIGHBOURS = 6  # temperatures whose phases a lost one is started from
_BALANCE = 1e-5  # largest error of the mass balance
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
            if len(model.site_fractions) > len(model.constituents)
        }
        self.orderings: dict[str, Ordering] = {
            name: ordering
            for name in self.phases
            if (ordering := _ordering(self._source.phases[name], self.models[name])) is not None
        }

    def equilibria(self, x: np.ndarray, grid: Points, rows: np.ndarray) -> list[Minimum]:
        """Solve from the lowest points of a grid that is given at the temperatures `rows`."""
        from pycalphad.core.starting_point import starting_point

        conditions = self._conditions(x, self.temperatures[rows].tolist())
        light = grid.light_dataset()
        start = starting_point(conditions, self._records.state_variables, self._records, light)
        shape = (len(rows), *start.NP.shape[-1:])
        names, amounts = start.Phase.reshape(shape), start.NP.reshape(shape)
        sites = start.Y.reshape(*shape, -1)
        minima = []
        for n, row in enumerate(rows.tolist()):
            real = [i for i, name in enumerate(names[n]) if name not in ("", "_FAKE_")]
            kept = [(str(names[n, i]), amounts[n, i], sites[n, i]) for i in real]
            minima.append(self._solved(x, kept, row, grid.at(np.array([n]))))
        return minima

    def continued(self, x: np.ndarray, minima: list[Minimum], row: int) -> Minimum:
        """The lowest of what the solver finds from the phases of other temperatures, near first."""
        best = minima[row]
        others = [n for n, minimum in enumerate(minima) if not failed(minimum)]
        for n in sorted(others, key=lambda n: abs(n - row))[:_NEIGHBOURS]:
            other = minima[n]
            start = [*zip(other.phases, other.fractions, other.sites, strict=True)]
            found = self._solved(x, start, row)
            if not failed(found) and not found.energy >= best.energy:
                best = found
        return best

    def _solved(
        self,
        x: np.ndarray,
        start: Sequence[tuple[str, float, np.ndarray]],
        row: int,
        grid: Points | None = None,
    ) -> Minimum:
        """The minimum that the solver finds from phases, amounts and site fractions.

        A point of the grid, given at this temperature alone, that lies below the plane of the
        solution joins it, and it is solved again.
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

        total = sum(max(amount, _LEAST_AMOUNT) for _, amount, _ in start)
        sets = [composition_set(n, max(a, _LEAST_AMOUNT) / total, y) for n, a, y in start]
        solver, result = BoundedSolver(), None
        for n in range(_SOLVES):
            if not sets:
                return lost
            result = solver.solve(sets, values)
            if grid is None or n + 1 == _SOLVES:
                break
            new = _below(sets, grid, np.array(result.chemical_potentials))
            if new is None:
                break
            sets.append(composition_set(str(grid.names[new]), _NEW_AMOUNT, grid.sites[new]))
        if result is None or not result.converged or not sets:
            return lost
        found = Minimum(
            float(sum(one.NP * one.energy for one in sets)),
            np.array(result.chemical_potentials),
            tuple(one.phase_record.phase_name for one in sets),
            np.array([one.NP for one in sets]),
            np.array([one.X for one in sets]),
            tuple(np.array(one.dof)[len(state) :] for one in sets),
        )
        balanced = np.abs(found.fractions @ found.compositions - x).max() < _BALANCE
        return found if balanced else replace(found, energy=np.nan)

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
            sample = self.sample(None, density)
            near = {name: order.disordered(density) for name, order in self.orderings.items()}
            if near:
                own = np.arange(len(self.elements), len(sample.names))
                sample = self.sample(near).with_phases_of(sample, own)
            self._grids[factor] = sample
        return self._grids[factor]

    def sample(self, points: dict[str, np.ndarray] | None, density: int = 1) -> Points:
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
    if not force[lowest] > _LOWER or name == "_FAKE_":
        return None
    for one in sets:
        width = one.phase_record.phase_dof
        sites = np.asarray(one.dof)[-width:]
        near = one.phase_record.phase_name == name
        if near and np.abs(sites - grid.sites[lowest, :width]).max() <= _DISTINCT:
            return None
    return lowest


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
