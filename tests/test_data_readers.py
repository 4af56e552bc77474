"""Files of every format to records."""

import csv
import gzip
import json
import zipfile
from pathlib import Path

import numpy as np
import pytest
from pymatgen.analysis.structure_matcher import StructureMatcher
from pymatgen.core import Lattice, Structure
from pymatgen.entries.computed_entries import ComputedStructureEntry
from pymatgen.io.cif import CifWriter

from crystaljax.crystal import AtomicCell
from crystaljax.data.readers import Record, read
from crystaljax.data.text_files import number

NACL = Structure.from_spacegroup(225, Lattice.cubic(5.64), ["Na", "Cl"], [[0] * 3, [0.5] * 3])
TIO2 = Structure.from_spacegroup(
    136, Lattice.tetragonal(4.59, 2.96), ["Ti", "O"], [[0] * 3, [0.305, 0.305, 0]]
)
ALLOY = Structure(Lattice.cubic(3.6), [{"Fe": 0.5, "Co": 0.5}], [[0, 0, 0]])


def same(cell: AtomicCell | None, expected: Structure) -> bool:
    assert cell is not None
    found = Structure(Lattice(cell.matrix), cell.species, cell.frac)
    rms = StructureMatcher(primitive_cell=False, scale=False).get_rms_dist(found, expected)
    return rms is not None and rms[0] < 1e-4


def check_pair(records: list[Record]) -> None:
    """The records are of NaCl, then TiO2."""
    assert len(records) == 2
    assert same(records[0].cell, NACL)
    assert same(records[1].cell, TIO2)


def write_csv(path: Path, rows: list[dict[str, str]]) -> Path:
    opener = gzip.open if path.suffix == ".gz" else open
    with opener(path, "wt", newline="") as file:  # type: ignore[operator]
        writer = csv.DictWriter(file, rows[0].keys())
        writer.writeheader()
        writer.writerows(rows)
    return path


def to_cif(structure: Structure) -> str:
    return str(CifWriter(structure))


@pytest.mark.parametrize("name", ["x.csv", "x.csv.gz"])
def test_csv(tmp_path: Path, name: str) -> None:
    rows = [
        {"": "7", "material_id": "a-1", "cif": to_cif(NACL), "gap": "5.0", "note": "InF"},
        {"": "8", "material_id": "a-2", "cif": to_cif(TIO2), "gap": "", "note": "3"},
        {"": "9", "material_id": "a-3", "cif": to_cif(ALLOY), "gap": "-1e-3", "note": ""},
    ]
    records = list(read(write_csv(tmp_path / name, rows)))
    check_pair(records[:2])
    assert [record.id for record in records] == ["a-1", "a-2", "a-3"]
    assert records[0].properties == {"gap": 5.0, "note": "InF"}
    assert np.isnan(records[1].properties["gap"])
    assert records[2].cell is None
    assert "partial occupancy" in str(records[2].reason)
    assert records[2].properties["gap"] == -1e-3


def test_csv_of_dicts_and_of_poscars(tmp_path: Path) -> None:
    rows = [{"structure": json.dumps(NACL.as_dict())}, {"structure": str(TIO2.as_dict())}]
    records = list(read(write_csv(tmp_path / "dicts.csv", rows)))
    check_pair(records)
    assert [record.id for record in records] == ["0", "1"]
    rows = [{"poscar": structure.to(fmt="poscar")} for structure in (NACL, TIO2)]
    check_pair(list(read(write_csv(tmp_path / "poscars.csv", rows))))


def test_cartesian_poscar_with_a_scale(tmp_path: Path) -> None:
    lines = ["NaCl", "5.64", "1 0 0", "0 1 0", "0 0 1", "Na Cl", "4 4", "Selective", "Cartesian"]
    lines += [" ".join(f"{x:.8f}" for x in site.frac_coords) + " T T T" for site in NACL]
    rows = [{"poscar": "\n".join(lines)}, {"poscar": "no POSCAR"}]
    records = list(read(write_csv(tmp_path / "x.csv", rows)))
    assert same(records[0].cell, NACL)
    assert "POSCAR" in str(records[1].reason)


def test_a_row_cut_short_costs_itself(tmp_path: Path) -> None:
    path = write_csv(tmp_path / "x.csv", [{"cif": to_cif(NACL), "gap": "1"}])
    with path.open("a") as file:
        file.write('"no cif"\n"no cif",2\n')
    good, short, bad = read(path)
    assert good.reason is None
    assert "1 fields where the header has 2" in str(short.reason)
    assert "not a CIF" in str(bad.reason)


def test_cif_file_folder_and_zip(tmp_path: Path) -> None:
    (tmp_path / "deep").mkdir()
    (tmp_path / "a.cif").write_text(to_cif(NACL))
    (tmp_path / "deep" / "b.CIF").write_text(to_cif(TIO2))
    (tmp_path / "deep" / "c.cif").write_text("nonsense")
    (tmp_path / "readme.txt").write_text("not a structure")
    records = list(read(tmp_path))
    check_pair(records[:2])
    assert [record.id for record in records] == ["a", "deep/b", "deep/c"]
    assert "not a CIF" in str(records[2].reason)
    assert same(next(read(tmp_path / "a.cif")).cell, NACL)
    with zipfile.ZipFile(tmp_path / "x.zip", "w") as archive:
        archive.write(tmp_path / "a.cif", "a.cif")
        archive.write(tmp_path / "deep" / "b.CIF", "deep/b.cif")
    records = list(read(tmp_path / "x.zip"))
    check_pair(records)
    assert [record.id for record in records] == ["a", "deep/b"]


def test_extxyz(tmp_path: Path) -> None:
    import ase.io
    from pymatgen.io.ase import AseAtomsAdaptor

    frames = [AseAtomsAdaptor.get_atoms(structure) for structure in (NACL, TIO2)]
    for frame, energy in zip(frames, (-3.5, 0.25), strict=True):
        frame.info = {"energy": energy, "source": "test", "material_id": f"m{energy}"}
    path = tmp_path / "x.extxyz"
    ase.io.write(path, frames)
    with path.open("a") as file:
        file.write("1\nno lattice here\nFe 0 0 0\n1\nLattice=bad\nFe 0 0 0\n")
    records = list(read(path))
    check_pair(records[:2])
    assert records[1].id == "m0.25"
    assert records[1].properties["energy"] == 0.25
    assert records[1].properties["source"] == "test"
    assert "no unit cell" in str(records[2].reason)
    assert records[3].cell is None


def entry(structure: Structure, name: str) -> ComputedStructureEntry:
    return ComputedStructureEntry(structure, -1.5, entry_id=name, data={"e_above_hull": 0.1})


SHAPES = {
    "list of structures": [NACL.as_dict(), TIO2.as_dict()],
    "dict by id": {"a": NACL.as_dict(), "b": TIO2.as_dict()},
    "list of entries": [entry(NACL, "a").as_dict(), entry(TIO2, "b").as_dict()],
    "Alexandria": {"entries": [entry(NACL, "a").as_dict(), entry(TIO2, "b").as_dict()]},
    "rows": [
        {"material_id": "a", "structure": NACL.as_dict()},
        {"material_id": "b", "structure": TIO2.as_dict()},
    ],
    "pandas split": {
        "columns": ["material_id", "structure"],
        "index": [0, 1],
        "data": [["a", NACL.as_dict()], ["b", TIO2.as_dict()]],
    },
    "pandas columns": {
        "material_id": {"0": "a", "1": "b"},
        "entry": {"0": entry(NACL, "x").as_dict(), "1": entry(TIO2, "y").as_dict()},
    },
    "pandas one column": {"structure": {"a": NACL.as_dict(), "b": TIO2.as_dict()}},
}


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("suffix", ["json", "json.gz"])
def test_pymatgen_json(tmp_path: Path, shape: str, suffix: str) -> None:
    path = tmp_path / f"x.{suffix}"
    opener = gzip.open if suffix.endswith("gz") else open
    with opener(path, "wt") as file:  # type: ignore[operator]
        json.dump(SHAPES[shape], file)
    records = list(read(path))
    check_pair(records)
    if shape != "list of structures":
        assert [record.id for record in records] == ["a", "b"]
    if "entries" in shape or shape in ("Alexandria", "pandas columns"):
        assert records[0].properties["energy"] == -1.5
        assert records[0].properties["e_above_hull"] == 0.1


def test_jsonl_and_disorder(tmp_path: Path) -> None:
    path = tmp_path / "x.jsonl"
    rows = [json.dumps(structure.as_dict()) for structure in (NACL, TIO2, ALLOY)]
    path.write_text("\n".join([*rows, "{", '{"sites": 1, "lattice": {}}', "[]"]) + "\n")
    records = list(read(path))
    check_pair(records[:2])
    assert "partial occupancy" in str(records[2].reason)
    assert all(record.cell is None and record.reason for record in records[2:])
    assert len(records) == 6


@pytest.mark.parametrize("as_folder", [False, True])
def test_parquet_with_lemat_columns(tmp_path: Path, as_folder: bool) -> None:
    import pyarrow as pa
    from pyarrow import parquet

    def row(structure: Structure, name: str) -> dict[str, object]:
        return {
            "immutable_id": name,
            "lattice_vectors": structure.lattice.matrix.tolist(),
            "cartesian_site_positions": structure.cart_coords.tolist(),
            "species_at_sites": [site.specie.symbol for site in structure],
            "energy": -2.0,
            "elements": ["x"],
            "functional": "pbe",
            "cross_compatibility": True,
        }

    broken = row(NACL, "c") | {"species_at_sites": ["Xx"] * len(NACL), "energy": None}
    rows = [row(NACL, "a"), row(TIO2, "b"), broken]
    if as_folder:
        parquet.write_table(pa.Table.from_pylist(rows[:1]), tmp_path / "1.parquet")
        parquet.write_table(pa.Table.from_pylist(rows[1:]), tmp_path / "2.parquet")
        records = list(read(tmp_path))
    else:
        parquet.write_table(pa.Table.from_pylist(rows), tmp_path / "x.parquet")
        records = list(read(tmp_path / "x.parquet"))
    check_pair(records[:2])
    assert [record.id for record in records] == ["a", "b", "c"]
    assert records[0].properties == {"energy": -2.0, "functional": "pbe", "cross_compatibility": 1}
    assert "unknown element 'Xx'" in str(records[2].reason)
    assert np.isnan(records[2].properties["energy"])


@pytest.mark.parametrize(
    ("name", "content", "error", "message"),
    [
        ("missing.csv", None, FileNotFoundError, "missing.csv"),
        ("empty.csv", "", ValueError, "is empty"),
        ("header.csv", "material_id,cif\n", ValueError, "no rows"),
        ("other.csv", "a,b\n1,2\n", ValueError, "no column of structures .* 'a', 'b'"),
        ("x.doc", "text", ValueError, "extension"),
        ("x.json", "{", ValueError, "damaged or no JSON"),
        ("x.json", "3", ValueError, "no list"),
        ("x.zip", "text", ValueError, "no zip archive"),
        ("x.parquet", "text", ValueError, "no parquet"),
        ("x.csv.gz", "text", ValueError, "damaged"),
        ("x.extxyz", "text", ValueError, "no atom count"),
        ("folder", "", ValueError, "no .cif"),
    ],
)
def test_what_is_wrong_with_a_file(
    tmp_path: Path, name: str, content: str | None, error: type[Exception], message: str
) -> None:
    path = tmp_path / name
    if name == "folder":
        path.mkdir()
    elif content is not None:
        path.write_text(content)
    with pytest.raises(error, match=message):
        list(read(path))


@pytest.mark.parametrize("text", ["InF", "NaN", "1_2", "mp-12", "[1, 2]", "1e", "infinity"])
def test_text_stays_text(text: str) -> None:
    assert number(text) == text


@pytest.mark.parametrize("text", ["1", "-1.5", "+.5", "2.", "1e-3", " 7 "])
def test_numbers(text: str) -> None:
    assert number(text) == float(text)


def test_shared_tables(shared: Path) -> None:
    """The published CDVAE sets and a table of POSCARs are read without a loss."""
    for name, ids in {
        "perov5_test.csv.gz": {"3961"},
        "carbon24_val.csv.gz": {"C-148264-7891-51"},
        "mp_dielectric.csv.gz": {"mp-441"},
    }.items():
        records = [record for _, record in zip(range(300), read(shared / "data" / name))]  # noqa: B905
        assert [record.reason for record in records] == [None] * 300
        assert ids <= {record.id for record in records}
