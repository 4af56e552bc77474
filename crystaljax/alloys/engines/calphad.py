"""Equilibria from an open thermodynamic database, by pycalphad."""

from __future__ import annotations

import logging
from collections import OrderedDict
from collections.abc import Mapping, Sequence
from functools import cached_property
from os import PathLike

import numpy as np

from crystaljax.alloys.engines.database import VACANCY, AlloyDatabase, load_database
from crystaljax.alloys.engines.minimum import PRESSURE, Minimum, System
from crystaljax.alloys.engines.search import find_minima
from crystaljax.alloys.engines.thermodynamics import (
    Equilibria,
    Point,
    Row,
    ascending,
    is_ordered,
    present,
    problem,
)
from crystaljax.alloys.lattice import (
    BCC,
    Lattice,
    lattice_from_molar_volume,
    lattice_parameter,
)

log = logging.getLogger(__name__)

ALGORITHM = 5
"""Changes when the same composition may get another equilibrium."""

_NOT_CONVERGED = "no solve converged"


class Calphad:
    """Equilibria by minimising the Gibbs energy; see `search` for how wrong minima are avoided.

    The phases of each set of elements are compiled once (seconds) and kept.
    """

    def __init__(
        self,
        database: str | PathLike = "alcocrni.tdb",
        elements: tuple[str, ...] | None = None,
        exclude: Sequence[str] = (),
        *,
        lattice: Lattice = BCC,
        partition: tuple[str, ...] = (),
        density: int = 40,
        keep: int = 12,
    ) -> None:
        """Errors: see `load_database`.

        `database`: a TDB's path, or alcocrni.tdb or COST507.tdb, which pycalphad brings;
        `elements`: by default all of the paper's that it has; `exclude`: phases that are left out;
        `lattice`: that of the family's phases; `partition`: see `load_database`;
        `density`: starting points a degree of freedom; `keep`: sets of elements that stay compiled
        (about 150 MB each).
        """
        self.database: AlloyDatabase = load_database(
            database, elements, exclude, lattice, partition
        )
        unknown = [element for element in self.elements if element not in lattice.volumes]
        if unknown and not self.database.has_volumes:
            log.warning(
                "no lattice parameters are known of %s: with these no mismatch can be computed",
                ", ".join(unknown),
            )
        # Of BCC as declared in the file nothing is said, as before others were known.
        self._phases_of = "" if lattice is BCC else f" {lattice.kind}"
        self._phases_of += f" {' '.join(partition)}" if partition else ""
        self._density = density
        self._keep = keep
        self._systems: OrderedDict[tuple[str, ...], _Phases] = OrderedDict()

    @property
    def elements(self) -> tuple[str, ...]:
        """Symbols of the elements it knows."""
        return self.database.elements

    @cached_property
    def missing(self) -> frozenset[frozenset[str]]:
        """Pairs and triples without interaction parameters in the lattice's phase or any liquid."""
        names = self.database.missing + self.database.extrapolated
        return frozenset(frozenset(name.split()[0].split("-")) for name in names)

    @property
    def modelled(self) -> bool:
        """Lattice parameters are by the lattice model if the database has no molar volumes."""
        return not self.database.has_volumes

    @property
    def identity(self) -> str:
        """All that its results depend on."""
        from pycalphad import __version__

        names = " ".join(self.elements)
        without = "".join(f" -{name}" for name in self.database.excluded)
        settings = f"{ALGORITHM} {self._density} {__version__}"
        return f"calphad {settings} {self.database.digest} {names}{without}{self._phases_of}"

    def equilibria(
        self, compositions: Sequence[Mapping[str, float]], temperatures: np.ndarray
    ) -> Equilibria:
        """Equilibria of C compositions (element -> mole fraction) at T temperatures (K)."""
        temperatures = ascending(temperatures)
        points = [self._points(mixture, temperatures) for mixture in compositions]
        return Equilibria.from_points(compositions, temperatures, points)

    def _points(self, mixture: Mapping[str, float], temperatures: np.ndarray) -> list[Point]:
        reason = problem(mixture, self.elements)
        if reason is not None:
            return [reason] * len(temperatures)
        parts = present(mixture)
        try:
            phases = self._phases(tuple(parts), temperatures)
            minima = find_minima(phases.system, list(parts.values()))
        except (ArithmeticError, LookupError, RuntimeError, ValueError) as error:
            return [f"{type(error).__name__}: {error}"] * len(temperatures)
        pairs = zip(minima, temperatures.tolist(), strict=True)
        return [phases.rows(minimum, temperature) for minimum, temperature in pairs]

    def _phases(self, elements: tuple[str, ...], temperatures: np.ndarray) -> _Phases:
        """The compiled phases of a set of elements, the least recently used one dropped."""
        phases = self._systems.pop(elements, None)
        if phases is None or not np.array_equal(phases.system.temperatures, temperatures):
            phases = _Phases(self.database, elements, temperatures, self._density)
        self._systems[elements] = phases
        if len(self._systems) > self._keep:
            self._systems.popitem(last=False)
        return phases


class _Phases:
    """A system and how its phases are reported."""

    def __init__(
        self,
        database: AlloyDatabase,
        elements: tuple[str, ...],
        temperatures: np.ndarray,
        density: int,
    ) -> None:
        self._database = database
        self._elements = elements  # in alphabetical order, as the system has them
        self.system = System(database, elements, temperatures, density)

    def rows(self, minimum: Minimum, temperature: float) -> Point:
        """The phases of a minimum, the most abundant first."""
        if np.isnan(minimum.energy):
            return _NOT_CONVERGED
        columns = (minimum.phases, minimum.fractions, minimum.compositions, minimum.sites)
        try:
            return [self._row(*column, temperature) for column in zip(*columns, strict=True)]
        except ValueError as error:
            return str(error)

    def _row(
        self, name: str, fraction: float, x: np.ndarray, sites: np.ndarray, temperature: float
    ) -> Row:
        ordering = self.system.orderings.get(name)
        first, second = (
            (sites[ordering.first], sites[ordering.second]) if ordering else (sites, sites)
        )
        ordered = is_ordered(first, second)
        composition = dict(zip(self._elements, x.tolist(), strict=True))
        kind = self._database.kind(name)
        lattice = float("nan")
        if kind == self._database.lattice.kind:
            by_element = [self._elementwise(y) if ordering else x for y in (first, second)]
            lattice = self._lattice(by_element[0], by_element[1], temperature)
        return Row(name, kind, ordered, float(fraction), composition, lattice)

    def _lattice(self, first: np.ndarray, second: np.ndarray, temperature: float) -> float:
        """Å; from the database's volumes (of the disordered phase) if it has all, or by a model."""
        lattice = self._database.lattice
        if self._volumes is not None:
            return self._volumes(lattice.ratio * first + second, temperature)
        return float(lattice_parameter(self._elements, first, second, temperature, lattice))

    def _elementwise(self, sites: np.ndarray) -> np.ndarray:
        """Site fractions [K] of the ordered phase's constituents -> those of the elements [E]."""
        names = self.system.orderings[self._database.ordered.name].constituents
        shares = dict(zip(names, sites, strict=True))
        return np.array([shares.get(element.upper(), 0.0) for element in self._elements])

    @cached_property
    def _volumes(self) -> _Volumes | None:
        return _Volumes(self._database, self._elements) if self._database.has_volumes else None


class _Volumes:
    """Lattice parameters from a database's volumes of the disordered phase.

    pycalphad finds no volume of a phase that is partitioned into an ordered and a disordered part.
    """

    def __init__(self, database: AlloyDatabase, elements: tuple[str, ...]) -> None:
        self._source = database.source
        self._lattice = database.lattice
        self._phase = database.ordered.disordered
        self._names = [*(element.upper() for element in elements), VACANCY]

    def __call__(self, x: np.ndarray, temperature: float) -> float:
        """a in Å at mole fractions [E] and a temperature in K."""
        from pycalphad import calculate

        constituents = self._source.phases[self._phase].constituents
        site = [sorted({str(s) for s in part} & set(self._names)) for part in constituents]
        shares = dict(zip(self._names, [*(x / x.sum()), 0.0], strict=True))
        point = [shares[name] if len(part) > 1 else 1.0 for part in site for name in part]
        result = calculate(
            self._source,
            self._names,
            [self._phase],
            output="VM",
            points=np.array([point]),
            T=temperature,
            P=PRESSURE,
            N=1,
            to_xarray=False,
        )
        return float(lattice_from_molar_volume(result.VM.item(), self._lattice))
