"""Shards of a dataset on disk, and the memory-mapped arrays that they are joined to."""

from __future__ import annotations

import csv
import json
import zipfile
import zlib
from collections.abc import Iterator
from dataclasses import fields
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.lib.npyio import NpzFile

from crystaljax.crystal import Crystals
from crystaljax.data.files import replacing
from crystaljax.data.records import Record

MAX_TEXT = 128
"""Columns with longer text are dropped: text is stored at the width of its longest entry."""

SKIPPED_FILE = "skipped.csv"
"""Name of the table of skipped rows and their reasons."""

ARRAYS = [field.name for field in fields(Crystals)]


class Merged(NamedTuple):
    """Number of rows of a dataset, and of those that could not be used."""

    n_rows: int
    n_skipped: int


def write_shard(
    path: Path,
    records: list[Record],
    kept: np.ndarray,
    crystals: Crystals,
    reasons: list[str | None],
) -> None:
    """Write one shard: the records `kept` as `crystals`, and the others with their reasons."""
    names = list(dict.fromkeys(name for i in kept for name in records[i].properties))
    arrays = {name: getattr(crystals, name) for name in ARRAYS}
    arrays["names"] = np.array(json.dumps(names))  # valid text; names in an archive may not be
    for k, name in enumerate(names):
        values = [records[i].properties.get(name, np.nan) for i in kept]
        arrays[f"column {k}"] = _column(values)
    arrays["ids"] = np.array([records[i].id for i in kept], dtype=str)
    skipped = [i for i, reason in enumerate(reasons) if reason is not None]
    arrays["skipped_ids"] = np.array([records[i].id for i in skipped], dtype=str)
    arrays["skipped_reasons"] = np.array([reasons[i] for i in skipped], dtype=str)
    with replacing(path) as temporary, temporary.open("wb") as file:
        np.savez(file, allow_pickle=False, **arrays)


def is_whole(path: Path) -> bool:
    """Whether a shard exists and can be read (the disk may have been full when it was written)."""
    try:
        with zipfile.ZipFile(path) as archive:
            return archive.testzip() is None
    except (OSError, zipfile.BadZipFile, zlib.error):
        return False


def _column(values: list[float | str]) -> np.ndarray:
    """float64 if every value is a number, else str with empty missing values.

    Text is cut one character above the limit, so that the merge sees that it is too long.
    """
    if all(isinstance(value, float) for value in values):
        return np.array(values, dtype=np.float64)
    texts = [value if isinstance(value, str) else _text(value) for value in values]
    return np.array([text[: MAX_TEXT + 1] for text in texts])


def _columns(shard: NpzFile) -> dict[str, np.ndarray]:
    """The properties in a shard by name."""
    names = json.loads(str(shard["names"]))
    return {name: shard[f"column {k}"] for k, name in enumerate(names)}


def _text(value: float) -> str:
    return "" if np.isnan(value) else f"{value:.15g}"


def _skipped(shards: list[Path]) -> Iterator[tuple[str, str]]:
    for shard in shards:
        with np.load(shard) as data:
            rows = zip(data["skipped_ids"], data["skipped_reasons"], strict=True)
            yield from ((str(id), str(reason)) for id, reason in rows)


class _Schema:
    """Shapes and types of the joined arrays, found in one pass over the shards."""

    def __init__(self, shards: list[Path]) -> None:
        self.n_rows = self.n_skipped = self.n_slots = 0
        self.id_width = 1
        widths: dict[str, int] = {}
        for shard in shards:
            with np.load(shard) as data:
                self.n_rows += len(data["ids"])
                self.n_skipped += len(data["skipped_ids"])
                self.n_slots = max(self.n_slots, data["wyckoff"].shape[1])
                self.id_width = max(self.id_width, data["ids"].itemsize // 4)
                for name, column in _columns(data).items():
                    width = column.itemsize // 4 if column.dtype.kind == "U" else 0
                    widths[name] = max(widths.get(name, 0), width)
        self.omitted = [name for name, width in widths.items() if width > MAX_TEXT]
        # Numbers in a column of text become text of at most 24 characters.
        self.dtypes = {
            name: f"<U{max(width, 24)}" if width else "<f8"
            for name, width in widths.items()
            if name not in self.omitted
        }


def merge(shards: list[Path], folder: Path, meta: dict[str, Any]) -> Merged:
    """Join shards to `folder`: one .npy file per array, meta.json, and skipped.csv.

    The folder is written atomically. ValueError if the shards have no usable row.
    """
    schema = _Schema(shards)
    if not schema.n_rows:
        id, reason = next(_skipped(shards), ("", "there are no rows"))
        raise ValueError(
            f"none of the {schema.n_skipped} structures of {meta['source']} can be used; the"
            f" first is {id!r}: {reason}"
        )
    files = {name: f"property-{i}" for i, name in enumerate(schema.dtypes)}
    with replacing(folder) as temporary:
        temporary.mkdir()
        _join(shards, schema, files, temporary)
        with (temporary / SKIPPED_FILE).open("w", encoding="utf-8", newline="") as file:
            writer = csv.writer(file)
            writer.writerow(["id", "reason"])
            writer.writerows(_skipped(shards))
        meta = meta | {
            "n_rows": schema.n_rows,
            "n_skipped": schema.n_skipped,
            "properties": files,
            "omitted_properties": schema.omitted,
        }
        text = json.dumps(meta, indent=1, ensure_ascii=False)
        (temporary / "meta.json").write_text(text + "\n", encoding="utf-8")
    return Merged(schema.n_rows, schema.n_skipped)


def _join(shards: list[Path], schema: _Schema, files: dict[str, str], folder: Path) -> None:
    """Fill one memory-mapped array per column, shard by shard."""

    def create(file: str, dtype: str, *shape: int) -> np.ndarray:
        path = folder / f"{file}.npy"
        return np.lib.format.open_memmap(path, "w+", np.dtype(dtype), (schema.n_rows, *shape))

    crystals = {
        "space_group": create("space_group", "<i4"),
        "wyckoff": create("wyckoff", "<i4", schema.n_slots),
        "species": create("species", "<i4", schema.n_slots),
        "frac": create("frac", "<f4", schema.n_slots, 3),
        "lattice": create("lattice", "<f4", 6),
    }
    ids = create("ids", f"<U{schema.id_width}")
    columns = {name: create(file, schema.dtypes[name]) for name, file in files.items()}
    start = 0
    for shard in shards:
        with np.load(shard) as data:
            rows = slice(start, start + len(data["ids"]))
            start = rows.stop
            batch = Crystals(*(data[name] for name in ARRAYS)).with_slots(schema.n_slots)
            for name, array in crystals.items():
                array[rows] = getattr(batch, name)
            ids[rows] = data["ids"]
            found = _columns(data)
            for name, array in columns.items():
                is_text = array.dtype.kind == "U"
                if name not in found:
                    array[rows] = "" if is_text else np.nan
                elif is_text and found[name].dtype.kind != "U":
                    array[rows] = [_text(value) for value in found[name]]
                else:
                    array[rows] = found[name]
