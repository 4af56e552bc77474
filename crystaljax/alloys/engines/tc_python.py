"""Equilibria by Thermo-Calc through TC-Python; it needs a licence."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from os import PathLike
from typing import Any, Self

import numpy as np

from crystaljax.alloys.composition import PAPER_ELEMENTS
from crystaljax.alloys.engines.thermodynamics import (
    Equilibria,
    Point,
    Row,
    ascending,
    is_ordered,
    kind_of_name,
    present,
    problem,
)
from crystaljax.alloys.lattice import BCC, Lattice, lattice_from_molar_volume


class ThermoCalc:
    """Equilibria by Thermo-Calc's global minimisation; see the TC-Python documentation.

    Kinds of phases follow from the beginning of their names (LIQUID, BCC_B2), and order from site
    fractions, as the numbers of composition sets (BCC_B2#2) change from point to point. Use it as a
    context manager, or `close` it, to end the session and release the licence.
    """

    def __init__(
        self,
        database: str = "TCHEA7",
        elements: tuple[str, ...] = (),
        *,
        lattice: Lattice = BCC,
        cache_folder: str | PathLike | None = None,
    ) -> None:
        """Start a session. ImportError without TC-Python; its own error without a licence.

        `database`: its name in Thermo-Calc; `elements`: by default those of the paper; `lattice`:
        that of the family's phases; `cache_folder`: Thermo-Calc's cache of results.
        """
        try:
            import tc_python
        except ImportError as error:
            raise ImportError(
                "the engine tc-python needs Thermo-Calc and its package TC-Python, which come with"
                " a licence: see Thermo-Calc's installation guide"
            ) from error
        self._database = database
        self._lattice = lattice
        self._elements = elements or PAPER_ELEMENTS
        self._stack = ExitStack()
        self._session = self._stack.enter_context(tc_python.TCPython())
        if cache_folder is not None:
            self._session.set_cache_folder(str(cache_folder))
        self._systems: dict[tuple[str, ...], Any] = {}

    @property
    def elements(self) -> tuple[str, ...]:
        """Symbols of the elements it knows."""
        return self._elements

    @property
    def missing(self) -> None:
        """Unknown: Thermo-Calc does not tell."""
        return None

    @property
    def modelled(self) -> bool:
        """Lattice parameters are by the molar volumes of the database."""
        return False

    @property
    def identity(self) -> str:
        """Everything that its results depend on, except the program's version."""
        phases = "" if self._lattice is BCC else f" {self._lattice.kind}"
        return f"thermo-calc {self._database} {' '.join(self._elements)}{phases}"

    def equilibria(
        self, compositions: Sequence[Mapping[str, float]], temperatures: np.ndarray
    ) -> Equilibria:
        """Equilibria of C compositions (element -> mole fraction) at T temperatures (K)."""
        temperatures = ascending(temperatures)
        points = [self._points(mixture, temperatures) for mixture in compositions]
        return Equilibria.from_points(compositions, temperatures, points)

    def _points(self, mixture: Mapping[str, float], temperatures: np.ndarray) -> list[Point]:
        reason = problem(mixture, self._elements)
        if reason is not None:
            return [reason] * len(temperatures)
        parts = present(mixture)
        try:
            calculation = self._system(tuple(parts)).with_single_equilibrium_calculation()
            dependent = max(parts, key=lambda element: parts[element])
            for element, x in parts.items():
                if element != dependent:
                    calculation.set_condition(f"X({element})", x)
        except Exception as error:  # noqa: BLE001 (TC-Python raises classes of its own)
            return [_told(error)] * len(temperatures)
        return [self._point(calculation, tuple(parts), float(t)) for t in temperatures]

    def _system(self, elements: tuple[str, ...]) -> Any:
        if elements not in self._systems:
            builder = self._session.select_database_and_elements(self._database, list(elements))
            self._systems[elements] = builder.get_system()
        return self._systems[elements]

    def _point(self, calculation: Any, elements: tuple[str, ...], temperature: float) -> Point:
        try:
            calculation.set_condition("T", temperature)
            result = calculation.calculate()
            phases = result.get_stable_phases()
            return [_row(result, phase, elements, self._lattice) for phase in phases]
        except Exception as error:  # noqa: BLE001 (TC-Python raises classes of its own)
            return _told(error)

    def close(self) -> None:
        """End the session."""
        self._stack.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def _told(error: Exception) -> str:
    return f"Thermo-Calc: {type(error).__name__}: {error}"


def _row(result: Any, phase: str, elements: tuple[str, ...], family: Lattice) -> Row:
    """One stable phase; quantities in the notation of Thermo-Calc's console mode."""
    kind = kind_of_name(phase, family)
    fraction = result.get_value_of(f"NPM({phase})")
    composition = {e: float(result.get_value_of(f"X({phase},{e})")) for e in elements}
    ordered, lattice = False, float("nan")
    if kind == family.kind:
        first, second = (
            np.array([result.get_value_of(f"Y({phase},{e.upper()}#{n})") for e in elements])
            for n in (1, 2)
        )
        ordered = is_ordered(first, second)
        lattice = float(lattice_from_molar_volume(result.get_value_of(f"VM({phase})"), family))
    return Row(phase, kind, ordered, float(fraction), composition, lattice)
