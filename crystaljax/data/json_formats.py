"""Readers of pymatgen's JSON that do not import pymatgen."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

from crystaljax.composition import atomic_number
from crystaljax.crystal import AtomicCell
from crystaljax.data.cells import atomic_cell
from crystaljax.data.records import Entry, Item, Source, attempt, scalars
from crystaljax.data.text_files import open_text
from crystaljax.validity import require_few

Row = dict[str, Any]


def open_json(path: Path) -> Source:
    """A JSON file of structures in any shape that `_rows` knows; the items of a list are streamed.

    An item's data is the JSON of one entry, as in a .jsonl file.
    """
    text, damage = _whole_text(path)
    start = _after_space(text, 0)
    if text[start : start + 1] == "[":
        return Source(path, _list_items(text, start + 1, damage), _decode)
    if damage is not None:
        raise damage
    try:
        rows = _rows(json.loads(text))
    except json.JSONDecodeError as error:
        raise ValueError(f"{path} is damaged or no JSON: {error}") from None
    if not rows:
        raise ValueError(f"{path} holds no list, dict or table of pymatgen structures")
    items = (
        Item((i + 1) / len(rows), id, attempt(partial(json.dumps, row)))
        for i, (id, row) in enumerate(rows)
    )
    return Source(path, items, _decode)


def _whole_text(path: Path) -> tuple[str, Exception | None]:
    """The text of a file as far as it can be read, and the error that ended it, if any."""
    parts = []
    try:
        with open_text(path) as (text, _):
            while part := text.read(1 << 12):  # what a longer read held would be lost
                parts.append(part)
    except Exception as error:
        if not parts:
            raise
        return "".join(parts), error
    return "".join(parts), None


def _list_items(text: str, place: int, damage: Exception | None) -> Iterator[Item]:
    """The entries of the list that begins before `place`; an error if it is truncated."""
    decoder = json.JSONDecoder()
    index = 0
    place = _after_space(text, place)
    if text[place : place + 1] == "]":
        raise ValueError("an empty list")
    while True:
        try:
            _, end = decoder.raw_decode(text, place)
        except json.JSONDecodeError as error:
            raise (damage or error) from None
        yield Item(end / len(text), str(index), text[place:end])
        index += 1
        place = _after_space(text, end)
        match text[place : place + 1]:
            case "]":
                return
            case ",":
                place = _after_space(text, place + 1)
            case _:
                raise damage or ValueError(f"the list is not closed after entry {index - 1}")


def _after_space(text: str, place: int) -> int:
    match = _SPACE.match(text, place)
    return match.end() if match else place


_SPACE = re.compile(r"[ \t\r\n]+")


def open_jsonl(path: Path) -> Source:
    """A file with the JSON of one entry per line, streamed."""

    def items() -> Iterator[Item]:
        with open_text(path) as (text, fraction):
            lines = (line for line in text if line.strip())
            for index, line in enumerate(lines):
                yield Item(fraction(), str(index), line)

    return Source(path, items(), _decode)


def _rows(data: Any) -> list[tuple[str, Any]]:
    """(id, entry) pairs of the supported shapes: dict by id, Alexandria's, pandas' tables."""
    if not isinstance(data, dict):
        return []
    if isinstance(data.get("entries"), list):  # Alexandria's files
        return [(str(i), row) for i, row in enumerate(data["entries"])]
    if any(isinstance(x, dict) and x.keys() >= _SITES for x in (data, data.get("structure"))):
        return [("0", data)]
    return _table_rows(data)


def _table_rows(data: Row) -> list[tuple[str, Any]]:
    if {"columns", "data"} <= data.keys():  # pandas, orient="split"
        index = data.get("index", range(len(data["data"])))
        pairs = zip(index, data["data"], strict=True)
        return [(str(i), dict(zip(data["columns"], row, strict=False))) for i, row in pairs]
    inner = {str(i): value for i, value in data.items() if isinstance(value, dict)}
    with_structure = sum(_find_structure(value) is not None for value in inner.values())
    if 2 * with_structure > len(inner) and not _COLUMNS & inner.keys():
        return [(str(i), value) for i, value in data.items()]
    ids = dict.fromkeys(i for column in inner.values() for i in column)
    # pandas, orient="columns"
    return [(str(i), {name: column.get(i) for name, column in inner.items()}) for i in ids]


_SITES = {"lattice", "sites"}
"""Keys that mark a Structure's dict."""

_COLUMNS = {"structure", "entry", "computed_structure_entry"}
"""Keys that are names of columns and not ids."""


def _find_structure(row: Row, depth: int = 2) -> Row | None:
    """The Structure's dict in an entry: the entry itself, or one of its values."""
    if row.keys() >= _SITES:
        return row
    inner = [value for value in row.values() if isinstance(value, dict)] if depth else []
    found = (_find_structure(value, depth - 1) for value in inner)
    return next((structure for structure in found if structure is not None), None)


def _decode(index: str, text: str) -> Iterator[Entry]:
    try:
        row = json.loads(text)
    except json.JSONDecodeError as error:
        raise ValueError(f"the entry is no JSON: {error}") from None
    if not isinstance(row, dict):
        raise ValueError(f"the entry is no JSON object: {text.strip()[:80]}")
    fields: Row = {}
    for part in _parts(row):
        fields |= part
    id = next((fields.pop(name) for name in _IDS if fields.get(name) is not None), index)
    yield Entry(str(id), scalars(fields), _parse, row)


def _parts(row: Row, is_object: bool = True, depth: int = 4) -> Iterator[Row]:
    """An entry and the dicts inside it whose scalars are properties of the structure."""
    marks = {"@module", "@class", "@version", *({"charge"} if row.keys() >= _SITES else ())}
    yield {name: value for name, value in row.items() if not (is_object and name in marks)}
    for name in (*sorted(_COLUMNS), "data", "properties"):
        if isinstance(row.get(name), dict) and depth:
            yield from _parts(row[name], name in _COLUMNS, depth - 1)


_IDS = ("material_id", "mat_id", "entry_id")
"""Keys of ids; the first one is used, others are kept as properties."""


def _parse(row: Row) -> AtomicCell:
    structure = _find_structure(row)
    if structure is None:
        raise ValueError("the entry has no structure (lattice and sites)")
    return structure_dict(structure)


def structure_dict(data: dict[str, Any]) -> AtomicCell:
    """A pymatgen Structure from its dict, without pymatgen; ValueError for disorder."""
    species, frac = [], []
    require_few(len(data["sites"]))
    for index, site in enumerate(data["sites"]):
        occupants = site["species"]
        if not (isinstance(occupants, list) and all(isinstance(x, dict) for x in occupants)):
            raise ValueError(f"the species of site {index} are {occupants!r}: no list of elements")
        if len(occupants) != 1 or not abs(occupants[0].get("occu", 1) - 1) <= 1e-3:
            shares = ", ".join(f"{x['element']} {x.get('occu', 1):g}" for x in occupants)
            raise ValueError(f"partial occupancy: a site holds {shares or 'nothing'}")
        match = re.match(r"[A-Za-z]+", occupants[0]["element"])
        species.append(atomic_number(match.group() if match else ""))
        frac.append(site["abc"])
    if not all(data["lattice"].get("pbc") or [True]):
        raise ValueError(f"no crystal: not periodic in all directions ({data['lattice']['pbc']})")
    return atomic_cell(data["lattice"]["matrix"], frac, species)
