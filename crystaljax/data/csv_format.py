"""Reader of CSV tables with a column of structures: CIFs, pymatgen's dicts or POSCARs."""

from __future__ import annotations

import ast
import csv
import json
import sys
from collections.abc import Generator, Iterator
from contextlib import closing
from functools import partial
from itertools import islice
from pathlib import Path
from typing import NamedTuple

from crystaljax.crystal import AtomicCell
from crystaljax.data import cif
from crystaljax.data.json_formats import structure_dict
from crystaljax.data.poscar import parse_poscar
from crystaljax.data.records import Entry, Item, Source
from crystaljax.data.text_files import number, open_text, unique


class _Row(NamedTuple):
    """A row of a table, and its lines in the file."""

    fraction: float
    first_line: int
    last_line: int
    values: list[str]
    is_whole: bool = True
    """False for a last row with an unclosed quote: the file ends inside it."""


def open_csv(path: Path) -> Source:
    """A table whose header names a column of structures; other columns are properties."""
    with closing(_rows(path)) as rows:
        start = [row.values for row in islice(rows, 2)]
    if len(start) < 2:
        what = "is empty" if not start else "has a header but no rows"
        raise ValueError(f"{path} {what}: expected a table with a cif column")
    names = unique(start[0])
    column = next((name for name in _PARSERS if name in names), None)
    if column is None:
        raise ValueError(
            f"{path} has no column of structures ({', '.join(_PARSERS)}), only"
            f" {', '.join(map(repr, names))}"
        )

    def items() -> Iterator[Item]:
        for index, row in enumerate(islice(_rows(path), 1, None)):
            yield Item(row.fraction, str(index), row)

    return Source(path, items(), partial(_decode, names, column))


def _rows(path: Path) -> Generator[_Row, None, None]:
    csv.field_size_limit(min(sys.maxsize, 2**31 - 1))  # a CIF outgrows the default 128 KiB
    with open_text(path) as (text, fraction):
        lines: list[str] = []  # of the row that is read

        def remembered() -> Iterator[str]:
            for line in text:
                lines.append(line)
                yield line

        row, line = None, 1
        for values in csv.reader(remembered()):
            if row is not None:
                yield row
            row = _Row(fraction(), line, line + len(lines) - 1, values) if values else None
            line += len(lines)
            last = lines[:]
            lines.clear()
        if row is not None:
            yield row._replace(is_whole=_is_whole(last))


def _is_whole(lines: list[str]) -> bool:
    try:
        list(csv.reader(lines, strict=True))
    except csv.Error as error:
        return "end of data" not in str(error)
    return True


def _decode(names: list[str], column: str, index: str, row: _Row) -> Iterator[Entry]:
    fields = dict(zip(names, row.values, strict=False))
    text = fields.pop(column, "")
    id = fields.pop("material_id", "") or index
    properties = {name: number(value) for name, value in fields.items() if name}
    if len(row.values) == len(names) and row.is_whole:
        yield Entry(id, properties, _PARSERS[column], text)
    else:
        yield Entry(id, properties, partial(_refuse, len(names)), row)


def _refuse(n_columns: int, row: _Row) -> AtomicCell:
    lines = f"line {row.first_line}"
    if row.last_line > row.first_line:
        lines = f"lines {row.first_line} to {row.last_line}"
    if not row.is_whole:
        raise ValueError(f"the file ends inside this row ({lines}): a quote is not closed")
    raise ValueError(
        f"the row ({lines}) has {len(row.values)} fields where the header has {n_columns}"
    )


def _parse_text(text: str) -> AtomicCell:
    """A CIF, or a pymatgen Structure's dict as JSON or as Python prints it."""
    text = text.removeprefix("\ufeff")
    if not text.lstrip().startswith("{"):
        return cif.parse_one(text)
    try:
        data = json.loads(text)
    except json.JSONDecodeError:
        try:
            data = ast.literal_eval(text)
        except (SyntaxError, ValueError):
            raise ValueError("neither a CIF nor a pymatgen structure as a dict") from None
    return structure_dict(data)


_PARSERS = {"cif": _parse_text, "structure": _parse_text, "poscar": parse_poscar}
"""Parsers by name of the column; the first column that a table has is read."""
