"""Records of files: the parts that all formats share, with a guard around each entry.

A format is a function `path -> Source`. Making its items only reads input. `decode` makes entries
of an item, and an entry's `parse` its atoms. Any exception of any library in these steps becomes
the reason of one record; the other records are not affected.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from decimal import Decimal
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from crystaljax.crystal import AtomicCell
from crystaljax.data.text_files import clean
from crystaljax.validity import check_cell

MAX_REASON = 500
"""Largest number of characters of a reason."""

MAX_ID = 200
"""Largest number of characters of an id."""

N_SHOWN = 3
"""Number of entries that a message names with their reasons."""

Properties = dict[str, float | str]


class Record(NamedTuple):
    """One entry of a file: a structure, or the reason that there is none."""

    id: str
    cell: AtomicCell | None
    reason: str | None
    """Reason that `cell` is None; None for a good record."""
    properties: Properties
    """The entry's other columns: float if the text is a number or missing (nan), else str."""


class Unreadable(NamedTuple):
    """Placeholder in an item for data that could not be read."""

    reason: str


class Item(NamedTuple):
    """A part of a file, not decoded yet; picklable."""

    fraction: float
    """Fraction of the file that has been read, 0 to 1."""
    id: str
    """Its name in the record if it cannot be decoded."""
    data: Any
    """Input of `Source.decode`, or `Unreadable`."""


class Entry(NamedTuple):
    """A structure of a file, not parsed yet."""

    id: str
    properties: Properties
    parse: Callable[[Any], AtomicCell]
    """Parses `data` to atoms; may raise anything."""
    data: Any


@dataclass(frozen=True)
class Source:
    """A file opened for reading."""

    path: Path
    items: Iterable[Item]
    decode: Callable[[str, Any], Iterable[Entry]]
    """Decodes an item's id and data to entries; picklable; may raise anything."""
    rows_per_item: int = 1


def stream(source: Source) -> Iterator[Item]:
    """The items of a source, as far as it can be read.

    If a file ends early (a truncated archive, a damaged block), the items before are kept, the last
    item is the error, and there is a warning. ValueError if the first item cannot be read.
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
    if isinstance(error, ValueError) and str(path) in reason:  # its message is complete
        return error
    return ValueError(f"{path} is damaged, or not of the format that its name says: {reason}")


def attempt(read: Callable[[], Any]) -> Any:
    """`read()`, or `Unreadable` with the exception that it raises."""
    try:
        return read()
    except Exception as error:  # noqa: BLE001 (any library's)
        return Unreadable(reason_of(error))


def records(decode: Callable[[str, Any], Iterable[Entry]], item: Item) -> Iterator[Record]:
    """The records of an item; an exception becomes the reason of the record that it belongs to."""
    entries = item.data
    if not isinstance(entries, Unreadable):
        entries = attempt(lambda: list(decode(item.id, item.data)))
    if isinstance(entries, Unreadable):
        yield Record(_short(item.id, MAX_ID), None, _short(entries.reason, MAX_REASON), {})
        return
    for entry in entries:
        cell = attempt(partial(_cell, entry))
        reason = _short(cell.reason, MAX_REASON) if isinstance(cell, Unreadable) else None
        properties = {
            clean(name): clean(value) if isinstance(value, str) else value
            for name, value in entry.properties.items()
        }
        yield Record(_short(entry.id, MAX_ID), cell if reason is None else None, reason, properties)


def _cell(entry: Entry) -> AtomicCell:
    return check_cell(entry.parse(entry.data))


def reason_of(error: Exception) -> str:
    """Message of an error for a user who does not see the traceback."""
    match error:
        case RecursionError():
            return "nested too deeply"
        case MemoryError():
            return "it does not fit into memory"
        case LookupError() | TypeError() | AttributeError() | ArithmeticError() | AssertionError():
            return f"its data lack something or have an odd shape ({error!r})"
        case _:
            return str(error) or type(error).__name__


def first_reasons(rows: Iterable[tuple[str, str | None]]) -> str:
    """Text of the first `N_SHOWN` of (id, reason) pairs, for a message."""
    first = [f"{id}: {reason}" for id, reason in islice(rows, N_SHOWN + 1)]
    return "; ".join([*first[:N_SHOWN], *(["..."] if len(first) > N_SHOWN else [])])


def _short(text: str, longest: int) -> str:
    text = clean(text)
    return text if len(text) <= longest else text[: longest - 1] + "…"


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
