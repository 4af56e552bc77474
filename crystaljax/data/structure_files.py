"""Readers of CIF and POSCAR files, and of folders and zip archives of them."""

from __future__ import annotations

import csv
import io
import logging
import re
import zipfile
from collections.abc import Iterator
from functools import partial
from pathlib import Path, PurePosixPath
from typing import NamedTuple

from crystaljax.crystal import AtomicCell
from crystaljax.data import cif
from crystaljax.data.poscar import parse_poscar
from crystaljax.data.records import Entry, Item, Properties, Source, Unreadable, attempt
from crystaljax.data.text_files import decode_text, number

log = logging.getLogger(__name__)

MAX_BYTES = 1 << 28
"""Largest size of a file: a small archive may hold huge ones."""

N_NAMED = 5
"""Files that are not read which are named."""

TABLE = "properties.csv"
"""The table in an archive (see `writers`) with the id and the properties of each of its files."""


def open_folder(path: Path) -> Source:
    """Every CIF and POSCAR in a folder and its subfolders, named by its path in the folder."""
    files = sorted(file for file in path.rglob("*") if _is_member(file))
    if not files:
        raise ValueError(f"the folder {path} holds no .cif, no POSCAR and no .parquet file")
    _tell_others(path)
    items = (
        Item(
            (i + 1) / len(files),
            _name(file.relative_to(path).as_posix()),
            _Data(file, file.name, {}),
        )
        for i, file in enumerate(files)
    )
    return Source(path, items, _decode)


def _tell_others(path: Path) -> None:
    """Log the files of a folder that are not read."""
    others = sorted(
        file.name
        for file in path.rglob("*")
        if file.is_file() and not (is_structure(file.name) or file.name.startswith("."))
    )
    if others:
        named = ", ".join(others[:N_NAMED]) + ", ..." * (len(others) > N_NAMED)
        log.warning("%d other files of %s are not read: %s", len(others), path, named)


def open_structure(path: Path) -> Source:
    """A CIF of one or more blocks, or a POSCAR."""
    return Source(path, [Item(1.0, path.stem, _Data(path, path.name, {}))], _decode)


def open_zip(path: Path) -> Source:
    """The CIFs and POSCARs of an archive, with ids and properties of its table if it has one."""
    try:
        with zipfile.ZipFile(path) as archive:
            members = [info for info in archive.infolist() if is_structure(info.filename)]
            table = attempt(partial(_table, archive))
    except zipfile.BadZipFile as error:
        raise ValueError(f"{path} is damaged or no zip archive: {error}") from None
    if not members:
        raise ValueError(f"the archive {path} holds no .cif file and no POSCAR")
    known = {} if isinstance(table, Unreadable) else table

    def items() -> Iterator[Item]:
        with zipfile.ZipFile(path) as archive:
            for i, info in enumerate(members):
                id, properties = known.get(info.filename, (_name(info.filename), {}))
                data = attempt(partial(_member, archive, info))
                if not isinstance(data, Unreadable):
                    data = _Data(data, info.filename, properties)
                yield Item((i + 1) / len(members), id, data)

    return Source(path, items(), _decode)


def is_structure(name: str) -> bool:
    """Whether a file is a CIF or a POSCAR, by its name; VASP's own have no extension."""
    return name.lower().endswith(".cif") or _is_poscar(name)


def _is_member(file: Path) -> bool:
    """Whether to read what a folder holds; folders in it may be called POSCAR_1."""
    return is_structure(file.name) and not (_is_poscar(file.name) and file.is_dir())


def _is_poscar(name: str) -> bool:
    """POSCAR, CONTCAR, POSCAR_mp-149, Si.vasp and the like; not POSCAR_list.csv."""
    return (
        re.search(r"(^|/)(POSCAR|CONTCAR)([-_][^./]*)?$|\.(vasp|poscar)$", name, re.I) is not None
    )


def _name(file: str) -> str:
    return str(PurePosixPath(file).with_suffix(""))


def _member(archive: zipfile.ZipFile, info: zipfile.ZipInfo) -> bytes:
    _require_short(info.file_size)
    return archive.read(info)


def _table(archive: zipfile.ZipFile) -> dict[str, tuple[str, Properties]]:
    """(id, properties) by file name. KeyError where there is no table of that kind."""
    info = archive.getinfo(TABLE)
    text = decode_text(_member(archive, info))
    table = {}
    for row in csv.DictReader(io.StringIO(text, newline="")):
        file, id = row.pop("file"), row.pop("material_id")
        table[file] = (id, {name: number(value) for name, value in row.items()})
    return table


def _require_short(size: int) -> None:
    if size > MAX_BYTES:
        raise ValueError(f"a file of {size} bytes, more than the {MAX_BYTES} that are read")


class _Data(NamedTuple):
    """A file, or what is in it, with its name and the properties that a table has for it."""

    file: Path | bytes
    name: str
    properties: Properties


def _decode(id: str, data: _Data) -> Iterator[Entry]:
    file, name, properties = data
    if isinstance(file, Path):
        _require_short(file.stat().st_size)
        file = file.read_bytes()
    if _is_poscar(name):
        yield Entry(id, properties, parse_poscar, decode_text(file))
        return
    blocks = cif.parse(decode_text(file))
    for name, cell in blocks:
        yield Entry(id if len(blocks) == 1 else f"{id}:{name}", properties, _parsed, cell)


def _parsed(cell: AtomicCell | Exception) -> AtomicCell:
    if isinstance(cell, Exception):
        raise cell
    return cell
