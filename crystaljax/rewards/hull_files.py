"""Read tables of formulas and formation energies, and files of DFT entries, for hulls."""

from __future__ import annotations

import bz2
import gzip
import json
import re
import zlib
from collections.abc import Callable, Iterable, Mapping, Sequence
from itertools import takewhile
from os import PathLike
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from crystaljax.composition import N_SPECIES, atomic_number, parse_formulas
from crystaljax.rewards.levels import known_level

FORMULA_COLUMNS = ("formula", "pretty_formula", "reduced_formula", "formula_pretty", "composition")
"""Names looked for, in this order, when no formula column is named."""
ENERGY_COLUMNS = (
    "formation_energy_per_atom",
    "formation_energy",
    "e_form_per_atom",
    "e_form",
    "e_form_per_atom_mp2020_corrected",
)
"""Names looked for, in this order, when no energy column is named (eV/atom)."""

_SUFFIXES = (".csv", ".csv.gz", ".parquet", ".json", ".json.gz", ".json.bz2")
_COLUMNS = re.compile(r"(?P<path>.+?):(?P<columns>(?:formula|energy)=.+)")
_NEXT = re.compile(r",(?=(?:formula|energy)=)")
_PICKLES = (".pkl", ".pickle", ".pkl.gz", ".pkl.bz2")


class HullTable(NamedTuple):
    """Entries that a hull is built from."""

    counts: np.ndarray
    """float64 [N, 119]: amounts of the elements of each entry."""
    energies: np.ndarray
    """float64 [N]: formation energies in eV/atom."""
    references: np.ndarray | None
    """float64 [119]: the elemental energies of the file (eV/atom); None: Materials Project's."""
    name: str
    """Name for the hull, made from the files' names."""
    level: str | None
    """Level of theory that the files state; None where they do not."""


class Contents(NamedTuple):
    """Contents of one file: computed entries, or a table."""

    entries: list[Entry]
    formulas: list[str]
    energies: list[float]
    """Formation energies of the formulas, eV/atom."""
    level: str | None
    """Level of theory that the file states."""


class Entry(NamedTuple):
    """One computed entry of a file: the composition of its cell, and its total energy."""

    composition: Mapping[str, float]
    """Atoms of each element in the cell."""
    energy: float
    """Corrected total energy in eV."""


def find_columns(
    names: Sequence[str], formula_column: str | None, energy_column: str | None, where: str
) -> tuple[str, str]:
    """The formula and the energy column among `names`; ValueError listing the columns if absent."""

    def find(kind: str, asked: str | None, customary: Sequence[str]) -> str:
        for name in customary if asked is None else (asked,):
            if name in names:
                return name
        looked_for = f"{asked!r}" if asked is not None else f"any of {', '.join(customary)}"
        there = ", ".join(names) or "none"
        raise ValueError(
            f"{where}: no {kind} column ({looked_for}); the columns are {there}: name the right one"
            f" ({kind}_column; after a file that is asked for, FILE:{kind}=COLUMN)"
        )

    return (
        find("formula", formula_column, FORMULA_COLUMNS),
        find("energy", energy_column, ENERGY_COLUMNS),
    )


def split_columns(source: str) -> tuple[str, dict[str, str]]:
    """Split FILE:formula=COLUMN,energy=COLUMN into the path and options of `read_hull_table`.

    Either or both of the columns may be left out.
    """
    found = _COLUMNS.fullmatch(source)
    if found is None or Path(source).exists():
        return source, {}
    pairs = (part.split("=", 1) for part in _NEXT.split(found["columns"]))
    return found["path"], {f"{kind}_column": name for kind, name in pairs}


def read_hull_table(
    path: str | PathLike | Sequence[str | PathLike],
    formula_column: str | None = None,
    energy_column: str | None = None,
) -> HullTable:
    """Read one or several files (or all tables of a folder) into one table of hull entries.

    See `Hull.from_file` for the formats and errors. Tables and entry files cannot be mixed, nor
    can levels of theory. A file states its level in a first line "# level: MatPES-PBE" (csv), as
    the entry "level" of its dictionary (json) or of its schema's metadata (parquet).
    """
    asked = [path] if isinstance(path, str | PathLike) else list(path)
    files = [file for one in asked for file in _expand(Path(one))]
    if not files:
        raise ValueError("no file to build a hull from: the list of paths is empty")
    contents = [_read(file, formula_column, energy_column) for file in files]
    entries = [entry for content in contents for entry in content.entries]
    formulas = [formula for content in contents for formula in content.formulas]
    energies = [energy for content in contents for energy in content.energies]
    label = Path(asked[0]).name if len(asked) == 1 else " + ".join(file.name for file in files)
    level, *others = {content.level for content in contents}
    if others:
        told = "; ".join(f"{f.name}: {c.level}" for f, c in zip(files, contents, strict=True))
        raise ValueError(f"{label}: files of several levels of theory are mixed ({told})")
    if entries and formulas:
        raise ValueError(f"{label}: files of entries and tables of formation energies are mixed")
    if entries:
        return _from_entries(entries, label, level)
    if not formulas:
        raise ValueError(f"{label}: no rows; a hull needs formulas and formation energies")
    try:
        counts = parse_formulas(formulas)
    except ValueError as error:
        raise ValueError(f"{label}: {error}") from error
    return HullTable(counts, np.asarray(energies, np.float64), None, label, level)


def _expand(path: Path) -> list[Path]:
    if path.is_dir():
        files = sorted(f for f in path.iterdir() if f.name.lower().endswith(_SUFFIXES))
        if not files:
            raise FileNotFoundError(f"no table ({', '.join(_SUFFIXES)}) in the folder {path}")
        return files
    if not path.is_file():
        raise FileNotFoundError(
            f"no such hull file: {path}. Hulls that can be downloaded by name: mp-energies (the"
            " Materials Project's)"
        )
    if path.name.lower().endswith(_PICKLES):
        raise ValueError(
            f"{path}: pickles can run any code when they are opened and are refused; give the json"
            " of the entries (matbench-discovery's computed-structure-entries.json.gz)"
        )
    if not path.name.lower().endswith(_SUFFIXES):
        raise ValueError(f"{path}: not a known kind of table; give one of {', '.join(_SUFFIXES)}")
    return [path]


def _read(path: Path, formula_column: str | None, energy_column: str | None) -> Contents:
    """The entries of a json file of entries, else the formula and energy columns."""
    level: str | None = None
    if path.stat().st_size == 0:
        raise ValueError(f"{path}: the file is empty")
    if path.name.lower().endswith((".json", ".json.gz", ".json.bz2")):
        entries, content = _read_json(path)
        stated = content.pop("level", None) if isinstance(content, dict) else None
        if isinstance(stated, str):
            level = known_level(stated)
        if entries:
            return Contents(entries, [], [], level)
        columns = _json_columns(content, path)
    else:
        columns, level = _arrow_columns(path)
    formula, energy = find_columns(list(columns), formula_column, energy_column, str(path))
    try:
        energies = [np.nan if x is None or x == "" else float(x) for x in columns[energy]]
    except (TypeError, ValueError) as error:
        raise ValueError(
            f"{path}: the column {energy!r} holds something that is no number: {error}"
        ) from error
    return Contents([], [str(x) for x in columns[formula]], energies, level)


def _arrow_columns(path: Path) -> tuple[Mapping[str, Iterable[Any]], str | None]:
    """Columns of a csv or parquet file, each converted to Python when it is used, and its level."""
    import pyarrow as pa
    from pyarrow import csv, parquet

    try:
        if path.name.lower().endswith(".parquet"):
            table = parquet.read_table(path)
            stated = (table.schema.metadata or {}).get(b"level", b"").decode()
        else:
            comments = _leading_comments(path)
            stated = next(filter(None, map(_stated_level, comments)), "")
            parsing = csv.ParseOptions(newlines_in_values=True)
            reading = csv.ReadOptions(skip_rows=len(comments))
            table = csv.read_csv(path, read_options=reading, parse_options=parsing)
    except (pa.ArrowInvalid, OSError, EOFError, zlib.error) as error:
        raise ValueError(f"{path}: cannot be read as a table: {error}") from error
    return _Columns(table), known_level(stated) if stated else None


def _leading_comments(path: Path) -> list[str]:
    """The lines that start with "#" before the header of a csv file."""
    opener: Callable[..., Any] = gzip.open if path.suffix.lower() == ".gz" else open
    with opener(path, "rt", encoding="utf-8-sig", errors="replace") as lines:
        return list(takewhile(lambda line: line.startswith("#"), lines))


def _stated_level(comment: str) -> str:
    """The level of a line "# level: ...", else ""."""
    name, _, level = comment.lstrip("# ").partition(":")
    return level.strip() if name.strip().lower() == "level" else ""


class _Columns(dict[str, Any]):
    """Columns of an arrow table; a column becomes a list of Python values when it is used."""

    def __init__(self, table: Any) -> None:
        super().__init__({name: table[name] for name in table.column_names})

    def __getitem__(self, name: str) -> list[Any]:
        return super().__getitem__(name).to_pylist()


def _read_json(path: Path) -> tuple[list[Entry], Any]:
    """The computed entries anywhere in a json file, and its other content.

    Entries are reduced to composition and energy as they are parsed, so that the structures of
    150,000 entries are never in memory together.
    """
    entries: list[Entry] = []

    def reduce(item: dict[str, Any]) -> Any:
        if "sites" in item and "lattice" in item:
            return _site_composition(item["sites"])
        if "energy" in item and ("composition" in item or "structure" in item):
            composition = item.get("composition") or item["structure"]
            if isinstance(composition, dict):
                energy = float(item["energy"]) + float(item.get("correction") or 0.0)
                entries.append(Entry(composition, energy))
                return None
        return item

    openers: dict[str, Callable[..., Any]] = {".gz": gzip.open, ".bz2": bz2.open}
    opener = openers.get(path.suffix.lower(), open)
    try:
        with opener(path, "rt", encoding="utf-8") as stream:
            content = json.load(stream, object_hook=reduce)
    except (json.JSONDecodeError, UnicodeDecodeError, EOFError, OSError) as error:
        raise ValueError(f"{path}: cannot be read as json: {error}") from error
    return entries, content


def _site_composition(sites: Iterable[Mapping[str, Any]]) -> dict[str, float]:
    composition: dict[str, float] = {}
    for site in sites:
        for species in site.get("species", ()):
            symbol = species["element"]
            composition[symbol] = composition.get(symbol, 0.0) + float(species.get("occu", 1.0))
    return composition


def _json_columns(content: Any, path: Path) -> Mapping[str, Iterable[Any]]:
    """Columns of a json table: a list of rows, or columns of lists or of row dicts."""
    if isinstance(content, list) and content and all(isinstance(row, dict) for row in content):
        names = dict.fromkeys(name for row in content for name in row)
        return {name: [row.get(name) for row in content] for name in names}
    if isinstance(content, dict) and content:
        if all(isinstance(column, list) for column in content.values()):
            return content
        if all(isinstance(column, dict) for column in content.values()):
            return {name: list(column.values()) for name, column in content.items()}
    raise ValueError(
        f"{path}: neither computed entries (with energy and composition) nor a table (a list of"
        " rows or a dictionary of columns)"
    )


def _from_entries(entries: list[Entry], label: str, level: str | None) -> HullTable:
    """Formation energies of computed entries, from the elemental entries among them.

    Entries that contain an element without an elemental entry are left out. The hull then lacks
    this element, and says so for crystals that contain it.
    """
    counts = np.zeros((len(entries), N_SPECIES))
    for row, entry in zip(counts, entries, strict=True):
        for symbol, amount in entry.composition.items():
            row[atomic_number(symbol)] += float(amount)
    n_atoms = counts.sum(axis=1)
    if not n_atoms.all():
        raise ValueError(f"{label}: entry {int(np.argmin(n_atoms))} has no atoms")
    energies = np.array([entry.energy for entry in entries]) / n_atoms
    references = np.full(N_SPECIES, np.nan)
    for index in np.flatnonzero((counts > 0).sum(axis=1) == 1):
        z = int(counts[index].argmax())
        references[z] = np.fmin(references[z], energies[index])
    known = ~((counts > 0) & np.isnan(references)).any(axis=1)
    if not known.any():
        raise ValueError(f"{label}: no elemental entries, so no formation energies: add them")
    formation = energies - counts @ np.nan_to_num(references) / n_atoms
    return HullTable(counts[known], formation[known], references, label, level)
