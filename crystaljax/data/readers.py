"""Structures from files: CDVAE-style CSV, CIF, extxyz, pymatgen JSON, LeMat-Bulk parquet.

A format is a function `path -> Source`: a stream of picklable items that cost only input, and a
`decode` that turns an item into records, which costs the processor. `read` does both in turn;
the dataset builder streams the items to worker processes and decodes there.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

from crystaljax.data.json_formats import open_json, open_jsonl
from crystaljax.data.parquet_format import open_parquet
from crystaljax.data.records import Record, Source
from crystaljax.data.text_formats import open_cif, open_csv, open_extxyz, open_folder, open_zip

FORMATS = (
    ".csv, .csv.gz (a cif, structure or poscar column), .cif, a folder of CIFs, .zip (of CIFs),"
    " .extxyz, .xyz, .json, .jsonl (pymatgen; also .gz, .bz2), .parquet or a folder of them"
)
"""What can be read, for help texts and errors."""


def read(path: str | Path) -> Iterator[Record]:
    """Records of a file or folder, in order, one by one; formats as in `FORMATS`.

    An entry that cannot be read is a record with a reason. Errors: FileNotFoundError for a
    missing file, ValueError for an unknown extension, an empty file or a missing column.
    """
    source = open_source(path)
    for _, item in source.items:
        yield from source.decode(item)


def open_source(path: str | Path) -> Source:
    """Open a file or folder by its extension; errors as in `read`."""
    path = Path(path)
    if not path.exists():
        raise FileNotFoundError(f"no file or folder {path}: give one of {FORMATS}")
    if path.is_dir():
        tables = sorted(path.rglob("*.parquet"))
        return open_parquet(tables) if tables else open_folder(path)
    name = path.name.lower().removesuffix(".gz").removesuffix(".bz2")
    for extension, opener in _OPENERS.items():
        if name.endswith(extension):
            return opener(path)
    raise ValueError(f"cannot tell the format of {path}: its extension is none of {FORMATS}")


_OPENERS: dict[str, Callable[[Path], Source]] = {
    ".csv": open_csv,
    ".cif": open_cif,
    ".zip": open_zip,
    ".extxyz": open_extxyz,
    ".xyz": open_extxyz,
    ".json": open_json,
    ".jsonl": open_jsonl,
    ".parquet": open_parquet,
}
