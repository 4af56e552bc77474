"""Bad entries and broken files: each costs itself, is named and is counted, in every format."""

import bz2
import copy
import csv
import gzip
import io
import json
import zipfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from crystaljax.crystal import AtomicCell
from crystaljax.data import csv_format
from crystaljax.data.cells import MAX_ATOMS
from crystaljax.data.dataset import load
from crystaljax.data.readers import Record, read

STRUCTURE = {
    "lattice": {"matrix": [[4.0, 0, 0], [0, 4.5, 0], [0, 0, 5]]},
    "sites": [
        {"species": [{"element": "Na", "occu": 1}], "abc": [0, 0, 0]},
        {"species": [{"element": "Cl", "occu": 1}], "abc": [0.5, 0.5, 0.5]},
    ],
}
GOOD = json.dumps(STRUCTURE)
FRAME = '2\nLattice="4 0 0 0 4.5 0 0 0 5" Properties=species:S:1:pos:R:3\nNa 0 0 0\nCl 2 2.25 2.5\n'
POSCAR = "salt\n1.0\n4 0 0\n0 4.5 0\n0 0 5\nNa Cl\n1 1\nDirect\n0 0 0\n0.5 0.5 0.5\n"
CIF = (
    "data_salt\n_cell_length_a 4\n_cell_length_b 4.5\n_cell_length_c 5\n_cell_angle_alpha 90\n"
    "_cell_angle_beta 90\n_cell_angle_gamma 90\nloop_\n_atom_site_label\n_atom_site_fract_x\n"
    "_atom_site_fract_y\n_atom_site_fract_z\nNa1 0 0 0\nCl1 0.5 0.5 0.5\n"
)


def is_salt(record: Record) -> bool:
    assert record.reason is None, record.reason
    cell = record.cell
    assert cell is not None
    place = np.abs(cell.frac - [[0, 0, 0], [0.5, 0.5, 0.5]]).max()
    return cell.species.tolist() == [11, 17] and place < 1e-9 and cell.matrix[1, 1] == 4.5


def check_one_bad(path: Path, words: str, bad_id: str = "1") -> None:
    """Three entries, of which the middle one is bad: read, and then built to a dataset."""
    first, bad, last = read(path)
    assert is_salt(first) and is_salt(last)
    assert bad.cell is None and bad.id == bad_id
    assert words in str(bad.reason)
    assert len(str(bad.reason)) <= 500
    with pytest.warns(UserWarning, match="1 of 3"):
        assert load(path, cache_dir=path.parent / "cache", workers=1).n_skipped == 1


def changed(**changes: object) -> dict[str, object]:
    """A good structure, with entries changed by paths such as sites__0__abc."""
    result = copy.deepcopy(STRUCTURE)
    for path, value in changes.items():
        *parents, last = [int(x) if x.isdigit() else x for x in path.split("__")]
        target = result
        for parent in parents:
            target = target[parent]  # type: ignore[index]
        target[last] = value  # type: ignore[index]
    return result


BAD_JSON = {
    "strings as species": (json.dumps(changed(sites__0__species=["Na"])), "species of site 0"),
    "a string as species": (json.dumps(changed(sites__0__species="Na")), "species of site 0"),
    "no species": (json.dumps(changed(sites__1__species=None)), "species of site 1"),
    "a number as element": (
        json.dumps(changed(sites__0__species=[{"element": 11, "occu": 1}])),
        "odd shape",
    ),
    "a dummy element": (
        json.dumps(changed(sites__0__species=[{"element": "Xx", "occu": 1}])),
        "unknown element",
    ),
    "half an atom": (
        json.dumps(changed(sites__0__species=[{"element": "Na", "occu": 0.5}])),
        "partial occupancy",
    ),
    "nan of an atom": (
        json.dumps(changed(sites__0__species=[{"element": "Na", "occu": float("nan")}])),
        "partial occupancy",
    ),
    "null of an atom": (
        json.dumps(changed(sites__0__species=[{"element": "Na", "occu": None}])),
        "odd shape",
    ),
    "sites that are a number": (json.dumps(changed(sites=7)), "odd shape"),
    "no sites": (json.dumps(changed(sites=[])), "no atoms"),
    "two coordinates": (json.dumps(changed(sites__0__abc=[0, 0])), ""),
    "text for a coordinate": (json.dumps(changed(sites__0__abc=[0, 0, "x"])), ""),
    "nan for a coordinate": (json.dumps(changed(sites__0__abc=[0, 0, float("nan")])), "position"),
    "far away": (json.dumps(changed(sites__0__abc=[0, 0, 1e300])), "cells away"),
    "no lattice": (json.dumps(changed(lattice=None)), "odd shape"),
    "two vectors": (json.dumps(changed(lattice__matrix=[[4, 0, 0], [0, 4, 0]])), "no unit cell"),
    "a flat cell": (json.dumps(changed(lattice__matrix=[[4, 0, 0]] * 3)), "no unit cell"),
    "a huge cell": (
        json.dumps(changed(lattice__matrix=np.diag([1e9] * 3).tolist())),
        "plausible",
    ),
    "a slab": (json.dumps(changed(lattice__pbc=[True, True, False])), "periodic"),
    "an atom twice": (json.dumps(changed(sites__1=STRUCTURE["sites"][0])), "apart"),
    "too many atoms": (json.dumps(changed(sites=[1] * (MAX_ATOMS + 1))), "more than the"),
    "null": ("null", "no JSON object"),
    "a number": ("3", "no JSON object"),
    "text": ('"abc"', "no JSON object"),
    "a list": ("[]", "no JSON object"),
    "no structure": ('{"a": 1}', "no structure"),
    "another structure": ('{"structure": {"sites": 1, "lattice": {}}}', "odd shape"),
}


@pytest.mark.parametrize("kind", BAD_JSON)
def test_bad_entries_of_json(tmp_path: Path, kind: str) -> None:
    bad, words = BAD_JSON[kind]
    (tmp_path / "x.json").write_text(f"[{GOOD}, {bad}, {GOOD}]")
    check_one_bad(tmp_path / "x.json", words)


@pytest.mark.parametrize(
    "bad", ["{", "nonsense", "[" * 10**5, '{"a": ' * 10**5, "{}\x00", "1" * 5000]
)
def test_bad_lines_of_jsonl(tmp_path: Path, bad: str) -> None:
    (tmp_path / "x.jsonl").write_text("\n".join([GOOD, bad, GOOD]))
    check_one_bad(tmp_path / "x.jsonl", "")


def test_deep_nesting(tmp_path: Path) -> None:
    """Within what JSON's reader takes, and beyond it."""
    for depth in (300, 10**5):
        nested = '{"data": ' * depth + "1" + "}" * depth
        (tmp_path / "x.jsonl").write_text("\n".join([GOOD, nested, GOOD]))
        first, bad, last = read(tmp_path / "x.jsonl")
        assert is_salt(first) and is_salt(last) and bad.cell is None
        write_csv(tmp_path / "x.csv", "structure", [GOOD, nested, GOOD])
        first, bad, last = read(tmp_path / "x.csv")
        assert is_salt(first) and is_salt(last) and bad.cell is None
        by_id = f'{{"a": {GOOD}, "b": {nested}, "c": {GOOD}}}'
        (tmp_path / "x.json").write_text(by_id)
        if depth < 1000:
            first, bad, last = read(tmp_path / "x.json")
            assert is_salt(first) and is_salt(last) and bad.id == "b"
        else:
            with pytest.raises(ValueError, match="nested too deeply"):
                list(read(tmp_path / "x.json"))


def test_a_dict_by_id_keeps_what_is_no_structure(tmp_path: Path) -> None:
    (tmp_path / "x.json").write_text(f'{{"a": {GOOD}, "b": 3, "c": {GOOD}}}')
    check_one_bad(tmp_path / "x.json", "no JSON object", bad_id="b")


def write_csv(path: Path, column: str, cells: list[str]) -> Path:
    with path.open("w", newline="", encoding="utf-8") as file:
        csv.writer(file).writerows(
            [["material_id", column], *([i, c] for i, c in enumerate(cells))]
        )
    return path


BAD_POSCARS = {
    "a huge count": POSCAR.replace("1 1\n", "9999999999999 1\n"),
    "a count of twenty thousand digits": POSCAR.replace("1 1\n", "9" * 20000 + " 1\n"),
    "a negative count": POSCAR.replace("1 1\n", "-1 3\n"),
    "a count of zero": POSCAR.replace("1 1\n", "0 2\n"),
    "fewer counts than elements": POSCAR.replace("1 1\n", "2\n"),
    "a scale of zero": POSCAR.replace("1.0", "0"),
    "a scale of nan": POSCAR.replace("1.0", "nan"),
    "a volume for a flat cell": POSCAR.replace("1.0", "-90").replace("0 4.5 0", "4 0 0"),
    "a short vector": POSCAR.replace("0 4.5 0", "0 4.5"),
    "a missing position": POSCAR.replace("0.5 0.5 0.5\n", ""),
    "two coordinates": POSCAR.replace("0.5 0.5 0.5\n", "0.5 0.5\n"),
    "no elements": POSCAR.replace("Na Cl\n", ""),
    "an unknown element": POSCAR.replace("Na Cl\n", "Na Xx\n"),
    "nothing": " ",
}


@pytest.mark.parametrize("kind", BAD_POSCARS)
def test_bad_poscars(tmp_path: Path, kind: str) -> None:
    path = write_csv(tmp_path / "x.csv", "poscar", [POSCAR, BAD_POSCARS[kind], POSCAR])
    check_one_bad(path, "")


@pytest.mark.parametrize("text", ["", "{", "{'a': ", "(" * 10**5, "{" + "[" * 5000, "\x00", "é"])
def test_bad_texts_in_a_csv(tmp_path: Path, text: str) -> None:
    check_one_bad(write_csv(tmp_path / "x.csv", "cif", [CIF, text, CIF]), "")


ERRORS = (
    *(RuntimeError("a library's"), MemoryError(), RecursionError(), OverflowError(), KeyError("x")),
    *(ZeroDivisionError("by zero"), AssertionError(), StopIteration(), NotImplementedError()),
    *(UnicodeDecodeError("utf-8", b"x", 0, 1, "odd"), OSError(5, "input"), AttributeError("a")),
    zipfile.BadZipFile("zip"),
)


@pytest.mark.parametrize("error", ERRORS, ids=lambda error: type(error).__name__)
def test_no_exception_of_a_library_leaves(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    def parse(text: str) -> AtomicCell:
        if text == "bad":
            raise error
        return AtomicCell(
            np.diag([4, 4.5, 5]), np.array([[0, 0, 0], [0.5] * 3]), np.array([11, 17])
        )

    monkeypatch.setitem(csv_format._PARSERS, "cif", parse)
    check_one_bad(write_csv(tmp_path / "x.csv", "cif", ["good", "bad", "good"]), "")


BAD_FRAMES = {
    "a huge count": (FRAME.replace("2\n", "99999999999\n", 1), "99999999999 atoms"),
    "a count of five thousand digits": (FRAME.replace("2\n", "9" * 5000 + "\n", 1), ""),
    "no atoms": (FRAME.replace("2\n", "0\n", 1), "announces 0"),
    "an atom too few": (FRAME.replace("2\n", "3\n", 1), "announces 3 atoms and lists 2"),
    "an atom too many": (FRAME.replace("2\n", "1\n", 1), "announces 1 atoms and lists 2"),
    "not periodic along c": (FRAME.replace(":R:3", ':R:3 pbc="T T F"'), 'pbc="T T F"'),
    "not periodic": (FRAME.replace(":R:3", ":R:3 pbc=F"), 'pbc="F F F"'),
    "a molecule": (FRAME.replace('Lattice="4 0 0 0 4.5 0 0 0 5" ', ""), "no unit cell"),
    "a flat cell": (FRAME.replace("0 4.5 0", "4 0 0"), "no unit cell"),
    "a lattice of eight numbers": (FRAME.replace("0 0 5", "0 5"), ""),
    "a lattice of words": (FRAME.replace("4 0 0 0 4.5 0 0 0 5", "a b c d e f g h i"), ""),
    "an empty comment": ("2\n\nNa 0 0 0\nCl 2 2 2\n", "no unit cell"),
    "an unknown element": (FRAME.replace("Cl", "Xx"), ""),
    "a coordinate too few": (FRAME.replace("2 2.25 2.5", "2 2.25"), ""),
    "a word for a coordinate": (FRAME.replace("2 2.25 2.5", "2 2.25 x"), ""),
    "nan for a coordinate": (FRAME.replace("2 2.25 2.5", "2 2.25 nan"), "position"),
    "odd properties": (FRAME.replace("species:S:1:pos:R:3", "pos"), ""),
    "odd stress": (FRAME.replace(":R:3", ":R:3 stress=1"), ""),
}


@pytest.mark.parametrize("kind", BAD_FRAMES)
def test_bad_frames(tmp_path: Path, kind: str) -> None:
    bad, words = BAD_FRAMES[kind]
    (tmp_path / "x.extxyz").write_text(FRAME + bad + FRAME)
    check_one_bad(tmp_path / "x.extxyz", words)


def test_frames_after_blank_lines(tmp_path: Path) -> None:
    (tmp_path / "x.xyz").write_text(f"\n\n{FRAME}\n \n\n{FRAME}\n{FRAME}\n\n")
    assert [is_salt(record) for record in read(tmp_path / "x.xyz")] == [True] * 3


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


def test_members_of_an_archive_fail_alone(tmp_path: Path) -> None:
    path = tmp_path / "x.zip"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for i in range(3):
            archive.writestr(f"{i}.cif", CIF + f"# {i}\n" * 50)
        start = archive.getinfo("1.cif").header_offset
    data = bytearray(path.read_bytes())
    data[start + 40 : start + 80] = b"\xaa" * 40
    path.write_bytes(data)
    check_one_bad(path, "")


def test_members_of_one_name_and_unreadable_files_of_a_folder(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "x.zip", "w") as archive, pytest.warns(UserWarning):
        archive.writestr("a.CIF", CIF)
        archive.writestr("a.CIF", CIF.replace("Na1", "K1"))
    species = [record.cell.species[0] for record in read(tmp_path / "x.zip") if record.cell]
    assert species == [11, 19]
    folder = tmp_path / "folder"
    folder.mkdir()
    (folder / "0.cif").write_text(CIF)
    (folder / "1.cif").mkdir()
    (folder / "2.cif").write_text(CIF)
    check_one_bad(folder, "")


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


@pytest.mark.parametrize(
    "value", [10**400, -(10**400), "half \ud800 of a pair", "nul \x00", "x" * 10**6]
)
def test_odd_properties_cost_no_structure(tmp_path: Path, value: object) -> None:
    """Not even when the dataset is built and written again."""
    from crystaljax.data.writers import write

    rows = [{"structure": STRUCTURE, "material_id": value, "p": value, str(value)[:5]: 1}] * 2
    (tmp_path / "x.json").write_text(json.dumps(rows))
    data = load(tmp_path / "x.json", cache_dir=tmp_path, workers=1)
    assert len(data) == 2 and len(data.ids[0]) <= 200
    for name in ("x.csv", "y.json", "x.extxyz", "x.zip"):
        write(data.crystals, tmp_path / name, {"material_id": data.ids, **data.properties})
        assert [record.id for record in read(tmp_path / name)] == data.ids.tolist()


def test_a_last_row_that_is_cut_is_no_smaller_crystal(tmp_path: Path) -> None:
    """Without its last atom a CIF is a CIF: the table must say that it is cut."""
    for end in ("\nCl1 0.5 0.5 0.5\n", " 0.5 0.5 0.5\n", ".5\n"):
        whole = f'note,cif\n1,"{CIF}"\n2,"{CIF}"\n'
        (tmp_path / "x.csv").write_text(whole.removesuffix(f'{end}"\n'))
        first, cut = read(tmp_path / "x.csv")
        assert is_salt(first) and "ends inside" in str(cut.reason)
    (tmp_path / "x.csv").write_text(whole.removesuffix("\n"))
    assert all(is_salt(record) for record in read(tmp_path / "x.csv"))
