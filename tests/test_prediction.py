"""Structures of formulas, from the command line to the files, with both kinds of model."""

from __future__ import annotations

import csv
import json
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from loose_potential import POTENTIAL
from small import SMALL
from test_cli import refused, run

from crystaljax.composition import formulas
from crystaljax.conditions import Condition
from crystaljax.data.dataset import load
from crystaljax.data.readers import read
from crystaljax.evaluation.attempts import Known
from crystaljax.evaluation.matching import StructureSet, clusters
from crystaljax.evaluation.prediction_files import read_predictions
from crystaljax.policies.base import SamplingConfig
from crystaljax.policies.wyckoff import WyckoffPolicy
from crystaljax.prediction.files import formula_table, notes, write_predictions
from crystaljax.prediction.formulas import Asked, checked
from crystaljax.prediction.predict import Predictions, Tally, predict
from crystaljax.structures import to_cells
from crystaljax.validity import structure_valid


@pytest.fixture(scope="module")
def policy() -> WyckoffPolicy:
    data = load("prototypes")
    return WyckoffPolicy(SMALL, data.space_group_counts, None, data.formula_groups)


@pytest.fixture(scope="module")
def model(policy: WyckoffPolicy, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("model")
    policy.save(folder, policy.init(0))
    return folder


def rows(path: Path) -> list[dict[str, str]]:
    with path.open(encoding="utf-8") as file:
        return list(csv.DictReader(file))


@pytest.mark.slow
def test_formulas_to_files(model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Ranked structures; every formula that cannot be asked, or fails, is told of, and no other."""
    (tmp_path / "loose.py").write_text(POTENTIAL)
    asked, out = tmp_path / "asked.csv", tmp_path / "out"
    asked.write_text("formula,formula_units\nMgO,1\nXx,\nFe0.5O,\nSnO,1\nZnS,one\nOMg,1\n,\n")
    potential = f"{tmp_path / 'loose.py'}:Loose"
    given = ("predict", "NaCl", "H997O991", "--formulas", asked, "--model", model, "--n", 24)
    given += ("--batch-size", 32, "--relax", "--potential", potential, "--output", out)
    run(*given)
    said = capsys.readouterr().out
    assert "of 9 formulas" in said
    table = {row["formula"]: row for row in rows(out / "formulas.csv")}
    why = {name: row["reasons"] for name, row in table.items()}
    assert "unknown element" in why["Xx"] and "whole numbers" in why["Fe0.5O"]
    assert "too many for a composition" in why["H997O991"] and "formula units" in why["ZnS"]
    assert "as MgO" in why["OMg"] and why[""] and why["SnO"]
    assert {name: table[name]["formula units"] for name in ("NaCl", "MgO", "ZnS")} == {
        "NaCl": "open",
        "MgO": "1",
        "ZnS": "",
    }
    assert {name for name, row in table.items() if row["structures"] != "0"} == {"NaCl", "MgO"}
    found = rows(out / "predictions.csv")
    for name in ("NaCl", "MgO"):
        mine = [row for row in found if row["asked"] == name]
        energy = [float(row["energy_per_atom"]) for row in mine]
        assert energy == sorted(energy) and energy
        assert [row["attempt"] for row in mine] == [str(i + 1) for i in range(len(mine))]
        lost = int(table[name]["lost"])
        assert sum(int(row["times_found"]) for row in mine) + lost == 24
        assert table[name]["structures"] == str(len(mine))
    assert {path.stem for path in (out / "cifs").iterdir()} == {x["material_id"] for x in found}
    assert all(record.cell is not None for record in read(out / "cifs"))
    report = json.loads((out / "report.json").read_text())
    assert report["provenance"]["inputs"]["energies"].startswith("demonstration hull")
    assert "<img" in (out / "report.html").read_text() and (out / "best.png").is_file()
    known = load("prototypes")
    names = list(formulas(known.crystals))
    salt = known.crystals[[names.index("NaCl")]]
    truth = Known("truth", ["salt"], list(to_cells(salt)))
    attempts = read_predictions(out / "predictions.csv", truth)
    assert len(attempts) == sum(row["asked"] == "NaCl" for row in found)
    before = (out / "predictions.csv").read_bytes()
    run(*given)  # the same again
    assert (out / "predictions.csv").read_bytes() == before
    assert "holds a run with other settings" in refused(capsys, *given, "--seed", 1)


def test_elements_that_the_model_never_saw_are_remarked_on(policy: WyckoffPolicy) -> None:
    """In formulas.csv and the notes; nothing where the model does not know what it saw."""
    seen = np.zeros(119, int)
    seen[[8, 11, 12, 17]] = 5
    knowing = WyckoffPolicy(SMALL, policy.space_group_counts, seen, policy.formula_groups)
    given = [Asked.of("OgRnNa", 1), Asked.of("NaCl"), Asked.of("Xx")]
    asked = checked(given, knowing, SamplingConfig())
    remark = "the model saw no crystal with Rn, Og"
    assert [one.remark for one in asked] == [remark, "", ""]
    assert all(one.remark == "" for one in checked(given, policy, SamplingConfig()))
    crystals = load("prototypes").crystals[:0]
    nothing = np.zeros(0, int)
    found = Predictions(
        asked, [Tally(1) for _ in asked], crystals, nothing, nothing, nothing, {}, "none"
    )
    header, first, second, _ = formula_table(found)
    at = header.index("remark")
    assert first[at] == remark and second[at] == ""
    assert f"OgRnNa: {remark}." in notes(found)


@pytest.mark.slow
def test_without_a_potential(model: Path, tmp_path: Path) -> None:
    """Ranked by likelihood; --n 1 too."""
    run("predict", "NaCl", "--model", model, "--n", 1, "--potential", "none", "--output", tmp_path)
    assert len(rows(tmp_path / "formulas.csv")) == 1
    assert (tmp_path / "report.md").is_file()


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ((), "no formulas"),
        (("Xx", "Fe0.5"), "Xx: cannot read"),
        (("NaCl", "--n", 0), "--n 0"),
        (("NaCl", "--potential", "none", "--relax"), "--relax needs a potential"),
        (("Mg7Al", "--formula-units", 40), "Mg7Al"),
        (("NaCl", "--formulas", "nothing.csv"), "nothing.csv"),
    ],
)
def test_mistakes(
    model: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    given: tuple[object, ...],
    expected: str,
) -> None:
    said = refused(capsys, "predict", *given, "--model", model, "--output", tmp_path / "out")
    assert expected in said
    assert not (tmp_path / "out").exists()


def test_duplicates_are_one(
    policy: WyckoffPolicy, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Of each formula, not of two that are the same in other numbers of units.

    The files number the structures of both as attempts at the one formula.
    """
    params, many = policy.init(0), [Condition(formula="NaCl")] * 64
    drawn = policy.sample(params, many, 5, SamplingConfig(batch_size=64))
    good = np.flatnonzero(drawn.met & structure_valid(drawn.crystals))[:2]
    assert len(good) == 2
    twice = np.repeat(good, [3, 1])
    some = {name: getattr(drawn, name) for name in ("crystals", "met", "reasons", "logp_model")}
    some = {
        name: [x[i] for i in (*twice, *twice)] if name == "reasons" else x[[*twice, *twice]]
        for name, x in some.items()
    }
    monkeypatch.setattr(policy, "sample", lambda *_: SimpleNamespace(**some, dead_ends=0))
    asked = [Asked.of("NaCl", 1), Asked.of("NaCl", 2)]
    found = predict(policy, params, asked, 4, 0, SamplingConfig(), None)
    kinds = len(np.unique(clusters(StructureSet.from_crystals(drawn.crystals[good], "two"))))
    expected = [1, 3] if kinds == 2 else [4]
    for i in (0, 1):
        assert sorted(found.columns["times_found"][found.target == i]) == expected
        assert found.tallies[i].distinct == kinds
    report = write_predictions(found, tmp_path)
    listed = report.candidates
    assert listed is not None and [len(values) for _, values in listed.columns] == [2 * kinds] * 6
    assert all(
        (tmp_path / "cifs" / f"{name}.cif").read_text() == cif
        for name, cif in zip(listed.names, listed.cifs, strict=True)
    )
    (formulas_table,) = report.tables
    assert "remark" not in formulas_table.rows[0]  # there is none
    best = -np.sort(-found.columns["log_prob"])
    table = rows(tmp_path / "predictions.csv")
    by_attempt = sorted(table, key=lambda row: int(row["attempt"]))
    assert [row["attempt"] for row in by_attempt] == [str(i + 1) for i in range(2 * kinds)]
    np.testing.assert_allclose([float(row["log_prob"]) for row in by_attempt], best)
    assert [row["rank"] for row in table] == [str(i + 1) for i in range(kinds)] * 2
    truth = Known("truth", ["salt"], list(to_cells(drawn.crystals[good[:1]])))
    for source in ("predictions.csv", "cifs"):
        attempts = read_predictions(tmp_path / source, truth)
        assert sorted(attempts.rank) == list(range(2 * kinds)) and attempts.notes == ()


def test_language_model(tmp_path: Path) -> None:
    """The same command; random weights write hardly any crystal, and all samples are told of."""
    for package in ("transformers", "safetensors", "qwix"):
        pytest.importorskip(package)
    from small_crystal_text import crystal_text_policy, small_crystals

    policy = crystal_text_policy()
    policy.save(tmp_path / "model", policy.texts.start)
    name = formulas(small_crystals())[0]
    given = ("predict", name, "Xx", "UPu", "--model", tmp_path / "model", "--n", 4)
    run(*given, "--batch-size", 4, "--grammar", "--potential", "none", "--output", tmp_path / "out")
    table = {row["formula"]: row for row in rows(tmp_path / "out" / "formulas.csv")}
    assert table[name]["samples"] == "4" and "no token" in table["UPu"]["reasons"]
    assert "unknown element" in table["Xx"]["reasons"]
    assert (tmp_path / "out" / "report.html").is_file()
