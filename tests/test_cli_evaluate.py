"""`crystaljax evaluate`, from a file to the report."""

import csv
import json
import re
import sqlite3
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest
from loose_potential import POTENTIAL
from salt import CIF
from test_cli import refused, run

from crystaljax.composition import SYMBOLS
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


def kept(cache: Path) -> int:
    """Energies in a cache."""
    with sqlite3.connect(cache) as connection:
        (n,) = connection.execute("SELECT count(*) FROM results").fetchone()
    return int(n)


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


def two_judges(folder: Path) -> tuple[object, ...]:
    """Options: two potentials of a user's own, of which the second gives twice the energies of the
    first; a hull of the elements alone, and a cache."""
    potential, hull = folder / "loose.py", folder / "hull.csv"
    tight = POTENTIAL.replace("class Loose", "class Tight").replace('"loose"', '"tight"')
    potential.write_text(POTENTIAL + tight.replace("/ 1e3", "/ 5e2"))
    elements = "".join(f"{symbol},0\n" for symbol in SYMBOLS[:94])
    hull.write_text(f"what,E\n{elements}")
    given = ("--hull", f"{hull}:formula=what,energy=E", "--potential", f"{potential}:Loose")
    return (*given, "--judge", f"{potential}:Tight", "--cache", folder / "cache.sqlite")


def test_two_judges_a_cache_and_pictures(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The report has pictures and candidates; energies that are kept are not computed again."""
    given = ("evaluate", folder / "samples.csv", "--train", folder / "known.csv")
    given += two_judges(tmp_path)
    run(*given, "--output", tmp_path / "out")
    found = rates(tmp_path / "out")
    assert {"metastable", "metastable (tight)"} <= found.keys()
    report = json.loads((tmp_path / "out" / "report.json").read_text())
    candidates = report["candidates"]
    first, second = (candidates[f"e above hull{x} (eV/atom)"] for x in ("", " tight"))
    assert first == sorted(first) and len(second) == len(first) > 10
    assert {"formula", "space group", "novel", "CIF"} <= candidates.keys()
    names = {path.stem for path in (tmp_path / "out").glob("*.png")}
    assert names == {"energies", "space_groups", "elements", "structures"}
    page = (tmp_path / "out" / "report.html").read_text()
    assert page.count("data:image/png") == 4
    assert report["provenance"]["inputs"]["sha256"].keys() == {"source", "train", "hull"}

    n_kept = kept(tmp_path / "cache.sqlite")
    assert n_kept == 24  # of twelve different crystals by two potentials
    run(*given, "--output", tmp_path / "again")
    assert kept(tmp_path / "cache.sqlite") == n_kept
    assert rates(tmp_path / "again") == found

    output = ("--output", tmp_path / "none")
    assert "beside --potential" in refused(capsys, *given, *output, "--potential", "none")
    few = ("evaluate", folder / "samples.csv", *output)
    assert "--judge-hull is of --judge" in refused(capsys, *few, "--judge-hull", "x")


def test_what_a_file_tells_of_its_crystals_stays(folder: Path, tmp_path: Path) -> None:
    """Its columns are in the table, log-probabilities on the page too; lost rows have reasons."""
    with (folder / "samples.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    for i, row in enumerate(rows):
        row |= {"log_prob": str(-1.5 * i), "formula": "mine", "novel": "unknown", "cluster": "7"}
    rows[3]["cif"] = "no CIF"
    with (tmp_path / "given.csv").open("w", newline="") as file:
        writer = csv.DictWriter(file, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)
    run("evaluate", tmp_path / "given.csv", "--potential", "none", "--output", tmp_path / "out")
    report = json.loads((tmp_path / "out" / "report.json").read_text())
    shown = report["candidates"]["log-probability (nats)"]
    assert set(shown) <= {-1.5 * i for i in range(len(rows)) if i != 3} and len(shown) > 5
    context = " ".join(report["evaluations"]["samples"]["context"])
    assert re.search(r"not read, or no crystals: 1 × .*CIF", context)
    with (tmp_path / "out" / "samples.csv").open(newline="") as file:
        kept = list(csv.DictReader(file))
    assert [float(row["log_prob"]) for row in kept] == [
        -1.5 * i for i in range(len(rows)) if i != 3
    ]
    assert {row["source_cluster"] for row in kept} == {"7.0"}
    assert {row["cluster"] for row in kept} != {"7.0"}


def test_what_cannot_be_asked(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    samples, output = folder / "samples.csv", ("--output", tmp_path / "out")
    said = refused(capsys, "evaluate", samples, "--potential", "none", "--relax", *output)
    assert "--relax needs a potential" in said
    few = ("--potential", "none", "--n-generated", 3)
    assert "alone has 15 crystals" in refused(capsys, "evaluate", samples, *few, *output)
    absent = (tmp_path / "nothing.csv", "--potential", "none")
    assert "nothing.csv" in refused(capsys, "evaluate", *absent, *output)
    assert "no_such" in refused(capsys, "evaluate", samples, "--potential", "no_such", *output)
    if find_spec("orb_models") is None:  # told before the first potential is loaded
        said = refused(capsys, "evaluate", samples, "--judge", "orb", *output)
        assert "crystaljax[orb]" in said


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


def salt(a: float) -> str:
    """A CIF of NaCl in a cubic cell of one formula unit, a in Å."""
    lengths = "".join(f"_cell_length_{x} {a}\n" for x in "abc")
    return re.sub(r"(_cell_length_. .*\n)+", lengths, CIF)


def test_energies_of_predictions(tmp_path: Path) -> None:
    """Relative energies by hand, from a folder of CIFs; what is kept is not computed again."""
    folder = tmp_path / "theirs"
    folder.mkdir()
    for name, text in {"NaCl__1": salt(4.1), "NaCl__2": salt(3.9), "NaCl__3": "x"}.items():
        (folder / f"{name}.cif").write_text(text)
    rows = {"id": "mp-1", "cif": salt(4.0)}
    with (tmp_path / "truth.csv").open("w", newline="") as file:
        csv.writer(file).writerows([[*rows], [*rows.values()]])
    given = ("evaluate", folder, "--protocol", "csp", "--truth", tmp_path / "truth.csv")
    given += ("--train", tmp_path / "truth.csv", "--relax", *two_judges(tmp_path))
    run(*given, "--output", tmp_path / "out")
    found = rates(tmp_path / "out")
    energies = {a: -(a**3) / 2e3 for a in (3.9, 4.0, 4.1)}  # eV/atom
    lowest, second = energies[4.1] - energies[4.0], energies[3.9] - energies[4.0]
    for end, factor in (("", 1), (" (tight)", 2)):
        mean = found[f"relative energy{end}"]["value"]
        assert mean == pytest.approx(factor * (lowest + second) / 2, abs=1e-7)
        assert found[f"energy known{end}"]["count"] == 2
        least = found[f"median lowest relative energy{end}"]["value"]
        assert least == pytest.approx(factor * lowest, abs=1e-7)
    assert found["match rate @1"]["count"] == found["relaxed match rate @1"]["count"] == 1
    table = list(csv.DictReader((tmp_path / "out" / "attempts.csv").open()))
    assert {"e_above_hull_tight", "relative_energy_tight", "relaxed_rms"} <= table[0].keys()
    assert "relaxed match rate @1 (tight)" not in found
    names = {path.stem for path in (tmp_path / "out").glob("*.png")}
    assert names == {"match_rates", "displacements", "energies", "relative_energies"}
    assert (tmp_path / "out" / "report.html").read_text().count("data:image/png") == 4

    n_kept = kept(tmp_path / "cache.sqlite")
    assert n_kept == 6  # the truth and two attempts by two potentials
    run(*given, "--output", tmp_path / "again")
    assert kept(tmp_path / "cache.sqlite") == n_kept
    assert rates(tmp_path / "again") == found
