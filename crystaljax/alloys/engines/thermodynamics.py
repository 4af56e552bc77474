"""Interface of engines, and the table of the equilibria that they compute."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple, Protocol, Self

import numpy as np

from crystaljax.alloys.composition import fractions
from crystaljax.alloys.lattice import BCC, Lattice
from crystaljax.crystal import Index

Kind = str
"""Kind of a phase: the lattice's of a family ("bcc": A2, or B2 if ordered), "liquid", "other"."""

TEMPERATURES = np.linspace(373.15, 2273.15, 20)
"""K: the paper's (arXiv 2511.12036, figure 9)."""

ORDERED = 0.05
"""Difference of site fractions between sublattices, above which a phase is ordered."""

ABSENT = 1e-6
"""Mole fraction below which an element counts as absent."""

SAME_TEMPERATURE = 0.01
"""K: temperatures that differ by less are the same."""

_BALANCE = 0.05  # tolerance of the sum of phase fractions: tables are rounded


class Row(NamedTuple):
    """One composition set of a phase at one temperature."""

    phase: str
    """Name of the phase in the engine."""
    kind: Kind
    ordered: bool
    """Whether it is ordered, by its site fractions."""
    fraction: float
    """Moles of atoms in the phase, per mole of alloy."""
    composition: Mapping[str, float]
    """Mole fractions by element."""
    lattice: float = float("nan")
    """Lattice parameter a in Å of a phase of the family's lattice, else nan."""


Point = Sequence[Row] | str
"""The phases at one temperature, or the reason that they are unknown."""


@dataclass(frozen=True)
class Equilibria:
    """Phases of C compositions of E elements at T temperatures, as a table of R rows.

    A point that could not be computed has a reason and no rows. Engines make tables by
    `from_points`; tables from elsewhere must be `checked`.
    """

    elements: tuple[str, ...]
    """Symbols: the last axis of compositions."""
    compositions: np.ndarray
    """float64 [C, E]: mole fractions."""
    temperatures: np.ndarray
    """float64 [T] in K, ascending."""
    reasons: np.ndarray
    """object [C, T]: reason that a point failed; None where it did not."""
    composition: np.ndarray
    """int [R]: index of the composition."""
    step: np.ndarray
    """int [R]: index of the temperature."""
    phase: np.ndarray
    """str [R]: name of the phase in the engine."""
    kind: np.ndarray
    """str [R]: see `Kind`."""
    ordered: np.ndarray
    """bool [R]."""
    fraction: np.ndarray
    """float64 [R]: moles of atoms in the phase, per mole of alloy."""
    contents: np.ndarray
    """float64 [R, E]: mole fractions of the phase."""
    lattice: np.ndarray
    """float64 [R]: lattice parameter a in Å of phases of the family's lattice, nan of others."""

    def __len__(self) -> int:
        return len(self.compositions)

    @property
    def solved(self) -> np.ndarray:
        """bool [C, T]: whether the point could be computed."""
        return np.array(self.reasons == None)  # noqa: E711 (one by one)

    def rows_of(self, kind: Kind, ordered: bool | None = None) -> np.ndarray:
        """bool [R]: rows of a kind, with `ordered` only the ordered or only the disordered ones."""
        rows = self.kind == kind
        return rows if ordered is None else rows & (self.ordered == ordered)

    def amount(self, kind: Kind, ordered: bool | None = None) -> np.ndarray:
        """float64 [C, T]: fraction of all phases of a kind; nan at failed points."""
        return self.amount_of(self.rows_of(kind, ordered))

    def amount_of(self, rows: np.ndarray) -> np.ndarray:
        """float64 [C, T]: fraction of some rows, bool [R]; nan at failed points."""
        cells = self.composition[rows] * len(self.temperatures) + self.step[rows]
        size = self.solved.size
        sums = np.bincount(cells, self.fraction[rows], minlength=size).reshape(self.solved.shape)
        return np.where(self.solved, sums, np.nan)

    def __getitem__(self, index: Index) -> Equilibria:
        """The equilibria of some compositions."""
        chosen = np.arange(len(self))[index]
        parts = [np.flatnonzero(self.composition == n) for n in chosen]
        rows = np.concatenate([np.zeros(0, int), *parts])
        return Equilibria(
            self.elements,
            self.compositions[chosen],
            self.temperatures,
            self.reasons[chosen],
            np.repeat(np.arange(len(chosen)), [len(part) for part in parts]),
            *(getattr(self, name)[rows] for name in _ROW_COLUMNS),
        )

    def points(self, n: int) -> list[Point]:
        """Rows or reason at each temperature, of composition n."""
        points: list[Point] = []
        for step, reason in enumerate(self.reasons[n]):
            rows = np.flatnonzero((self.composition == n) & (self.step == step))
            points.append([self._row(row) for row in rows.tolist()] if reason is None else reason)
        return points

    def _row(self, row: int) -> Row:
        contents = zip(self.elements, self.contents[row].tolist(), strict=True)
        return Row(
            str(self.phase[row]),
            str(self.kind[row]),
            bool(self.ordered[row]),
            float(self.fraction[row]),
            dict(contents),
            float(self.lattice[row]),
        )

    def checked(self) -> Self:
        """The table; points whose fractions do not sum to 1 or are not numbers become failed ones.

        ValueError: temperatures that are not ascending, or columns that do not fit together.
        """
        if not np.array_equal(ascending(self.temperatures), self.temperatures):
            raise ValueError("the temperatures are not ascending")
        shape = len(self.compositions), len(self.temperatures)
        if self.reasons.shape != shape:
            raise ValueError(f"reasons of shape {self.reasons.shape} for {shape} points")
        cells = np.ravel_multi_index((self.composition, self.step), shape)
        amounts = np.where(np.isfinite(self.contents).all(axis=1), self.fraction, np.nan)
        sums = np.bincount(cells, amounts, minlength=self.reasons.size)
        below = np.bincount(cells, np.clip(amounts, None, 0), minlength=self.reasons.size)
        balanced = (np.abs(sums - 1) <= _BALANCE) & (below >= -_BALANCE)  # nan is not
        reasons = self.reasons.copy()
        for place in np.flatnonzero(self.solved.ravel() & ~balanced):
            reasons.flat[place] = (
                f"phase fractions that sum to {sums[place]:g}, not to 1"
                if np.isfinite(sums[place])
                else "phases whose fractions or compositions are no numbers"
            )
        rows = (balanced & self.solved.ravel())[cells]
        columns = {name: getattr(self, name)[rows] for name in ("composition", *_ROW_COLUMNS)}
        return replace(self, reasons=reasons, **columns)

    @classmethod
    def from_points(
        cls,
        compositions: Sequence[Mapping[str, float]],
        temperatures: Sequence[float] | np.ndarray,
        points: Sequence[Sequence[Point]],
    ) -> Self:
        """A table from the points of each composition at each temperature, in any order.

        Points whose fractions do not sum to 1, or are not numbers, count as failed. ValueError if
        the numbers of compositions, temperatures and points disagree; see also `ascending`.
        """
        if len(points) != len(compositions) or any(len(p) != len(temperatures) for p in points):
            raise ValueError(
                f"{len(compositions)} compositions at {len(temperatures)} temperatures need as"
                f" many points, not {[len(p) for p in points]}"
            )
        elements = tuple(sorted({element for mixture in compositions for element in mixture}))
        reasons = np.full((len(compositions), len(temperatures)), None, object)
        places: list[tuple[int, int]] = []
        rows: list[Row] = []
        order = np.argsort(np.asarray(temperatures, float))
        for n, series in enumerate(points):
            for step, point in enumerate(series[place] for place in order):
                if isinstance(point, str):
                    reasons[n, step] = point
                    continue
                rows += point
                places += [(n, step)] * len(point)
        index = np.array(places, int).reshape(-1, 2)
        return cls(
            elements,
            _matrix(compositions, elements),
            ascending(temperatures),
            reasons,
            index[:, 0],
            index[:, 1],
            np.array([row.phase for row in rows], str),
            np.array([row.kind for row in rows], str),
            np.array([row.ordered for row in rows], bool),
            np.array([row.fraction for row in rows], float),
            _matrix([row.composition for row in rows], elements),
            np.array([row.lattice for row in rows], float),
        ).checked()


_ROW_COLUMNS = ("step", "phase", "kind", "ordered", "fraction", "contents", "lattice")


def _matrix(mixtures: Sequence[Mapping[str, float]], elements: Sequence[str]) -> np.ndarray:
    """float64 [N, E]."""
    values = [[mixture.get(element, 0.0) for element in elements] for mixture in mixtures]
    return np.array(values, float).reshape(len(mixtures), len(elements))


class Thermodynamics(Protocol):
    """Protocol of engines; a point that cannot be computed gets a reason, not an exception."""

    @property
    def elements(self) -> tuple[str, ...]:
        """Symbols of the elements it knows."""
        ...

    @property
    def identity(self) -> str:
        """Everything that its results depend on, for caches."""
        ...

    @property
    def missing(self) -> Collection[frozenset[str]] | None:
        """Sets of elements without interaction parameters; None if that is unknown.

        Such pairs mix ideally. Such triples are extrapolated from their pairs, as is usual.
        """
        ...

    @property
    def modelled(self) -> bool:
        """Whether lattice parameters are those of `lattice.lattice_parameter`, with its error."""
        ...

    def equilibria(
        self, compositions: Sequence[Mapping[str, float]], temperatures: np.ndarray
    ) -> Equilibria:
        """Equilibria at 1 bar of C compositions (element -> mole fraction) at T temperatures, K.

        Temperatures may be in any order and are ascending in the result; see `ascending`.
        """
        ...


def ascending(temperatures: Sequence[float] | np.ndarray) -> np.ndarray:
    """float64 [T]: temperatures in K from low to high.

    ValueError if there are none, or some are not finite, not above zero, or equal.
    """
    values = np.sort(np.asarray(temperatures, float).ravel())
    finite = bool(len(values)) and bool(np.isfinite(values).all())
    if not finite or values[0] <= 0 or (np.diff(values) < SAME_TEMPERATURE).any():
        raise ValueError(
            "temperatures must be different finite numbers above 0 K, not"
            f" {', '.join(f'{value:g}' for value in values) or 'none'}"
        )
    return values


def is_ordered(first: np.ndarray, second: np.ndarray) -> bool:
    """Whether a phase is ordered, from the site fractions [K] of two sublattices.

    ValueError: one is not finite.
    """
    difference = float(np.abs(first - second).max())
    if not np.isfinite(difference):
        raise ValueError("site fractions that are no numbers")
    return difference > ORDERED


def kind_of_name(phase: str, lattice: Lattice = BCC) -> Kind:
    """Kind of a phase by its name in Thermo-Calc's databases, such as "BCC_B2#2"."""
    if phase.upper().startswith(("LIQUID", "IONIC_LIQ")):
        return "liquid"
    return lattice.kind if lattice.holds(phase) else "other"


def present(mixture: Mapping[str, float]) -> dict[str, float]:
    """Mole fractions of the elements present, in alphabetical order."""
    return fractions({e: x for e, x in sorted(mixture.items()) if x > ABSENT})


def problem(mixture: Mapping[str, float], elements: Sequence[str]) -> str | None:
    """Reason that an engine of these elements cannot take a composition, or None."""
    unknown = [element for element in mixture if element not in elements]
    if unknown:
        return f"the engine has no {', '.join(unknown)}"
    amounts = np.array(list(mixture.values()), float)
    if not len(amounts) or not np.isfinite(amounts).all() or (amounts < 0).any():
        return "mole fractions must be finite and not negative"
    return None if abs(amounts.sum() - 1) < 1e-6 else "the mole fractions do not sum to 1"
