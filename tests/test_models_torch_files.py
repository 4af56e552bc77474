"""PyTorch's files read without PyTorch."""

from __future__ import annotations

import pickle
import zipfile
from pathlib import Path

import numpy as np
import pytest

from crystaljax.models.torch_files import load_tensors


def test_reads_what_torch_saves(tmp_path: Path) -> None:
    torch = pytest.importorskip("torch")
    whole = torch.arange(24.0).reshape(4, 6)
    tensors = {
        "whole": whole,
        "transposed": whole.T,
        "part": whole[1:3, ::2],
        "long": torch.tensor([3, -1]),
        "double": torch.tensor(0.1, dtype=torch.float64),
        "half": torch.tensor([0.5], dtype=torch.float16),
        "empty": torch.zeros(0, 3),
    }
    torch.save(tensors, tmp_path / "state.pt")
    read = load_tensors(tmp_path / "state.pt")
    assert list(read) == list(tensors)
    for name, tensor in tensors.items():
        np.testing.assert_array_equal(read[name], tensor.numpy())
        assert read[name].dtype == tensor.numpy().dtype


def archive(path: Path, content: bytes) -> Path:
    with zipfile.ZipFile(path, "w") as file:
        file.writestr("state/data.pkl", content)
    return path


class Evil:
    def __reduce__(self) -> tuple:
        return (print, ("run",))


def test_what_could_run_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    path = archive(tmp_path / "evil.pt", pickle.dumps({"weight": Evil()}))
    with pytest.raises(ValueError, match=r"refused to read .*evil\.pt: it holds .*print"):
        load_tensors(path)
    assert capsys.readouterr().out == ""


def test_views_beyond_their_numbers_are_refused(tmp_path: Path) -> None:
    torch = pytest.importorskip("torch")
    torch.save({"x": torch.zeros(8)}, tmp_path / "good.pt")
    with (
        zipfile.ZipFile(tmp_path / "good.pt") as good,
        zipfile.ZipFile(tmp_path / "bad.pt", "w") as bad,
    ):
        for name in good.namelist():
            content = good.read(name)
            bad.writestr(name, content[: len(content) // 2] if "/data/" in name else content)
    with pytest.raises(ValueError, match="reaches beyond"):
        load_tensors(tmp_path / "bad.pt")


def test_other_files(tmp_path: Path) -> None:
    (tmp_path / "text.pt").write_text("no archive")
    with pytest.raises(ValueError, match=r"text\.pt is damaged"):
        load_tensors(tmp_path / "text.pt")
    with pytest.raises(ValueError, match="no dictionary of tensors"):
        load_tensors(archive(tmp_path / "list.pt", pickle.dumps([1, 2])))
    with pytest.raises(FileNotFoundError):
        load_tensors(tmp_path / "absent.pt")
