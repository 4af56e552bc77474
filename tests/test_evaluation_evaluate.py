"""Tests of crystaljax.evaluation.evaluate and report on real crystals."""

import json
import re
from pathlib import Path

import numpy as np
import pytest

from crystaljax.crystal import Crystals
from crystaljax.data.prototypes import prototypes
from crystaljax.evaluation.evaluate import Evaluation, EvaluationConfig, Reference, evaluate
from crystaljax.evaluation.report import Picture, Report, Table
from crystaljax.evaluation.stability import EnergiesAboveHull
from crystaljax.rewards.potentials.base import no_relaxation
from crystaljax.rewards.potentials.screening import primitive_cells

QUIET = EvaluationConfig(progress=False)
HULL = "a hull, a potential"


@pytest.fixture(scope="module")
def reference() -> Reference:
    return Reference.of(prototypes(1).crystals[20:60], "forty prototypes")


@pytest.fixture(scope="module")
def samples() -> Crystals:
    """20 novel, 10 known, the first 5 again, and 5 that failed to decode."""
    crystals = prototypes(1).crystals[:30]
    failed = Crystals(*(np.zeros_like(x[:5]) for x in vars(crystals.to_numpy()).values()))
    return Crystals.concatenate([crystals, crystals[:5], failed])


@pytest.fixture(scope="module")
def before(samples: Crystals, reference: Reference) -> Evaluation:
    energy = np.r_[np.linspace(-0.1, 0.5, 35), np.full(5, np.nan)]
    return evaluate(samples, reference, e_above_hull=energy, hull=HULL, config=QUIET)


@pytest.fixture(scope="module")
def after(samples: Crystals, reference: Reference) -> Evaluation:
    energy = np.r_[np.linspace(-0.2, 0.2, 35), np.full(5, np.nan)]
    relaxed = no_relaxation([None] * 35 + ["no crystal"] * 5)
    relaxed.cells[:35] = primitive_cells(samples[:35], 500)[0]
    relaxed.ok[:35] = relaxed.converged[:30] = True
    relaxed.initial_energy[:35], relaxed.energy[:35], relaxed.steps[:35] = -1.0, -1.2, 7
    return evaluate(
        samples,
        reference,
        e_above_hull=energy,
        hull=HULL,
        relaxed=relaxed,
        relaxation="nothing moved",
        config=QUIET,
    )


def test_rates(before: Evaluation) -> None:
    assert before.n == 40
    assert all(rate.total == 40 for rate in before.rates)
    count = {rate.name: rate.count for rate in before.rates}
    assert count["decoded"] == count["valid structure"] == count["energy known"] == 35
    assert count["unique"] == 30
    assert count["novel"] == 25
    assert count["unique and novel"] == 20
    assert count["valid"] <= count["valid composition"] <= 35
    columns = before.columns
    metastable = columns["e_above_hull"] <= 0.1
    assert count["metastable"] == metastable.sum()
    found = columns["cluster"][metastable & columns["novel"]]
    assert count["metastable S.U.N."] == len(np.unique(found)) > 0


def test_every_metric_says_what_it_is(before: Evaluation, after: Evaluation) -> None:
    for metric in (*before.metrics, *after.metrics):
        assert metric.description
        assert metric.denominator
    for name in ("stable", "S.U.N.", "mean energy above hull"):
        assert HULL in before[name].reference
    assert "forty prototypes (40 crystals)" in before["novel"].reference
    assert "smact14" in before["valid"].reference
    said = "\n".join(before.context)
    for fact in (HULL, "forty prototypes", "smact14", "0.1 eV/atom", "StructureMatcher"):
        assert fact in said


def test_what_cannot_be_compared_with_its_relaxed_form_is_told(
    samples: Crystals, monkeypatch: pytest.MonkeyPatch
) -> None:
    def too_long(*_: object) -> None:
        raise TimeoutError("took longer than 1 s")

    monkeypatch.setattr(
        "pymatgen.analysis.structure_matcher.StructureMatcher.get_rms_dist", too_long
    )
    relaxed = no_relaxation([None] * 3)
    relaxed.cells[:] = primitive_cells(samples[:3], 500)[0]
    relaxed.ok[:] = True
    found = evaluate(samples[:3], relaxed=relaxed, relaxation="nothing moved", config=QUIET)
    assert found["match to relaxed"].value == 0
    assert any("3 × cannot be compared: took longer than 1 s" in x for x in found.context)


def test_relaxed(after: Evaluation) -> None:
    assert after["match to relaxed"].value == 35 / 40
    assert after["RMSD to relaxed"].value == pytest.approx(0, abs=1e-4)
    assert after["relaxation converged"].value == 30 / 40
    assert after["median energy drop"].value == pytest.approx(0.2)
    assert after["mean relaxation steps"].value == 7


def test_a_second_potential_has_its_own_rows(samples: Crystals, reference: Reference) -> None:
    energy = np.r_[np.full(20, -0.1), np.full(20, 0.5)]
    second = EnergiesAboveHull(np.roll(energy, 10), "a hull, another", "another")
    result = evaluate(
        samples, reference, e_above_hull=energy, hull=HULL, second=second, config=QUIET
    )
    novel, cluster = result.columns["novel"], result.columns["cluster"]
    assert result["stable (another)"].value == result["stable"].value == 0.5
    assert result["S.U.N. (another)"].value == (
        len(np.unique(cluster[novel & (second.e_above_hull <= 0)])) / len(samples)
    )
    assert "another" in result["S.U.N. (another)"].reference
    assert "a hull, another" in "\n".join(result.context)
    np.testing.assert_array_equal(result.columns["e_above_hull_another"], second.e_above_hull)


def test_without_reference_and_energies(samples: Crystals) -> None:
    evaluation = evaluate(samples[:6], config=QUIET)
    assert "unique" in evaluation.values
    with pytest.raises(KeyError, match=r"'novel'.*unique"):
        evaluation["novel"]


def test_nothing_and_nothing_but_failures(samples: Crystals, reference: Reference) -> None:
    for none in (samples[35:], samples[:0]):
        evaluation = evaluate(
            none, reference, e_above_hull=np.full(len(none), np.nan), config=QUIET
        )
        assert all(rate.count == 0 for rate in evaluation.rates)
        text = json.dumps(evaluation.to_dict(), allow_nan=False)
        assert json.loads(text)["samples"] == len(none)


def test_lengths_must_agree(samples: Crystals) -> None:
    with pytest.raises(ValueError, match="40 crystals, but e_above_hull has 3"):
        evaluate(samples, e_above_hull=np.zeros(3), config=QUIET)


def test_report(tmp_path: Path, before: Evaluation, after: Evaluation) -> None:
    from matplotlib.figure import Figure

    picture = tmp_path / "out" / "figures" / "empty.png"
    picture.parent.mkdir(parents=True)
    Figure().savefig(picture)
    report = Report(
        "Energies <fell>",
        {"before": before, "after": after},
        [Picture(picture, "A figure & its caption")],
        notes=["One note."],
        extra={"kl": 0.5},
    )
    page = report.write(tmp_path / "out")

    content = json.loads((tmp_path / "out" / "report.json").read_text())
    assert content["kl"] == 0.5
    saved = {m["name"]: m for m in content["evaluations"]["before"]["metrics"]}
    rate = before["metastable"]
    assert (saved["metastable"]["count"], saved["metastable"]["total"]) == (rate.count, 40)
    change = {d["name"]: d for d in content["differences"]}["metastable"]
    expected = after["metastable"].value - before["metastable"].value
    assert change["difference"] == pytest.approx(expected)
    assert change["standard_error"] > 0

    text = (tmp_path / "out" / "report.md").read_text()
    row = next(line for line in text.splitlines() if line.startswith("| metastable "))
    assert rate.fraction in row
    assert rate.text in row
    assert "![A figure & its caption](figures/empty.png)" in text
    for metric in before.metrics:
        assert metric.description in text

    html = page.read_text()
    assert "Energies &lt;fell&gt;" in html
    assert not re.search(r"(src|href)=['\"](?!data:)", html)  # needs no other file
    assert rate.fraction in html


def test_tables_of_a_report(tmp_path: Path, before: Evaluation) -> None:
    table = Table("by <group>", [["group", "rate"], ["225", "1|2"]])
    page = Report("title", {"before": before}, tables=[table]).write(tmp_path)
    assert "<h3>by &lt;group&gt;</h3>" in page.read_text()
    assert "<td>1|2</td>" in page.read_text()
    assert "| 225   | 1\\|2 |" in (tmp_path / "report.md").read_text()
    content = json.loads((tmp_path / "report.json").read_text())
    assert content["tables"]["by <group>"][1] == ["225", "1|2"]


def test_report_of_one_evaluation_has_no_difference(tmp_path: Path, before: Evaluation) -> None:
    report = Report("One", {"samples": before})
    report.write(tmp_path)
    assert "difference" not in report.to_markdown()
    assert json.loads((tmp_path / "report.json").read_text())["differences"] == []


def test_report_into_a_file_is_an_error(tmp_path: Path, before: Evaluation) -> None:
    (tmp_path / "taken").write_text("")
    with pytest.raises(NotADirectoryError, match="taken"):
        Report("One", {"samples": before}).write(tmp_path / "taken")
