"""Readers of structures: CDVAE-style CSV, CIF, POSCAR, extxyz, pymatgen JSON, LeMat-Bulk parquet.

`read` reads a file in this process; the dataset builder streams its items to worker processes,
which decode them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

from crystaljax.data.csv_format import open_csv
from crystaljax.data.extxyz_format import open_extxyz
from crystaljax.data.json_formats import open_json, open_jsonl
from crystaljax.data.parquet_format import open_parquet
from crystaljax.data.records import Record, Source, records, stream, unreadable
from crystaljax.data.structure_files import is_structure, open_folder, open_structure, open_zip

FORMATS = (
    ".csv (a cif, structure or poscar column), .extxyz, .xyz, .json, .jsonl (pymatgen), each"
    " also .gz or .bz2; .cif, POSCAR, .vasp, a folder or .zip of them; .parquet, a folder of them"
)
"""Formats that can be read, for help texts and errors."""


def read(path: str | Path) -> Iterator[Record]:
    """Records of a file or folder, in order, one by one; formats as in `FORMATS`.

    An entry that cannot be read is a record with a reason, and so is the unreadable rest of a
    truncated file. Errors: FileNotFoundError for a missing file, ValueError for an unknown
    extension, an empty file, a missing column, or a file of which nothing can be read.
    """
    source = open_source(path)
    for item in stream(source):
        yield from records(source.decode, item)


def open_source(path: str | Path) -> Source:
    """Open a file or folder by its extension; errors as in `read`."""
    path = Path(path)
    if not path.exists():
        raise FileNotFoundError(f"no file or folder {path}: give one of {FORMATS}")
    try:
        return _opener(path)(path)
    except Exception as error:  # noqa: BLE001 (any library's)
        raise unreadable(path, error) from None


def _of_folder(path: Path) -> Callable[[Path], Source]:
    """ValueError for a folder of both kinds of files that can be read."""
    tables = any(path.rglob("*.parquet"))
    if tables and any(is_structure(file.name) for file in path.rglob("*")):
        raise ValueError(
            f"{path} holds files of structures and .parquet files: put the ones to read in a folder"
            " of their own"
        )
    return open_parquet if tables else open_folder


def _opener(path: Path) -> Callable[[Path], Source]:
    if path.is_dir():
        return _of_folder(path)
    if is_structure(path.name):
        return open_structure
    name = path.name.lower()
    packed = name.endswith((".gz", ".bz2"))
    name = name.removesuffix(".gz").removesuffix(".bz2")
    for extension, opener in _OPENERS.items():
        if name.endswith(extension) and not (packed and opener in _NEVER_PACKED):
            return opener
    raise ValueError(f"cannot tell the format of {path}: its extension is none of {FORMATS}")


_OPENERS: dict[str, Callable[[Path], Source]] = {
    ".csv": open_csv,
    ".zip": open_zip,
    ".extxyz": open_extxyz,
    ".xyz": open_extxyz,
    ".json": open_json,
    ".jsonl": open_jsonl,
    ".parquet": open_parquet,
}

_NEVER_PACKED = (open_zip, open_parquet)
