"""What every reader yields, and the checks that every format shares."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np

from crystaljax.crystal import AtomicCell
from crystaljax.data import cif
from crystaljax.data.cif_sites import check_apart


class Record(NamedTuple):
    """One entry of a file: a structure, or the reason why there is none."""

    id: str
    cell: AtomicCell | None
    reason: str | None
    """Why `cell` is None; None for a good record."""
    properties: dict[str, float | str]
    """The entry's other columns: float where the text is a number or missing (nan)."""


@dataclass(frozen=True)
class Source:
    """A file opened for reading."""

    items: Iterable[tuple[float, Any]]
    """(fraction of the file read, item) pairs."""
    decode: Callable[[Any], list[Record]]
    """The records of one item; picklable."""
    rows_per_item: int = 1


def number(text: str) -> float | str:
    """A float where the text is written like one, nan where it is empty; else the text itself.

    Stricter than float(): the formulas InF and NaN, and 1_2, stay text.
    """
    text = text.strip()
    if text in ("", "nan"):
        return float("nan")
    return float(text) if _NUMBER.fullmatch(text) else text


_NUMBER = re.compile(r"[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?")


def record(
    id: str, properties: dict[str, float | str], parse: Callable[[Any], AtomicCell], data: Any
) -> Record:
    """A record whose cell comes from `parse(data)`, or whose reason is the error of that."""
    try:
        return Record(id, parse(data), None, properties)
    except ValueError as error:
        return Record(id, None, str(error), properties)
    except (KeyError, TypeError, IndexError) as error:
        reason = f"the structure's data lack a field or have an odd shape ({error!r})"
        return Record(id, None, reason, properties)


def checked_cell(matrix: Any, frac: Any, species: Any) -> AtomicCell:
    """An AtomicCell, with a ValueError for shapes, numbers or elements that make no crystal."""
    cell = AtomicCell(
        np.asarray(matrix, float), np.asarray(frac, float).reshape(-1, 3), np.asarray(species, int)
    )
    if cell.matrix.shape != (3, 3) or not np.isfinite(cell.matrix).all():
        raise ValueError("no unit cell: the lattice is not three finite vectors")
    if abs(np.linalg.det(cell.matrix)) < cif.MIN_VOLUME:
        raise ValueError(f"the unit cell's volume is below {cif.MIN_VOLUME} Å³")
    if not len(cell.species):
        raise ValueError("no atoms")
    if len(cell.frac) != len(cell.species) or not np.isfinite(cell.frac).all():
        raise ValueError("atoms without a position")
    if cell.species.min() < 1 or cell.species.max() > 118:
        raise ValueError("an atom of no known element")
    check_apart(cell.frac, cell.species, cell.matrix)
    return cell


def scalars(row: dict[str, Any]) -> dict[str, float | str]:
    """The entries that are numbers, strings or None (nan); lists and dicts are left out."""
    kept: dict[str, float | str] = {}
    for name, value in row.items():
        if value is None:
            kept[name] = float("nan")
        elif isinstance(value, int | float | np.number | np.bool_):
            kept[name] = float(value)
        elif isinstance(value, str):
            kept[name] = value
    return kept
