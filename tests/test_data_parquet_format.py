"""Rows, row groups and files of parquet that cannot be read cost themselves alone."""

from pathlib import Path

import pytest
from salt import STRUCTURE, check_one_bad, is_salt

from crystaljax.data.readers import read


def parquet_rows() -> list[dict[str, object]]:
    row = {
        "immutable_id": None,
        "lattice_vectors": STRUCTURE["lattice"]["matrix"],  # type: ignore[call-overload]
        "cartesian_site_positions": [[0.0, 0, 0], [2, 2.25, 2.5]],
        "species_at_sites": ["Na", "Cl"],
        "energy": 1.5,
    }
    return [dict(row) for _ in range(3)]


@pytest.mark.parametrize(
    ("column", "value", "words"),
    [
        ("species_at_sites", [None, "Cl"], "species of site 0 is None"),
        ("species_at_sites", ["Na"], "without a position"),
        ("species_at_sites", ["Na", ""], "unknown element"),
        ("species_at_sites", None, "missing"),
        ("species_at_sites", [], "no atoms"),
        ("cartesian_site_positions", [[0.0, 0, 0], [2, 2]], ""),
        ("cartesian_site_positions", [[0.0, 0, 0], None], ""),
        ("cartesian_site_positions", None, "missing"),
        ("lattice_vectors", [[4.0, 0, 0]] * 3, "no unit cell"),
        ("lattice_vectors", [[4.0, 0, 0], [0, float("nan"), 0], [0, 0, 5]], "no unit cell"),
        ("lattice_vectors", [], "no unit cell"),
    ],
)
def test_bad_rows_of_parquet(tmp_path: Path, column: str, value: object, words: str) -> None:
    import pyarrow as pa
    from pyarrow import parquet

    rows = parquet_rows()
    rows[1][column] = value
    if words == "no atoms":
        rows[1]["cartesian_site_positions"] = []
    parquet.write_table(pa.Table.from_pylist(rows), tmp_path / "x.parquet")
    check_one_bad(tmp_path / "x.parquet", words)


def test_integer_and_nested_species_of_parquet(tmp_path: Path) -> None:
    """A column of another type: every row is named, none ends the reading."""
    import pyarrow as pa
    from pyarrow import parquet

    for species in ([11, 17], [["Na"], ["Cl"]], [{"name": "Na"}, {"name": "Cl"}], "NaCl"):
        rows = [row | {"species_at_sites": species} for row in parquet_rows()]
        parquet.write_table(pa.Table.from_pylist(rows), tmp_path / "x.parquet")
        records = list(read(tmp_path / "x.parquet"))
        assert [record.id for record in records] == ["0", "1", "2"]
        assert all(record.cell is None and record.reason for record in records)


def test_text_that_is_no_utf8_in_parquet(tmp_path: Path) -> None:
    """pyarrow turns rows to Python all or none: then each row is tried by itself."""
    import pyarrow as pa
    from pyarrow import parquet

    rows = parquet_rows()
    table = pa.Table.from_pylist(rows)
    text = pa.array([b"a", b"\xff\xfe", b"c"]).cast(pa.binary()).view(pa.string())
    parquet.write_table(table.append_column("note", text), tmp_path / "x.parquet")
    check_one_bad(tmp_path / "x.parquet", "utf-8")


def test_damaged_parquet(tmp_path: Path) -> None:
    """A row group costs its rows, a file of a folder itself."""
    import pyarrow as pa
    from pyarrow import parquet

    path = tmp_path / "a.parquet"
    table = pa.Table.from_pylist(parquet_rows() * 2)
    parquet.write_table(table, path, row_group_size=2, compression="gzip")
    group = parquet.ParquetFile(path).metadata.row_group(1)
    data = bytearray(path.read_bytes())
    start = min(group.column(i).data_page_offset for i in range(group.num_columns))
    data[start : start + 40] = b"\xff" * 40
    path.write_bytes(data)
    records = list(read(path))
    assert [record.id for record in records] == list("012345")
    assert [record.reason is None for record in records] == [True, True, False, False, True, True]
    (tmp_path / "b.parquet").write_bytes(b"nothing")
    parquet.write_table(table, tmp_path / "c.parquet")
    records = list(read(tmp_path))
    assert len(records) == 13
    assert records[6].id == "b.parquet" and "no parquet" in str(records[6].reason)
    assert all(is_salt(record) for record in records[7:])
