"""Readers of text formats: CSV tables, CIF files and archives, extxyz."""

from __future__ import annotations

import ast
import csv
import gzip
import io
import json
import sys
import zipfile
import zlib
from collections.abc import Generator, Iterator
from contextlib import closing
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np

from crystaljax.composition import atomic_number
from crystaljax.crystal import AtomicCell
from crystaljax.data import cif
from crystaljax.data.json_formats import structure_dict
from crystaljax.data.records import Record, Source, checked_cell, number, record, scalars

# CSV


def open_csv(path: Path) -> Source:
    with closing(_csv_rows(path)) as rows:
        start = [row for _, row in islice(rows, 2)]
    if len(start) < 2:
        what = "is empty" if not start else "has a header but no rows"
        raise ValueError(f"{path} {what}: expected a table with a cif column")
    names = start[0]
    column = next((name for name in _CSV_PARSERS if name in names), None)
    if column is None:
        raise ValueError(
            f"{path} has no column of structures ({', '.join(_CSV_PARSERS)}), only"
            f" {', '.join(map(repr, names))}"
        )

    def items() -> Iterator[tuple[float, Any]]:
        rows = _csv_rows(path)
        next(rows)
        for index, (fraction, row) in enumerate(rows):
            yield fraction, (index, row)

    return Source(items(), partial(_decode_csv, names, column))


def _csv_rows(path: Path) -> Generator[tuple[float, list[str]], None, None]:
    csv.field_size_limit(min(sys.maxsize, 2**31 - 1))  # a CIF outgrows the default 128 KiB
    size = max(path.stat().st_size, 1)
    with path.open("rb") as raw:
        data = gzip.GzipFile(fileobj=raw) if path.suffix == ".gz" else raw
        try:
            with io.TextIOWrapper(data, encoding="utf-8", newline="") as text:
                for row in csv.reader(text):
                    if row:
                        yield raw.tell() / size, row
        except (UnicodeDecodeError, csv.Error, EOFError, OSError, zlib.error) as error:
            raise ValueError(f"{path} is damaged or no CSV: {error}") from None


def _decode_csv(names: list[str], column: str, item: tuple[int, list[str]]) -> list[Record]:
    index, values = item
    row = dict(zip(names, values, strict=False))
    text = row.pop(column, "")
    id = row.pop("material_id", "") or str(index)
    properties = {name: number(value) for name, value in row.items() if name}
    if len(values) != len(names):
        reason = f"the row has {len(values)} fields where the header has {len(names)}"
        return [Record(id, None, reason, properties)]
    return [record(id, properties, _CSV_PARSERS[column], text)]


def _parse_text(text: str) -> AtomicCell:
    """A CIF, or a pymatgen Structure's dict as JSON or as Python prints it."""
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


def _poscar(text: str) -> AtomicCell:
    """A POSCAR of VASP 5 or later (its sixth line names the elements)."""
    lines = text.strip("\n").splitlines()
    try:
        scale = float(lines[1])
        matrix = np.array([line.split()[:3] for line in lines[2:5]], float)
        counts = [int(count) for count in lines[6].split()]
    except (ValueError, IndexError):
        raise ValueError("no POSCAR with a line of elements (VASP 5 or later)") from None
    matrix *= scale if scale > 0 else (-scale / abs(np.linalg.det(matrix))) ** (1 / 3)
    species = np.repeat([atomic_number(symbol) for symbol in lines[5].split()], counts)
    start = 8 if lines[7].strip().lower().startswith("s") else 7  # selective dynamics
    rows = lines[start + 1 : start + 1 + len(species)]
    positions = np.array([line.split()[:3] for line in rows], float)
    if lines[start].strip().lower().startswith(("c", "k")):
        positions = positions * scale @ np.linalg.inv(matrix)
    return checked_cell(matrix, positions, species)


_CSV_PARSERS = {"cif": _parse_text, "structure": _parse_text, "poscar": _poscar}


# CIF: files, folders, zip archives


def open_folder(path: Path) -> Source:
    files = sorted(file for file in path.rglob("*") if file.suffix.lower() == ".cif")
    if not files:
        raise ValueError(f"the folder {path} holds no .cif and no .parquet file")
    items = (
        ((i + 1) / len(files), (file.relative_to(path).with_suffix("").as_posix(), file))
        for i, file in enumerate(files)
    )
    return Source(items, _decode_cif)


def open_cif(path: Path) -> Source:
    return Source([(1.0, (path.stem, path))], _decode_cif)


def open_zip(path: Path) -> Source:
    try:
        with zipfile.ZipFile(path) as archive:
            names = [name for name in archive.namelist() if name.lower().endswith(".cif")]
    except zipfile.BadZipFile as error:
        raise ValueError(f"{path} is damaged or no zip archive: {error}") from None
    if not names:
        raise ValueError(f"the archive {path} holds no .cif file")

    def items() -> Iterator[tuple[float, Any]]:
        with zipfile.ZipFile(path) as archive:
            for i, name in enumerate(names):
                yield (i + 1) / len(names), (name.removesuffix(".cif"), archive.read(name))

    return Source(items(), _decode_cif)


def _decode_cif(item: tuple[str, Path | bytes]) -> list[Record]:
    id, data = item
    try:
        text = (data.read_bytes() if isinstance(data, Path) else data).decode("utf-8", "replace")
        blocks = cif.parse(text)
    except (ValueError, OSError) as error:
        return [Record(id, None, str(error), {})]
    ids = [id if len(blocks) == 1 else f"{id}:{name}" for name, _ in blocks]
    return [
        Record(id, None, str(cell), {})
        if isinstance(cell, ValueError)
        else Record(id, cell, None, {})
        for id, (_, cell) in zip(ids, blocks, strict=True)
    ]


# extxyz


def open_extxyz(path: Path) -> Source:
    def items() -> Iterator[tuple[float, Any]]:
        size = max(path.stat().st_size, 1)
        with path.open("rb") as raw:
            data = gzip.GzipFile(fileobj=raw) if path.suffix == ".gz" else raw
            with io.TextIOWrapper(data, encoding="utf-8") as text:
                for index, line in enumerate(iter(lambda: next(text, "").strip(), "")):
                    if not line.isdigit():
                        what = f"starts with {line!r}, no atom count"
                        raise ValueError(f"{path}: frame {index} {what}")
                    frame = [next(text, "") for _ in range(int(line) + 1)]
                    yield raw.tell() / size, (index, f"{line}\n{''.join(frame)}")

    return Source(items(), _decode_extxyz)


def _decode_extxyz(item: tuple[int, str]) -> list[Record]:
    from ase.io.extxyz import XYZError
    from ase.io.extxyz import read_xyz as read_frames

    index, text = item
    try:
        atoms = next(read_frames(io.StringIO(text), slice(0, 1)))
    except (XYZError, ValueError, KeyError, IndexError, StopIteration) as error:
        return [Record(str(index), None, f"not an extxyz frame: {error}", {})]
    info = {**atoms.info, **(atoms.calc.results if atoms.calc else {})}
    id = str(info.pop("material_id", index))
    properties = scalars(info)
    if atoms.cell.rank != 3:
        return [Record(id, None, "no unit cell: the frame has no Lattice", properties)]
    data = (atoms.cell.array, atoms.get_scaled_positions(wrap=False), atoms.numbers)
    return [record(id, properties, lambda data: checked_cell(*data), data)]
