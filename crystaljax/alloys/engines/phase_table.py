"""Reads and writes tables of phases as CSV, in the form of figure 9 of arXiv 2511.12036."""

from __future__ import annotations

import csv
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from math import isfinite
from os import PathLike
from pathlib import Path
from typing import Literal

import numpy as np

from crystaljax.alloys.composition import (
    Candidate,
    CompositionError,
    master,
    read_formula,
    write_formula,
    write_percentages,
    write_volume,
)
from crystaljax.alloys.engines.thermodynamics import Equilibria, Point, Row, kind_of_name
from crystaljax.alloys.lattice import BCC, Lattice
from crystaljax.data.files import replacing

COLUMNS = (
    *("BCC", "B2", "B2 Volume", "Temperature", "Quantity", "Phase", "IsOrdered"),
    "Lattice Parameter",
)
"""Composition of the BCC and of the B2 (of another family, of its matrix and its precipitate), B2
percentage, K, mole fraction, name with the number of its composition set, 1 or 0 (of BCC phases and
those that are ordered), Å."""

_ORDER = {"0": False, "1": True, "false": False, "true": True}


class PhaseTableError(ValueError):
    """Error: a file is not a table of phases; the message names the line."""


def write_phase_table(
    path: str | PathLike[str],
    candidates: Sequence[Candidate],
    equilibria: Equilibria,
    lattice: Lattice = BCC,
) -> None:
    """Write a CSV file of `COLUMNS`: a line for each composition set, by candidate and temperature.

    `equilibria`: of the C candidates' mixtures, in order. Composition sets of a phase are numbered
    #1, #2, ...: first the disordered ones, then, after their largest number at any temperature, the
    ordered ones. So a number has the same meaning at all temperatures, unless there are several
    sets of its kind. A phase of the lattice with another name gets the lattice's first one, such as
    BCC_B2. A failed point is a line without a phase. ValueError if the numbers of candidates and
    equilibria differ.
    """
    if len(candidates) != len(equilibria):
        raise ValueError(f"{len(candidates)} candidates, but {len(equilibria)} equilibria")
    with (
        replacing(Path(path)) as temporary,
        temporary.open("w", encoding="utf-8", newline="") as file,
    ):
        writer = csv.writer(file)
        writer.writerow(COLUMNS)
        for n, candidate in enumerate(candidates):
            points = equilibria.points(n)
            writer.writerows(_lines(candidate, equilibria.temperatures, points, lattice))


def _lines(
    candidate: Candidate, temperatures: np.ndarray, points: Sequence[Point], lattice: Lattice
) -> Iterator[list[str]]:
    """The lines of one candidate."""
    alloy = [
        write_percentages(candidate.bcc),
        write_formula(candidate.b2),
        write_volume(candidate.b2_volume),
    ]
    disordered: Counter[str] = Counter()  # largest number of sets of each phase at a temperature
    for point in points:
        if not isinstance(point, str):
            disordered |= Counter(_name(row, lattice) for row in point if not row.ordered)
    for temperature, point in zip(temperatures, points, strict=True):
        start = [*alloy, f"{temperature:.10g}"]
        if isinstance(point, str):
            yield [*start, "", "", "", ""]
            continue
        seen: Counter[tuple[str, bool]] = Counter()
        for row in sorted(point, key=lambda row: row.ordered):
            name = _name(row, lattice)
            seen[name, row.ordered] += 1
            number = seen[name, row.ordered] + (disordered[name] if row.ordered else 0)
            size = f"{row.lattice:.9g}" if np.isfinite(row.lattice) else ""
            told = row.kind == lattice.kind or row.ordered or size
            order = str(int(row.ordered)) if told else ""
            yield [*start, f"{row.fraction:.9g}", f"{name}#{number}", order, size]


def _name(row: Row, lattice: Lattice) -> str:
    """Name of the phase without the number of the composition set."""
    name = row.phase.partition("#")[0]
    return lattice.names[0] if row.kind == lattice.kind and not lattice.holds(name) else name


def read_phase_table(
    path: str | PathLike[str],
    mix_by: Literal["volume", "mole"] = "volume",
    lattice: Lattice = BCC,
) -> tuple[list[Candidate], Equilibria]:
    """C candidates and the equilibria of their mixtures, from a file that has `COLUMNS`.

    Kinds of phases follow from their names (`kind_of_name`). The table has no compositions of
    phases. Each phase gets that of the whole alloy, so that `rules.smallest_mismatch` matches sets
    of a kind between temperatures by the order of their lines. A line that is repeated counts once.
    Temperatures without lines count as failed points. `mix_by`: see `composition.master`.
    PhaseTableError for a missing column, a line without a candidate or number, and a phase of the
    lattice without IsOrdered.
    """
    path = Path(path)
    found: dict[tuple[str, str, str], dict[float, list[Row]]] = {}
    mixtures: dict[tuple[str, str, str], Mapping[str, float]] = {}
    candidates: list[Candidate] = []
    seen: set[tuple[str, ...]] = set()
    with path.open(encoding="utf-8-sig", newline="") as file:
        reader = csv.DictReader(file)
        missing = [name for name in COLUMNS if name not in (reader.fieldnames or ())]
        if missing:
            raise PhaseTableError(f"{path} has no column {', '.join(missing)}")
        for line in reader:
            try:
                key = (line["BCC"], line["B2"], line["B2 Volume"])
                if key not in found:
                    candidate = Candidate(read_formula(key[0]), read_formula(key[1]), float(key[2]))
                    mixtures[key] = master(candidate, mix_by, lattice)
                    candidates.append(candidate)
                    found[key] = {}
                rows = found[key].setdefault(_temperature(line), [])
                values = (*key, *(line[name] for name in COLUMNS[3:]))
                if line["Phase"] and values not in seen:
                    seen.add(values)
                    rows.append(_row(line, mixtures[key], lattice))
            except (CompositionError, KeyError, TypeError, ValueError) as error:
                told = f"{path}, line {reader.line_num}: {error}"
                raise PhaseTableError(told) from error
    if not found:
        raise PhaseTableError(f"{path} has no lines")
    temperatures = sorted({t for points in found.values() for t in points})
    none = "no phases in the table at this temperature"
    points = [[points.get(t) or none for t in temperatures] for points in found.values()]
    return candidates, Equilibria.from_points([*mixtures.values()], temperatures, points)


def _row(line: Mapping[str, str], mixture: Mapping[str, float], lattice: Lattice) -> Row:
    """The phase on a line."""
    kind = kind_of_name(line["Phase"], lattice)
    size = float(line["Lattice Parameter"] or "nan")
    order = line["IsOrdered"].strip().lower().removesuffix(".0")
    if order not in _ORDER and (order or kind == lattice.kind):
        raise ValueError(f"IsOrdered of {line['Phase']} is 0 or 1, not {line['IsOrdered']!r}")
    ordered = _ORDER.get(order, False)  # phases of other lattices may have none
    return Row(line["Phase"], kind, ordered, float(line["Quantity"]), mixture, size)


def _temperature(line: Mapping[str, str]) -> float:
    """K, to a hundredth."""
    temperature = float(line["Temperature"])
    if not (isfinite(temperature) and temperature > 0):
        raise ValueError(f"Temperature is a finite number of K above 0, not {temperature:g}")
    return round(temperature, 2)
