"""Predictions of anybody, from tables and folders of CIFs."""

import csv
from pathlib import Path

import numpy as np
import pytest
from salt import CIF

from crystaljax.baselines.base import Proposals
from crystaljax.crystal import AtomicCell
from crystaljax.data.files import file_names
from crystaljax.data.readers import read
from crystaljax.evaluation.attempts import Attempts, Known
from crystaljax.evaluation.csp import CSPConfig, evaluate_csp
from crystaljax.evaluation.prediction_files import read_known, read_predictions
from crystaljax.experiment.csp.questions import write_predictions
from crystaljax.symmetry.analysis import symmetrize

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
    assert [cell is not None for cell in found.cells[:4]] == [True, True, False, True]
    assert found.reasons[2] and found.reasons[0] is None
    pairs = set(
        zip(found.attempt.tolist(), found.target.tolist(), found.rank.tolist(), strict=True)
    )
    given = {(0, 2, 1), (3, 2, 0), (1, 0, 7), (1, 1, 7), (2, 0, 2), (2, 1, 2)}
    assert {pair for pair in pairs if pair[0] < 4} == given
    assert "1 × BaO" in found.notes[0] and "1 predictions are no crystal" in found.notes[1]
    # Attempts 0, 1 and 3 to 6 at NaCl are missing, each at both polymorphs.
    assert len(found) == 4 + 6 and len(pairs) == len(found.rank) == 2 + 2 * 8
    assert "6 attempts are missing" in found.notes[2]
    assert found.reasons[4:] == ["missing in the file"] * 6 and found.cells[4:] == [None] * 6


def test_gaps_between_numbers_are_attempts(truth: Known, tmp_path: Path) -> None:
    """Right only at the third attempt: not found @1, whichever number comes first in the file."""
    header = ("material_id", "attempt", "cif")
    for rows, rank in (
        ([("mp-1", 3, CIF)], 2),
        ([("mp-1", 3, CIF), ("mp-3", 1, OTHER)], 2),
        ([("mp-1", 2, CIF), ("mp-3", 0, OTHER)], 2),
    ):
        found = read_predictions(table(tmp_path / "gaps.csv", header, *rows), truth)
        assert found.rank[found.attempt == 0] == rank
        assert sorted(found.rank[found.target == 0]) == [0, 1, 2]
        assert "2 attempts are missing" in found.notes[-1]
        result = evaluate_csp(truth, found, config=CSPConfig((1, 3), progress=False))
        assert result.targets["attempts"][0] == 3 and result.targets["first_match"][0] == 3
        assert result["match rate @1"].value == (len(rows) - 1) / 3
        assert result["match rate @3"].value == len(rows) / 3
        assert result["crystal"].value == len(rows) / (len(rows) + 2)
    rows = [("mp-1", 1, CIF), ("mp-1", 2, CIF), ("mp-22", 1, CIF)]
    whole = read_predictions(table(tmp_path / "whole.csv", header, *rows), truth)
    assert len(whole) == 3 and whole.notes == () and whole.rank.tolist() == [0, 1, 0]


@pytest.mark.parametrize("number", [-1, 0.5, 1e9, "1e999"])
def test_what_counts_no_attempt_is_refused(
    truth: Known, tmp_path: Path, number: float | str
) -> None:
    rows = [("mp-3", 0, OTHER), ("mp-1", number, CIF)]
    path = table(tmp_path / "a.csv", ("id", "attempt", "cif"), *rows)
    with pytest.raises(ValueError, match=r"attempt .* at mp-1: attempts count from 0 or 1"):
        read_predictions(path, truth)


def test_a_study_and_its_file_count_alike(truth: Known, tmp_path: Path) -> None:
    """Attempts that are no crystal keep their places in the file that a study writes."""
    k = 4
    crystals = symmetrize(truth.cells)[0].padded(4)  # the last is none
    rows = np.full((3, k), 3)
    rows[0, 2] = 0  # found at the third attempt
    rows[1, [0, 3]] = 2, 1  # at the last, after the other salt
    proposals = Proposals(
        crystals[rows.ravel()], ["no text" if x == 3 else None for x in rows.flat]
    )
    target = np.repeat(np.arange(3), k)
    path = tmp_path / "own.csv"
    write_predictions(path, proposals, truth, k)
    own, again = (
        Attempts.of(proposals.crystals, target, proposals.reasons),
        read_predictions(path, truth),
    )
    assert len(again) == len(own) == 12
    np.testing.assert_array_equal(again.rank, own.rank)
    np.testing.assert_array_equal(again.target, own.target)
    assert [x is None for x in again.cells] == [x is None for x in own.cells]
    config = CSPConfig((1, 2, 3, 4), progress=False)
    one, two = (evaluate_csp(truth, x, config=config) for x in (own, again))
    assert {m.name: m.value for m in one.metrics} == pytest.approx(
        {m.name: m.value for m in two.metrics}, nan_ok=True, abs=1e-4
    )
    assert one.targets["first_match"].tolist() == [3, 4, 0]
    with path.open() as file:
        written = list(csv.DictReader(file))
    assert [row["reason"] for row in written[:3]] == ["no text", "no text", ""]
    assert {row["formula"] for row in written[:4]} == {"NaCl"} and written[0]["cif"] == ""
    assert written[4]["formula"] == "NaCl"  # asked for, though the crystal is KCl


def test_empty_names_cost_their_rows_alone(truth: Known, tmp_path: Path) -> None:
    """An empty cell, or one that is infinite, of an id or a formula."""
    header = ("id", "attempt", "cif")
    for name, told in (("", "1 × an empty name"), ("1e999", "1 × inf"), ("  ", "an empty name")):
        for column in ("id", "formula"):
            first = "mp-3" if column == "id" else "KCl"
            rows = [(first, 0, OTHER), (name, 1, OTHER)]
            path = table(tmp_path / "a.csv", (column, *header[1:]), *rows)
            found = read_predictions(path, truth)
            assert len(found) == 1 and told in found.notes[0]
    # The id says it where the formula is empty, and the formula where the id is.
    rows = [("mp-3", "", 0, OTHER), ("", "NaCl", 0, CIF), ("", "", 0, CIF)]
    for column in ("material_id", "id"):
        path = table(tmp_path / "b.csv", (column, "formula", "attempt", "cif"), *rows)
        found = read_predictions(path, truth)
        assert found.target.tolist() == [2, 0, 1] and "1 × an empty name" in found.notes[0]


def test_an_id_that_is_repeated_is_asked_for_at_each(truth: Known, tmp_path: Path) -> None:
    twice = Known(truth.name, ["mp-1", "mp-3", "mp-1"], truth.cells)
    path = table(tmp_path / "a.csv", ("id", "cif"), ("mp-1", OTHER), ("mp-1", CIF))
    found = read_predictions(path, twice)
    assert len(found) == 2 and found.target.tolist() == [0, 2, 0, 2]
    assert found.rank.tolist() == [0, 0, 1, 1]


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
        if target != 1 and attempt < len(order)
    }
    assert tried == {
        "mp-1_0": (0, 0),
        "mp-1_1": (0, 1),
        "mp-1_2": (0, 2),
        "NaCl_3": (0, 3),
        "mp-1_10": (0, 10),
        "KCl/0": (2, 0),
        "mp-3__5": (2, 5),
    }
    # mp-22 itself comes after NaCl_3, before which there should be three.
    of_other = dict(zip(found.attempt[found.target == 1], found.rank[found.target == 1]))  # noqa: B905
    assert of_other[order.index("NaCl_3")] == 3 and of_other[order.index("mp-22")] == 4
    assert sorted(of_other.values()) == [0, 1, 2, 3, 4]
    assert found.cells[order.index("mp-1_2")] is None


def test_names_that_differ_by_case_alone(tmp_path: Path) -> None:
    """As `crystaljax predict` names them: CO_1.cif and Co-2_1.cif."""
    frac = np.array([[0.0, 0, 0], [0.5, 0.5, 0.5]])
    cells = [AtomicCell(4.0 * np.eye(3), frac, np.array(z)) for z in ([6, 8], [27, 27])]
    truth = Known("truth", ["a", "b"], cells)
    assert truth.formulas == ["CO", "Co"]
    for name in file_names(truth.formulas):
        (tmp_path / f"{name}_0.cif").write_text(CIF)
        (tmp_path / f"{name}_1.cif").write_text(CIF)
    found = read_predictions(tmp_path, truth)
    assert sorted(zip(found.target.tolist(), found.rank.tolist(), strict=True)) == [
        (0, 0),
        (0, 1),
        (1, 0),
        (1, 1),
    ]
    assert found.notes == ()


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
