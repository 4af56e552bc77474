"""Files appear whole or not at all; a folder that cannot be written to says so."""

import os
import unicodedata
from pathlib import Path, PureWindowsPath

import pytest
from hypothesis import given
from hypothesis import strategies as st

from crystaljax.data.files import cache_dir, file_names, make_folder, replacing


def test_the_cache_is_where_the_user_says(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("CRYSTALJAX_CACHE", str(tmp_path / "here"))
    assert cache_dir() == tmp_path / "here"
    monkeypatch.delenv("CRYSTALJAX_CACHE")
    assert cache_dir().name == "crystaljax"


def test_no_write_permission(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As any user: root may write in every folder, so what the system says is replaced."""
    monkeypatch.setattr(os, "access", lambda path, mode: not mode & os.W_OK)
    with pytest.raises(PermissionError, match=r"cannot write in .*out.*choose another folder"):
        make_folder(tmp_path / "out")
    target = tmp_path / "x.csv"
    target.write_text("old")
    with pytest.raises(PermissionError, match="cannot write in"), replacing(target) as temporary:
        temporary.write_text("new")
    assert target.read_text() == "old"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["out", "x.csv"]


def test_a_file_where_a_folder_should_be(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    for folder in (tmp_path / "file", tmp_path / "file" / "below"):
        with pytest.raises(OSError, match=r"cannot write in .*file.*choose another folder"):
            make_folder(folder)


def test_a_block_that_fails_leaves_everything_as_it_was(tmp_path: Path) -> None:
    target = tmp_path / "x.csv"
    target.write_text("old")
    with pytest.raises(RuntimeError, match="broke off"), replacing(target) as temporary:
        temporary.write_text("half")
        raise RuntimeError("broke off")
    assert target.read_text() == "old"
    assert list(tmp_path.iterdir()) == [target]
    with replacing(target) as temporary:
        temporary.write_text("new")
        assert target.read_text() == "old"
    assert target.read_text() == "new"
    assert list(tmp_path.iterdir()) == [target]


def test_a_folder_made_by_another_process_stays(tmp_path: Path) -> None:
    target = tmp_path / "dataset"
    with replacing(target) as temporary:
        temporary.mkdir()
        (temporary / "mine").touch()
        target.mkdir()
        (target / "theirs").touch()
    assert [path.name for path in target.iterdir()] == ["theirs"]
    assert list(tmp_path.iterdir()) == [target]


@given(st.lists(st.text(max_size=12) | st.sampled_from(["a", "A", "CON", "..", "a/b", "x" * 300])))
def test_file_names_are_unique_and_safe(ids: list[str]) -> None:
    names = file_names(ids)
    assert len({unicodedata.normalize("NFKC", name).casefold() for name in names}) == len(ids)
    for name in names:
        assert not set(name) & set('/\\:*?"<>|\0\n') and ".." not in name
        assert name == name.strip(". ") and 0 < len(name.encode()) <= 120
        assert not PureWindowsPath(name).is_reserved()
    good = [name for name in names if name == name.casefold()]
    assert file_names(good) == good  # names that are well leave as they came
