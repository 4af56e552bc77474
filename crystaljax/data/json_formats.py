"""Readers of pymatgen's JSON, without pymatgen."""

from __future__ import annotations

import bz2
import gzip
import io
import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any

from crystaljax.composition import atomic_number
from crystaljax.crystal import AtomicCell
from crystaljax.data.records import Record, Source, checked_cell, record, scalars

Row = dict[str, Any]


def open_json(path: Path) -> Source:
    """A JSON file of structures in any shape that `_rows` knows, read whole."""
    try:
        with _open(path) as file:
            rows = _rows(json.load(file))
    except (json.JSONDecodeError, UnicodeDecodeError, OSError, EOFError) as error:
        raise ValueError(f"{path} is damaged or no JSON: {error}") from None
    if not rows:
        raise ValueError(f"{path} holds no list, dict or table of pymatgen structures")
    items = (((i + 1) / len(rows), row) for i, row in enumerate(rows))
    return Source(items, _decode)


def open_jsonl(path: Path) -> Source:
    """A file with the JSON of one entry a line, streamed."""

    def items() -> Iterator[tuple[float, Any]]:
        size = max(path.stat().st_size, 1)
        with path.open("rb") as raw, _open(path, raw) as file:
            for index, line in enumerate(file):
                yield raw.tell() / size, (str(index), line)

    return Source(items(), _decode_line)


def _open(path: Path, raw: IO[bytes] | None = None) -> IO[str]:
    source: Any = path if raw is None else raw
    match path.suffix:
        case ".gz":
            return gzip.open(source, "rt", encoding="utf-8")
        case ".bz2":
            return bz2.open(source, "rt", encoding="utf-8")
        case _:
            return io.TextIOWrapper(raw or path.open("rb"), encoding="utf-8")


def _rows(data: Any) -> list[tuple[str, Row]]:
    """(id, entry) pairs of the shapes in use: list, dict by id, Alexandria's, pandas' tables."""
    if isinstance(data, dict) and isinstance(data.get("entries"), list):  # Alexandria's files
        data = data["entries"]
    if isinstance(data, list):
        return [(str(i), row) for i, row in enumerate(data) if isinstance(row, dict)]
    if not isinstance(data, dict):
        return []
    if any(isinstance(x, dict) and x.keys() >= _SITES for x in (data, data.get("structure"))):
        return [("0", data)]
    return _table_rows(data)


def _table_rows(data: Row) -> list[tuple[str, Row]]:
    if {"columns", "data"} <= data.keys():  # pandas, orient="split"
        index = data.get("index", range(len(data["data"])))
        pairs = zip(index, data["data"], strict=True)
        return [(str(i), dict(zip(data["columns"], row, strict=True))) for i, row in pairs]
    inner = {str(i): value for i, value in data.items() if isinstance(value, dict)}
    with_structure = sum(_find_structure(value) is not None for value in inner.values())
    if 2 * with_structure > len(inner) and not _COLUMNS & inner.keys():
        return list(inner.items())
    ids = list(next(iter(inner.values()), {}))  # pandas, orient="columns"
    return [(i, {name: column.get(i) for name, column in inner.items()}) for i in ids]


_SITES = {"lattice", "sites"}
"""What marks a Structure's dict."""

_COLUMNS = {"structure", "entry", "computed_structure_entry"}
"""Names of columns, where an id would stand in a dict by id."""


def _find_structure(row: Row, depth: int = 2) -> Row | None:
    """The Structure's dict in an entry: the entry itself, or what its values hold."""
    if row.keys() >= _SITES:
        return row
    inner = [value for value in row.values() if isinstance(value, dict)] if depth else []
    found = (_find_structure(value, depth - 1) for value in inner)
    return next((structure for structure in found if structure is not None), None)


def _decode_line(item: tuple[str, str]) -> list[Record]:
    id, line = item
    try:
        row = json.loads(line)
    except json.JSONDecodeError as error:
        return [Record(id, None, f"the line is no JSON: {error}", {})]
    if not isinstance(row, dict):
        return [Record(id, None, "the line is no JSON object", {})]
    return _decode((id, row))


def _decode(item: tuple[str, Row]) -> list[Record]:
    id, row = item
    structure = _find_structure(row)
    properties: dict[str, float | str] = {}
    for part in _parts(row):
        kept = {k: v for k, v in part.items() if k != "charge" and not k.startswith("@")}
        properties |= scalars(kept)
    for name in ("entry_id", "mat_id", "material_id"):
        id = str(properties.pop(name, id))
    if structure is None:
        return [Record(id, None, "the entry has no structure (lattice and sites)", properties)]
    return [record(id, properties, structure_dict, structure)]


def _parts(row: Row) -> Iterator[Row]:
    """An entry and the dicts inside it whose scalars are properties of the structure."""
    yield row
    for name in (*sorted(_COLUMNS), "data", "properties"):
        if isinstance(row.get(name), dict):
            yield from _parts(row[name])


def structure_dict(data: dict[str, Any]) -> AtomicCell:
    """A pymatgen Structure from its dict, without pymatgen; ValueError for disorder."""
    species, frac = [], []
    for site in data["sites"]:
        occupants = site["species"]
        if len(occupants) != 1 or abs(occupants[0].get("occu", 1) - 1) > 1e-3:
            shares = ", ".join(f"{x['element']} {x.get('occu', 1):g}" for x in occupants)
            raise ValueError(f"partial occupancy: a site holds {shares or 'nothing'}")
        match = re.match(r"[A-Za-z]+", occupants[0]["element"])
        species.append(atomic_number(match.group() if match else ""))
        frac.append(site["abc"])
    return checked_cell(data["lattice"]["matrix"], frac, species)
