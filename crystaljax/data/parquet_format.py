"""Reader of parquet files with LeMat-Bulk's columns, streamed.

Columns: https://huggingface.co/datasets/LeMaterial/LeMat-Bulk (the OPTIMADE names of a lattice,
Cartesian positions and species, `immutable_id`, and scalar properties).
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from crystaljax.composition import atomic_number
from crystaljax.crystal import AtomicCell
from crystaljax.data import cif
from crystaljax.data.records import Record, Source, checked_cell, record, scalars

_PARQUET_ROWS = 1000
_PARQUET_STRUCTURE = ("lattice_vectors", "cartesian_site_positions", "species_at_sites")


def open_parquet(paths: Path | list[Path]) -> Source:
    from pyarrow import ArrowInvalid, dataset, types

    try:
        table = dataset.dataset(paths, format="parquet")
        n_rows = table.count_rows()
    except ArrowInvalid as error:
        raise ValueError(f"{paths} is damaged or no parquet file: {error}") from None
    missing = [name for name in _PARQUET_STRUCTURE if name not in table.schema.names]
    if missing:
        raise ValueError(
            f"{paths} lacks the column {missing[0]}: expected the columns of LeMat-Bulk,"
            f" {', '.join(_PARQUET_STRUCTURE)}"
        )
    scalars = [field.name for field in table.schema if not types.is_nested(field.type)]

    def items() -> Iterator[tuple[float, Any]]:
        done = 0
        columns = [*_PARQUET_STRUCTURE, *scalars]
        for batch in table.to_batches(columns=columns, batch_size=_PARQUET_ROWS):
            done += len(batch)
            yield done / max(n_rows, 1), (done - len(batch), batch)

    return Source(items(), _decode_parquet, _PARQUET_ROWS)


def _decode_parquet(item: tuple[int, Any]) -> list[Record]:
    start, batch = item
    records = []
    for index, row in enumerate(batch.to_pylist(), start=start):
        data = tuple(row.pop(name) for name in _PARQUET_STRUCTURE)
        id = str(row.pop("immutable_id", None) or index)
        records.append(record(id, scalars(row), _cartesian_cell, data))
    return records


def _cartesian_cell(data: tuple[Any, Any, list[str]]) -> AtomicCell:
    if any(part is None for part in data):
        raise ValueError("no structure: a lattice, a position or a species is missing")
    matrix, positions = np.array(data[0], float), np.array(data[1], float).reshape(-1, 3)
    if matrix.shape != (3, 3) or abs(np.linalg.det(matrix)) < cif.MIN_VOLUME:
        raise ValueError(f"the unit cell's volume is below {cif.MIN_VOLUME} Å³")
    frac = np.linalg.solve(matrix.T, positions.T).T
    return checked_cell(matrix, frac, [atomic_number(symbol) for symbol in data[2]])
