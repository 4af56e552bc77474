"""Files of conditions: tables and JSON lines."""

from __future__ import annotations

import csv
import json
from collections.abc import Iterator, Mapping
from dataclasses import fields
from pathlib import Path
from typing import Any

from crystaljax.conditions import Condition, chemical_system, element_names
from crystaljax.data.text_files import open_text
from crystaljax.symmetry.settings import group_number

FIELDS = tuple(field.name for field in fields(Condition))

SYSTEM = "chemical_system"
"""Column of exactly the elements that crystals must have."""

ELEMENTS = {"elements", "required"}
"""Columns of lists of elements."""

PROPERTY = "properties."
"""Prefix of columns of properties, such as properties.band_gap."""


def read_conditions(path: str | Path) -> list[Condition]:
    """Conditions of a file: .csv, or .jsonl with one object per line.

    Columns are the fields of `Condition`, properties.NAME, and chemical_system (exactly these
    elements, as in Li-Fe-O); empty cells are free. Space groups are numbers or Hermann-Mauguin
    symbols. Several elements, letters or space groups are separated by spaces, or a list.
    FileNotFoundError; ValueError naming the line that cannot be read, or whose condition cannot be
    met.
    """
    path = Path(path)
    found = []
    for line, row in _rows(path):
        try:
            found.append(_condition(row))
        except (ValueError, TypeError) as error:
            raise ValueError(f"{path}, line {line}: {error}") from error
    if not found:
        raise ValueError(f"{path} has no conditions: give one per line")
    return found


def _rows(path: Path) -> Iterator[tuple[int, Mapping[str, Any]]]:
    """(line, values by column) of a file."""
    if path.suffix not in (".csv", ".jsonl"):
        raise ValueError(f"{path}: conditions are in .csv or .jsonl files")
    with open_text(path) as (file, _):
        if path.suffix == ".csv":
            reader = csv.DictReader(file)
            for row in reader:
                yield reader.line_num, row
            return
        for line, text in enumerate(file, 1):
            if text.strip():
                yield line, _object(text, f"{path}, line {line}")


def _object(text: str, where: str) -> Mapping[str, Any]:
    try:
        row = json.loads(text)
    except json.JSONDecodeError as error:
        raise ValueError(f"{where} is no JSON: {error}") from error
    if not isinstance(row, dict):
        raise ValueError(f"{where} is no object of names and values")
    return row


def _condition(row: Mapping[str, Any]) -> Condition:
    """The condition of one row."""
    given = {name: value for name, value in row.items() if value not in (None, "", [])}
    properties = dict(given.pop("properties", {}))
    for name in [name for name in given if str(name).startswith(PROPERTY)]:
        properties[name.removeprefix(PROPERTY)] = given.pop(name)
    if system := given.pop(SYSTEM, None):
        if given.keys() & ELEMENTS:
            raise ValueError(f"{SYSTEM} says which elements: leave elements and required empty")
        given["elements"] = given["required"] = list(chemical_system(str(system)))
    if unknown := given.keys() - set(FIELDS):
        names = ", ".join(map(str, sorted(unknown, key=str)))
        raise ValueError(
            f"{names}: the fields are {', '.join(FIELDS)}, {SYSTEM} and {PROPERTY}NAME"
        )
    for name in (ELEMENTS | {"template", "space_group"}) & given.keys():
        value = given[name]
        words = value if isinstance(value, list) else str(value).split()
        given[name] = element_names(words) if name in ELEMENTS else tuple(words)
    if "space_group" in given:
        groups = tuple(dict.fromkeys(group_number(str(x)) for x in given["space_group"]))
        given["space_group"] = groups[0] if len(groups) == 1 else groups
    if "formula_units" in given:
        given["formula_units"] = _whole(given["formula_units"])
    return Condition(**given, properties={name: float(x) for name, x in properties.items()})


def _whole(value: Any) -> int:
    """A whole number; pandas writes 2.0 in a column with empty cells."""
    number = float(value)
    if not number.is_integer():
        raise ValueError(f"{value} is no whole number")
    return int(number)
