"""Reader of parquet files with LeMat-Bulk's columns, streamed.

Columns: https://huggingface.co/datasets/LeMaterial/LeMat-Bulk (the OPTIMADE names of a lattice,
Cartesian positions and species, `immutable_id`, and scalar properties).
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

from crystaljax.composition import atomic_number
from crystaljax.crystal import AtomicCell
from crystaljax.data.cells import cartesian_cell
from crystaljax.data.records import Entry, Item, Source, Unreadable, attempt, scalars
from crystaljax.validity import require_few

_ROWS = 1000
"""Rows of an item."""

_STRUCTURE = ("lattice_vectors", "cartesian_site_positions", "species_at_sites")


def open_parquet(path: Path) -> Source:
    """A parquet file or a folder of them.

    A file of a folder, or a row group of a file, that cannot be read is skipped with its reason.
    """
    paths = sorted(path.rglob("*.parquet")) if path.is_dir() else [path]
    counts = [attempt(partial(_n_rows, one)) for one in paths]
    bad = [count.reason for count in counts if isinstance(count, Unreadable)]
    if len(bad) == len(paths):
        raise ValueError(bad[0])
    total = sum(count for count in counts if not isinstance(count, Unreadable))

    def items() -> Iterator[Item]:
        done = 0
        for one, count in zip(paths, counts, strict=True):
            if isinstance(count, Unreadable):
                yield Item(done / max(total, 1), one.name, count)
                continue
            for n_rows, data in _batches(one):
                rows = range(done, done + n_rows)
                done = rows.stop
                for row in rows if isinstance(data, Unreadable) else rows[:1]:
                    yield Item(done / max(total, 1), str(row), data)

    return Source(path, items(), _decode, _ROWS)


def _n_rows(path: Path) -> int:
    """Number of rows of a file; ValueError for a file of another kind."""
    from pyarrow import ArrowException, parquet

    try:
        with parquet.ParquetFile(path) as file:
            names, n_rows = file.schema_arrow.names, file.metadata.num_rows
    except (ArrowException, OSError) as error:
        raise ValueError(f"{path} is damaged or no parquet file: {error}") from None
    missing = [name for name in _STRUCTURE if name not in names]
    if missing:
        raise ValueError(
            f"{path} lacks the column {missing[0]}: expected the columns of LeMat-Bulk,"
            f" {', '.join(_STRUCTURE)}"
        )
    return n_rows


def _batches(path: Path) -> Iterator[tuple[int, Any]]:
    """(rows, their table), or (rows, the reason that they cannot be read), of each row group."""
    from pyarrow import parquet, types

    with parquet.ParquetFile(path) as file:
        flat = [f.name for f in file.schema_arrow if not types.is_nested(f.type)]
        columns = list(dict.fromkeys([*_STRUCTURE, *flat]))
        for group in range(file.num_row_groups):
            left = file.metadata.row_group(group).num_rows
            batches = file.iter_batches(_ROWS, row_groups=[group], columns=columns)
            while left:
                batch = attempt(partial(next, batches))
                n_rows = left if isinstance(batch, Unreadable) else len(batch)
                yield n_rows, batch
                left -= n_rows


def _decode(start: str, batch: Any) -> Iterator[Entry]:
    rows = attempt(batch.to_pylist)
    for i in range(len(batch)):
        index = str(int(start) + i)
        row = attempt(batch.slice(i, 1).to_pylist) if isinstance(rows, Unreadable) else [rows[i]]
        if isinstance(row, Unreadable):
            yield Entry(index, {}, _refuse, row.reason)
            continue
        fields = row[0]
        data = tuple(fields.pop(name) for name in _STRUCTURE)
        id = fields.pop("immutable_id", None)
        yield Entry(index if id is None else str(id), scalars(fields), _parse, data)


def _refuse(reason: str) -> AtomicCell:
    raise ValueError(reason)


def _parse(data: tuple[Any, Any, list[str]]) -> AtomicCell:
    if any(part is None for part in data):
        raise ValueError("no structure: a lattice, a position or a species is missing")
    require_few(len(data[2]))
    for index, symbol in enumerate(data[2]):
        if not isinstance(symbol, str):
            raise ValueError(f"the species of site {index} is {symbol!r}: no element's symbol")
    return cartesian_cell(data[0], data[1], [atomic_number(symbol) for symbol in data[2]])
