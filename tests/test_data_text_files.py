"""Text files: packed, cut, damaged, with byte order marks."""

import bz2
import csv
import gzip
import io
from collections.abc import Callable
from pathlib import Path

import pytest
from salt import CIF, FRAME, GOOD, is_salt, write_csv

from crystaljax.data.readers import read


def gz(text: str) -> bytes:
    return gzip.compress(text.encode())


def csv_text(n: int) -> str:
    file = io.StringIO()
    csv.writer(file).writerows([["cif"], *([f"{CIF}# {i * 7919 % 1000}\n"] for i in range(n))])
    return file.getvalue()


LONG: dict[str, Callable[[int], str]] = {
    "x.csv": csv_text,
    "x.jsonl": lambda n: "".join(f'{{"s": {GOOD}, "i": {i * 7919 % 1000}}}\n' for i in range(n)),
    "x.json": lambda n: (
        "[" + ",".join(f'{{"s": {GOOD}, "i": {i * 7919 % 1000}}}' for i in range(n)) + "]"
    ),
    "x.extxyz": lambda n: "".join(
        FRAME.replace(":R:3", f":R:3 i={i * 7919 % 1000}") for i in range(n)
    ),
}


@pytest.mark.parametrize("name", LONG)
@pytest.mark.parametrize("damage", ["cut.gz", "cut.bz2", "flipped.gz", "plain"])
def test_a_file_that_breaks_off_keeps_what_came_before(
    tmp_path: Path, name: str, damage: str
) -> None:
    text = LONG[name](400)
    how, _, suffix = damage.rpartition(".")
    data = {"gz": gz(text), "bz2": bz2.compress(text.encode())}.get(suffix, text.encode())
    if damage == "cut.bz2":  # blocks of 900 kB are whole or lost
        text = LONG[name](6000)
        data = bz2.compress(text.encode(), 1)
    place = len(data) * 3 // 4 - 5
    if how == "flipped":
        data = data[:place] + bytes(x ^ 0xFF for x in data[place : place + 50]) + data[place + 50 :]
    else:
        data = data[:place]
    path = tmp_path / (f"{name}.{suffix}" if how else name)
    path.write_bytes(data)
    if how or name == "x.json":
        with pytest.warns(UserWarning, match="what comes before is kept"):
            records = list(read(path))
        assert records[-1].id == f"the rest of {path.name}"
    else:
        records = list(read(path))
    assert len(records) > 100
    assert records[-1].cell is None and records[-1].reason
    if how != "flipped":  # after which all is garbage until the checksum at the end
        assert all(is_salt(record) for record in records[:-1])
    assert all(is_salt(record) for record in records[:100])


@pytest.mark.parametrize("name", ["x.csv.gz", "x.jsonl.gz", "x.json.gz", "x.extxyz.bz2", "x.zip"])
@pytest.mark.parametrize("data", [b"", b"\x00" * 100, b"\x1f\x8b\x08", b"nonsense", b"PK\x05\x06"])
def test_files_of_which_nothing_can_be_read(tmp_path: Path, name: str, data: bytes) -> None:
    (tmp_path / name).write_bytes(data)
    with pytest.raises(ValueError, match=name):
        list(read(tmp_path / name))


@pytest.mark.parametrize("encoding", ["utf-8-sig", "utf-16", "utf-16-be"])
@pytest.mark.parametrize("packed", [False, True])
@pytest.mark.parametrize("name", ["x.csv", "x.json", "x.jsonl", "x.extxyz", "x.cif"])
def test_byte_order_marks(tmp_path: Path, name: str, encoding: str, packed: bool) -> None:
    text = {
        "x.csv": f'material_id,cif,é\nmp-1,"{CIF}",ü\n',
        "x.json": f'[{{"material_id": "mp-1", "structure": {GOOD}, "é": "ü"}}]',
        "x.jsonl": f'{{"material_id": "mp-1", "structure": {GOOD}, "é": "ü"}}\n',
        "x.extxyz": FRAME.replace(":R:3", ":R:3 material_id=mp-1 é=ü"),
        "x.cif": CIF,
    }[name]
    data = text.encode(encoding)
    data = b"\xfe\xff" + data if encoding == "utf-16-be" else data
    if packed and name == "x.cif":
        return
    path = tmp_path / (f"{name}.gz" if packed else name)
    path.write_bytes(gzip.compress(data) if packed else data)
    (record,) = read(path)
    assert is_salt(record)
    if name != "x.cif":
        assert record.id == "mp-1"
        assert record.properties == {"é": "ü"}


def test_a_mark_inside_a_cell_of_a_table(tmp_path: Path) -> None:
    for text in (CIF, GOOD):
        assert is_salt(next(read(write_csv(tmp_path / "x.csv", "cif", ["\ufeff" + text]))))


def test_a_byte_that_is_no_utf8_costs_its_field(tmp_path: Path) -> None:
    path = tmp_path / "x.csv"
    path.write_bytes(f'cif,note\n"{CIF}",caf\xe9\n"{CIF}",x\n'.encode("latin-1"))
    first, second = read(path)
    assert is_salt(first) and is_salt(second)
    assert first.properties == {"note": "caf\ufffd"}


def test_columns_of_one_name(tmp_path: Path) -> None:
    (tmp_path / "x.csv").write_text(f'gap,cif,gap,cif\n1,"{CIF}",2,"other"\n')
    (record,) = read(tmp_path / "x.csv")
    assert is_salt(record)
    assert record.properties == {"gap": 1, "gap (2)": 2, "cif (2)": "other"}


def test_a_quote_that_is_never_closed_says_what_it_swallowed(tmp_path: Path) -> None:
    rows = f'"{CIF}",1\n' * 3
    (tmp_path / "x.csv").write_text(f'cif,n\n{rows}"{CIF},1\nx\ny\n')
    *good, bad = read(tmp_path / "x.csv")
    assert all(is_salt(record) for record in good) and len(good) == 3
    assert "the file ends inside this row (lines 47 to 63)" in str(bad.reason)


def test_a_last_row_that_is_cut_is_no_smaller_crystal(tmp_path: Path) -> None:
    """Without its last atom a CIF is a CIF: the table must say that it is cut."""
    for end in ("\nCl1 0.5 0.5 0.5\n", " 0.5 0.5 0.5\n", ".5\n"):
        whole = f'note,cif\n1,"{CIF}"\n2,"{CIF}"\n'
        (tmp_path / "x.csv").write_text(whole.removesuffix(f'{end}"\n'))
        first, cut = read(tmp_path / "x.csv")
        assert is_salt(first) and "ends inside" in str(cut.reason)
    (tmp_path / "x.csv").write_text(whole.removesuffix("\n"))
    assert all(is_salt(record) for record in read(tmp_path / "x.csv"))
