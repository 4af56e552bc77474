"""From a file's items to records: what all formats share, and the one guard around each entry.

A format is a function `path -> Source`. Its items cost only input; its `decode` makes entries of
an item, and an entry's `parse` its atoms. Whatever any library raises on the way, of whatever
class, is the reason of one record and ends nothing.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from decimal import Decimal
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from crystaljax.composition import SYMBOLS
from crystaljax.crystal import AtomicCell
from crystaljax.data.text_files import clean
from crystaljax.structures import MIN_VOLUME

COINCIDENCE = 1e-3
"""Å: atoms of a cell closer than this are one position listed twice, and the row is in error.
Atoms further apart are kept, however improbable they are: whether a crystal is valid is not for
readers to say."""

MAX_ATOMS = 5000
"""Larger cells are turned down: no part of crystaljax is made for them."""

MAX_LENGTH = 1e4
"""Å: longer lattice vectors are taken for a mistake."""

MAX_COORDINATE = 1e6
"""Fractional coordinates beyond this have lost the digits that say where the atom is."""

MAX_REASON = 500
"""Characters of a reason that are kept."""

MAX_ID = 200
"""Characters of an id that are kept."""

Properties = dict[str, float | str]


class Record(NamedTuple):
    """One entry of a file: a structure, or the reason why there is none."""

    id: str
    cell: AtomicCell | None
    reason: str | None
    """Why `cell` is None; None for a good record."""
    properties: Properties
    """The entry's other columns: float where the text is a number or missing (nan)."""


class Unreadable(NamedTuple):
    """What stands in an item for data that could not be read."""

    reason: str


class Item(NamedTuple):
    """A piece of a file, not decoded yet; picklable."""

    fraction: float
    """How much of the file is read by then."""
    id: str
    """Its name, for the record of an item that cannot be decoded."""
    data: Any
    """What `Source.decode` takes, or `Unreadable`."""


class Entry(NamedTuple):
    """A structure of a file that is not parsed yet."""

    id: str
    properties: Properties
    parse: Callable[[Any], AtomicCell]
    """The atoms of `data`; may raise anything."""
    data: Any


@dataclass(frozen=True)
class Source:
    """A file opened for reading."""

    path: Path
    items: Iterable[Item]
    decode: Callable[[str, Any], Iterable[Entry]]
    """The entries of an item's id and data; picklable. May raise anything."""
    rows_per_item: int = 1


def stream(source: Source) -> Iterator[Item]:
    """The items of a source, as far as it can be read.

    Where a file breaks off (a truncated archive, a damaged block), what came before is kept, the
    last item says so, and there is a warning. ValueError if not even the first item can be read.
    """
    last = None
    try:
        for item in source.items:
            yield item
            last = item.id
    except Exception as error:  # noqa: BLE001 (any library's)
        if last is None:
            raise unreadable(source.path, error) from None
        what = f"{source.path} cannot be read on after entry {last!r}: {reason_of(error)}"
        warnings.warn(f"{what} (what comes before is kept)", stacklevel=2)
        yield Item(1.0, f"the rest of {source.path.name}", Unreadable(what))
    if last is None:
        raise ValueError(f"{source.path} is empty")


def unreadable(path: Path, error: Exception) -> Exception:
    """The error for a file that cannot be opened or whose first entry cannot be read."""
    if isinstance(error, FileNotFoundError | PermissionError | IsADirectoryError | ImportError):
        return error
    reason = reason_of(error)
    if isinstance(error, ValueError) and str(path) in reason:  # it says all there is to say
        return error
    return ValueError(f"{path} is damaged, or not of the format that its name says: {reason}")


def attempt(read: Callable[[], Any]) -> Any:
    """`read()`, or `Unreadable` for whatever it raises: for parts that fail alone."""
    try:
        return read()
    except Exception as error:  # noqa: BLE001 (any library's)
        return Unreadable(reason_of(error))


def records(decode: Callable[[str, Any], Iterable[Entry]], item: Item) -> Iterator[Record]:
    """The records of an item. No exception leaves: it is the reason of the record it belongs to."""
    entries = item.data
    if not isinstance(entries, Unreadable):
        entries = attempt(lambda: list(decode(item.id, item.data)))
    if isinstance(entries, Unreadable):
        yield Record(_short(item.id, MAX_ID), None, _short(entries.reason, MAX_REASON), {})
        return
    for entry in entries:
        cell = attempt(lambda entry=entry: check(entry.parse(entry.data)))
        reason = None
        if isinstance(cell, Unreadable):
            cell, reason = None, _short(cell.reason, MAX_REASON)
        properties = {
            clean(name): clean(value) if isinstance(value, str) else value
            for name, value in entry.properties.items()
        }
        yield Record(_short(entry.id, MAX_ID), cell, reason, properties)


def reason_of(error: Exception) -> str:
    """What an error says to somebody who has the file and not the traceback."""
    match error:
        case RecursionError():
            return "nested too deeply"
        case MemoryError():
            return "more than the memory holds"
        case LookupError() | TypeError() | AttributeError() | ArithmeticError() | AssertionError():
            return f"its data lack something or have an odd shape ({error!r})"
        case _:
            return str(error) or type(error).__name__


def _short(text: str, longest: int) -> str:
    text = clean(text)
    return text if len(text) <= longest else text[: longest - 1] + "…"


def atomic_cell(matrix: Any, frac: Any, species: Any) -> AtomicCell:
    """An AtomicCell of nested lists; an error where these are no numbers."""
    return AtomicCell(
        np.asarray(matrix, float), np.asarray(frac, float).reshape(-1, 3), np.asarray(species, int)
    )


def cartesian_cell(matrix: Any, positions: Any, species: Any) -> AtomicCell:
    """An AtomicCell of positions in Å; an error where these are no numbers or no unit cell."""
    matrix = np.asarray(matrix, float)
    check_lattice(matrix)
    frac = np.linalg.solve(matrix.T, np.asarray(positions, float).reshape(-1, 3).T).T
    return atomic_cell(matrix, frac, species)


def check_lattice(matrix: np.ndarray) -> None:
    """ValueError for lattice vectors that make no cell."""
    largest = float(np.abs(matrix).max()) if matrix.shape == (3, 3) else np.nan
    if not largest <= MAX_LENGTH:
        if np.isfinite(largest):
            raise ValueError(f"no plausible unit cell: lattice vectors of {largest:g} Å")
        raise ValueError("no unit cell: the lattice is not three finite vectors")
    if abs(np.linalg.det(matrix)) < MIN_VOLUME:
        raise ValueError(f"no unit cell: its volume is below {MIN_VOLUME} Å³")


def check(cell: AtomicCell) -> AtomicCell:
    """The same cell; ValueError for shapes, numbers or elements that make no crystal."""
    check_lattice(cell.matrix)
    if not len(cell.species):
        raise ValueError("no atoms")
    largest = float(np.abs(cell.frac).max(initial=0))
    if len(cell.frac) != len(cell.species) or not largest < np.inf:
        raise ValueError("atoms without a position")
    if largest > MAX_COORDINATE:
        raise ValueError(f"an atom {largest:g} cells away from the origin")
    if cell.species.min() < 1 or cell.species.max() > len(SYMBOLS):
        raise ValueError("an atom of no known element")
    require_few(len(cell.species))
    pair = coinciding(cell.frac, cell.matrix)
    if pair is not None:
        first, second = pair
        raise ValueError(
            f"atoms {first} and {second} (counted from 0) are less than {COINCIDENCE} Å apart: a"
            " position is listed twice, or shared by several elements (a disordered site)"
        )
    return cell


def require_few(n_atoms: int) -> None:
    """ValueError if a cell announces more atoms than are read: ask before making room for them."""
    if not 0 <= n_atoms <= MAX_ATOMS:
        raise ValueError(f"{n_atoms} atoms in the cell, more than the {MAX_ATOMS} that are read")


def coinciding(frac: np.ndarray, matrix: np.ndarray) -> tuple[int, int] | None:
    """A pair of atoms within `COINCIDENCE` of each other, modulo the lattice, if there is one."""
    pairs = _all_pairs(len(frac)) if len(frac) <= FEW_ATOMS else _near_pairs(frac, matrix)
    offset = frac[pairs[:, 0]] - frac[pairs[:, 1]]
    offset -= np.round(offset)
    close = ((offset @ matrix) ** 2).sum(axis=1) < COINCIDENCE**2
    if not close.any():
        return None
    first, second = pairs[np.argmax(close)]
    return int(first), int(second)


FEW_ATOMS = 64
"""Up to this many, comparing all pairs is faster than a tree."""


@cache
def _all_pairs(n: int) -> np.ndarray:
    return np.stack(np.triu_indices(n, 1), axis=1)


def _near_pairs(frac: np.ndarray, matrix: np.ndarray) -> np.ndarray:
    """int [n, 2]: all pairs that may be within `COINCIDENCE`, and some more."""
    from scipy.spatial import cKDTree

    # A step of length d changes fractional coordinate i by at most d / (spacing of planes i).
    reach = COINCIDENCE * np.linalg.norm(np.linalg.inv(matrix), axis=0).max()
    wrapped = frac - np.floor(frac)
    wrapped[wrapped >= 1] = 0
    tree = cKDTree(wrapped, boxsize=1)
    return tree.query_pairs(min(reach * np.sqrt(3), 0.5), output_type="ndarray")


def scalars(row: dict[str, Any]) -> Properties:
    """The entries that are numbers, strings or None (nan); lists and dicts are left out."""
    kept: Properties = {}
    for name, value in row.items():
        if value is None:
            kept[str(name)] = float("nan")
        elif isinstance(value, int | float | np.number | np.bool_ | Decimal):
            kept[str(name)] = _float(value)
        elif isinstance(value, str):
            kept[str(name)] = str(value)
    return kept


def _float(value: Any) -> float:
    try:
        return float(value)
    except OverflowError:  # an integer of hundreds of digits
        return float("inf") if value > 0 else float("-inf")
