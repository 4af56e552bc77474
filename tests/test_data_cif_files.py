"""Members of archives and files of folders fail alone."""

import zipfile
from pathlib import Path

import pytest
from salt import CIF, check_one_bad

from crystaljax.data.readers import read


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


def test_other_files_of_a_folder_are_named(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "a.cif").write_text(CIF)
    for name in ("POSCAR", ".hidden", *(f"{i}.xyz" for i in range(6))):
        (tmp_path / name).write_text("")
    assert len(list(read(tmp_path))) == 1
    assert f"7 other files of {tmp_path} are not read: 0.xyz, 1.xyz" in caplog.text
    (tmp_path / "b.parquet").write_text("")
    with pytest.raises(ValueError, match=r"holds \.cif and \.parquet files"):
        list(read(tmp_path))
