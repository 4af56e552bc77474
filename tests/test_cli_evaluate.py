"""`crystaljax evaluate`, from a file to the report."""

import csv
import json
from pathlib import Path

import numpy as np
import pytest
from test_cli import refused, run

from crystaljax.data.dataset import load
from crystaljax.data.writers import write
from crystaljax.rewards.ehull import create_e_above_hull


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Twelve crystals, the first three twice; and six of them as what is known."""
    folder = tmp_path_factory.mktemp("crystals")
    found = load("prototypes").crystals.to_numpy()
    found = found[np.flatnonzero(found.n_sites <= 2)[:12]]
    write(found[[*range(12), 0, 1, 2]], folder / "samples.csv", {"material_id": range(15)})
    write(found[:6], folder / "known.csv", {})
    return folder


def rates(folder: Path) -> dict[str, dict]:
    """The metrics in a report's folder by name."""
    assert (folder / "report.html").is_file()
    report = json.loads((folder / "report.json").read_text())
    return {x["name"]: x for x in report["evaluations"]["samples"]["metrics"]}


def test_without_a_potential(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    given = ("--train", folder / "known.csv", "--potential", "none", "--n-generated", 20)
    run("evaluate", folder / "samples.csv", *given, "--output", tmp_path / "out")
    found = rates(tmp_path / "out")
    counts = {name: (found[name]["count"], found[name]["total"]) for name in ("unique", "novel")}
    assert counts == {"unique": (12, 20), "novel": (6, 20)}
    assert "stable" not in found
    said = capsys.readouterr().out
    assert "15 of 20 samples are crystals" in said
    assert "12 / 20" in said
    rows = list(csv.DictReader((tmp_path / "out" / "samples.csv").open()))
    assert [row["material_id"] for row in rows] == [str(n) for n in range(15)]
    assert [row["unique"] for row in rows] == ["True"] * 12 + ["False"] * 3
    origin = json.loads((tmp_path / "out" / "report.json").read_text())["provenance"]
    assert origin["config"]["n_generated"] == 20
    assert origin["inputs"]["sha256"].keys() == {"source", "train"}


def test_a_report_is_not_written_over_by_another(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    samples = tmp_path / "samples.csv"
    samples.write_bytes((folder / "known.csv").read_bytes())
    given = ("evaluate", samples, "--potential", "none", "--output", tmp_path / "out")
    run(*given)
    run(*given)  # the same again
    before = (tmp_path / "out" / "report.md").read_text()
    said = refused(capsys, *given, "--n-generated", 20)
    assert "options.n_generated is None there and 20 here" in said
    samples.write_bytes((folder / "samples.csv").read_bytes())
    assert "sha256.source is" in refused(capsys, *given)
    assert (tmp_path / "out" / "report.md").read_text() == before


def test_with_a_potential(folder: Path, tmp_path: Path) -> None:
    pytest.importorskip("chgnet")
    run("evaluate", folder / "known.csv", "--output", tmp_path)
    found = rates(tmp_path)
    expected = create_e_above_hull("chgnet")(load(folder / "known.csv").crystals).value
    rows = list(csv.DictReader((tmp_path / "samples.csv").open()))
    above = [float(row["e_above_hull"]) for row in rows]
    np.testing.assert_allclose(above, -expected, atol=1e-5)
    assert found["metastable"]["count"] == (-expected <= 0.1).sum()


def test_what_cannot_be_asked(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    samples, output = folder / "samples.csv", ("--output", tmp_path / "out")
    said = refused(capsys, "evaluate", samples, "--potential", "none", "--relax", *output)
    assert "--relax needs a potential" in said
    few = ("--potential", "none", "--n-generated", 3)
    assert "alone has 15 crystals" in refused(capsys, "evaluate", samples, *few, *output)
    assert "nothing.csv" in refused(capsys, "evaluate", tmp_path / "nothing.csv", *output)
    assert "no_such" in refused(capsys, "evaluate", samples, "--potential", "no_such", *output)


def test_predictions(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Crystal structure prediction from tables: found at the second attempt, and not at all."""
    found = load("prototypes").crystals.to_numpy()
    small = np.flatnonzero((found.n_sites == 2) & (found.space_group > 194))
    truth, others = found[small[[0, 9]]], found[small[[0, 20]]]
    write(truth, tmp_path / "truth.csv", {"material_id": ["a", "b"]})
    write(others, tmp_path / "train.csv", {"material_id": ["a", "c"]})
    tried = found[[*small[[20, 0]], small[20]]]
    names = {"material_id": ["a", "a", "b"], "attempt": [0, 1, 0]}
    write(tried, tmp_path / "predictions.csv", names)
    with (tmp_path / "predictions.csv").open("a") as file:
        empty = {"material_id": "b", "attempt": 1}
        header = (tmp_path / "predictions.csv").read_text().splitlines()[0].split(",")
        file.write(",".join(str(empty.get(name, "")) for name in header) + "\n")
    protocol = ("--protocol", "csp", "--truth", tmp_path / "truth.csv", "--potential", "none")
    given = ("evaluate", tmp_path / "predictions.csv", *protocol)
    out = tmp_path / "out"
    run(*given, "--train", tmp_path / "train.csv", "--output", out)
    counts = {name: (x["count"], x["total"]) for name, x in rates(out).items() if "count" in x}
    assert counts["match rate @1"] == (0, 2) and counts["match rate @2"] == (1, 2)
    assert counts["match rate @2 (formula-disjoint)"] == (0, 1)
    assert counts["crystal"] == (3, 4)
    targets = list(csv.DictReader((out / "targets.csv").open()))
    assert [row["first_match"] for row in targets] == ["2", "0"]
    assert len(list(csv.DictReader((out / "attempts.csv").open()))) == 4
    assert "match rate @1" in capsys.readouterr().out
    report = json.loads((out / "report.json").read_text())
    assert report["provenance"]["inputs"]["sha256"].keys() == {"source", "truth", "train"}

    other = ("--output", tmp_path / "other")
    source = ("evaluate", tmp_path / "predictions.csv", "--potential", "none", *other)
    assert "give --truth" in refused(capsys, *source, "--protocol", "csp")
    assert "--protocol csp" in refused(capsys, *source, "--at", 1)
    assert "leave them out" in refused(capsys, *given, *other, "--n-generated", 9)
    assert "--relax needs" in refused(capsys, *given, *other, "--relax-steps", 9)
    assert "attempts from 1 on" in refused(capsys, *given, *other, "--at", 0)
