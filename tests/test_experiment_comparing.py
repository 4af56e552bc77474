"""Runs side by side: everything that they left, and the settings that differ."""

import csv
import json
import math
from pathlib import Path

import numpy as np
import pytest

from crystaljax.evaluation.rates import Measure, MetricSet, Rate
from crystaljax.evaluation.report import Report
from crystaljax.experiment.comparing import (
    FinishedRun,
    compare,
    differing,
    ends,
    figures,
    read_runs,
)
from crystaljax.tracking import METRICS_FILE


def made(folder: Path, stable: int, tau: float, n_steps: int) -> Path:
    """A run with a report of two evaluations, and n steps."""

    def found(n: int) -> MetricSet:
        rates = (
            Rate.of("stable", np.arange(20) < n, "on the hull", reference="a hull"),
            Measure("energy", 0.25, math.nan, "eV/atom", 20, "median"),
            Measure("nothing", math.nan, math.nan, "", 0, "of none"),
        )
        return MetricSet(20, rates, ("20 samples",), {})

    Report("A study", {"before": found(3), "after": found(stable)}).write(folder)
    lines = [{"step": i, "reward/mean": 0.1 * i * tau, "other": 1.0} for i in range(n_steps)]
    (folder / METRICS_FILE).write_text("\n".join(map(json.dumps, lines)) + "\n")
    settings = {"rl": {"tau": tau, "n_steps": n_steps}, "seed": 0}
    (folder / "settings.json").write_text(json.dumps(settings))
    return folder


@pytest.fixture
def folders(tmp_path: Path) -> list[Path]:
    return [made(tmp_path / "a" / "rl", 5, 0.1, 4), made(tmp_path / "b" / "rl", 9, 0.2, 8)]


def test_results_of_all_evaluations(folders: list[Path], tmp_path: Path) -> None:
    page = compare(read_runs([*folders, f"again={folders[1]}"]), tmp_path / "compared")
    with (page.parent / "results.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == 3 * 2 * 3
    counts = {(r["run"], r["evaluation"]): r["count"] for r in rows if r["metric"] == "stable"}
    assert counts == {
        ("a/rl", "before"): "3",
        ("a/rl", "after"): "5",
        ("b/rl", "before"): "3",
        ("b/rl", "after"): "9",
        ("again", "before"): "3",
        ("again", "after"): "9",
    }
    one = next(r for r in rows if r["metric"] == "stable" and r["evaluation"] == "after")
    assert float(one["value"]) == 0.25
    assert float(one["standard error"]) == pytest.approx(math.sqrt(0.25 * 0.75 / 20), rel=0.05)
    assert (one["total"], one["compared with"]) == ("20", "a hull")
    assert {r["value"] for r in rows if r["metric"] == "nothing"} == {""}
    report = json.loads((page.parent / "report.json").read_text())
    assert list(report["evaluations"]) == ["a/rl", "b/rl", "again"]
    assert report["evaluations"]["b/rl"]["metrics"][0]["count"] == 9
    assert "by run" in page.read_text()


def test_curves_and_settings(folders: list[Path]) -> None:
    runs = read_runs(folders)
    found = figures(runs)
    assert list(found) == ["reward/mean"]
    lines = found["reward/mean"][0].axes[0].lines
    assert [len(line.get_xdata()) for line in lines] == [4, 8]  # type: ignore[arg-type]
    assert list(differing(runs).rows[1:]) == [["rl.tau", "0.1", "0.2"], ["rl.n_steps", "4", "8"]]


def test_settings_of_equal_meaning_do_not_differ() -> None:
    settings = (
        {"texts": [], "lora": None, "tau": 1, "name": "", "n": 0, "flag": False},
        {"texts": None, "tau": 1.0, "n": None, "flag": True, "names": ["é"]},
    )
    runs = [FinishedRun(str(i), {}, {}, each) for i, each in enumerate(settings)]
    rows = [["n", "0", "—"], ["flag", "false", "true"], ["names", "—", '["é"]']]
    assert list(differing(runs).rows[1:]) == rows


def test_ends_of_curves() -> None:
    losses = np.array([[0, 3.0], [5, 1.0], [9, 2.0]])
    curves = {"validation/nll": losses, "reward/mean": np.array([[1, np.nan]])}
    runs = [FinishedRun("a", {}, curves, {}), FinishedRun("b", {}, {}, {})]
    assert ends(runs).rows == [
        ["", "a", "b"],
        ["mean reward", "—", "—"],
        ["validation loss (nats)", "3.000 → 2.000 (lowest 1.000)", "—"],
    ]
    tiny = FinishedRun("c", {}, {"reward/mean": np.array([[0, 1e-6], [1, 3e-6]])}, {})
    assert ends([tiny]).rows[1] == ["mean reward", "1e-06 → 3e-06"]


def test_a_run_that_is_under_way(folders: list[Path], tmp_path: Path) -> None:
    """It has metrics, and no report yet."""
    (folders[0] / "report.json").unlink()
    page = compare(read_runs(folders), tmp_path / "compared")
    text = (page.parent / "report.md").read_text()
    assert "a/rl: no evaluation." in text
    assert "b/rl: before, after. The results are those of after." in text


def test_a_comparison_replaces_none_but_a_comparison(folders: list[Path], tmp_path: Path) -> None:
    """Not a run, nor a report without settings or metrics."""
    other = tmp_path / "other"
    other.mkdir()
    Report("Elsewhere", {}).write(other)
    for folder in (folders[0], other):
        before = (folder / "report.json").read_text()
        with pytest.raises(FileExistsError, match="holds a run or a report of another kind"):
            compare(read_runs(folders), folder)
        assert (folder / "report.json").read_text() == before
    page = compare(read_runs(folders[:1]), tmp_path / "compared")
    assert compare(read_runs(folders), tmp_path / "compared") == page


def test_what_is_no_run(folders: list[Path], tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="no run to compare"):
        read_runs([])
    with pytest.raises(ValueError, match=r"neither report\.json nor metrics\.jsonl"):
        read_runs([tmp_path])
    with pytest.raises(ValueError, match="two runs are called x"):
        read_runs([f"x={folders[0]}", f"x={folders[1]}"])
    with pytest.raises(ValueError, match="two runs are called rl"):
        read_runs([folders[0], folders[0]])
    (folders[0] / "report.json").write_text("{")
    with pytest.raises(ValueError, match=r"report\.json is damaged"):
        read_runs(folders)


def test_metrics_come_back_as_they_were_written() -> None:
    found = MetricSet(
        9,
        (
            Rate.of("stable", np.arange(9) < 4, "on the hull", "known ones", "a hull"),
            Measure("energy", 0.25, 0.5, "eV/atom", 8, "median", "judged ones"),
        ),
        ("a line",),
        {},
    )
    assert MetricSet.from_dict(found.to_dict()) == found
