"""Crystals to files and back."""

import csv
import gzip
import json
import os
import zipfile
from pathlib import Path

import numpy as np
import pytest
from pymatgen.analysis.structure_matcher import StructureMatcher
from pymatgen.core import Structure

from crystaljax.crystal import Crystals
from crystaljax.data.prototypes import prototypes
from crystaljax.data.readers import read
from crystaljax.data.writers import write
from crystaljax.structures import to_cells, to_structures
from crystaljax.symmetry.analysis import symmetrize


@pytest.fixture(scope="module")
def crystals() -> Crystals:
    """Prototypes of many space groups, with few enough atoms to match quickly."""
    dataset = prototypes(n_per_prototype=1)
    _, first = np.unique(dataset.crystals.space_group, return_index=True)
    return dataset.crystals[first[dataset.crystals.n_sites[first] <= 5][::2]]


@pytest.mark.parametrize("name", ["x.zip", "x.extxyz", "x.csv.gz", "x.json"])
def test_round_trip(tmp_path: Path, crystals: Crystals, name: str) -> None:
    n = len(crystals)
    properties = {
        "material_id": np.array([f"c{i}" for i in range(n)]),
        "energy": np.linspace(-1, 1, n),
        "source": np.array(["made up"] * n),
    }
    path = write(crystals, tmp_path / name, properties)
    assert [p.name for p in tmp_path.iterdir()] == [name]
    records = list(read(path))
    assert [record.id for record in records] == properties["material_id"].tolist()
    assert [record.reason for record in records] == [None] * n
    if not name.endswith("zip"):
        energies = [record.properties["energy"] for record in records]
        np.testing.assert_allclose(energies, properties["energy"], atol=1e-9)
        assert records[0].properties["source"] == "made up"
    found, reasons = symmetrize([record.cell for record in records if record.cell])
    assert reasons == [None] * n
    np.testing.assert_array_equal(found.space_group, crystals.space_group)
    matcher = StructureMatcher(primitive_cell=True, scale=False, attempt_supercell=False)
    structures = to_structures(crystals)
    for i in range(0, n, 8):
        cell = records[i].cell
        assert cell is not None
        assert matcher.fit(structures[i], Structure(cell.matrix, cell.species, cell.frac))


@pytest.mark.parametrize("name", ["x.extxyz", "x.json"])
def test_every_atom_is_written(tmp_path: Path, crystals: Crystals, name: str) -> None:
    records = read(write(crystals, tmp_path / name))
    for record, expected in zip(records, to_cells(crystals), strict=True):
        assert record.cell is not None
        np.testing.assert_array_equal(record.cell.species, expected.species)
        np.testing.assert_allclose(record.cell.matrix, expected.matrix, atol=1e-5)
        offset = record.cell.frac - expected.frac
        np.testing.assert_allclose(offset - np.round(offset), 0, atol=1e-5)


def test_cif_says_the_symmetry(tmp_path: Path, crystals: Crystals) -> None:
    """pymatgen and spglib read from the CIF what we know; the letters are those of the crystal."""
    path = write(crystals, tmp_path / "x.zip", {"energy": np.arange(len(crystals))})
    with zipfile.ZipFile(path) as archive:
        texts = [archive.read(f"{i}.cif").decode() for i in range(len(crystals))]
        rows = list(csv.DictReader(archive.read("properties.csv").decode().splitlines()))
    assert [float(row["energy"]) for row in rows] == list(range(len(crystals)))
    for i, text in enumerate(texts[::7]):
        group = int(crystals.space_group[7 * i])
        structure = Structure.from_str(text, fmt="cif")
        assert structure.get_space_group_info(symprec=0.01)[1] == group
        assert f"_symmetry_Int_Tables_number {group}" in text


def test_csv_is_cdvae_style(tmp_path: Path, crystals: Crystals) -> None:
    path = write(crystals, tmp_path / "x.csv")
    with path.open(newline="") as file:
        row = next(csv.DictReader(file))
    assert list(row) == ["material_id", "formula", "spacegroup.number", "cif"]
    assert int(row["spacegroup.number"]) == crystals.space_group[0]


def test_json_is_pymatgens(tmp_path: Path, crystals: Crystals) -> None:
    path = write(crystals, tmp_path / "x.json.gz", {"energy": np.arange(len(crystals))})
    with gzip.open(path, "rt") as file:
        data = json.load(file)
    structure = Structure.from_dict(data[2])
    assert structure.properties["energy"] == 2
    assert structure.matches(to_structures(crystals)[2])


@pytest.mark.parametrize("name", ["x.csv", "x.json", "x.extxyz"])
def test_nothing_to_write(tmp_path: Path, crystals: Crystals, name: str) -> None:
    assert write(crystals[:0], tmp_path / name).exists()


def test_errors_leave_the_old_file(tmp_path: Path, crystals: Crystals) -> None:
    path = tmp_path / "x.csv"
    path.write_text("old")
    empty = Crystals(*(np.zeros_like(x[:1]) for x in vars(crystals).values()))
    with pytest.raises(ValueError, match="row 2 is no crystal"):
        write(Crystals.concatenate([crystals[:2], empty]), path)
    with pytest.raises(ValueError, match=r"'energy' has shape \(2,\)"):
        write(crystals[:3], path, {"energy": np.zeros(2)})
    with pytest.raises(ValueError, match=r"x\.doc.*extensions \.zip"):
        write(crystals, tmp_path / "x.doc")
    assert path.read_text() == "old"
    assert [p.name for p in tmp_path.iterdir()] == ["x.csv"]
    with pytest.raises(OSError, match="cannot write in"):
        write(crystals, path / "below" / "x.zip")


@pytest.mark.parametrize("name", ["x.zip", "x.extxyz", "x.csv.gz", "x.json"])
def test_no_write_permission(
    tmp_path: Path, crystals: Crystals, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os, "access", lambda path, mode: not mode & os.W_OK)  # root may write
    with pytest.raises(PermissionError, match=r"cannot write in .*choose another folder"):
        write(crystals[:2], tmp_path / name)
    assert not list(tmp_path.iterdir())
