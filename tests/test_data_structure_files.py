"""Members of archives and files of folders fail alone."""

import zipfile
from pathlib import Path

import numpy as np
import pytest
from pymatgen.core import Lattice, Structure
from pymatgen.io.vasp import Poscar
from salt import CIF, check_one_bad

from crystaljax.data.readers import read
from crystaljax.data.records import Record


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


NAMES = ["POSCAR", "b/CONTCAR", "c/POSCAR_mp-149", "d/Si.vasp", "e/contcar-2", "f/si.POSCAR"]
"""Files of VASP, in folders."""


def test_files_of_vasp(tmp_path: Path) -> None:
    """Alone, in a folder beside a CIF, in an archive; the oracle is pymatgen, which wrote them."""
    salt = Structure.from_spacegroup(225, Lattice.cubic(5.6), ["Na", "Cl"], [[0, 0, 0], [0.5] * 3])
    text = Poscar(salt).get_str()
    folder = tmp_path / "folder"
    (folder / "POSCAR_files").mkdir(parents=True)
    for name in NAMES:
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).write_text(text)
    (folder / "POSCAR_list.csv").write_text("none,of,it\n")
    (folder / "a.cif").write_text(CIF)
    for name in NAMES:
        check_salt(list(read(folder / name)), salt)
    found = {record.id: record for record in read(folder)}
    assert found.keys() == {"a", *(name.removesuffix(Path(name).suffix) for name in NAMES)}
    check_salt([record for id, record in found.items() if id != "a"], salt)
    with zipfile.ZipFile(tmp_path / "x.zip", "w") as archive:
        for name in NAMES:
            archive.writestr(name, text)
    check_salt(list(read(tmp_path / "x.zip")), salt)


def check_salt(records: list[Record], salt: Structure) -> None:
    for record in records:
        assert record.cell is not None, record.reason
        frac = record.cell.frac - record.cell.frac[0]
        expected = salt.frac_coords - salt.frac_coords[0]
        np.testing.assert_allclose(frac % 1, expected % 1, atol=1e-6)
        np.testing.assert_allclose(record.cell.matrix, salt.lattice.matrix, atol=1e-6)
        assert record.cell.species.tolist() == [site.specie.Z for site in salt]


@pytest.mark.parametrize("name", ["POSCARs.zip", "POSCAR.gz", "poscar_list.txt", "MYPOSCAR"])
def test_names_that_are_not_of_vasp(name: str, tmp_path: Path) -> None:
    (tmp_path / name).write_text("none of it\n")
    with pytest.raises(ValueError, match=r"cannot tell the format|no zip archive"):
        list(read(tmp_path / name))


def test_other_files_of_a_folder_are_named(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "a.cif").write_text(CIF)
    for name in ("INCAR", ".hidden", *(f"{i}.xyz" for i in range(6))):
        (tmp_path / name).write_text("")
    assert len(list(read(tmp_path))) == 1
    assert f"7 other files of {tmp_path} are not read: 0.xyz, 1.xyz" in caplog.text
    (tmp_path / "b.parquet").write_text("")
    with pytest.raises(ValueError, match=r"holds files of structures and \.parquet"):
        list(read(tmp_path))
