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
        from pycalphad.core.eqsolver import _solve_eq_at_conditions
        from pycalphad.core.starting_point import starting_point

        from crystaljax.alloys.engines.solver import BoundedSolver

        ordered = self._conditions(x, self.temperatures[rows].tolist())
        state = self._records.state_variables
        light = grid.light_dataset()
        start = starting_point(ordered, state, self._records, light)
        result = _solve_eq_at_conditions(
            start, self._records, light, list(ordered), state, False, BoundedSolver()
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

    def continued(self, x: np.ndarray, minima: list[Minimum], row: int) -> Minimum:
        """The lowest of what the solver finds from the phases of other temperatures, near first."""
        from pycalphad.core.composition_set import CompositionSet

        from crystaljax.alloys.engines.solver import BoundedSolver

        conditions = self._conditions(x, [self.temperatures[row]])
        values = {key: value[0] for key, value in conditions.items()}
        state = np.array([values[key] for key in self._records.state_variables])
        best = minima[row]
        others = [n for n, minimum in enumerate(minima) if not failed(minimum)]
        for n in sorted(others, key=lambda n: abs(n - row))[:_NEIGHBOURS]:
            sets = []
            for name, amount, sites in zip(
                minima[n].phases, minima[n].fractions, minima[n].sites, strict=True
            ):
                sets.append(CompositionSet(self._records[name]))
                sets[-1].update(np.ascontiguousarray(sites), amount, state)
            result = BoundedSolver().solve(sets, values)
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
        """Fixed conditions of the solver; the largest mole fraction follows from others."""
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
