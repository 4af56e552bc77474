"""Predictions of anybody, from tables and folders of CIFs."""

import csv
from pathlib import Path

import numpy as np
import pytest
from salt import CIF

from crystaljax.data.readers import read
from crystaljax.evaluation.attempts import Known
from crystaljax.evaluation.prediction_files import read_known, read_predictions

OTHER = CIF.replace("Na1", "K1").replace("_cell_length_a 4\n", "_cell_length_a 4.4\n")


@pytest.fixture
def truth(tmp_path: Path) -> Known:
    """NaCl twice (two polymorphs) and KCl, in a table of the usual kind."""
    path = tmp_path / "mp" / "test.csv"
    path.parent.mkdir()
    rows = [("mp-1", CIF), ("mp-22", CIF.replace("_c 5", "_c 6")), ("mp-3", OTHER)]
    with path.open("w", newline="") as file:
        csv.writer(file).writerows([("material_id", "cif"), *rows])
    return read_known(str(path))


def table(path: Path, *rows: tuple) -> Path:
    with path.open("w", newline="") as file:
        csv.writer(file).writerows(rows)
    return path


def test_truth(truth: Known) -> None:
    assert truth.name == "mp/test"
    assert truth.ids == ["mp-1", "mp-22", "mp-3"]
    assert truth.formulas == ["NaCl", "NaCl", "KCl"]
    assert str(truth) == "mp/test (3 crystals)"


def test_table_by_formula_with_a_bad_row(truth: Known, tmp_path: Path) -> None:
    """A bad CIF is an attempt, with a reason; an attempt at NaCl is one at both polymorphs."""
    path = table(
        tmp_path / "predictions.csv",
        ("formula", "attempt", "cif"),
        ("KCl", 1, OTHER),
        ("Na2Cl2", 7, CIF),
        ("NaCl", 2, "data_nonsense\n"),
        ("KCl", 0, CIF),
        ("BaO", 0, CIF),
    )
    found = read_predictions(path, truth)
    assert [cell is not None for cell in found.cells] == [True, True, False, True]
    assert found.reasons[2] and found.reasons[0] is None
    pairs = set(
        zip(found.attempt.tolist(), found.target.tolist(), found.rank.tolist(), strict=True)
    )
    assert pairs == {(0, 2, 1), (3, 2, 0), (1, 0, 1), (1, 1, 1), (2, 0, 0), (2, 1, 0)}
    assert "1 × BaO" in found.notes[0] and "1 predictions are no crystal" in found.notes[1]


def test_table_by_id_counts_rows_where_attempts_have_no_number(
    truth: Known, tmp_path: Path
) -> None:
    rows = [("mp-22", CIF), ("mp-1", CIF), ("mp-22", CIF), ("mp-22", "")]
    for column in ("material_id", "id"):
        path = table(tmp_path / f"{column}.csv", (column, "cif"), *rows)
        found = read_predictions(path, truth)
        assert found.target.tolist() == [1, 0, 1, 1]
        assert found.rank.tolist() == [0, 0, 1, 2]
        assert found.cells[3] is None


def test_folder_of_cifs(truth: Known, tmp_path: Path) -> None:
    folder = tmp_path / "predictions"
    (folder / "KCl").mkdir(parents=True)
    names = ["mp-1_0", "mp-1_1", "mp-1_10", "mp-1_2", "NaCl_3", "KCl/0", "mp-22", "mp-3__5"]
    for name in names:
        (folder / f"{name}.cif").write_text("broken" if name == "mp-1_2" else CIF)
    (folder / "notes.txt").write_text("not read")
    found = read_predictions(folder, truth)
    order = [record.id for record in read(folder)]
    tried = {
        order[attempt]: (target, rank)
        for attempt, target, rank in zip(found.attempt, found.target, found.rank, strict=True)
        if target != 1
    }
    assert tried == {
        "mp-1_0": (0, 0),
        "mp-1_1": (0, 1),
        "mp-1_2": (0, 2),
        "NaCl_3": (0, 3),
        "mp-1_10": (0, 4),
        "KCl/0": (2, 0),
        "mp-3__5": (2, 1),
    }
    assert (found.target == 1).sum() == 2  # mp-22 itself and NaCl_3
    assert found.cells[order.index("mp-1_2")] is None


def test_ids_that_are_numbers(tmp_path: Path) -> None:
    """A column formula says more than the number of the row, an id more than a formula."""
    rows = [(0, CIF), (12, OTHER)]
    truth = read_known(str(table(tmp_path / "truth.csv", ("material_id", "cif"), *rows)))
    path = table(tmp_path / "a.csv", ("formula", "cif"), ("KCl", OTHER), ("NaCl", CIF))
    assert read_predictions(path, truth).target.tolist() == [1, 0]
    path = table(tmp_path / "b.csv", ("id", "formula", "cif"), (12, "KCl", OTHER))
    assert read_predictions(path, truth).target.tolist() == [1]
    rows = [("12", "NaCl", 0, CIF), ("0", "KCl", 0, OTHER)]
    path = table(tmp_path / "c.csv", ("material_id", "formula", "attempt", "cif"), *rows)
    assert read_predictions(path, truth).target.tolist() == [1, 0]


def test_what_cannot_be_used(truth: Known, tmp_path: Path) -> None:
    path = table(tmp_path / "a.csv", ("formula", "cif"), ("BaO", CIF), ("Xq", CIF))
    with pytest.raises(ValueError, match=r"none of the 2 predictions .* 1 × BaO.*ID_ATTEMPT"):
        read_predictions(path, truth)
    twice = ("NaCl", 1, CIF)
    path = table(tmp_path / "b.csv", ("formula", "attempt", "cif"), twice, twice)
    with pytest.raises(ValueError, match=r"two predictions that are attempt 1 at mp-1 \(NaCl\)"):
        read_predictions(path, truth)
    with pytest.raises(FileNotFoundError):
        read_predictions(tmp_path / "none.csv", truth)
    path = table(tmp_path / "c.csv", ("material_id", "cif"), ("x", "broken"))
    with pytest.raises(ValueError, match="no crystal that can be read"):
        read_known(str(path))
    rows = [("good", CIF), *((f"bad{i}", "broken") for i in range(4))]
    path = table(tmp_path / "d.csv", ("material_id", "cif"), *rows)
    left_out = r"4 of 5 crystals .*d\.csv cannot be read.*\(bad0: .*; bad1: .*; bad2: .*; \.\.\.\)"
    with pytest.warns(UserWarning, match=left_out):
        assert read_known(str(path)).ids == ["good"]
    assert np.isfinite(truth.counts).all()
